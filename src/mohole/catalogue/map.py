"""A map of all features: places in the plane, near for those whose directions are near. From the neighbour graph; no files.

The loss of UMAP (McInnes et al. 2018, arXiv 1802.03426) with the kernel 1 / (1 + distance^2) of t-SNE: the graph's edges pull,
keyed random pairs push. All points move at once, by Adam (as in PaCMAP, Wang et al. 2021): steps are then bounded whatever
the forces, and a sum has one order. Only + - * / and sqrt between numbers, so the bytes are those of the seed; the product
behind the start, whose rounding depends on threads, is rounded to steps far coarser than its error.
"""

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from mohole import keys
from mohole.kernels import HAS_NUMBA

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

RIM = 1.1
"""Where the ring of features without neighbours begins; the others lie within 1 of the centre."""
_RIM_WIDTH = 0.1
_PUSHES = 5  # random pairs for each point and epoch, as in UMAP
_CLOSEST = 0.01  # added to a squared distance, so that a push is finite
_WEAKEST = 0.1  # weight of a list's last neighbour, of its first
_START_ROUNDS = 8
_START_SPREAD = 5.0
_START_STEPS = 1 << 12
_RATE = 1.0
_GOLDEN_ANGLE = np.pi * (3.0 - 5.0**0.5)
_BLOCK_ROWS = 8192


@torch.no_grad()
def place(
    neighbours: Int32,
    cosines: Float32,
    directions: Float[Tensor, "latent d"],
    *,
    seed: int,
    epochs: int = 300,
) -> Float32:
    """A place in the plane [latent, 2] for each latent: in the unit disc, or on the rim outside it.

    On the rim, evenly spread from radius 1.1 to 1.2 in the order of latents: those with no neighbour and nobody's neighbour,
    which are dead, without length, or like no other. Only which features are near each other means anything; not the axes, nor
    the distances of far ones. Time and memory are linear in latents: of 15 neighbours and 300 epochs one core
    takes 0.3 s for 2000 of them, 3.3 s for 16k, 28 s for 100k.

    Args:
        neighbours: [latent, n] as of `neighbours.nearest`, -1 where there is none.
        cosines: theirs; only positive ones pull, the list's first most.
    """
    n_latents = len(neighbours)
    one, other, weights = _edges(neighbours, cosines)
    living = np.unique(one)
    places = np.empty((n_latents, 2))
    rim = np.setdiff1d(np.arange(n_latents), living)
    places[rim] = _ring(len(rim))
    if len(living):
        number = np.zeros(n_latents, np.int64)
        number[living] = np.arange(len(living))
        start = _start(directions, living, seed)
        places[living] = _into_disc(_settle(start, number[one], number[other], weights, seed, epochs))
    return places.astype(np.float32)


def _edges(neighbours: Int32, cosines: Float32) -> tuple[Int64, Int64, Float64]:
    """The graph, each edge from both its ends, by first end: ends and weights in (0, 1].

    A weight is the cosine between the last (0.1) and the first (1) of a latent's list, so that crowded and lonely latents are
    held alike; an edge in two lists has a + b - a b.
    """
    n_latents, n = neighbours.shape
    one, other = np.repeat(np.arange(n_latents), n), neighbours.astype(np.int64).ravel()
    cosine = cosines.astype(np.float64).ravel()
    pulls = (other >= 0) & (other < n_latents) & (other != one) & (cosine > 0)  # a NaN is not above 0
    one, other, cosine = one[pulls], other[pulls], np.minimum(cosine[pulls], 1.0)
    first, last = np.zeros(n_latents), np.full(n_latents, 2.0)
    np.maximum.at(first, one, cosine)
    np.minimum.at(last, one, cosine)
    span = first[one] - last[one]
    share = np.divide(cosine - last[one], span, out=np.ones(len(one)), where=span > 0)
    weights = _WEAKEST + (1 - _WEAKEST) * share
    _, once = np.unique(one * n_latents + other, return_index=True)
    one, other, weights = one[once], other[once], weights[once]
    pairs, which = np.unique(np.minimum(one, other) * n_latents + np.maximum(one, other), return_inverse=True)
    sums, squares = (np.bincount(which, weights**power, minlength=len(pairs)) for power in (1, 2))
    both = sums - (sums * sums - squares) / 2
    low, high = pairs // max(n_latents, 1), pairs % max(n_latents, 1)
    order = np.argsort(np.concatenate([low, high]), kind="stable")
    return (
        np.concatenate([low, high])[order],
        np.concatenate([high, low])[order],
        np.concatenate([both, both])[order],
    )


