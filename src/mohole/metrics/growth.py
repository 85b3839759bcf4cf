"""What stays unexplained however many latents there are: FVU against the number of latents, and the floor under it."""

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

_EXPONENTS = np.geomspace(0.05, 4.0, 200)


def fitted_floor(n_latents: Float64, fvus: Float64) -> tuple[Float64, Float64, Float64]:
    """(floor, factor, exponent) of  fvu = floor + factor * n_latents^-exponent,  for each replicate [replicate, dictionary].

    Least squares of the relative errors, floor and factor not negative, the exponent from a grid between 0.05 and 4. NaN where
    there are fewer than four sizes, or an FVU that is not positive: three numbers through three points say nothing.
    """
    out = np.full((3, len(fvus)), np.nan)
    known = np.isfinite(fvus).all(1) & (fvus > 0).all(1)
    if len(np.unique(n_latents)) < 4 or not known.any():
        return out[0], out[1], out[2]
    y = fvus[known]
    weight = 1.0 / y**2
    least = np.full(len(y), np.inf)
    best = np.zeros((3, len(y)))
    for exponent in _EXPONENTS:
        u = np.broadcast_to((n_latents / n_latents.min()) ** -exponent, y.shape)
        floor, factor = _line(u, y, weight)
        error = (weight * (floor[:, None] + factor[:, None] * u - y) ** 2).sum(1)
        better = error < least
        least = np.where(better, error, least)
        scale = n_latents.min() ** exponent
        best = np.where(better, np.stack([floor, factor * scale, np.full(len(y), exponent)]), best)
    out[:, known] = best
    return out[0], out[1], out[2]


def _line(u: Float64, y: Float64, weight: Float64) -> tuple[Float64, Float64]:
    """Intercept and slope of each replicate's weighted line, neither below 0."""
    total = weight.sum(1)
    mean_u, mean_y = (weight * u).sum(1) / total, (weight * y).sum(1) / total
    spread = (weight * (u - mean_u[:, None]) ** 2).sum(1)
    slope = (weight * (u - mean_u[:, None]) * (y - mean_y[:, None])).sum(1) / spread
    floor = mean_y - slope * mean_u
    through_zero = (weight * u * y).sum(1) / (weight * u * u).sum(1)
    slope, floor = np.where(floor < 0, through_zero, slope), np.maximum(floor, 0.0)
    return np.where(slope < 0, mean_y, floor), np.maximum(slope, 0.0)
