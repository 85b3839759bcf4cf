"""Unit directions of features, as crowded as they should be.

How crowded is told by the overlap: the mean over features of the largest |cosine| with another one. N random directions in d
dimensions overlap by about sqrt(2 ln N / d).
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mohole import keys
from mohole.errors import ConfigError

_BLOCK = 1024
_MOST_STEPS = 400
_STEP = 0.1  # how far the most crowded direction moves in a step
_NEAR = 0.005


def directions(n: int, d: int, overlap: float | None, seed: int) -> Float[Tensor, "feature d"]:
    """N unit directions keyed by feature, with this overlap; None: as they fall.

    Raises:
        ConfigError: so many directions cannot lie so far apart.
    """
    drawn = _unit(torch.from_numpy(keys.normal(seed, keys.Use.FEATURE_DIRECTION, np.arange(n), d)))
    if overlap is None or n == 1:
        return drawn.float()
    found = mean_overlap(drawn)
    if overlap > found:
        return _paired(drawn, overlap).float()
    if overlap == 0.0 and n <= d:
        basis: Tensor = torch.linalg.qr(drawn.T)[0]
        return basis.T.contiguous().float()
    return _apart(drawn, overlap).float()


def mean_overlap(rows: Float[Tensor, "feature d"]) -> float:
    """Mean over features of the largest |cosine| with another."""
    largest = []
    for start in range(0, len(rows), _BLOCK):
        cosines = (rows[start : start + _BLOCK] @ rows.T).abs()
        cosines[torch.arange(len(cosines)), torch.arange(start, start + len(cosines))] = 0.0
        largest.append(cosines.max(dim=1).values)
    return float(torch.cat(largest).mean())


def _paired(drawn: Tensor, overlap: float) -> Tensor:
    """Every second feature turned towards the one before, until their cosine is the overlap."""
    result = drawn.clone()
    n = len(drawn) // 2 * 2
    first, second = drawn[0:n:2], drawn[1:n:2]
    across = _unit(second - (second * first).sum(1, keepdim=True) * first)
    result[1:n:2] = overlap * first + (1 - overlap**2) ** 0.5 * across
    return result


def _apart(drawn: Tensor, overlap: float) -> Tensor:
    """Descend on the sum of fourth powers of cosines, which its largest ones rule, until the overlap is reached."""
    rows = drawn
    for _ in range(_MOST_STEPS):
        if mean_overlap(rows) <= overlap:
            return rows
        push = torch.cat([_push(rows, start) for start in range(0, len(rows), _BLOCK)])
        push -= (push * rows).sum(1, keepdim=True) * rows
        rows = _unit(rows - _STEP / push.norm(dim=1).max().clamp_min(1e-12) * push)
    if mean_overlap(rows) > overlap + _NEAR:
        raise ConfigError(
            f"synthetic.overlap: {len(rows)} directions in {rows.shape[1]} dimensions came no nearer to {overlap:g} than "
            f"{mean_overlap(rows):.3f}; give more dimensions, fewer features or a larger overlap"
        )
    return rows


def _push(rows: Tensor, start: int) -> Tensor:
    cosines = rows[start : start + _BLOCK] @ rows.T
    cosines[torch.arange(len(cosines)), torch.arange(start, start + len(cosines))] = 0.0
    return cosines**3 @ rows


def _unit(rows: Tensor) -> Tensor:
    result: Tensor = rows / rows.norm(dim=1, keepdim=True)
    return result
