"""What compute buys by a rows law: the lowest FVU for each number of FLOPs, and the latents and rows that reach it.

    L(C) = e + g C^-gamma      gamma = alpha beta / (alpha + beta)
    n(C) ~ C^(beta / (alpha + beta))      D(C) ~ C^(alpha / (alpha + beta))

The least of a n^-alpha + b D^-beta + e where 2 d_in n D = C, the FLOPs of the encoder's products (Hoffmann et al. 2022, arXiv
2203.15556, equation 4). Intervals are those of the fitted law, 90 % by the delta method.
"""

import math
from dataclasses import dataclass

import numpy as np

from mohole.train.laws import Float64
from mohole.train.scaling import Estimate, Law


@dataclass(frozen=True)
class Budget:
    """The best that some FLOPs can do."""

    flops: float
    n_latents: Estimate
    rows: Estimate
    fvu: Estimate
    is_far: bool
    """Latents or rows are more than four times beyond the data."""


@dataclass(frozen=True)
class ComputeFrontier:
    """The frontier of a rows law."""

    law: Law
    d_in: int

    def gamma(self) -> Estimate:
        """How fast what is above the floor falls with FLOPs."""
        return self.law.estimate(lambda theta: theta[1] * theta[3] / (theta[1] + theta[3]))

    def latents_exponent(self) -> Estimate:
        """How latents grow with FLOPs; rows grow with the rest to 1."""
        return self.law.estimate(lambda theta: theta[3] / (theta[1] + theta[3]))

    def at(self, flops: float) -> Budget:
        """The best latents and rows for these FLOPs, and the FVU they reach."""
        n_latents, rows = (
            self.law.estimate(lambda theta, place=place: math.exp(self._best(theta, flops)[place]))  # type: ignore[misc]
            for place in (0, 1)
        )
        fvu = self.law.estimate(lambda theta: self._loss(theta, flops))
        is_far = self.law.is_far("n_latents", n_latents.value) or self.law.is_far("rows", rows.value)
        return Budget(flops, n_latents, rows, fvu, is_far)

    def curve(self, flops: Float64) -> Float64:
        """FVU at each of these FLOPs, without intervals."""
        return np.asarray([self._loss(self.law.theta, float(each)) for each in flops])

    def _best(self, theta: Float64, flops: float) -> Float64:
        """log n and log D. At the least, alpha a n^-alpha = beta b D^-beta: neither is the cheaper way to a lower FVU."""
        log_a, alpha, log_b, beta, _ = theta
        both = math.log(flops / (2.0 * self.d_in)) - float(self.law.centre.sum())
        log_n = (math.log(alpha / beta) + log_a - log_b + beta * both) / (alpha + beta)
        return np.asarray([log_n, both - log_n]) + self.law.centre

    def _loss(self, theta: Float64, flops: float) -> float:
        return float(self.law.form.predict(theta, (self._best(theta, flops) - self.law.centre)[None])[0])
