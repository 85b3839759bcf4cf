"""Encoding with certified screening: top-k codes found with 16-bit whole numbers, then made from the numbers themselves.

Every pre-activation is computed from rows and latents rounded to whole numbers; a few more than k of each row are candidates, and
their values are computed again in float32. How far rounding can move any pre-activation of a row is known,

    |x . w - x~ . w~|  <=  |x - x~| |w|  +  |x~| |w - w~|        (Cauchy-Schwarz; x~ and w~ are what was rounded)

so it is known whether anything else can belong to the k best. Rows where it could are encoded again without screening. The
codes are those of `cpu.top_k`, but for the rounding of float32 sums, whatever the numbers are.

Sixteen bits, not eight: on processors without VNNI (AVX2 alone), 8-bit products are no faster than 16-bit ones, and their
rounding leaves a hundred times as many candidates.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mohole.kernels import HAS_NUMBA
from mohole.kernels.pairs import Pairs

if TYPE_CHECKING:  # numba is loaded when it is needed
    from mohole.kernels.cpu import Scratch

_TILE_ROWS, _TILE_LATENTS = 256, 1024
"""Of what is multiplied and searched at a time: rows that stay in the second cache while latents pass by. With all 2048 rows of
a batch they came from the third one, and products took 0.82 of float32's instead of 0.71."""
_SPARE = 64
_ROUNDING = 2.0**-24
"""Of a float32 sum, relative to the sum of absolute values, for each number of it."""


def can_screen() -> bool:
    """Whether this machine has the instruction, and numba is here to use it."""
    if not HAS_NUMBA:
        return False
    from llvmlite import binding

    return bool(binding.get_host_cpu_features().get("avx2", False))


class Screen:
    """Top-k encoding by screening, and how often it was not enough."""

    def __init__(self) -> None:
        self.n_rows, self.n_again = 0, 0
        """Rows encoded, and those of them that had to be encoded again."""

    def top_k(
        self, rows: Float[Tensor, "B D"], W_enc: Float[Tensor, "L D"], b_enc: Float[Tensor, " L"], k: int,
        scratch: object = None,
    ) -> Pairs:  # fmt: skip
        """As `cpu.top_k`. Of float64, which is for checks, nothing is screened."""
        from mohole.kernels import cpu, screen_loops

        room = scratch if isinstance(scratch, cpu.Scratch) else cpu.Scratch()
        if rows.dtype != torch.float32:
            return cpu.top_k(rows, W_enc, b_enc, k, room)
        n_rows, n_held = len(rows), k + max(k // 4, 8)
        x, w = _Whole.of(rows, screen_loops.ROWS, room, "rows"), _Whole.of(W_enc, screen_loops.LATENTS, room, "latents")
        slack = _slack(x, w, rows.shape[1], b_enc)[:n_rows]
        kept = _Kept.of(n_rows, n_held, room)
        near = _candidates(x, w, b_enc, slack, kept, n_held, room)
        exact = (
            cpu.dots(near, rows[None], torch.zeros(len(W_enc), dtype=torch.uint8), W_enc) + b_enc[near.latents.long()]
        )
        is_certain = np.zeros(n_rows, np.bool_)
        cpu.over(
            n_rows, screen_loops.certify, near.row_starts.numpy(), near.latents.numpy(), near.values.numpy(), exact.numpy(),
            slack, k, n_held, kept.latents, kept.values, kept.counts, is_certain,
        )  # fmt: skip
        again = np.flatnonzero(~is_certain)
        self.n_rows, self.n_again = self.n_rows + n_rows, self.n_again + len(again)
        if len(again):
            kept.replace(again, cpu.top_k(rows[torch.from_numpy(again)], W_enc, b_enc, k))
        return kept.pairs()


@dataclass(frozen=True)
class _Kept:
    """What is kept of each row while it is searched: the first `counts` entries of its values and latents."""

    values: np.ndarray
    latents: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, n_rows: int, n_held: int, room: "Scratch") -> "_Kept":
        shape = n_rows, 3 * n_held + _SPARE
        values, latents = room("values", shape, torch.float32), room("latents", shape, torch.int32)
        return cls(values.numpy(), latents.numpy(), np.zeros(n_rows, np.int64))

    def replace(self, rows: np.ndarray, pairs: Pairs) -> None:
        """Other pairs for some rows."""
        starts, own = pairs.row_starts.numpy(), pairs.rows.numpy()
        places = np.arange(len(own)) - starts[own]
        self.counts[rows] = np.diff(starts)
        self.values[rows[own], places] = pairs.values.numpy()
        self.latents[rows[own], places] = pairs.latents.numpy()

    def pairs(self) -> Pairs:
        """In compressed rows, in memory of their own."""
        from mohole.kernels import cpu, loops

        starts = np.concatenate([[0], self.counts.cumsum()])
        values, latents = np.empty(starts[-1], np.float32), np.empty(starts[-1], np.int32)
        cpu.over(len(self.counts), loops.pack, self.values, self.latents, starts, values, latents)
        return Pairs(torch.from_numpy(starts), torch.from_numpy(latents), torch.from_numpy(values))


