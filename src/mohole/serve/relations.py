"""What stands near a feature and where it lies: neighbours, what fires together, families, the map.

A catalogue need not have them: this is the one place that asks whether it does.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Int32 = NDArray[np.int32]
Float32 = NDArray[np.float32]


def neighbours_of(feature: Any) -> tuple[tuple[int, float], ...]:
    """(latent, cosine) of the nearest decoder directions, nearest first."""
    return tuple(getattr(feature, "neighbours", ()))


def together_of(feature: Any) -> tuple[tuple[int, int, float], ...]:
    """(latent, tokens at which both fire, phi), strongest first."""
    return tuple(getattr(feature, "together", ()))


def family_of(feature: Any) -> int | None:
    """The feature's family."""
    family: int | None = getattr(feature, "family", None)
    return None if family is None or family < 0 else family


def families_of(catalogue: Any) -> Int32 | None:
    """Each latent's family, -1 for none; None: the catalogue has no families."""
    found = getattr(catalogue, "family", None)
    return None if found is None else np.asarray(found, dtype=np.int32)


def places_of(catalogue: Any) -> Float32 | None:
    """Each latent's place on the map, [latent, 2]; None: the catalogue has no map."""
    found = getattr(catalogue, "xy", None)
    return None if found is None else np.asarray(found, dtype=np.float32)
