"""Where each latent is strongest in a text: the largest activation of every one that fires. Gathered batch by batch."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mohole.dictionary import SparseCodes

Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class Peaks:
    """Of each latent that fires, by latent."""

    latents: Int64
    values: Float32
    """Its largest activation."""
    places: Int64
    """The first token at which it is that strong."""


class PeakFinder:
    """Batches of tokens in any order, of a dictionary of so many latents."""

    def __init__(self, n_latents: int) -> None:
        self._largest = np.zeros(n_latents, dtype=np.float32)
        self._where = np.full(n_latents, -1, dtype=np.int64)

    def add(self, places: Int64, codes: SparseCodes) -> None:
        """Tokens and their codes."""
        latents, values = codes.latents.numpy(), codes.values.numpy()
        tokens = places[codes.rows.numpy()]
        order = np.lexsort((tokens, -values, latents))
        latents, values, tokens = latents[order], values[order], tokens[order]
        first = np.ones(len(latents), dtype=np.bool_)
        first[1:] = latents[1:] != latents[:-1]
        latents, values, tokens = latents[first], values[first], tokens[first]
        largest, where = self._largest[latents], self._where[latents]
        is_more = (values > largest) | ((values == largest) & (tokens < where))
        self._largest[latents[is_more]], self._where[latents[is_more]] = values[is_more], tokens[is_more]

    def peaks(self) -> Peaks:
        """Of all that was added."""
        fired = np.flatnonzero(self._where >= 0)
        return Peaks(fired, self._largest[fired], self._where[fired])
