"""How one row is stored: float32, bfloat16, float16, or int8 with a scale for each dimension. Arrays in, bytes out; no files."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from mohole.errors import ArtifactError, NumericsError

Float32 = NDArray[np.float32]
Bytes = NDArray[np.uint8]

RowType = Literal["bfloat16", "float32", "float16", "int8"]
ROW_TYPES: tuple[RowType, ...] = ("bfloat16", "float32", "float16", "int8")

# As safetensors names them, and as numpy holds them: numpy has no bfloat16, so its bits travel as whole numbers.
SAFETENSORS_NAMES: dict[RowType, str] = {"bfloat16": "BF16", "float32": "F32", "float16": "F16", "int8": "I8"}
_HELD_AS: dict[RowType, str] = {"bfloat16": "<u2", "float32": "<f4", "float16": "<f2", "int8": "<i1"}

_INT8_LIMIT = 127
_HEADROOM = 1.25
"""int8 scales reach this much beyond the largest value of the calibration rows, so that few later values are clipped."""


@dataclass(frozen=True)
class RowFormat:
    """The stored form of the rows of one hookpoint."""

    dtype: RowType
    width: int
    scales: tuple[float, ...] | None = None
    """int8 only: the value of one step, for each dimension. Never one scale for a row: a single large dimension would cost
    all others their digits (measured: 12.7 dB left, against 41.3 dB with a scale for each dimension)."""

    @property
    def row_bytes(self) -> int:
        return self.width * np.dtype(_HELD_AS[self.dtype]).itemsize

    def encode(self, rows: Float32) -> tuple[Bytes, int]:
        """Rows [row, d] as bytes [row, row_bytes], and how many values had to be clipped (int8 only).

        bfloat16 and int8 round to the nearest, ties to even.

        Raises:
            NumericsError: a finite value that does not fit float16 or bfloat16.
        """
        match self.dtype:
            case "float32":
                held: NDArray[Any] = rows
            case "float16":
                with np.errstate(over="ignore"):  # looked at below, and named
                    held = rows.astype(np.float16)
                if (np.isinf(held) & np.isfinite(rows)).any():
                    raise NumericsError(_does_not_fit(rows, self.dtype, float(np.finfo(np.float16).max)))
            case "bfloat16":
                held = _to_bfloat16(rows)
            case "int8":
                if not np.isfinite(rows).all():
                    raise NumericsError("NaN or infinity, which int8 cannot hold; look for where it comes from")
                steps = np.rint(rows / np.asarray(self.scales, dtype=np.float32))
                n_clipped = int((np.abs(steps) > _INT8_LIMIT).sum())
                held = np.clip(steps, -_INT8_LIMIT, _INT8_LIMIT).astype(np.int8)
                return as_bytes(held), n_clipped
        return as_bytes(held), 0

    def decode(self, stored: Bytes) -> Float32:
        """Stored rows [row, row_bytes] as float32 [row, d]."""
        held = np.ascontiguousarray(stored).view(_HELD_AS[self.dtype])
        match self.dtype:
            case "bfloat16":
                return (held.astype(np.uint32) << np.uint32(16)).view(np.float32)
            case "int8":
                return held.astype(np.float32) * np.asarray(self.scales, dtype=np.float32)
            case _:
                return held.astype(np.float32)

    def as_json(self) -> dict[str, Any]:
        return {"dtype": self.dtype, "width": self.width, "scales": None if self.scales is None else list(self.scales)}

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> "RowFormat":
        if facts["dtype"] not in ROW_TYPES:
            raise ArtifactError(f"rows stored as {facts['dtype']!r}; this mohole reads {', '.join(ROW_TYPES)}")
        scales = facts["scales"]
        return cls(cast(RowType, facts["dtype"]), facts["width"], None if scales is None else tuple(scales))


def calibrated_scales(rows: Float32) -> tuple[float, ...]:
    """int8 steps from the first rows of a corpus: a dimension's largest magnitude, with some room, is the largest code.

    Raises:
        NumericsError: a value that is not finite.
    """
    if not np.isfinite(rows).all():
        raise NumericsError(
            "NaN or infinity among the rows that the int8 scales come from; look for where it comes from"
        )
    largest = np.abs(rows).max(axis=0).astype(np.float64) * _HEADROOM
    return tuple(float(np.float32(value)) for value in np.where(largest > 0, largest, 1.0) / _INT8_LIMIT)


def _to_bfloat16(rows: Float32) -> NDArray[np.uint16]:
    """Round to nearest, ties to even. A NaN stays one, with its sign and its first bits."""
    import torch  # rounds in one pass, where numpy takes six; who only moves rows does without it

    bits = np.ascontiguousarray(rows).view(np.uint32)
    with warnings.catch_warnings(action="ignore"):  # rows that may not be written to are only read here
        held = torch.from_numpy(bits.view(np.float32)).to(torch.bfloat16).view(torch.uint16).numpy()
    if is_finite_bfloat16(held):
        return held
    no_number = (held & np.uint16(0x7F80)) == np.uint16(0x7F80)
    wild = ~np.isfinite(rows)
    if (no_number & ~wild).any():
        raise NumericsError(_does_not_fit(rows, "bfloat16", 3.3895314e38))
    cut = (bits[wild] >> np.uint32(16)).astype(np.uint16)
    held[wild] = cut | np.where(np.isnan(rows[wild]), 0x40, 0).astype(np.uint16)
    return held


def is_finite_bfloat16(held: NDArray[np.uint16]) -> bool:
    """Whether bfloat16 values, given as their bits, have no infinity and no NaN.

    Their exponent is all ones, so as whole numbers they are the largest of either sign: two maxima, and no array between.
    """
    if not held.size:
        return True
    return int(held.view(np.int16).max()) < 0x7F80 and int(held.max()) < 0xFF80


def as_bytes(held: NDArray[Any]) -> Bytes:
    """Values [row, d] as their bytes [row, row_bytes]."""
    return np.ascontiguousarray(held).view(np.uint8).reshape(len(held), held.shape[1] * held.itemsize)


def _does_not_fit(rows: Float32, dtype: str, limit: float) -> str:
    largest = np.abs(rows[np.isfinite(rows)]).max()
    return f'{largest:.3g} does not fit {dtype}, which ends at {limit:.3g}; set harvest.dtype = "float32"'
