"""The kernels on a CPU: torch's products, and numba's loops for what torch has no operator for. Same names and laws as `plain`.

Axes: B batch rows, L latents, N kept pairs, D width read, E width written, S sources.
No [B, L] tensor is kept: the encoder's product is made a tile of latents at a time, and only candidates outlive the tile.
Sums run in an order that depends on shapes alone, so results do not depend on the number of threads.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from mohole.kernels import loops
from mohole.kernels.pairs import AdamStep, Backward, ByLatent, Moving, Pairs, TooManyError, best, side_by_side

# Fewer latents cost more of MKL's overhead, more leave the cache: 512 x 2048 rows, of one whole product: 1.07 at 256,
# 0.96-1.03 from 1024 to 4096.
_TILE_LATENTS = 2048
_OTHER_LATENTS = (1024, 4096)
"""That `tuning` tries beside them."""
_TILE_NUMBERS = 1 << 23
MULTIPLIES_BFLOAT16 = False
_BLOCK_LATENTS = 512
"""Latents that `weighted_sum` takes in one go: fixed, so that the sum's order is."""
_SPARE = 64
_ROOM = 64
_HELD_BYTES = 1 << 21
"""Of decoder rows that stay in the second cache while rows of the batch pass by: 8192 latents, 133 pairs a row, decoded at once
cost 0.22 products, in blocks of 2 MB 0.13, of 512 KB 0.15."""
_PAIRS_OF_BLOCK = 4
"""That a row has in a block, at least: with fewer it is read more often than they save."""


