"""How often latents fire: exact counts, L0, dead latents, the density histogram. Counts are int64: float32 stops at 2^24."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

Int64 = NDArray[np.int64]

BINS_PER_DECADE = 4


@dataclass(frozen=True, slots=True)
class DensityHistogram:
    """Latents by log10 of their density (share of rows in which they fire). Bins are half-open: [low, high), the last closed."""

    edges: tuple[float, ...]
    """log10 of the bins' edges, one more than there are bins; the last is 0 (density 1)."""
    counts: tuple[int, ...]
    zero: int
    """Latents that never fired: dead within these rows."""
    n_rows: int
    """Rows looked at. A latent of density p is missed with probability (1 - p)^n_rows."""


class Firing:
    """Exact counts of firings per latent. A latent fires where its activation is not zero, whatever its sign."""

    def __init__(self, n_latents: int) -> None:
        self.counts: Int64 = np.zeros(n_latents, dtype=np.int64)
        self.n_rows = 0

    def add(self, latents: Int[Tensor, " entry"], values: Float[Tensor, " entry"], n_rows: int) -> None:
        """Add the entries of `n_rows` rows of sparse codes. Stored zeros do not count."""
        fired = latents[values != 0]
        self.counts += torch.bincount(fired, minlength=len(self.counts)).numpy()
        self.n_rows += n_rows

    def merge(self, other: "Firing") -> None:
        """Add what another accumulator (another shard, another rank) has seen."""
        self.counts = self.counts + other.counts
        self.n_rows += other.n_rows

    @property
    def l0(self) -> float:
        """Mean number of active latents per row."""
        return float(self.counts.sum()) / self.n_rows

    @property
    def n_dead(self) -> int:
        """Latents that fired in none of the `n_rows` rows."""
        return int((self.counts == 0).sum())

    def n_denser_than(self, density: float) -> int:
        """Latents that fire in more than this share of rows."""
        return int((self.counts > density * self.n_rows).sum())

    def histogram(self) -> DensityHistogram:
        """Density histogram from 1 / n_rows to 1, a quarter of a decade per bin, and an explicit zero bin."""
        decades = max(1, int(np.ceil(np.log10(max(self.n_rows, 2)))))
        edges = np.linspace(-decades, 0.0, decades * BINS_PER_DECADE + 1)
        alive = self.counts[self.counts > 0]
        counts, _ = np.histogram(np.log10(alive / self.n_rows), bins=edges)
        return DensityHistogram(
            tuple(float(edge) for edge in edges), tuple(int(count) for count in counts), self.n_dead, self.n_rows
        )
