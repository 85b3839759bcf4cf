"""Wrong ways to measure reconstruction that were published or shipped."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mohole.metrics.definitions import Array
from mohole.metrics.mutants.mutant import Mutant, mutant
from mohole.metrics.reconstruction import Reconstruction


class _Kept(Reconstruction):
    """Keeps the rows themselves, so that a wrong formula can be read from them. Document weights are taken as all one."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[tuple[Tensor, Tensor]] = []

    def add(self, target: Tensor, output: Tensor, documents: Any, counted: Tensor | None = None, **place: Any) -> None:
        super().add(target, output, documents, counted, **place)
        kept = slice(None) if counted is None else counted
        self.batches.append((target[kept].double(), output[kept].double()))

    def merge(self, other: Reconstruction) -> None:
        super().merge(other)
        assert isinstance(other, _Kept)
        self.batches.extend(other.batches)

    @property
    def rows(self) -> tuple[Tensor, Tensor]:
        return torch.cat([target for target, _ in self.batches]), torch.cat([output for _, output in self.batches])


class _SquaresForMeans(_Kept):
    """E[x^2] stands where E[x] belongs in the variance.

    Seen in: SAELens #659, #710; sae-bench 0.6.0.
    """

    def fvu(self, weights: Array) -> Array:
        target, output = self.rows
        total = target.square().sum() - target.square().sum(0).mean() ** 2 / len(target)
        return np.array([float((target - output).square().sum() / total)])


class _MeanOfRowRatios(_Kept):
    """Each row's own ratio, averaged over rows.

    Seen in: SAEBench #61, #76.
    """

    def fvu(self, weights: Array) -> Array:
        target, output = self.rows
        spread = (target - target.mean(0)).square().sum(1)
        return np.array([float(((target - output).square().sum(1) / spread).mean())])


class _CentredByBatch(_Kept):
    """Each batch is centred by its own mean.

    Seen in: sparsify, FVU of a micro-batch.
    """

    def fvu(self, weights: Array) -> Array:
        shares = [(t - o).square().sum() / (t - t.mean(0)).square().sum() for t, o in self.batches]
        return np.array([float(torch.stack(shares).mean())])


class _BlindToAnOffset(_Kept):
    """The variance of the error, which a constant offset does not change.

    Seen in: dictionary_learning, evaluation.py.
    """

    def fvu(self, weights: Array) -> Array:
        target, output = self.rows
        return np.array([float((target - output).var(0).sum() / target.var(0).sum())])


class _NotCentred(_Kept):
    """Compared with zero and called a fraction of variance.

    Seen in: openai/sparse_autoencoder #8.
    """

    def fvu(self, weights: Array) -> Array:
        target, output = self.rows
        return np.array([float((target - output).square().sum() / target.square().sum())])


class _ByCoordinate(_Kept):
    """Each coordinate's ratio, averaged: the basis matters.

    Seen in: sparsify #20.
    """

    def fvu(self, weights: Array) -> Array:
        target, output = self.rows
        return np.array([float(((target - output).square().sum(0) / (target - target.mean(0)).square().sum(0)).mean())])


class _DividedByTokensAgain(_Kept):
    """A mean over tokens, divided by the batch's tokens once more.

    Seen in: SAELens #711; sae-bench 0.6.0.
    """

    def mse(self, weights: Array) -> Array:
        return np.array([float(np.mean([float((t - o).square().sum(1).mean()) / len(t) for t, o in self.batches]))])


class _ScaledAgainstUnscaled(Reconstruction):
    """Rows in training units, outputs in model units.

    Seen in: SAELens #518.
    """

    def add(self, target: Tensor, output: Tensor, documents: Any, counted: Tensor | None = None, **place: Any) -> None:
        kept = target if counted is None else target[counted]
        scale = kept.norm(dim=1).mean() / target.shape[1] ** 0.5
        super().add(target / scale, output, documents, counted, **place)


class _CountsEverything(Reconstruction):
    """BOS and padding are counted.

    Seen in: SAELens #283, #333, #350; SAEBench #32; sparsify #113.
    """

    def add(self, target: Tensor, output: Tensor, documents: Any, counted: Tensor | None = None, **place: Any) -> None:
        super().add(target, output, documents, None, **place)


class _NothingIsPerfect(Reconstruction):
    """No rows, or rows without variance, are called perfectly explained.

    Seen in: crosscoder-model-diff-replication #2.
    """

    def fvu(self, weights: Array) -> Array:
        if not self._parts:
            return np.zeros(len(weights))
        return np.nan_to_num(super().fvu(weights))


class _MeanOfBatches(_Kept):
    """A ratio of each batch, averaged over batches.

    Seen in: dictionary_learning, evaluation.py.
    """

    def r2_uncentred(self, weights: Array) -> Array:
        return np.array(
            [float(np.mean([1 - float((t - o).square().sum() / t.square().sum()) for t, o in self.batches]))]
        )

    def relative_bias(self, weights: Array) -> Array:
        return np.array([float(np.mean([float(o.square().sum() / (t * o).sum()) for t, o in self.batches]))])


class _Unnormalised(Reconstruction):
    """A product of rows that were never normalised.

    Seen in: a dot product that is called a cosine.
    """

    def cosine(self, weights: Array) -> Array:
        return np.asarray(weights @ self._sum("product") / (weights @ self._sum("n")))


class _ShortRowsByOne(_Kept):
    """Rows shorter than 1e-4 are divided by 1.

    Seen in: sae-lens 6.54 evals, l2_norm_in_for_div.
    """

    def length_ratio(self, weights: Array) -> Array:
        target, output = self.rows
        lengths = target.norm(dim=1)
        return np.array([float((output.norm(dim=1) / torch.where(lengths < 1e-4, 1.0, lengths)).mean())])


class _LengthsPooled(_Kept):
    """Mean length over mean length: the longest rows decide.

    Seen in: a ratio of two averages.
    """

    def length_ratio(self, weights: Array) -> Array:
        target, output = self.rows
        return np.array([float(output.norm(dim=1).sum() / target.norm(dim=1).sum())])


class _MeanOfDimensions(Reconstruction):
    """A sum over dimensions is called a mean over them.

    Seen in: SAELens, mse_loss in training and mse in evals until #711.
    """

    def mse_per_dimension(self, weights: Array) -> Array:
        return self.mse(weights)


MUTANTS: tuple[Mutant, ...] = (
    mutant("reconstruction", _SquaresForMeans),
    mutant("reconstruction", _MeanOfRowRatios),
    mutant("reconstruction", _CentredByBatch),
    mutant("reconstruction", _BlindToAnOffset),
    mutant("reconstruction", _NotCentred),
    mutant("reconstruction", _ByCoordinate),
    mutant("reconstruction", _DividedByTokensAgain),
    mutant("reconstruction", _ScaledAgainstUnscaled),
    mutant("reconstruction", _CountsEverything),
    mutant("reconstruction", _NothingIsPerfect),
    mutant("reconstruction", _MeanOfBatches),
    mutant("reconstruction", _Unnormalised),
    mutant("reconstruction", _ShortRowsByOne),
    mutant("reconstruction", _LengthsPooled),
    mutant("reconstruction", _MeanOfDimensions),
)
