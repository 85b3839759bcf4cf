"""Measures about a mean row that is known beforehand: centred cosine, error by dimension, the ratio of rows published once.

A mean over rows of something that each row is divided by (its distance from the mean) cannot be put together from batches
that have each their own mean. So the mean row comes first, from a pass of its own (`MeanRow`); given it, all else is sums over
rows. The mean of the batch in its place is how these numbers came to depend on the batch size.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from mohole.metrics.documents import grouped
from mohole.metrics.measure import ratio
from mohole.metrics.reconstruction import counted_rows

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

_SUMS = ("n", "cosine", "by_row", "has_spread")
_CONSTANT = 1e-12  # a dimension whose deviation is this small a part of its mean varies by rounding alone


class MeanRow:
    """The mean of rows, in float64. Mergeable."""

    def __init__(self, d: int) -> None:
        self.n_rows = 0
        self.total: Float64 = np.zeros(d)

    def add(self, rows: Float[Tensor, "row d"]) -> None:
        self.total = self.total + rows.double().sum(0).numpy()
        self.n_rows += len(rows)

    def merge(self, other: "MeanRow") -> None:
        """Add what another accumulator has seen."""
        self.total = self.total + other.total
        self.n_rows += other.n_rows

    @property
    def value(self) -> Float64:
        """Raises: ValueError: no rows were added."""
        if self.n_rows == 0:
            raise ValueError("the mean of no rows")
        return self.total / self.n_rows


class CentredRows:
    """Sums over (target, output) rows about a given centre, by document. Values are read as functions of document weights."""

    def __init__(self, centre: Float64) -> None:
        self.centre = np.asarray(centre, dtype=np.float64)
        self._parts: list[
            tuple[Int64, Float64, Float64]
        ] = []  # documents, sums, [deviation, its square, error^2] by dimension

    def add(
        self,
        target: Float[Tensor, "row d"],
        output: Float[Tensor, "row d"],
        documents: Int64,
        counted: Bool[Tensor, " row"] | None = None,
        *,
        place: str = "rows",
    ) -> None:
        """Add rows. Rows not `counted` are never looked at, whatever they hold.

        Raises:
            NumericsError: a counted row holds a NaN or an infinity.
        """
        target, output, documents = counted_rows(target, output, documents, counted, place)
        if len(target):
            self._parts.append(self._by_document(target.double(), output.double(), documents))

    def merge(self, other: "CentredRows") -> None:
        """Add what another accumulator of the same centre has seen.

        Raises:
            ValueError: the centres differ.
        """
        if not np.array_equal(self.centre, other.centre):
            raise ValueError("sums about two different centres do not go together; find the mean of all rows first")
        self._parts.extend(other._parts)

    @property
    def documents(self) -> Int64:
        """Ids of the documents seen, ascending."""
        return self._table()[0]

    @property
    def n_rows(self) -> int:
        return int(self._sum("n").sum())

    def cosine(self, weights: Float64) -> Float64:
        """Mean over rows of cos(x - c, x^ - c), the same centre c for both: an x^ with a mean of its own pays for it."""
        return ratio(weights @ self._sum("cosine"), weights @ self._sum("n"))

    def fvu_by_row_legacy(self, weights: Float64) -> Float64:
        """Mean over rows of |x - x^|^2 / |x - c|^2. Weighs rows near the mean most; only to compare with published numbers.

        One minus it is the explained variance of SAEBench's paper and of SAELens before 2025, but for their centre: the mean of
        a batch. Rows at the centre have no ratio and are left out.
        """
        return ratio(weights @ self._sum("by_row"), weights @ self._sum("has_spread"))

    def fvu_by_dimension(self, weights: Float64) -> Float64:
        """Mean over dimensions of sum (x_d - x^_d)^2 / sum (x_d - mean_d)^2: every dimension counts alike, so the basis matters.

        A constant dimension that is rebuilt exactly is left out; with an error there its ratio, and so the mean, is undefined.
        """
        deviation, square, error = np.split(weights @ self._table()[2], 3, axis=1)
        n = weights @ self._sum("n")[:, None]
        spread = square - np.divide(deviation**2, n, out=np.zeros_like(deviation), where=n > 0)
        varies = spread > n * (_CONSTANT * self.centre) ** 2
        shares = np.divide(error, spread, out=np.zeros_like(error), where=varies)
        broken = (~varies & (error > 0)).any(1)
        return np.where(broken, np.nan, ratio(shares.sum(1), varies.sum(1).astype(np.float64)))

    def _sum(self, name: str) -> Float64:
        return self._table()[1][:, _SUMS.index(name)]

    def _table(self) -> tuple[Int64, Float64, Float64]:
        if not self._parts:
            raise ValueError("no rows were added")
        if len(self._parts) > 1:
            documents, sums, by_dimension = (np.concatenate(column) for column in zip(*self._parts, strict=True))
            unique, place = np.unique(documents, return_inverse=True)
            self._parts = [(unique, grouped(place, sums, len(unique)), grouped(place, by_dimension, len(unique)))]
        return self._parts[0]

    def _by_document(self, target: Tensor, output: Tensor, documents: Int64) -> tuple[Int64, Float64, Float64]:
        unique, place = np.unique(documents, return_inverse=True)
        x, y = target - torch.from_numpy(self.centre), output - torch.from_numpy(self.centre)
        square, error = x.square(), (target - output).square()
        spread = square.sum(1)
        norms = spread.sqrt() * y.norm(dim=1)
        none = torch.zeros_like(norms)
        sums = torch.stack(
            [
                torch.ones_like(norms),
                torch.where(norms > 0, (x * y).sum(1) / norms.clamp(min=1e-300), none),
                torch.where(spread > 0, error.sum(1) / spread.clamp(min=1e-300), none),
                (spread > 0).double(),
            ],
            dim=1,
        )
        by_dimension = torch.cat([x, square, error], dim=1)
        n = len(unique)
        return unique.astype(np.int64), grouped(place, sums.numpy(), n), grouped(place, by_dimension.numpy(), n)
