"""Each latent's nearest latents by cosine of their directions: exact, and the same bytes however the work is cut. No files.

A float32 product in blocks finds who may be near, and only those few are measured. The product's rounding depends on the
shape of its blocks, so it decides nothing: whoever it puts within its error of the n-th is measured too, in float64, by sums
in one fixed order of single operations, which no blocking, thread or processor changes.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from mohole.catalogue.statistics import rank_in_group

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]

_BLOCK_NUMBERS = 1 << 23
"""What a block of cosines and the rows it is made of hold at once, in numbers of float32."""
_MOST_COLUMNS = 4096
_MEASURED_NUMBERS = 1 << 17  # a megabyte of float64: stays in the cache
_UNIT = 2.0**-24  # rounding to float32, relative
_COARSE = 2.0**-7  # where torch may round the factors of a product to bfloat16


@torch.no_grad()
def nearest(
    directions: Float[Tensor, "latent d"], first: int, last: int, n: int, *, block_numbers: int = _BLOCK_NUMBERS
) -> tuple[Int32, Float32]:
    """The n other latents of largest cosine with each of the latents [first, last), nearest first: [last - first, n] both.

    The order is that of the float32 cosines returned; of equal ones the smaller latent comes first. The sign counts: -1 is far
    away. Directions are read as float32. One without length, or not finite, is nobody's neighbour and has none. Places that
    cannot be filled hold latent -1 and cosine 0.

    Time is that of the product, 2 d (last - first) latents operations; memory that of `directions`, one number for each
    latent, and a few times `block_numbers`.
    """
    return _search(directions, directions, first, last, n, block_numbers, apart=True)


@torch.no_grad()
def nearest_among(
    rows: Float[Tensor, "row d"],
    directions: Float[Tensor, "latent d"],
    n: int,
    *,
    block_numbers: int = _BLOCK_NUMBERS,
) -> tuple[Int32, Float32]:
    """As `nearest`, for rows that are not latents themselves: another dictionary's directions, or any vectors. [row, n] both."""
    return _search(rows, directions, 0, len(rows), n, block_numbers, apart=False)


