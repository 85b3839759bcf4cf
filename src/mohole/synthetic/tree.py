"""Which feature is whose parent, and the chances at which features are drawn so that they fire as often as they should."""

import numpy as np
from numpy.typing import NDArray

from mohole.config import Synthetic

Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]


def parents(settings: Synthetic) -> Int64:
    """The parent of each feature, -1 for roots and for features that stand alone.

    Features take their places by number, level after level: first the roots, then the first root's children, and so on. So a
    parent always has a lower number than its children, and fires more often.
    """
    result = np.full(settings.n_features, -1, dtype=np.int64)
    level = np.arange(min(settings.roots, settings.n_features))
    used = len(level)
    for _ in range(settings.depth):
        children = np.arange(used, min(used + len(level) * settings.branching, settings.n_features))
        result[children] = level[(children - used) // settings.branching]
        used, level = used + len(children), children
    return result


def levels(parent: Int64) -> list[Int64]:
    """Features with a parent, by their depth: the children of roots first."""
    depth = np.zeros(len(parent), dtype=np.int64)
    for feature in np.flatnonzero(parent >= 0):  # parents have lower numbers
        depth[feature] = depth[parent[feature]] + 1
    return [np.flatnonzero(depth == below) for below in range(1, int(depth.max(initial=0)) + 1)]


def chances(settings: Synthetic) -> Float64:
    """How often each feature should fire: falling as rank^-zipf from the highest to the lowest chance."""
    power = np.arange(1, settings.n_features + 1) ** -settings.zipf
    if settings.n_features == 1:
        return np.array([settings.highest_chance])
    share = (power - power[-1]) / (power[0] - power[-1])
    return np.asarray(settings.lowest_chance + (settings.highest_chance - settings.lowest_chance) * share)


def drawn_chances(wanted: Float64, parent: Int64, *, exclusive: bool) -> Float64:
    """The chance at which each feature is drawn, before a silent parent or a sibling silences it.

    A child is drawn at wanted / parent's wanted; among exclusive siblings at 1 + (sum of the others' wanted) / parent's wanted
    times that, which makes up for most of what they take from each other. At most 1. As SynthSAEBench does it, so the rates
    that result are near the wanted ones, not equal to them.
    """
    result = wanted.copy()
    children = np.flatnonzero(parent >= 0)
    of_parent = wanted[parent[children]]
    result[children] /= of_parent
    if exclusive:
        together = np.bincount(parent[children], weights=wanted[children], minlength=len(parent))
        others = np.maximum(together[parent[children]] - wanted[children], 0.0)
        result[children] *= 1.0 + others / of_parent
    return np.minimum(result, 1.0)
