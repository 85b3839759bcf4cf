"""What every kind of search gives: latents with a score and the reason, best first."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mohole.errors import ConfigError


@dataclass(frozen=True)
class Hit:
    """A latent that was found."""

    latent: int
    score: float
    """Larger is nearer; comparable within one answer only. Of a search by statistics: the number that it is sorted by."""
    why: str
    """In words: which label matched, or which text it fires on. Words of the texts in it are exact: make them visible to show."""


def best(scores: NDArray[np.floating], limit: int, why: Callable[[int], str]) -> list[Hit]:
    """The `limit` largest of `scores` (one for each latent) that are above 0, ties by latent.

    Raises:
        ConfigError: no room for a single hit.
    """
    check_limit(limit)
    found = np.flatnonzero(scores > 0)
    if len(found) > limit:  # all that tie with the last one stay, so that the sort below decides between them
        least = np.partition(scores[found], len(found) - limit)[len(found) - limit]
        found = found[scores[found] >= least]
    order = found[np.lexsort((found, -scores[found]))][:limit]
    return [Hit(int(latent), float(scores[latent]), why(int(latent))) for latent in order]


def check_limit(limit: int) -> None:
    """Raises: ConfigError: fewer than one hit is asked for."""
    if limit < 1:
        raise ConfigError(f"limit: {limit} is too small; at least 1")
