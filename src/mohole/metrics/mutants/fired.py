"""Wrong ways to count firings."""

from dataclasses import replace

import numpy as np
from torch import Tensor

from mohole.metrics.firing import DensityHistogram, Firing
from mohole.metrics.mutants.mutant import Mutant, mutant


class _OnOneRank(Firing):
    """Each rank counts its own firings only.

    Seen in: sparsify #119; bionemo-recipes #1619.
    """

    def merge(self, other: Firing) -> None:
        self.n_rows += other.n_rows


class _RowsOfOneRank(Firing):
    """A rank's rows are taken for all rows.

    Seen in: sparsify #50, #119.
    """

    def merge(self, other: Firing) -> None:
        self.counts = self.counts + other.counts


class _InFloat32(Firing):
    """Counts in float32 stop at 2^24.

    Seen in: SAELens, accumulated activation counts.
    """

    def add(self, latents: Tensor, values: Tensor, n_rows: int) -> None:
        before = self.counts.astype(np.float32)
        super().add(latents, values, n_rows)
        self.counts = (before + (self.counts - before.astype(np.int64)).astype(np.float32)).astype(np.int64)


class _OnlyPositive(Firing):
    """`> 0` for `!= 0`: negative codes never fire.

    Seen in: SAELens before 6.54, SAEBench's density.
    """

    def add(self, latents: Tensor, values: Tensor, n_rows: int) -> None:
        super().add(latents, values.clamp(min=0), n_rows)


class _StoredZerosFire(Firing):
    """An entry that is stored is taken for one that fires.

    Seen in: sparse codes padded to k entries.
    """

    def add(self, latents: Tensor, values: Tensor, n_rows: int) -> None:
        super().add(latents, values.new_ones(len(values)), n_rows)


class _AliveIsAlwaysOn(Firing):
    """Alive is taken for firing in every row.

    Seen in: dictionary_learning's frac_alive, wrong in its own way until commit dc30720.
    """

    @property
    def n_dead(self) -> int:
        return int((self.counts < self.n_rows).sum())


class _DeadAreNowhere(Firing):
    """Dead latents are in no bin of the histogram.

    Seen in: log of zero dropped in density plots.
    """

    def histogram(self) -> DensityHistogram:
        return replace(super().histogram(), zero=0)


MUTANTS: tuple[Mutant, ...] = (
    mutant("firing", _OnOneRank),
    mutant("firing", _RowsOfOneRank),
    mutant("firing", _InFloat32),
    mutant("firing", _OnlyPositive),
    mutant("firing", _StoredZerosFire),
    mutant("firing", _AliveIsAlwaysOn),
    mutant("firing", _DeadAreNowhere),
)
