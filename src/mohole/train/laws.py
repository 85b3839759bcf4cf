"""The formulas of scaling laws: what each predicts, where a fit of it starts, and what its constants are called. No data.

    width     L(n)    = a n^-alpha + e
    sparsity  L(n, k) = exp(alpha + beta_k log k + beta_n log n + gamma log k log n) + exp(zeta + eta log k)
    rows      L(n, D) = a n^-alpha + b D^-beta + e

The first two are of Gao et al. 2024 (arXiv 2406.04093, section 3), the third has the form of Hoffmann et al. 2022 (arXiv
2203.15556).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

MOST = 300.0
"""Largest exponent of e that is taken: what is beyond is as good as infinite."""


@dataclass(frozen=True)
class Form:
    """The formula of a law, as code: what it is fitted with. `theta` are its free numbers, centred so that they hang together
    little; `inputs` has a column for each of `inputs_are`, in logarithms."""

    name: str
    formula: str
    inputs_are: tuple[str, ...]
    n_parameters: int
    needs: tuple[int, ...]
    """Distinct values of each input, at least."""
    predict: Callable[[Float64, Float64], Float64]
    """(theta, centred inputs [point, input]) -> L [point]."""
    starts: Callable[[Float64, Float64], list[Float64]]
    low: tuple[float, ...]
    high: tuple[float, ...]
    named: Callable[[Float64, Float64], dict[str, float]]
    """(theta, centre) -> the constants of the formula."""

    @property
    def n_points(self) -> int:
        """Points needed: one more than there are constants, or the residual says nothing."""
        return self.n_parameters + 1


def _predict_width(theta: Float64, inputs: Float64) -> Float64:
    return np.asarray(np.exp(theta[0] - theta[1] * inputs[:, 0]) + theta[2])


def _predict_rows(theta: Float64, inputs: Float64) -> Float64:
    log_n, log_rows = inputs.T
    return np.asarray(np.exp(theta[0] - theta[1] * log_n) + np.exp(theta[2] - theta[3] * log_rows) + theta[4])


def _predict_sparsity(theta: Float64, inputs: Float64) -> Float64:
    log_n, log_k = inputs.T
    free, slope_n, slope_k, both, floor, floor_k = theta
    reducible = np.exp(np.minimum(free + slope_n * log_n + slope_k * log_k + both * log_n * log_k, MOST))
    return np.asarray(reducible + np.exp(np.minimum(floor + floor_k * log_k, MOST)))


def _starts_width(inputs: Float64, losses: Float64) -> list[Float64]:
    return [
        np.asarray([math.log(losses.mean() * (1 - share)), alpha, losses.min() * share])
        for share, alpha in product((0.05, 0.5, 0.9), (0.2, 0.7))
    ]


def _starts_rows(inputs: Float64, losses: Float64) -> list[Float64]:
    starts = []
    for share, alpha, beta in product((0.1, 0.7), (0.2, 0.7), (0.2, 0.7)):
        part = math.log(losses.mean() * (1 - share) / 2)
        starts.append(np.asarray([part, alpha, part, beta, losses.min() * share]))
    return starts


def _starts_sparsity(inputs: Float64, losses: Float64) -> list[Float64]:
    """The reducible part by linear regression, for floors that are some share of the lowest losses of each k."""
    log_n, log_k = inputs.T
    columns = np.stack([np.ones_like(log_n), log_n, log_k, log_n * log_k], axis=1)
    lowest = {each: math.log(losses[log_k == each].min()) for each in np.unique(log_k)}
    slope, level = np.polyfit(list(lowest), list(lowest.values()), 1)
    starts = []
    for share in (0.2, 0.5, 0.8, 0.95):
        left = losses - share * np.exp(level + slope * log_k)
        free, *_ = np.linalg.lstsq(columns, np.log(np.maximum(left, losses * 0.01)), rcond=None)
        starts.append(np.asarray([*free, level + math.log(share), slope]))
    return starts


def _named_width(theta: Float64, centre: Float64) -> dict[str, float]:
    return {"a": bounded_exp(theta[0] + theta[1] * centre[0]), "alpha": float(theta[1]), "e": float(theta[2])}


def _named_rows(theta: Float64, centre: Float64) -> dict[str, float]:
    a, b = (bounded_exp(theta[place] + theta[place + 1] * centre[place // 2]) for place in (0, 2))
    return {"a": a, "alpha": float(theta[1]), "b": b, "beta": float(theta[3]), "e": float(theta[4])}


def _named_sparsity(theta: Float64, centre: Float64) -> dict[str, float]:
    free, slope_n, slope_k, both, floor, floor_k = (float(value) for value in theta)
    n, k = centre
    return {
        "alpha": free - slope_n * float(n) - slope_k * float(k) + both * float(n * k),
        "beta_k": slope_k - both * float(n),
        "beta_n": slope_n - both * float(k),
        "gamma": both,
        "zeta": floor - floor_k * float(k),
        "eta": floor_k,
    }


def bounded_exp(value: float) -> float:
    """e^value, of e^300 at most."""
    return math.exp(min(value, MOST))


_ANY = 100.0
WIDTH = Form(
    "width", "a n^-alpha + e", ("n_latents",), 3, (4,),
    _predict_width, _starts_width, (-_ANY, 0.0, 0.0), (_ANY, 10.0, _ANY), _named_width,
)  # fmt: skip
ROWS = Form(
    "rows", "a n^-alpha + b D^-beta + e", ("n_latents", "rows"), 5, (3, 3),
    _predict_rows, _starts_rows, (-_ANY, 0.0, -_ANY, 0.0, 0.0), (_ANY, 10.0, _ANY, 10.0, _ANY), _named_rows,
)  # fmt: skip
SPARSITY = Form(
    "sparsity", "exp(alpha + beta_k log k + beta_n log n + gamma log k log n) + exp(zeta + eta log k)",
    ("n_latents", "k"), 6, (3, 3),
    _predict_sparsity, _starts_sparsity, (-_ANY,) * 6, (_ANY,) * 6, _named_sparsity,
)  # fmt: skip
