"""Features by their numbers: how often they fire, how strongly, how well their label foretells it. Arrays in, hits out."""

from dataclasses import dataclass, fields
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float

from mohole.errors import ConfigError
from mohole.search.hits import Hit, check_limit

By = Literal["density", "maximum", "f1"]


@dataclass(frozen=True)
class Statistics:
    """What is known of each latent of a dictionary."""

    density: Float[np.ndarray, " latent"]
    """Share of tokens at which it fires; 0 is dead, and is not found."""
    maximum: Float[np.ndarray, " latent"]
    f1: Float[np.ndarray, " latent"]
    """Of its label; NaN where it has none that was scored."""


@dataclass(frozen=True)
class Bounds:
    """What a feature must have, ends included; None: anything. A feature without F1 passes no bound on it."""

    least_density: float | None = None
    most_density: float | None = None
    least_maximum: float | None = None
    most_maximum: float | None = None
    least_f1: float | None = None
    most_f1: float | None = None

    @property
    def is_any(self) -> bool:
        """Is there none?"""
        return all(getattr(self, field.name) is None for field in fields(self))


def by_statistics(
    statistics: Statistics, bounds: Bounds, limit: int, *, sort: By = "density", ascending: bool = False
) -> list[Hit]:
    """The first `limit` of the living features within the bounds, by one number, the largest first; ties by latent.

    A hit's score is that number; features without one come last, with score NaN.

    Raises:
        ConfigError: `limit` below 1; or bounds that nothing can be within.
    """
    check_limit(limit)
    passes = statistics.density > 0
    for name in get_args(By):
        column = getattr(statistics, name)
        least, most = getattr(bounds, f"least_{name}"), getattr(bounds, f"most_{name}")
        if least is not None and most is not None and least > most:
            raise ConfigError(f"{name}: at least {least:g} and at most {most:g}; give the smaller one as the least")
        if least is not None:
            passes = passes & (column >= least)
        if most is not None:
            passes = passes & (column <= most)
    found = np.flatnonzero(passes)
    values = getattr(statistics, sort)[found].astype(np.float64)
    order = np.lexsort((found, values if ascending else -values))[:limit]  # NaN goes last, either way
    return [
        Hit(latent, value, _why(statistics, latent))
        for latent, value in zip(found[order].tolist(), values[order].tolist(), strict=True)
    ]


def _why(statistics: Statistics, latent: int) -> str:
    f1 = float(statistics.f1[latent])
    score = "" if np.isnan(f1) else f", F1 {f1:.2f}"
    return (
        f"fires at {100 * statistics.density[latent]:.3g} % of tokens, at most {statistics.maximum[latent]:.3g}{score}"
    )
