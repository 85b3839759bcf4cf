"""Sums by document, the form in which every measurement is kept until it is read. Mergeable; no definitions of metrics."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from mohole.metrics.measure import Statistic, ratio, require_finite

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


class DocumentSums:
    """Named columns summed over the items of each document. An item may come in any batch, in any order."""

    def __init__(self, columns: Sequence[str]) -> None:
        self.columns = tuple(columns)
        self._parts: list[tuple[Int64, Float64]] = []

    def add(self, documents: Int64, values: Float64, *, place: str = "values") -> None:
        """Add items: their documents [item] and values [item, column].

        Raises:
            NumericsError: a value is NaN or infinite.
        """
        if values.shape != (len(documents), len(self.columns)):
            raise ValueError(
                f"{place}: values of shape {values.shape} for {len(documents)} items of {len(self.columns)}"
            )
        require_finite(values, place)
        self._parts.append(_by_document(documents, values.astype(np.float64)))

    def merge(self, other: "DocumentSums") -> None:
        """Add what another accumulator has seen."""
        if self.columns != other.columns:
            raise ValueError(f"columns {self.columns} and {other.columns} do not go together")
        self._parts.extend(other._parts)

    @property
    def documents(self) -> Int64:
        """Ids of the documents seen, ascending."""
        return self._table()[0]

    def column(self, name: str) -> Float64:
        """One column's sum in each document, in the order of `documents`."""
        return self._table()[1][:, self.columns.index(name)]

    def total(self, name: str) -> float:
        return float(self.column(name).sum())

    def mean_of(self, numerator: str, denominator: str) -> Statistic:
        """The pooled mean of a column: sum over all items, divided by the sum of another column (usually a count)."""
        top, bottom = self.column(numerator), self.column(denominator)
        return lambda weights: ratio(weights @ top, weights @ bottom)

    def _table(self) -> tuple[Int64, Float64]:
        if len(self._parts) != 1:
            documents = np.concatenate([np.zeros(0, dtype=np.int64), *(part[0] for part in self._parts)])
            values = np.concatenate([np.zeros((0, len(self.columns))), *(part[1] for part in self._parts)])
            self._parts = [_by_document(documents, values)]
        return self._parts[0]


def grouped(place: NDArray[np.intp], values: Float64, n: int) -> Float64:
    """Rows [row, column] summed over those of one place [place, column], of which there are `n`."""
    # the same bits as numpy's add.at, in a sixth to a twenty-fourth of the time: 5 ms, not 115, for 16,384 rows of 768 columns
    sums = torch.zeros(n, values.shape[1], dtype=torch.float64)
    return np.asarray(sums.index_add_(0, torch.from_numpy(place), torch.from_numpy(values)).numpy())


def _by_document(documents: Int64, values: Float64) -> tuple[Int64, Float64]:
    unique, place = np.unique(documents, return_inverse=True)
    return unique.astype(np.int64), grouped(place, values, len(unique))
