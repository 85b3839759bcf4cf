"""Evaluated dictionaries of one place and several sizes: what more latents still explain, how latents split. From files alone.

FVUs of the same documents share their resamplings, so that the law through them has intervals without a row being read again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mohole.dictionary import NormalisedAutoencoder, SparseAutoencoder
from mohole.dictionary.files import open_dictionary
from mohole.metrics import Measure, Mmcs, children_by_cosine, mmcs
from mohole.metrics.growth import fitted_law

MOST_PAIRS = 1 << 28
"""Cosines that a comparison computes for one step of size: 16k latents among as many, some ten seconds on two cores."""


@dataclass(frozen=True)
class Size:
    """One dictionary of a family."""

    name: str
    n_latents: int
    l0: Measure
    fvu: Measure
    dictionary: Path | None
    """Its artifact, where it lies beside its evaluation and is what was evaluated."""


@dataclass(frozen=True)
class Step:
    """From one size to the next: the smaller one's latents, looked for among the larger one's. By decoder rows."""

    smaller: str
    larger: str
    cosine: Mmcs
    """forward: of the smaller one's latents; how the larger one's are found again is backward."""
    kept: int
    """Latents with one child: a cosine above 0.7 in the larger one."""
    split: int
    """Latents with two children or more."""
    n_latents: int


@dataclass(frozen=True)
class Growth:
    """A family, smallest first."""

    sizes: tuple[Size, ...]
    law: tuple[Measure, ...]
    """fvu_floor, fvu_exponent, dark_share; undefined with fewer than four sizes."""
    steps: tuple[Step, ...]
    """Only of autoencoders whose weights are there and few enough."""


def growth_of(sizes: Sequence[Size]) -> Growth | None:
    """None: not two sizes. All must be of the same documents and write the same places."""
    ordered = tuple(sorted(sizes, key=lambda size: (size.n_latents, size.name)))
    if len({size.n_latents for size in ordered}) < 2 or any(size.fvu.value is None for size in ordered):
        return None
    n_latents = np.array([size.n_latents for size in ordered], dtype=np.float64)
    return Growth(ordered, fitted_law(n_latents, [size.fvu for size in ordered]), _steps(ordered))


@lru_cache(maxsize=16)  # terminal, page and JSON show the same
def _steps(sizes: tuple[Size, ...]) -> tuple[Step, ...]:
    steps = []
    for one, other in pairwise(sizes):
        if one.n_latents < other.n_latents and one.n_latents * other.n_latents <= MOST_PAIRS:
            small, large = _directions(one), _directions(other)
            if small is not None and large is not None:
                parents = children_by_cosine(small, large)[:, 0]
                n_children = np.bincount(parents, minlength=one.n_latents)
                kept, split = int((n_children == 1).sum()), int((n_children > 1).sum())
                steps.append(Step(one.name, other.name, mmcs(small, large), kept, split, one.n_latents))
    return tuple(steps)


def _directions(size: Size) -> Float[Tensor, "latent d"] | None:
    """None: it is not there, or is of a kind that has no one direction for a latent."""
    found = None if size.dictionary is None else open_dictionary(size.dictionary)
    if not isinstance(found, SparseAutoencoder | NormalisedAutoencoder):
        return None
    directions: Tensor = found.directions(torch.arange(size.n_latents)).float()
    return directions
