"""What stays unexplained however many latents there are: FVU against the number of latents, and the floor under it."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mohole.metrics.bootstrap import interval
from mohole.metrics.measure import Measure, ratio

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


def fitted_law(n_latents: Float64, fvus: Sequence[Measure]) -> tuple[Measure, ...]:
    """(floor, exponent, and the floor as a share of the best FVU) of dictionaries measured on the same documents, in this order.

    The last is dark matter in Engels et al. 2024's sense: the part of what is unexplained that no number of latents explains.
    Undefined with fewer than four sizes.
    """
    found = np.array([[np.nan if fvu.value is None else fvu.value for fvu in fvus]])
    replicates = [fvu.replicates for fvu in fvus if fvu.replicates is not None]
    resampled = np.stack(replicates, axis=1) if len(replicates) == len(fvus) else None
    of = f"FVU = floor + factor x latents^-exponent, fitted to dictionaries of {', '.join(f'{n:.0f}' for n in n_latents)} latents"
    why = f"{len(np.unique(n_latents))} numbers of latents, where four are needed, or rows without variance"
    law = []
    for name, unit, definition in (
        ("fvu_floor", "share of variance", f"floor of {of}"),
        ("fvu_exponent", "exponent", f"exponent of {of}"),
        ("dark_share", "share of what the best leaves unexplained", f"floor over the lowest FVU, of {of}"),
    ):
        value = float(_of_law(name, n_latents, found)[0])
        values = None if resampled is None else _of_law(name, n_latents, resampled)
        low, high = (None, None) if values is None else interval(values)
        is_known = not np.isnan(value)
        law.append(
            replace(
                fvus[0],
                name=name,
                unit=unit,
                definition=definition,
                value=value if is_known else None,
                low=low if is_known else None,
                high=high if is_known else None,
                undefined="" if is_known else why,
                replicates=values if is_known else None,
            )
        )
    return tuple(law)


def _of_law(name: str, n_latents: Float64, fvus: Float64) -> Float64:
    floor, _, exponent = fitted_floor(n_latents, fvus)
    match name:
        case "fvu_floor":
            return floor
        case "fvu_exponent":
            return exponent
        case _:
            return ratio(floor, fvus.min(1))


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
