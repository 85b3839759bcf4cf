"""The sparse code store: for every token looked at, which latents fire and how strongly. Written part by part, read as one."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mohole.catalogue.layout import AGAIN, codes_file
from mohole.errors import ArtifactError
from mohole.tensors import open_tensors

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]


class Codes(NamedTuple):
    """Sparse codes of some tokens, ascending: compressed rows. Latents ascend within a row."""

    tokens: Int64
    row_starts: Int64
    latents: Int32
    values: Float32

    @property
    def entry_tokens(self) -> Int64:
        """The token of every entry."""
        return np.repeat(self.tokens, np.diff(self.row_starts))


class CodeStore:
    """The parts of a catalogue's codes, mapped from their files."""

    def __init__(self, folder: Path, n_rows: Sequence[int]) -> None:
        """Args:
        folder: the catalogue's.
        n_rows: of each part.
        """
        self._folder, self._n_rows = folder, n_rows

    def part(self, number: int) -> Codes:
        """Raises:
        ArtifactError: missing, or shorter than it was.
        """
        path = self._folder / codes_file(number)
        found = open_tensors(path)
        if len(found["tokens"]) != self._n_rows[number]:
            raise ArtifactError(f"{path}: {len(found['tokens'])} rows, {self._n_rows[number]} were written; {AGAIN}")
        return Codes(found["tokens"], found["row_starts"], found["latents"], found["values"])

    def parts(self) -> Iterator[Codes]:
        for number in range(len(self._n_rows)):
            yield self.part(number)

    @cached_property
    def whole(self) -> Codes:
        """All of it. A single part stays mapped; several are copied into memory."""
        parts = list(self.parts())
        if len(parts) == 1:
            return parts[0]
        ends = np.cumsum([0, *(int(part.row_starts[-1]) for part in parts)])
        starts = [part.row_starts[:-1] + end for part, end in zip(parts, ends[:-1], strict=True)]
        return Codes(
            np.concatenate([part.tokens for part in parts]),
            np.concatenate([*starts, ends[-1:]]),
            np.concatenate([part.latents for part in parts]),
            np.concatenate([part.values for part in parts]),
        )
