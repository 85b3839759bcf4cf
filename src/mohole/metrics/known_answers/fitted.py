"""What must be true of a linear map fitted to rows, and of the floor under FVU that a law of size gives."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from mohole.metrics.definitions import Definitions
from mohole.metrics.known_answers.answer import Answer, Check
from mohole.metrics.known_answers.rows import quadratures, turn, waves

_SIZES = np.array([256.0, 512, 1024, 2048, 4096, 8192])


def what_is_linear_is_predicted(d: Definitions) -> Iterator[Answer]:
    """R^2 of a linear map with an offset is 1, however rows are cut, scaled and moved; of what no row tells it is 0."""
    rows, seen = waves(400, 4, mean=3.0), slice(0, 400, 2)
    linear = rows @ turn(4) + 7.0
    yield Answer("R^2 of a linear map", _r2(d, rows, linear), 1.0, 1e-6)
    yield Answer("the same from batches of 7", _r2(d, rows, linear, batch=7), 1.0, 1e-6)
    yield Answer("the same of rows a thousandth as large", _r2(d, rows / 1000, linear), 1.0, 1e-6)
    yield Answer("the same with every column twice", _r2(d, torch.cat([rows, rows], 1), linear), 1.0, 1e-6)
    yield Answer("R^2 of what is uncorrelated with the rows", _r2(d, rows, quadratures(400, 4)), 0.0, 1e-6)
    half = linear + np.sqrt(0.5) * quadratures(400, 4) @ turn(4)  # a third of the variance
    yield Answer("R^2 of a map with noise", _r2(d, rows, half), 2 / 3, 1e-6)
    fit = d.linear_fit(4, 4)
    fit.add(rows[seen], linear[seen])
    yield Answer(
        "the baseline: the mean of the targets", float(fit.mean_target[0]), float(linear[seen, 0].mean()), 1e-9
    )


def the_floor_is_that_of_the_law(d: Definitions) -> Iterator[Answer]:
    """Of FVUs on a law of size the floor, the factor and the exponent are those of the law; too few sizes have none."""
    law = (0.1 + 4.0 * _SIZES**-0.5)[None]
    floor, factor, exponent = (float(each[0]) for each in d.fitted_floor(_SIZES, law))
    yield Answer("floor of 0.1 + 4 n^-0.5", floor, 0.1, 2e-3)
    yield Answer("factor of 0.1 + 4 n^-0.5", factor, 4.0, 0.25)
    yield Answer("exponent of 0.1 + 4 n^-0.5", exponent, 0.5, 0.02)
    yield Answer("floor of 4 n^-0.5", float(d.fitted_floor(_SIZES, law - 0.1)[0][0]), 0.0, 2e-3)
    yield Answer("floor where size changes nothing", float(d.fitted_floor(_SIZES, 0 * law + 0.3)[0][0]), 0.3, 1e-9)
    yield Answer("floor of three sizes", float(d.fitted_floor(_SIZES[:3], law[:, :3])[0][0]), float("nan"))
    unknown = np.where(_SIZES == 512, np.nan, law)
    yield Answer("floor where one FVU is undefined", float(d.fitted_floor(_SIZES, unknown)[0][0]), float("nan"))


def _r2(d: Definitions, rows: Tensor, targets: Tensor, *, batch: int = 400) -> float:
    fit = d.linear_fit(rows.shape[1], targets.shape[1])
    for first in range(0, len(rows), batch):
        fit.add(rows[first : first + batch], targets[first : first + batch])
    left, about_mean = targets - fit.predict(rows), targets - fit.mean_target
    return 1.0 - float(left.square().sum() / about_mean.square().sum())


CHECKS: tuple[Check, ...] = (what_is_linear_is_predicted, the_floor_is_that_of_the_law)
