"""Correlation of the codes of two dictionaries on the same rows, also where they read different layers or models."""

import numpy as np
from numpy.typing import NDArray

from mohole.metrics.codes import Codes, matrix_of

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

_CONSTANT = 1e-12  # of a mean square: a variance below it is what rounding leaves of a constant


class _Side:
    """Sums of one dictionary's codes."""

    def __init__(self, n_latents: int) -> None:
        self.sums: Float64 = np.zeros(n_latents)
        self.squares: Float64 = np.zeros(n_latents)

    def deviation(self, n_rows: int) -> Float64:
        """Standard deviation over rows [latent]; NaN for a latent that is constant."""
        mean_square = self.squares / n_rows
        variance = mean_square - (self.sums / n_rows) ** 2
        return np.sqrt(np.where(variance > _CONSTANT * mean_square, variance, np.nan))


class CodeCorrelation:
    """Pearson's correlation over rows of latents of one dictionary with those of another. Zeros count as values.

    Sums of products are kept for pairs that fire together, so memory is of those pairs and not of all.
    """

    def __init__(self, n_one: int, n_other: int) -> None:
        from scipy.sparse import csr_matrix  # type: ignore[import-untyped]

        self.one, self.other = _Side(n_one), _Side(n_other)
        self.products = csr_matrix((n_one, n_other), dtype=np.float64)
        self.n_rows = 0

    def add(self, one: Codes, other: Codes) -> None:
        """Add rows: both dictionaries' codes of the same ones, in the same order."""
        mine, theirs = matrix_of(one), matrix_of(other)
        if mine.shape[0] != theirs.shape[0]:
            raise ValueError(f"codes of {mine.shape[0]} and of {theirs.shape[0]} rows are not of the same rows")
        for side, codes in ((self.one, mine), (self.other, theirs)):
            side.sums = side.sums + np.asarray(codes.sum(0)).ravel()
            side.squares = side.squares + np.asarray(codes.multiply(codes).sum(0)).ravel()
        self.products = self.products + mine.T @ theirs
        self.n_rows += mine.shape[0]

    def merge(self, other: "CodeCorrelation") -> None:
        """Add what another accumulator (another shard, another rank) has seen."""
        for side, seen in ((self.one, other.one), (self.other, other.other)):
            side.sums, side.squares = side.sums + seen.sums, side.squares + seen.squares
        self.products = self.products + other.products
        self.n_rows += other.n_rows

    def between(self, one: Int64, other: Int64) -> Float64:
        """Correlation of these pairs [pair]. NaN where either latent is constant over the rows: dead, or always the same."""
        products = np.asarray(self.products[one, other]).ravel() if len(one) else np.zeros(0)
        return self._correlation(products, one, other)

    def best(self) -> tuple[Float64, Int64]:
        """Each of the first dictionary's latents: its largest correlation with one that fires together with it, and which.

        NaN and -1 where there is none. Of equal ones the first.
        """
        pairs = self.products.tocoo()
        row, column = pairs.row.astype(np.int64), pairs.col.astype(np.int64)
        correlation = self._correlation(pairs.data, row, column)
        value, which = np.full(len(self.one.sums), np.nan), np.full(len(self.one.sums), -1, dtype=np.int64)
        order = np.lexsort((-column, correlation, row))  # the last of a row is its largest
        order = order[~np.isnan(correlation[order])]
        value[row[order]], which[row[order]] = correlation[order], column[order]
        return value, which

    def _correlation(self, products: Float64, one: Int64, other: Int64) -> Float64:
        covariance = products / self.n_rows - self.one.sums[one] * self.other.sums[other] / self.n_rows**2
        deviations = self.one.deviation(self.n_rows)[one] * self.other.deviation(self.n_rows)[other]
        return np.asarray(np.clip(covariance / deviations, -1.0, 1.0))
