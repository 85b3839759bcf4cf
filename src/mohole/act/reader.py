"""Activations of a few latents at every token while a model runs, other ones for each row of a batch. Changes nothing."""

from collections.abc import Sequence
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from mohole.act.terms import LatentReading
from mohole.dictionary.readout import Readout, readout
from mohole.model import Edit, PassTokens, parse_hookpoint


class Reader:
    """Stands behind the interventions of a pass and keeps the rows that leave them. Read the values before the next pass."""

    def __init__(self, wanted: Sequence[Sequence[LatentReading]], device: torch.device) -> None:
        """Args: wanted: for each row of the batch the latents to read."""
        self.wanted, self.device = [list(each) for each in wanted], device
        self._rows: dict[str, Tensor] = {}

    @cached_property
    def hookpoints(self) -> tuple[str, ...]:
        """Those that are read, in order of execution."""
        names = {name for listed in self.wanted for reading in listed for name in reading.hookpoints}
        return tuple(sorted(names, key=lambda name: parse_hookpoint(name).execution))

    @cached_property
    def _together(self) -> list[tuple[tuple[str, ...], Readout, dict[int, int]]]:
        """Of each encoder where it reads, what is read of all rows at once, and the column of each latent."""
        latents: dict[tuple[int, int], dict[int, LatentReading]] = {}
        for reading in (reading for listed in self.wanted for reading in listed):
            latents.setdefault(_encoder(reading), {}).setdefault(reading.place.latent, reading)
        made = []
        for (_, layer), same in latents.items():
            first = next(iter(same.values()))
            columns = {latent: column for column, latent in enumerate(same)}
            made.append((first.hookpoints, readout(first.dictionary, layer, list(same), self.device), columns))
        return made

    def of_pass(self, given: PassTokens) -> tuple[Edit, ...]:
        """Edits that look and leave alone."""
        self._rows = {}
        return tuple(Edit(name, _Look(name, self._rows).change) for name in self.hookpoints)

    def keys(self, given: PassTokens) -> tuple[str, ...]:
        """Nothing is done to any row."""
        return ("",) * len(given.tokens)

    def values(self) -> list[Float[Tensor, "position latent"]]:
        """Of the pass that has just run: for each row of the batch its latents' activations at the pass's tokens, on the CPU."""
        found: dict[tuple[int, int], tuple[Tensor, dict[int, int]]] = {}
        encoders = dict.fromkeys(_encoder(reading) for listed in self.wanted for reading in listed)
        for encoder, (names, read, columns) in zip(encoders, self._together, strict=True):
            rows = torch.cat([self._rows[name] for name in names], dim=-1)
            flat = read(rows.reshape(-1, rows.shape[-1]))
            found[encoder] = (flat.view(*rows.shape[:2], -1).cpu(), columns)
        return [self._of_row(row, listed, found) for row, listed in enumerate(self.wanted)]

    def _of_row(
        self,
        row: int,
        listed: Sequence[LatentReading],
        found: dict[tuple[int, int], tuple[Tensor, dict[int, int]]],
    ) -> Tensor:
        if not listed:
            return torch.zeros(0, 0)
        columns = []
        for reading in listed:
            values, places = found[_encoder(reading)]
            columns.append(values[row, :, places[reading.place.latent]])
        return torch.stack(columns, dim=-1)


class _Look:
    def __init__(self, name: str, rows: dict[str, Tensor]) -> None:
        self.name, self.rows = name, rows

    def change(self, rows: Float[Tensor, "batch position d"], first_position: int) -> Float[Tensor, "batch position d"]:
        self.rows[self.name] = rows.float()
        return rows


def _encoder(reading: LatentReading) -> tuple[int, int]:
    return id(reading.dictionary), reading.place.layer
