"""What reading somebody else's dictionary gives: the dictionary, and in which units its makers had it."""

from dataclasses import asdict, dataclass
from typing import Any

from mohole.dictionary.files import AnyDictionary

UNNAMED = "unnamed"
"""The hookpoint of a dictionary whose files do not say where it belongs."""


ROW_NORM_NOTE = "It normalises each row by itself: its codes and decoder rows are in units of each row's own scale."


@dataclass(frozen=True)
class Units:
    """How the weights now relate to those in the file. Codes are always those that the library itself gives.

    Libraries divide rows by a constant before they train; some put it into the weights when they save, some into a config.
    mohole's weights have it inside: rows go in as the model makes them. Which way it was matters to thresholds and to strengths.
    What is done to each row by itself is no constant and in no weights: that is part of the dictionary (row_norm.py).
    """

    input_scale: float = 1.0
    """The library multiplies rows by this before it encodes them. Now in W_enc."""
    output_scale: float = 1.0
    """The library divides what it decodes by this. Now in W_dec and b_dec. One unit of a code is 1 / output_scale of theirs."""
    folded_by_library: float | None = None
    """A constant by which rows were divided in training, and which the library itself has put into the biases since."""
    unit_decoder: bool = False
    """Codes have been multiplied by the length of their decoder row, and decoder rows divided by it."""
    pre_bias: bool = True
    """The library subtracts b_dec from rows before it encodes. Where not, b_enc has grown by W_enc b_dec: the same function."""


@dataclass(frozen=True)
class Imported:
    """A dictionary read from another library's files."""

    dictionary: AnyDictionary
    format: str
    units: Units = Units()
    notes: tuple[str, ...] = ()
    """Whole sentences about what the files leave open and what was taken."""

    def facts(self) -> dict[str, Any]:
        """As plain JSON, for the record of an artifact made from it."""
        return {"format": self.format, "units": asdict(self.units), "notes": list(self.notes)}
