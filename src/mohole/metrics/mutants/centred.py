"""Wrong ways to measure about the mean row, and to leave out long rows."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mohole.metrics.centred import CentredRows, MeanRow
from mohole.metrics.definitions import Array
from mohole.metrics.longest import LongestApart
from mohole.metrics.mutants.mutant import Mutant, mutant


class _MeanOfMeans(MeanRow):
    """The mean of batches' means: a short last batch counts as a full one.

    Seen in: means averaged over batches.
    """

    def add(self, rows: Tensor) -> None:
        self.total = self.total + rows.double().mean(0).numpy()
        self.n_rows += 1


class _Changed(CentredRows):
    """Rows are changed before they are summed."""

    def change(self, target: Tensor, output: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def add(self, target: Tensor, output: Tensor, documents: Any, counted: Tensor | None = None, **place: Any) -> None:
        if counted is not None:
            target, output, documents = target[counted], output[counted], documents[counted.numpy()]
        super().add(*self.change(target, output), documents, **place)


class _CentredByTheBatch(_Changed):
    """The mean of the batch stands for the mean of all rows.

    Seen in: SAELens's explained_variance_legacy; SAEBench #61, #76.
    """

    def change(self, target: Tensor, output: Tensor) -> tuple[Tensor, Tensor]:
        shift = torch.from_numpy(self.centre) - target.mean(0)
        return target + shift, output + shift


class _OutputCentredByItself(_Changed):
    """The output loses its own mean: a constant offset costs nothing.

    Seen in: variances of residuals, as in dictionary_learning's evaluation.py.
    """

    def change(self, target: Tensor, output: Tensor) -> tuple[Tensor, Tensor]:
        return target, output - output.mean(0) + torch.from_numpy(self.centre)


class _NotAboutTheMean(CentredRows):
    """The centre is forgotten: a large mean gives every row cosine 1.

    Seen in: cossim in SAELens and dictionary_learning, as a measure of what was learned.
    """

    def __init__(self, centre: Array) -> None:
        super().__init__(0 * centre)


class _Pooled(CentredRows):
    """The ratio of sums, which is FVU, under the name of the mean of ratios.

    Seen in: two metrics with one name, SAELens #443 and #659.
    """

    def fvu_by_row_legacy(self, weights: Array) -> Array:
        _, square, error = np.split(weights @ self._table()[2], 3, axis=1)
        return np.asarray(error.sum(1) / square.sum(1))


class _DimensionsPooled(CentredRows):
    """Error over spread of all dimensions together.

    Seen in: the other direction of sparsify #20.
    """

    def fvu_by_dimension(self, weights: Array) -> Array:
        _, square, error = np.split(weights @ self._table()[2], 3, axis=1)
        return np.asarray(error.sum(1) / square.sum(1))


class _ConstantIsPerfect(CentredRows):
    """A dimension without variance counts as explained, whatever its error is.

    Seen in: ratios passed through nan_to_num, or a denominator with an epsilon.
    """

    def fvu_by_dimension(self, weights: Array) -> Array:
        _, square, error = np.split(weights @ self._table()[2], 3, axis=1)
        return np.asarray((error / square.clip(1e-8) * (square > 1e-8)).mean(1))


class _EverythingIsCentred(CentredRows):
    """BOS and padding are counted.

    Seen in: SAELens #283, #333, #350.
    """

    def add(self, target: Tensor, output: Tensor, documents: Any, counted: Tensor | None = None, **place: Any) -> None:
        super().add(target, output, documents, None, **place)


class _SumsOfAnotherCentre(CentredRows):
    """Ranks merge sums about the mean of each.

    Seen in: a mean that was not reduced over ranks.
    """

    def merge(self, other: CentredRows) -> None:
        self._parts.extend(other._parts)


class _LongestOfEachBatch(LongestApart):
    """Each batch leaves out its own longest rows.

    Seen in: outliers clipped by a quantile of the batch.
    """

    def add(self, target: Tensor, output: Tensor, documents: Any, counted: Tensor | None = None, **place: Any) -> None:
        apart = LongestApart(self.n_longest)
        apart.add(target, output, documents, counted, **place)
        self.rest.merge(apart.rest)


class _WorstApart(LongestApart):
    """The rows with the largest error are left out, not the longest.

    Seen in: outliers chosen by what is measured.
    """

    def add(self, target: Tensor, output: Tensor, documents: Any, counted: Tensor | None = None, **place: Any) -> None:
        super().add(target - output, 0 * output, documents, counted, **place)


class _NothingApart(LongestApart):
    """A few huge rows are most of the variance, and FVU is very low.

    Seen in: sparsify #113.
    """

    def __init__(self, n_longest: int) -> None:
        super().__init__(0)


MUTANTS: tuple[Mutant, ...] = (
    mutant("mean_row", _MeanOfMeans),
    mutant("centred", _CentredByTheBatch),
    mutant("centred", _OutputCentredByItself),
    mutant("centred", _NotAboutTheMean),
    mutant("centred", _Pooled),
    mutant("centred", _DimensionsPooled),
    mutant("centred", _ConstantIsPerfect),
    mutant("centred", _EverythingIsCentred),
    mutant("centred", _SumsOfAnotherCentre),
    mutant("longest_apart", _LongestOfEachBatch),
    mutant("longest_apart", _WorstApart),
    mutant("longest_apart", _NothingApart),
)