def _start(directions: Tensor, living: Int64, seed: int) -> Float64:
    """The plane of the directions' two largest principal components, nearly: a fixed number of rounds from a keyed plane.

    Not an eigenvalue routine: where components are equally large, as in dictionaries they nearly are, its answer hangs on the
    last bit, and this one does not. A keyed step apart, so that equal directions can part.
    """
    d = directions.shape[1]
    plane = keys.uniform(seed, keys.Use.MAP_START, np.repeat(np.arange(d), 2), np.tile(np.arange(2), d)).reshape(d, 2)
    plane -= 0.5
    blocks = [living[low : low + _BLOCK_ROWS] for low in range(0, len(living), _BLOCK_ROWS)]
    mean = sum((_units(directions, block).sum(0) for block in blocks), np.zeros(d)) / len(living)
    places = np.zeros((len(living), 2))
    for _ in range(_START_ROUNDS):
        plane = _orthonormal(plane)
        places = np.concatenate([(_units(directions, block) - mean) @ plane for block in blocks])
        plane = sum(
            (
                (_units(directions, block) - mean).T @ places[low * _BLOCK_ROWS : low * _BLOCK_ROWS + len(block)]
                for low, block in enumerate(blocks)
            ),
            np.zeros((d, 2)),
        )
    largest = np.abs(places).max(initial=0.0)
    places = np.rint(places / (largest if largest > 0 else 1.0) * _START_STEPS) / _START_STEPS
    apart = keys.uniform(seed, keys.Use.MAP_START, np.repeat(living + d, 2), np.tile(np.arange(2), len(living)))
    return np.asarray(2 * _START_SPREAD * (places + (apart.reshape(-1, 2) - 0.5) / 64))


def _units(directions: Tensor, latents: Int64) -> Float64:
    """Rows of length one, float64; zeros where there is no length or no number."""
    rows = directions[torch.from_numpy(latents)].double().cpu().numpy()
    largest = np.abs(rows).max(1, initial=0.0)
    sound = np.isfinite(largest) & (largest > 0)
    rows = np.where(sound[:, None], rows, 0.0) / np.where(sound, largest, 1.0)[:, None]
    return np.asarray(rows / np.maximum(np.sqrt((rows * rows).sum(1)), 0.5)[:, None])


def _orthonormal(plane: Float64) -> Float64:
    """Two columns at right angles, of length one; a column of zeros stays one."""
    one = plane[:, 0] / max(float(np.sqrt(plane[:, 0] @ plane[:, 0])), 1e-300)
    other = plane[:, 1] - one * (one @ plane[:, 1])
    return np.stack([one, other / max(float(np.sqrt(other @ other)), 1e-300)], axis=1)


def _settle(start: Float64, one: Int64, other: Int64, weights: Float64, seed: int, epochs: int) -> Float64:
    """Move all points at once: each by the mean pull of its edges and the pushes of a few random others."""
    n = len(start)
    share = weights / np.bincount(one, weights, minlength=n)[one]
    here = np.ascontiguousarray(start.T)
    mean, square = np.zeros_like(here), np.zeros_like(here)
    mean_scale = square_scale = 1.0
    for epoch in range(epochs):
        random = keys.stream(seed, keys.Use.MAP_SAMPLE, epoch, n * _PUSHES).reshape(n, _PUSHES)
        force = _forces(here, one, other, share, random)
        mean = 0.9 * mean + 0.1 * force
        square = 0.999 * square + 0.001 * force * force
        mean_scale, square_scale = 0.9 * mean_scale, 0.999 * square_scale
        rate = _RATE * (1 - epoch / epochs) / (1 - mean_scale)
        here = here - rate * mean / (np.sqrt(square / (1 - square_scale)) + 1e-8)
    return np.ascontiguousarray(here.T)


def _forces(here: Float64, one: Int64, other: Int64, share: Float64, random: NDArray[np.uint64]) -> Float64:
    """What pulls and pushes each point [2, point]; `random` [point, push] are words, whose remainders are points."""
    n, force = here.shape[1], np.empty_like(here)
    if HAS_NUMBA:
        from mohole.catalogue.map_compiled import forces  # numba takes 0.3 s to import

        forces(here, one, other, share, random, np.uint64(n), _CLOSEST, force)
        return force
    apart = here[:, one] - here[:, other]
    pull = share / (1 + apart[0] * apart[0] + apart[1] * apart[1])
    away = here[:, :, None] - here[:, (random % np.uint64(n)).astype(np.int64)]
    distance = away[0] * away[0] + away[1] * away[1]
    push = 1 / ((_CLOSEST + distance) * (1 + distance))
    for axis in (0, 1):
        force[axis] = np.bincount(one, pull * apart[axis], minlength=n)
        pushes = push * away[axis]
        for number in range(_PUSHES):
            force[axis] -= pushes[:, number]
    return force


def _into_disc(places: Float64) -> Float64:
    """Moved and scaled so that the farthest is at 1."""
    places = places - (places.max(0) + places.min(0)) / 2
    radius = np.sqrt((places * places).sum(1).max())
    return np.asarray(places / radius) if radius > 0 else places


def _ring(n: int) -> Float64:
    """n places outside the disc, no two alike."""
    number = np.arange(n)
    angle, radius = number * _GOLDEN_ANGLE, RIM + _RIM_WIDTH * (number + 0.5) / max(n, 1)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