def _candidates(
    x: "_Whole", w: "_Whole", b_enc: Tensor, slack: np.ndarray, kept: _Kept, n_held: int, room: "Scratch"
) -> Pairs:
    """Each row's n_held largest near values, or all above -slack where those are fewer."""
    from mohole.kernels import cpu, loops, screen_loops

    n_rows = len(slack)
    bias = np.full(len(w.units), -np.inf, np.float32)  # of latents that only fill a group up
    bias[: len(b_enc)] = b_enc.numpy()
    thresholds, below = np.zeros(len(x.units), np.float32), (-slack * (1.0 + 1e-6)).astype(np.float32)
    row_width = x.packed[0].size // screen_loops.ROWS
    packed, packed_latents = x.packed.reshape(-1), w.packed.reshape(-1)
    tile = room("near", (_TILE_ROWS * _TILE_LATENTS,), torch.float32).numpy()
    for first in range(0, len(w.units), _TILE_LATENTS):
        width = min(_TILE_LATENTS, len(w.units) - first)
        offset = bias[first : first + width]
        for low in range(0, len(x.units), _TILE_ROWS):
            n = min(_TILE_ROWS, len(x.units) - low)
            here, near = slice(low, min(low + n, n_rows)), tile[: n * width].reshape(n, width)
            own = packed[low * row_width : (low + n) * row_width], x.units[low : low + n]
            cpu.over(n // screen_loops.ROWS, screen_loops.products, *own, packed_latents, w.units, first, near)
            if first == 0:
                cpu.over(n, loops.first_thresholds, near, offset, n_held, thresholds[low : low + n])
                thresholds[here] = np.where(thresholds[here] > 0, thresholds[here], below[here])
            state = thresholds[here], kept.values[here], kept.latents[here], kept.counts[here]
            cpu.over(here.stop - low, loops.absorb_top, near, offset, first, n_held, *state)
    cpu.over(n_rows, loops.finish_top, n_held, kept.values, kept.latents, kept.counts)
    return kept.pairs()


@dataclass(frozen=True)
class _Whole:
    """The rows of a matrix as whole numbers times a unit of each, with their lengths, and those of what rounding missed."""

    packed: np.ndarray
    units: np.ndarray
    lengths: np.ndarray
    errors: np.ndarray

    @classmethod
    def of(cls, matrix: Float[Tensor, "n D"], group: int, room: "Scratch", name: str) -> "_Whole":
        from mohole.kernels import cpu, screen_loops

        n_groups, d = -(-len(matrix) // group), matrix.shape[1]
        n_parts = -(-d // screen_loops.STEP) * screen_loops.STEP // screen_loops.LANES
        shape = n_groups, n_parts, group, screen_loops.LANES
        packed = room(f"whole {name}", shape, torch.int16).numpy()
        units = np.empty(n_groups * group, np.float32)
        lengths, errors = np.empty(len(units)), np.empty(len(units))
        cpu.over(n_groups, screen_loops.quantise, matrix.numpy(), group, packed, units, lengths, errors)
        return cls(packed, units, lengths, errors)


def _slack(x: _Whole, w: _Whole, d: int, b_enc: Tensor) -> np.ndarray:
    """How far a row's near values may lie from exact ones, and exact ones from each other by the order of sums."""
    n_latents = len(b_enc)
    longest, worst = w.lengths[:n_latents].max(initial=0.0), w.errors[:n_latents].max(initial=0.0)
    rounding = 2.0 * (d + 8) * _ROUNDING * (x.lengths + x.errors) * (longest + worst)
    rounding += 4.0 * _ROUNDING * float(b_enc.abs().max())
    slack: np.ndarray = (x.errors * longest + (x.lengths + x.errors) * worst) * (1.0 + 1e-6) + rounding + 1e-30
    return slack
