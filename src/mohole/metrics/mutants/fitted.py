"""Wrong ways to fit a linear map, and a floor under FVU."""

import numpy as np
import torch
from torch import Tensor

from mohole.metrics.definitions import OURS, Array
from mohole.metrics.linear import LinearFit
from mohole.metrics.mutants.mutant import Mutant, mutant


class _WithoutOffset(LinearFit):
    """The map goes through the origin.

    Seen in: lstsq without a column of ones.
    """

    def predict(self, rows: Tensor) -> Tensor:
        weights, _ = self._solution()
        return rows.double() @ weights


class _LastBatchOnly(LinearFit):
    """Each batch takes the place of the one before.

    Seen in: sums that are set where they should be added to.
    """

    def add(self, rows: Tensor, targets: Tensor) -> None:
        self.__init__(rows.shape[1], targets.shape[1])  # type: ignore[misc]
        super().add(rows, targets)


class _RidgeInTheRowsUnits(LinearFit):
    """The ridge is added to variances as they are: small rows are shrunk away.

    Seen in: ridge regression on columns that are not standardised.
    """

    def _solution(self) -> tuple[Tensor, Tensor]:
        mean = self._x / self.n
        covariance = self._xx / self.n - torch.outer(mean, mean)
        covariance += 1e-4 * torch.eye(len(mean), dtype=torch.float64)
        weights = torch.linalg.solve(covariance, self._xy / self.n - torch.outer(mean, self.mean_target))
        return weights, self.mean_target - mean @ weights


Law = tuple[Array, Array, Array]


def _lowest_for_floor(n_latents: Array, fvus: Array) -> Law:
    """The lowest FVU that was seen is taken for the floor.

    Seen in: a floor read off a plot.
    """
    _, factor, exponent = OURS.fitted_floor(n_latents, fvus)
    return fvus.min(1), factor, exponent


def _no_floor(n_latents: Array, fvus: Array) -> Law:
    """A straight line in logarithms: the law has no floor.

    Seen in: scaling laws fitted as pure powers.
    """
    slope, _ = np.polyfit(np.log(n_latents), np.log(fvus.T), 1)
    return np.zeros(len(fvus)), fvus[:, 0] * n_latents[0] ** -slope, -slope


def _floor_of_nothing(n_latents: Array, fvus: Array) -> Law:
    """Undefined becomes 0.

    Seen in: fits passed through nan_to_num.
    """
    floor, factor, exponent = OURS.fitted_floor(n_latents, fvus)
    return np.nan_to_num(floor), factor, exponent


MUTANTS: tuple[Mutant, ...] = (
    mutant("linear_fit", _WithoutOffset),
    mutant("linear_fit", _LastBatchOnly),
    mutant("linear_fit", _RidgeInTheRowsUnits),
    mutant("fitted_floor", _lowest_for_floor),
    mutant("fitted_floor", _no_floor),
    mutant("fitted_floor", _floor_of_nothing),
)
