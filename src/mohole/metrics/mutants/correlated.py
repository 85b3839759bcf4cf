"""Wrong ways to correlate codes."""

import numpy as np
from numpy.typing import NDArray

from mohole.metrics.codes import Codes
from mohole.metrics.correlation import CodeCorrelation
from mohole.metrics.definitions import Array
from mohole.metrics.mutants.mutant import Mutant, mutant

Int64 = NDArray[np.int64]


class _FirstSideTwice(CodeCorrelation):
    """What belongs to the second dictionary is taken from the first: here its mean, there its bias.

    Seen in: sae_vis #45.
    """

    def _correlation(self, products: Array, one: Int64, other: Int64) -> Array:
        covariance = products / self.n_rows - self.one.sums[one] * self.one.sums[other] / self.n_rows**2
        return np.asarray(
            covariance / (self.one.deviation(self.n_rows)[one] * self.other.deviation(self.n_rows)[other])
        )


class _CosineOfColumns(CodeCorrelation):
    """A cosine of columns is called a correlation.

    Seen in: similarity of activations, as of neighbours in dashboards.
    """

    def _correlation(self, products: Array, one: Int64, other: Int64) -> Array:
        lengths = np.sqrt(self.one.squares[one] * self.other.squares[other])
        return np.divide(products, lengths, out=np.full_like(products, np.nan), where=lengths > 0)


class _ConstantIsZero(CodeCorrelation):
    """A constant latent has correlation 0.

    Seen in: denominators with an epsilon.
    """

    def _correlation(self, products: Array, one: Int64, other: Int64) -> Array:
        return np.nan_to_num(super()._correlation(products, one, other))


class _RowsThatFire(CodeCorrelation):
    """Rows in which the second does not fire are left out.

    Seen in: sparse columns whose zeros are taken for missing.
    """

    def add(self, one: Codes, other: Codes) -> None:
        before = self.n_rows
        super().add(one, other)
        self.n_rows = before + int((other.row_starts.diff() > 0).sum())


class _LastBatch(CodeCorrelation):
    """Sums of squares of the last batch only.

    Seen in: a running sum that is assigned.
    """

    def add(self, one: Codes, other: Codes) -> None:
        self.one.squares = np.zeros_like(self.one.squares)
        super().add(one, other)


class _Strongest(CodeCorrelation):
    """The pair with the largest sum of products is taken for the one that correlates best.

    Seen in: matching by unnormalised scores.
    """

    def best(self) -> tuple[Array, Int64]:
        value, _ = super().best()
        return value, np.asarray(self.products.argmax(1)).ravel().astype(np.int64)


MUTANTS: tuple[Mutant, ...] = (
    mutant("code_correlation", _FirstSideTwice),
    mutant("code_correlation", _CosineOfColumns),
    mutant("code_correlation", _ConstantIsZero),
    mutant("code_correlation", _RowsThatFire),
    mutant("code_correlation", _LastBatch),
    mutant("code_correlation", _Strongest),
)
