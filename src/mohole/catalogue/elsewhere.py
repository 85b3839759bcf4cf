"""A latent in another dictionary: its nearest decoder directions there, beside what chance gives, and how alike they fire.

One latent at a time, exact, for the cost of reading the other's directions once: what is asked for on demand. All pairs of two
dictionaries are metrics/matching.py's.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mohole.catalogue.catalogue import Catalogue
from mohole.catalogue.neighbours import error_bound, nearest_among
from mohole.metrics.matching import expected_max_cosine
from mohole.store.latent_index import Entries

Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]

_BLOCK_NUMBERS = 1 << 22
_SAFE_SQUARES = (1e-25, 1e30)
"""Between these the square of a row's length in float32 has not overflowed, and no part of it that counts has vanished."""
_MOST_ENTRIES = 1 << 22
"""Firings of the two latents together, above which their activations are not read: 80 MB."""


@dataclass(frozen=True, slots=True)
class Match:
    """A latent of another dictionary."""

    latent: int
    cosine: float
    """Of the two decoder directions."""
    correlation: float | None
    """Of the two activations over all tokens looked at, silence as 0 (Pearson). None: the catalogues are not of the same tokens,
    one of the two never fires, or they fire more often than is read on demand."""


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """What another dictionary has in place of a latent."""

    matches: tuple[Match, ...]
    """Nearest first. Empty where the latent's direction, or every other, has no length."""
    chance: float
    """Cosine of the nearest of as many random directions, on average: a match no better than this is none."""


def matches(
    catalogue: Catalogue,
    directions: Float32,
    latent: int,
    other: Catalogue,
    other_directions: Float32,
    *,
    n: int = 3,
) -> Elsewhere:
    """The latents of another dictionary whose decoder directions are nearest to one of this.

    Both dictionaries must write into the same space: the stream of one model, or of two that were one (before and after
    fine-tuning). Between unrelated models a cosine means nothing, and `chance` is what comes out.

    Args:
        directions: [latent, d] decoder rows, as of `dictionary.files.open_directions`.
        other_directions: [latent, d] of the other, of the same width.

    Raises:
        ValueError: directions of different widths. IndexError: no such latent.
    """
    if directions.shape[1] != other_directions.shape[1]:
        raise ValueError(
            f"directions of {directions.shape[1]} and of {other_directions.shape[1]} numbers are not compared"
        )
    if not 0 <= latent < len(directions):
        raise IndexError(f"latent {latent}: this dictionary has {len(directions)} (0-{len(directions) - 1})")
    latents, cosines, n_alive = nearest_to(directions[latent], other_directions, n)
    same = catalogue.looks_at_the_tokens_of(other)
    found = tuple(
        Match(each, cosine, _correlation(catalogue, latent, other, each) if same else None)
        for each, cosine in zip(latents.tolist(), cosines.tolist(), strict=True)
    )
    d = directions.shape[1]
    return Elsewhere(found, expected_max_cosine(d, n_alive) if d > 1 and n_alive else 0.0)


@torch.no_grad()
def nearest_to(direction: Float32, among: Float32, n: int) -> tuple[Int64, Float32, int]:
    """The n rows of largest cosine with a direction, nearest first, ties by place; their cosines; how many rows have length.

    The same numbers as `neighbours.nearest_among`, for a twentieth of its time where there is one row: a product in float32
    finds who may be near, and only those are measured. `among` may be mapped from a file: it is read once, a block at a time.
    """
    row = torch.from_numpy(np.array(direction, dtype=np.float32))
    near = np.empty(len(among), dtype=np.float32)
    unit, n_at_once = (row.double() / row.double().norm()).float().numpy(), max(1, _BLOCK_NUMBERS // max(1, len(row)))
    for low in range(0, len(among), n_at_once):
        near[low : low + n_at_once] = _guesses(np.asarray(among[low : low + n_at_once]), unit)
    n_alive = int((near > -np.inf).sum())
    if not np.isfinite(unit).all():  # the direction itself has no length
        return np.zeros(0, np.int64), np.zeros(0, np.float32), n_alive
    is_sure = np.isfinite(near)
    order = np.sort(near[is_sure])[::-1]
    least = order[n - 1] - 4 * error_bound(len(row)) if len(order) >= n > 0 else -np.inf
    maybe = np.flatnonzero((near >= least) & (near > -np.inf))
    places, cosines = np.zeros(0, np.int64), np.zeros(0, np.float32)
    for low in range(0, len(maybe), n_at_once):
        some = maybe[low : low + n_at_once]
        found, measured = nearest_among(row[None], torch.from_numpy(np.array(among[some], dtype=np.float32)), n)
        there = found[0] >= 0
        places = np.concatenate([places, some[found[0][there]]])
        cosines = np.concatenate([cosines, measured[0][there]])
        best = np.lexsort((places, -cosines))[:n]
        places, cosines = places[best], cosines[best]
    return places, cosines, n_alive


def _guesses(block: Float32, unit: Float32) -> Float32:
    """Cosines to within rounding; infinite where only measuring tells, minus infinite of rows that have no length."""
    with np.errstate(all="ignore"):
        squares = np.einsum("ij,ij->i", block, block)  # in one reading, with nothing made on the way
        guess = (block @ unit) / np.sqrt(squares)
    unsure = np.flatnonzero(~((squares > _SAFE_SQUARES[0]) & (squares < _SAFE_SQUARES[1])))
    rows = block[unsure]
    has_length = (rows != 0).any(axis=1) & np.isfinite(rows).all(axis=1)
    guess[unsure] = np.where(has_length, np.inf, -np.inf)
    return np.asarray(np.where(np.isnan(guess), np.float32(np.inf), guess), dtype=np.float32)


def correlation(one: Entries, other: Entries, n_tokens: int) -> float | None:
    """Pearson correlation of two latents' activations over `n_tokens` tokens, silence as 0. None: one of them is constant."""
    a, b = one.value.astype(np.float64), other.value.astype(np.float64)
    _, here, there = np.intersect1d(one.token, other.token, assume_unique=True, return_indices=True)
    covariance = n_tokens * (a[here] @ b[there]) - a.sum() * b.sum()
    spread = (n_tokens * (a @ a) - a.sum() ** 2) * (n_tokens * (b @ b) - b.sum() ** 2)
    return float(np.clip(covariance / np.sqrt(spread), -1, 1)) if spread > 0 else None


def _correlation(catalogue: Catalogue, latent: int, other: Catalogue, match: int) -> float | None:
    if int(catalogue.counts[latent]) + int(other.counts[match]) > _MOST_ENTRIES:
        return None
    return correlation(catalogue.entries(latent), other.entries(match), catalogue.n_tokens)
