"""How much of a dictionary's error a linear map of the activation would say.

Half of the documents fit the map, the others judge it. Source: Engels, Smith & Tegmark 2024 (arXiv 2410.14670): most of the
error's norm and about half of the error are linear in x.
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mohole.evaluate.rows.choice import CENTRE, COUNTED, Rows
from mohole.evaluate.standin import StandIn
from mohole.keys import Use, uniform
from mohole.metrics import DocumentSums, Masks, Measure
from mohole.metrics.linear import LinearFit
from mohole.metrics.measure import Reading, Statistic, ratio

Float64 = NDArray[np.float64]

WIDEST = 4096  # columns that a linear map is fitted to: its sums of products take 8 x 4096^2 bytes

_FIT_SUMS = ("rows", "residual", "error_about_mean", "norm_residual", "norm_about_mean", "spread")


class LinearError:
    """The error, and its squared length, as linear functions of what is read. First every part is fitted, then judged by."""

    def __init__(self, spliced: StandIn, rows: Rows, seed: int) -> None:
        n_in, n_out = spliced.width_in, spliced.width_out
        is_judge = uniform(seed, Use.DARK_MATTER_DOCUMENTS, rows.documents, 1) < 0.5
        self._is_judge, self._documents = torch.from_numpy(is_judge), rows.documents
        self.n_judged = int(is_judge.sum())
        n_fitted = len(rows) - self.n_judged
        self.undefined = ""
        if max(n_in, n_out) > WIDEST:
            self.undefined = f"rows are {max(n_in, n_out)} wide, and a map is fitted up to {WIDEST}"
        elif n_fitted < 2 * n_in or self.n_judged == 0:
            self.undefined = f"{n_fitted} rows to fit on, where {2 * n_in} are needed, and {self.n_judged} to judge by"
        else:
            self._fit = LinearFit(n_in, n_out + 1)
        self._sums = DocumentSums(_FIT_SUMS)

    def fit(self, part: slice, read: Tensor, error: Tensor) -> None:
        """Add rows; of these only those that fit are taken."""
        if self.undefined == "":
            kept = ~self._is_judge[part]
            self._fit.add(read[kept], _with_square(error[kept]))

    def judges(self, part: slice) -> bool:
        """Is any of these rows judged by?"""
        return bool(self._is_judge[part].any())

    def judge(self, part: slice, read: Tensor, error: Tensor, target: Tensor, mean: Tensor) -> int:
        """The number of rows that were judged by."""
        kept = self._is_judge[part]
        truth, baseline = _with_square(error[kept]), self._fit.mean_target
        left, about_mean = truth - self._fit.predict(read[kept]), truth - baseline
        columns = [
            torch.ones(len(truth), dtype=torch.float64),
            left[:, :-1].square().sum(1),
            about_mean[:, :-1].square().sum(1),
            left[:, -1].square(),
            about_mean[:, -1].square(),
            (target[kept].double() - mean).square().sum(1),
        ]
        self._sums.add(self._documents[part][kept.numpy()], torch.stack(columns, 1).numpy(), place="errors, predicted")
        return len(truth)

    def measures(self, seed: int) -> Iterator[Measure]:
        """What the map says of the rows that it was not fitted to."""
        sums = self._sums

        def r2(residual: str, about_mean: str) -> Statistic:
            return lambda weights: 1.0 - ratio(weights @ sums.column(residual), weights @ sums.column(about_mean))

        def left(weights: Float64) -> Float64:
            return ratio(weights @ sums.column("residual"), weights @ sums.column("spread"))

        def nothing(weights: Float64) -> Float64:
            return np.full(len(weights), np.nan)

        judged = "fitted on half of the documents, judged on the others"
        for name, statistic, unit, baseline, definition in (
            ("error_norm_r2", r2("norm_residual", "norm_about_mean"), "R^2", "the mean squared length",
             f"how much of the error's squared length a linear function of the activation predicts; {judged}"),
            ("error_r2", r2("residual", "error_about_mean"), "R^2", "the mean error",
             f"how much of the error vector a linear map of the activation predicts; {judged}"),
            ("fvu_nonlinear", left, "share of variance", CENTRE,
             f"FVU that is left when that linear map is added to the reconstruction; {judged}"),
        ):  # fmt: skip
            reading = Reading(
                name,
                nothing if self.undefined else statistic,
                unit,
                baseline,
                definition,
                self.undefined or "there is no error to predict",
            )
            masks = Masks(counted=COUNTED)
            yield reading.of(sums.documents, seed=seed, n=self.n_judged, n_of="rows", masks=masks)


def _with_square(error: Tensor) -> Tensor:
    exact = error.double()
    return torch.cat([exact, exact.square().sum(1, keepdim=True)], 1)