class Scratch:
    """Memory for one encoding at a time, kept between batches: fresh memory costs a page fault for every 4 KB. And its tile."""

    def __init__(self, tile: int = _TILE_LATENTS) -> None:
        self.tile = tile
        self.room = _ROOM
        """Entries above their limits that a row may have. Grows."""
        self._held: dict[str, Tensor] = {}

    def __call__(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A tensor of this shape, of any content."""
        n = int(np.prod(shape))
        held = self._held.get(name)
        if held is None or held.dtype != dtype or held.numel() < n:
            self._held[name] = held = torch.empty(n, dtype=dtype)
        return held[:n].view(shape)


def top_k(
    rows: Float[Tensor, "B D"],
    W_enc: Float[Tensor, "L D"],
    b_enc: Float[Tensor, " L"],
    k: int,
    scratch: Scratch | None = None,
) -> Pairs:
    """Each row's k largest positive pre-activations, or all where there are fewer; among equals the lower latent is kept."""
    scratch, n_rows = scratch or Scratch(), len(rows)
    room = 3 * k + _SPARE
    values = scratch("values", (n_rows, room), rows.dtype).numpy()
    latents = scratch("latents", (n_rows, room), torch.int32).numpy()
    thresholds, counts = np.zeros(n_rows, values.dtype), np.zeros(n_rows, np.int64)
    bias = b_enc.numpy()
    for first, last, tile in _tiles(rows, W_enc, scratch):
        pre, offset = tile.numpy(), bias[first:last]
        if first == 0:
            over(n_rows, loops.first_thresholds, pre, offset, k, thresholds)
        over(n_rows, loops.absorb_top, pre, offset, first, k, thresholds, values, latents, counts)
    over(n_rows, loops.finish_top, k, values, latents, counts)
    starts = np.concatenate([[0], counts.cumsum()])
    kept_values, kept_latents = np.empty(starts[-1], values.dtype), np.empty(starts[-1], np.int32)
    over(n_rows, loops.pack, values, latents, starts, kept_values, kept_latents)
    return _pairs(starts, kept_latents, kept_values)


def batch_top(
    rows: Float[Tensor, "B D"],
    W_enc: Float[Tensor, "L D"],
    b_enc: Float[Tensor, " L"],
    n: int,
    scratch: Scratch | None = None,
) -> Pairs:
    """The batch's n largest positive pre-activations; among equals the lower row, then the lower latent is kept."""
    scratch, n_latents = scratch or Scratch(), len(W_enc)
    limit, bias = np.zeros(n_latents, W_enc.numpy().dtype), b_enc.numpy()
    held: list[Pairs] = []
    found = _Above(rows, scratch)
    for first, last, tile in _tiles(rows, W_enc, scratch):
        found.add(tile.numpy(), bias[first:last], limit[first:last], first)
        n_held = found.n + sum(len(pairs.latents) for pairs in held)
        if n_held > 2 * n or (last == n_latents and n_held > n):
            kept = best(side_by_side([*held, found.taken()]), n)
            limit[:] = np.nextafter(
                kept.values.min().numpy(), -np.inf
            )  # equals in higher latents may stand in lower rows
            held = [kept]
    return side_by_side([*held, found.taken()])


def above(
    rows: Float[Tensor, "B D"],
    W_enc: Float[Tensor, "L D"],
    b_enc: Float[Tensor, " L"],
    thresholds: Float[Tensor, " L"],
    scratch: Scratch | None = None,
    most: int | None = None,
) -> Pairs:
    """All pre-activations that exceed their latent's threshold.

    Raises:
        TooManyError: more than `most`.
    """
    scratch, bias, limits = scratch or Scratch(), b_enc.numpy(), thresholds.numpy()
    found = _Above(rows, scratch)
    for first, last, tile in _tiles(rows, W_enc, scratch):
        found.add(tile.numpy(), bias[first:last], limits[first:last], first, most)
    return found.taken()


def decode(
    pairs: Pairs, values: Float[Tensor, " N"], W_dec: Float[Tensor, "L E"], out: Float[Tensor, "B E"]
) -> Float[Tensor, "B E"]:
    """Add each row's decoder directions, weighted by its values, to `out`."""
    arrays = pairs.row_starts.numpy(), pairs.latents.numpy(), values.numpy(), W_dec.numpy(), out.numpy()
    over(len(out), loops.decode_rows, *arrays, _latents_held(pairs, W_dec))
    return out


def dots(
    pairs: Pairs, sources: Float[Tensor, "S B E"], source_of: UInt8[Tensor, " L"], W_dec: Float[Tensor, "L E"]
) -> Float[Tensor, " N"]:
    """For each pair: its latent's source, at its row, along its decoder direction."""
    found = torch.empty(len(pairs.latents), dtype=W_dec.dtype)
    arrays = pairs.row_starts.numpy(), pairs.latents.numpy(), sources.numpy(), source_of.numpy(), W_dec.numpy()
    over(len(pairs.row_starts) - 1, loops.dot_rows, *arrays, found.numpy(), _latents_held(pairs, W_dec))
    return found


def by_latent(pairs: Pairs, n_latents: int, which: Bool[Tensor, " N"] | None = None) -> ByLatent:
    """The pairs in the order of latents: all, or those that are wanted."""
    n = len(pairs.latents)
    starts, order, rows = np.zeros(n_latents + 1, np.int64), np.empty(n, np.int32), np.empty(n, np.int32)
    wanted = np.empty(0, np.bool_) if which is None or not n else which.numpy()
    n = loops.sort_by_latent(pairs.row_starts.numpy(), pairs.latents.numpy(), wanted, starts, order, rows)
    return ByLatent(torch.from_numpy(starts), torch.from_numpy(order[:n]), torch.from_numpy(rows[:n]))


def sums_by_latent(pairs: Pairs, per_pair: Sequence[Float[Tensor, " N"]], n_latents: int) -> list[Float[Tensor, " L"]]:
    """For each latent, the sum over its pairs, in double and in the order of rows: of each of several numbers that pairs have."""
    found = []
    for numbers in per_pair:
        sums = np.zeros(n_latents)
        loops.sum_by_latent(pairs.latents.numpy(), numbers.numpy(), sums)
        found.append(torch.from_numpy(sums).to(numbers.dtype))
    return found


def gradients(
    back: Backward, W_dec: Float[Tensor, "L E"], first: int = 0, last: int | None = None
) -> tuple[Float[Tensor, "slab D"], Float[Tensor, "slab E"]]:
    """The gradients of W_enc and W_dec as tensors, of all latents or of a range of them."""
    n = (len(W_dec) if last is None else last) - first
    d_enc = torch.empty(n, back.read.shape[1], dtype=W_dec.dtype)
    d_dec = torch.empty(n, W_dec.shape[1], dtype=W_dec.dtype)
    arrays, matrix, squares = _arrays(back), W_dec.numpy(), np.empty(len(W_dec), W_dec.numpy().dtype)

    def sums(low: int, high: int) -> None:
        enc, dec = d_enc.numpy()[low:high], d_dec.numpy()[low:high]
        loops.sum_gradients(*arrays, matrix, back.is_unit, enc, dec, squares, first + low, first + high)

    _in_ranges(n, sums)
    return d_enc, d_dec


def squared_lengths(back: Backward, W_dec: Float[Tensor, "L E"]) -> Float[Tensor, " L"]:
    """The squared length of each latent's gradients, both rows together. No gradient is kept."""
    squares = torch.empty(len(W_dec), dtype=W_dec.dtype)
    arrays, matrix, found = _arrays(back), W_dec.numpy(), squares.numpy()

    def lengths(low: int, high: int) -> None:
        enc = np.empty((1, back.read.shape[1]), matrix.dtype)
        loops.sum_gradients(
            *arrays, matrix, back.is_unit, enc, np.empty((1, matrix.shape[1]), matrix.dtype), found, low, high
        )

    _in_ranges(len(W_dec), lengths)
    return squares


def squares_at_most(back: Backward) -> Float[Tensor, " L"]:
    """What `squared_lengths` cannot exceed, however its sums are rounded, at a twentieth of its price. In double."""
    pairs, squares = back.by_latent, np.empty(len(back.norm_gradient))
    tensors = pairs.starts, pairs.order, pairs.rows, back.d_product, back.values, *back.lengths(), back.source_of
    arrays = [tensor.numpy() for tensor in (*tensors, back.pulls())]
    over(len(squares), loops.bound_squares, *arrays, squares)
    return torch.from_numpy(squares) * back.rounding


def adam(
    back: Backward, encoder: Moving, decoder: Moving, step: AdamStep, *, shrink: float = 1.0
) -> Float[Tensor, " L"]:
    """Move both matrices by their gradients times `shrink`, without a gradient tensor. Returns what `squared_lengths` does."""
    squares = torch.empty(len(encoder.weight), dtype=encoder.weight.dtype)
    matrices = [
        tensor.numpy() for moving in (encoder, decoder) for tensor in (moving.weight, moving.mean, moving.square)
    ]
    numbers = (step.beta1, step.beta2, step.step_size, step.root_scale, step.epsilon)
    arrays, factor = _arrays(back), matrices[0].dtype.type(shrink)
    over(len(squares), loops.adam_latents, *arrays, factor, back.is_unit, *matrices, squares.numpy(), *numbers)
    return squares


def weighted_sum(weights: Float[Tensor, " L"], matrix: Float[Tensor, "L D"]) -> Float[Tensor, " D"]:
    """weights @ matrix, in an order of sums that does not depend on the number of threads."""
    n_blocks = -(-len(matrix) // _BLOCK_LATENTS)
    totals = np.zeros((n_blocks, matrix.shape[1]), matrix.numpy().dtype)

    def blocks(low: int, high: int) -> None:
        for block in range(low, high):
            first, last = block * _BLOCK_LATENTS, min((block + 1) * _BLOCK_LATENTS, len(matrix))
            loops.add_weighted(weights.numpy(), matrix.numpy(), totals[block], first, last)

    _in_ranges(n_blocks, blocks)
    return torch.from_numpy(totals.sum(0))


def tiles(dtype: torch.dtype, device: torch.device) -> tuple[int, ...]:
    """Latents of tiles that rows may be encoded in, the usual number first."""
    return _TILE_LATENTS, *_OTHER_LATENTS


def _tiles(rows: Tensor, W_enc: Tensor, scratch: Scratch) -> Any:
    """Products of rows and some latents at a time, without the bias: (first latent, one past the last, [B, tile])."""
    n_latents = len(W_enc)
    width = min(n_latents, max(min(scratch.tile, _TILE_NUMBERS // max(len(rows), 1)) // 128 * 128, 128))
    room = scratch("tile", (len(rows) * width,), rows.dtype)
    for first in range(0, n_latents, width):
        last = min(first + width, n_latents)
        out = room[: len(rows) * (last - first)].view(len(rows), last - first)
        yield first, last, torch.mm(rows, W_enc[first:last].T, out=out)


class _Above:
    """What exceeds its latent's limit in one tile after another, of each row side by side."""

    def __init__(self, rows: Tensor, scratch: Scratch) -> None:
        self._scratch, self._dtype = scratch, rows.dtype
        self._counts = np.zeros(len(rows), np.int64)
        self._values, self._latents = self._memory()

    @property
    def n(self) -> int:
        """Pairs so far."""
        return int(self._counts.sum())

    def add(self, pre: np.ndarray, bias: np.ndarray, limits: np.ndarray, first: int, most: int | None = None) -> None:
        """Take those of a tile, whose first latent this is.

        Raises:
            TooManyError: there are more than `most` so far.
        """
        counts = self._counts.copy()
        over(len(pre), loops.absorb_above, pre, bias, limits, first, self._values, self._latents, counts)
        if most is not None and counts.sum() > most:
            raise TooManyError
        largest = int(counts.max(initial=0))
        if largest > self._scratch.room:
            self._widen(largest + largest // 2)
            self.add(pre, bias, limits, first, most)
            return
        self._counts = counts

    def taken(self) -> Pairs:
        """All so far; what comes next begins anew."""
        starts = np.concatenate([[0], self._counts.cumsum()])
        values, latents = np.empty(starts[-1], self._values.dtype), np.empty(starts[-1], np.int32)
        over(len(self._counts), loops.pack, self._values, self._latents, starts, values, latents)
        self._counts[:] = 0
        return _pairs(starts, latents, values)

    def _widen(self, room: int) -> None:
        held = self._values.copy(), self._latents.copy()
        self._scratch.room = room
        self._values, self._latents = self._memory()
        for new, old in zip((self._values, self._latents), held, strict=True):
            new[:, : old.shape[1]] = old

    def _memory(self) -> tuple[np.ndarray, np.ndarray]:
        shape = len(self._counts), self._scratch.room
        return self._scratch("above", shape, self._dtype).numpy(), self._scratch("of", shape, torch.int32).numpy()


def _pairs(starts: np.ndarray, latents: np.ndarray, values: np.ndarray) -> Pairs:
    return Pairs(torch.from_numpy(starts), torch.from_numpy(latents), torch.from_numpy(values))


def _latents_held(pairs: Pairs, W_dec: Tensor) -> int:
    """Latents whose rows are gathered from at a time. By the batch's pairs: no sum depends on it."""
    fitting = max(_HELD_BYTES // max(W_dec.shape[1] * W_dec.element_size(), 1), 1)
    n_blocks = len(pairs.latents) // max(_PAIRS_OF_BLOCK * (len(pairs.row_starts) - 1), 1)
    return max(fitting, -(-len(W_dec) // max(n_blocks, 1)))


def _arrays(back: Backward) -> tuple[np.ndarray, ...]:
    """As the loops take them."""
    pairs = back.by_latent
    tensors = (
        pairs.starts, pairs.order, pairs.rows, back.d_product, back.values, back.read, back.sources, back.source_of,
        back.norm_gradient,
    )  # fmt: skip
    return *(tensor.numpy() for tensor in tensors), np.array(back.sites)


def over(n: int, loop: Callable[..., None], *arrays: Any) -> None:
    """Run a loop over all n rows or latents, in as many ranges as torch has threads."""
    _in_ranges(n, lambda low, high: loop(*arrays, low, high))


def _in_ranges(n: int, work: Callable[[int, int], None]) -> None:
    n_threads = min(torch.get_num_threads(), n)
    if n_threads <= 1:
        work(0, n)
        return
    edges = [n * i // n_threads for i in range(n_threads + 1)]
    for done in [_threads(n_threads).submit(work, low, high) for low, high in pairwise(edges)]:
        done.result()


@cache
def _threads(n: int) -> ThreadPoolExecutor:
    """Of our own: numba's threads and torch's would wait for each other by spinning."""
    return ThreadPoolExecutor(n, thread_name_prefix="mohole-kernel")
