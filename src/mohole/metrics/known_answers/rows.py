"""Rows whose mean and variance are known, to ask definitions about. Float64, the same on every machine."""

import math

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from mohole.metrics.definitions import Definitions
from mohole.metrics.reconstruction import Reconstruction

Int64 = NDArray[np.int64]

ALL = np.ones((1, 1))
"""Weights that count one document once."""


def waves(n: int, d: int, *, mean: float = 0.0) -> Float[Tensor, "n d"]:
    """Rows with mean `mean` and covariance the identity, to rounding: cosines of d different whole frequencies, times sqrt 2."""
    if 2 * d >= n:
        raise ValueError(f"waves: {n} rows carry fewer than {d} independent ones")
    angle = (
        2 * math.pi * torch.arange(n, dtype=torch.float64)[:, None] * torch.arange(1, d + 1, dtype=torch.float64) / n
    )
    return math.sqrt(2) * torch.cos(angle) + mean


def quadratures(n: int, d: int) -> Float[Tensor, "n d"]:
    """Like `waves`, of mean zero, and uncorrelated with every one of them: the sines of the same frequencies."""
    angle = (
        2 * math.pi * torch.arange(n, dtype=torch.float64)[:, None] * torch.arange(1, d + 1, dtype=torch.float64) / n
    )
    return math.sqrt(2) * torch.sin(angle)


def turn(d: int) -> Float[Tensor, "d d"]:
    """A rotation that mixes every coordinate with every other."""
    mixed = torch.cos(torch.arange(d * d, dtype=torch.float64).reshape(d, d) ** 1.3)
    rotation: Tensor = torch.linalg.qr(mixed)[0]
    return rotation


def rebuilt(
    definitions: Definitions,
    target: Tensor,
    output: Tensor,
    *,
    batch: int | None = None,
    documents: Int64 | None = None,
) -> Reconstruction:
    """The sums of target and output rows, added in batches; all of one document unless said otherwise."""
    sums = definitions.reconstruction()
    documents = np.zeros(len(target), dtype=np.int64) if documents is None else documents
    for first in range(0, len(target), batch or len(target)):
        part = slice(first, first + (batch or len(target)))
        sums.add(target[part], output[part], documents[part])
    return sums