def _search(
    rows: Tensor, among: Tensor, first: int, last: int, n: int, block_numbers: int, *, apart: bool
) -> tuple[Int32, Float32]:
    d = rows.shape[1]
    n_columns = max(1, min(_MOST_COLUMNS, block_numbers // (4 * max(d, 1))))
    n_rows = max(1, block_numbers // (2 * (n_columns + d)))
    lengths = _lengths(among, n_columns)
    own_lengths = lengths[first:last] if apart else _lengths(rows, n_columns)
    if last <= first:
        return np.zeros((0, n), np.int32), np.zeros((0, n), np.float32)
    alive = (lengths > 0).nonzero()[:, 0]
    found = []
    for low in range(first, last, n_rows):
        part = torch.arange(low, min(low + n_rows, last), device=rows.device)
        found.append(_of_rows(rows, part, own_lengths[part - first], among, lengths, alive, n, n_columns, apart))
    return np.concatenate([latents for latents, _ in found]), np.concatenate([cosines for _, cosines in found])


def _of_rows(
    rows: Tensor,
    part: Tensor,
    own_lengths: Tensor,
    among: Tensor,
    lengths: Tensor,
    alive: Tensor,
    n: int,
    n_columns: int,
    apart: bool,
) -> tuple[Int32, Float32]:
    """A block of rows against all living columns, a block at a time."""
    latents, cosines = np.full((len(part), n), -1, np.int32), np.zeros((len(part), n), np.float32)
    if n == 0:
        return latents, cosines
    units = _units(rows[part], own_lengths)
    error = error_bound(rows.shape[1])
    has_length = (own_lengths > 0).cpu().numpy()
    least = np.where(has_length, np.float32(-2), np.float32(np.inf))  # what a product must reach to be looked at
    waiting = _Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))
    for low in range(0, len(alive), n_columns):
        columns = alive[low : low + n_columns]
        product = units @ _units(among[columns], lengths[columns]).T
        if apart:
            _blot_out(product, part, columns)
        if low == 0 and len(columns) >= n:
            sure = product.topk(n, dim=1).values[:, -1].cpu().numpy() - np.float32(2 * error)
            least = np.maximum(least, sure)
        row, column = (product >= torch.from_numpy(least).to(product.device)[:, None]).nonzero().unbind(1)
        new = _Pairs(row.cpu().numpy(), columns[column].cpu().numpy(), product[row, column].cpu().numpy())
        waiting = waiting.and_also(new).in_order()
        nth, sure = waiting.nth(n)
        least[nth] = np.maximum(least[nth], sure - np.float32(2 * error))  # n are above it, so the best are
        waiting = waiting.at(waiting.values >= least[waiting.rows])
        if len(waiting.rows) > 4 * n * len(part) + n_columns:  # many alike: they are measured before there are more
            _measure_and_keep(latents, cosines, waiting, rows, part, own_lengths, among, lengths)
            waiting = waiting.at(np.zeros(0, np.int64))
            full = latents[:, -1] >= 0
            least[full] = np.maximum(least[full], cosines[full, -1] - np.float32(error))
            least[full & (cosines[:, -1] >= 1)] = np.inf  # later ones can only be equal, and lose
    _measure_and_keep(latents, cosines, waiting, rows, part, own_lengths, among, lengths)
    return latents, cosines


def _blot_out(product: Tensor, part: Tensor, columns: Tensor) -> None:
    """A latent is no neighbour of itself."""
    place = torch.searchsorted(columns, part).clamp_(max=len(columns) - 1)
    itself = (columns[place] == part).nonzero()[:, 0]
    product[itself, place[itself]] = -torch.inf


@dataclass(frozen=True)
class _Pairs:
    """Pairs of a row (of a block) and a latent, with a number each."""

    rows: Int64
    latents: Int64
    values: Float32

    def at(self, places: NDArray[Any]) -> "_Pairs":
        return _Pairs(self.rows[places], self.latents[places], self.values[places])

    def and_also(self, other: "_Pairs") -> "_Pairs":
        return _Pairs(
            np.concatenate([self.rows, other.rows]),
            np.concatenate([self.latents, other.latents]),
            np.concatenate([self.values, other.values]),
        )

    def in_order(self) -> "_Pairs":
        """By row, then largest value, then smallest latent."""
        return self.at(np.lexsort((self.latents, -self.values, self.rows)))

    def nth(self, n: int) -> tuple[Int64, Float32]:
        """Of pairs in order: the rows that have n, and the n-th value of each."""
        last = rank_in_group(self.rows) == n - 1
        return self.rows[last], self.values[last]


def error_bound(d: int) -> float:
    """What a float32 product of unit rows may be wrong by, with what rounding the true cosine to float32 may hide.

    d + 1 roundings of partial sums no larger than sum |a b| <= 1 (Higham 2002, section 3.1), and a few for the factors.
    """
    rounding = (d + 8) * _UNIT
    return rounding if torch.get_float32_matmul_precision() == "highest" else rounding + _COARSE


def _measure_and_keep(
    latents: Int32,
    cosines: Float32,
    pairs: _Pairs,
    rows: Tensor,
    part: Tensor,
    own_lengths: Tensor,
    among: Tensor,
    lengths: Tensor,
) -> None:
    """Measure the pairs, and leave the n best of them and of those kept before in `latents` and `cosines`."""
    measured = _measure(pairs, rows, part, own_lengths, among, lengths)
    row, place = np.nonzero(latents >= 0)
    kept = _Pairs(row, latents[row, place].astype(np.int64), cosines[row, place])
    both = kept.and_also(_Pairs(pairs.rows, pairs.latents, measured)).in_order()
    rank = rank_in_group(both.rows)
    best = rank < latents.shape[1]
    latents[both.rows[best], rank[best]] = both.latents[best]
    cosines[both.rows[best], rank[best]] = both.values[best]


def _measure(pairs: _Pairs, rows: Tensor, part: Tensor, own_lengths: Tensor, among: Tensor, lengths: Tensor) -> Float32:
    """The cosine of each pair as float32. Products of float32 are exact in float64; d alone decides the order of the sum."""
    measured = np.empty(len(pairs.rows), np.float32)
    n_at_once = max(1, _MEASURED_NUMBERS // max(rows.shape[1], 1))
    for low in range(0, len(measured), n_at_once):
        here = torch.from_numpy(pairs.rows[low : low + n_at_once]).to(rows.device)
        there = torch.from_numpy(pairs.latents[low : low + n_at_once]).to(rows.device)
        products = rows[part[here]].float().double() * among[there].float().double()
        cosine = _sum(products) / (own_lengths[here] * lengths[there])
        measured[low : low + n_at_once] = cosine.float().cpu().numpy()
    return measured


def _lengths(rows: Tensor, n_at_once: int) -> Tensor:
    """Length of each row in float64; 0 for one that is not finite."""
    lengths = torch.zeros(len(rows), dtype=torch.float64, device=rows.device)
    for low in range(0, len(rows), n_at_once):
        lengths[low : low + n_at_once] = _sum(rows[low : low + n_at_once].float().double().square()).sqrt()
    return torch.where(lengths.isfinite(), lengths, 0.0)


def _units(rows: Tensor, lengths: Tensor) -> Tensor:
    """Rows of length 1 in float32, for looking and not for measuring; zeros where there is no length."""
    unit = (rows.float().double() / torch.where(lengths > 0, lengths, torch.inf)[:, None]).float()
    return unit.masked_fill_((lengths == 0)[:, None], 0.0)


def _sum(rows: Tensor) -> Tensor:
    """Sum of each row [n, d], by halves: single additions of numbers, whose order d alone decides. Overwrites `rows`."""
    width = rows.shape[1]
    if width == 0:
        return rows.sum(1)
    while width > 1:
        half = math.ceil(width / 2)
        rows[:, : width - half] += rows[:, half:width]
        width = half
    return rows[:, 0]
