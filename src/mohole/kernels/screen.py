"""Encoding with certified screening: codes found with rounded numbers, then made from the numbers themselves.

Every pre-activation is computed from rows and latents rounded to a few bits; a few more than k of each row are candidates, and
their values are computed again in float32. How far rounding can move any pre-activation of a row is known,

    |x . w - x~ . w~|  <=  |x - x~| |w|  +  |x~| |w - w~|        (Cauchy-Schwarz; x~ and w~ are what was rounded)

so it is known whether anything else can belong to the k best. Rows where it could are encoded again without screening. The
codes are those of `cpu.top_k`, but for the rounding of float32 sums, whatever the numbers are. Where thresholds decide and not
other latents, all that could exceed its own is a candidate, and its exact value decides: no row is left in doubt.

Two ways to round, by what the processor multiplies fastest: `screen_bfloat16` where it has matrix units (AMX), and
`screen_whole`, 16-bit whole numbers, where it has AVX2 alone. Not eight bits: without VNNI they are no faster than sixteen, and
their rounding leaves a hundred times as many candidates.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mohole.kernels import HAS_NUMBA
from mohole.kernels.pairs import Pairs, TooManyError

if TYPE_CHECKING:  # numba is loaded when it is needed
    from mohole.kernels.cpu import Scratch

_SPARE = 64

Rounding = Literal["bfloat16", "whole"]


def best_rounding() -> Rounding | None:
    """What this processor multiplies fastest; None: nothing faster than float32, or numba is not here to search the products."""
    if not HAS_NUMBA:
        return None
    from llvmlite import binding

    has = binding.get_host_cpu_features()
    if has.get("amx-tile") and has.get("amx-bf16"):
        return "bfloat16"
    return "whole" if has.get("avx2") else None


@runtime_checkable
class Near(Protocol):
    """Pre-activations of rounded rows and rounded latents, without the bias, and how far from exact ones they may lie."""

    slack: np.ndarray
    """[row]: how far a near value may lie from the exact one, and exact ones from each other by the order of sums."""
    rounding: float
    """How far beyond that, of its own size: what writing it down has cost it."""
    n_latents: int
    """Columns of all tiles: latents, and what only fills a tile up."""

    def n_held(self, k: int) -> int:
        """Candidates kept of each row, so that a row is seldom left in doubt."""

    def tiles(self) -> Iterator[tuple[int, int, np.ndarray]]:
        """(first row, first latent, near values [rows, latents]); of any row the latents ascend."""


_MOST_CANDIDATES = 3
"""Times what a caller of `above` has a use for. With more the numbers themselves are multiplied."""


class Screen:
    """Encoding by screening, and how often it was not enough."""

    def __init__(self, rounding: Rounding | None = None) -> None:
        """None: what is fastest here."""
        self._rounding = rounding or best_rounding()
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
        near, n_rows = self._near(rows, W_enc, b_enc, room), len(rows)
        n_held = near.n_held(k)
        kept = _Kept.of(n_rows, n_held, room)
        found = _candidates(near, b_enc, kept, n_held)
        is_certain = np.zeros(n_rows, np.bool_)
        cpu.over(
            n_rows, screen_loops.certify, found.row_starts.numpy(), found.latents.numpy(), found.values.numpy(), rows.numpy(),
            W_enc.numpy(), b_enc.numpy(), near.slack, near.rounding, k, n_held, kept.latents, kept.values, kept.counts,
            is_certain,
        )  # fmt: skip
        again = np.flatnonzero(~is_certain)
        self.n_rows, self.n_again = self.n_rows + n_rows, self.n_again + len(again)
        if len(again):
            kept.replace(again, cpu.top_k(rows[torch.from_numpy(again)], W_enc, b_enc, k))
        return kept.pairs()

    def above(
        self, rows: Float[Tensor, "B D"], W_enc: Float[Tensor, "L D"], b_enc: Float[Tensor, " L"],
        thresholds: Float[Tensor, " L"], scratch: object = None, most: int | None = None,
    ) -> Pairs:  # fmt: skip
        """As `cpu.above`. Of float64, and where a number is none or candidates are many, nothing is screened.

        Raises:
            TooManyError: more than `most`.
        """
        from mohole.kernels import cpu

        room = scratch if isinstance(scratch, cpu.Scratch) else cpu.Scratch()
        if rows.dtype != torch.float32:
            return cpu.above(rows, W_enc, b_enc, thresholds, room, most)
        near = self._near(rows, W_enc, b_enc, room)
        self.n_rows += len(rows)
        found = None
        if np.isfinite(near.slack).all():
            found = _above(near, b_enc, thresholds, room, None if most is None else _MOST_CANDIDATES * most)
        if found is None:
            self.n_again += len(rows)
            return cpu.above(rows, W_enc, b_enc, thresholds, room, most)
        latents = found.latents.long()
        one = torch.zeros(len(W_enc), dtype=torch.uint8)
        exact = cpu.dots(found, rows[None], one, W_enc) + b_enc[latents]
        pairs = Pairs(found.row_starts, found.latents, exact).where(exact > thresholds[latents])
        if most is not None and len(pairs.latents) > most:
            raise TooManyError
        return pairs

    def _near(self, rows: Tensor, W_enc: Tensor, b_enc: Tensor, room: "Scratch") -> Near:
        if self._rounding == "bfloat16":
            from mohole.kernels.screen_bfloat16 import NearBfloat16

            return NearBfloat16(rows, W_enc, b_enc, room)
        from mohole.kernels.screen_whole import NearWhole

        return NearWhole(rows, W_enc, b_enc, room)


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


def _candidates(near: Near, b_enc: Tensor, kept: _Kept, n_held: int) -> Pairs:
    """Each row's n_held largest near values, or all that could be positive where those are fewer."""
    from mohole.kernels import cpu, loops

    n_rows = len(near.slack)
    bias = np.full(near.n_latents, -np.inf, np.float32)
    bias[: len(b_enc)] = b_enc.numpy()
    below = (-near.slack / (1.0 - near.rounding) * (1.0 + 1e-6)).astype(np.float32)
    thresholds = np.zeros(n_rows, np.float32)
    for low, first, tile in near.tiles():
        n, width = tile.shape
        here, offset = slice(low, low + n), bias[first : first + width]
        if first == 0:
            cpu.over(n, loops.first_thresholds, tile, offset, n_held, thresholds[here])
            thresholds[here] = np.where(thresholds[here] > 0, thresholds[here], below[here])
        state = thresholds[here], kept.values[here], kept.latents[here], kept.counts[here]
        cpu.over(n, loops.absorb_top, tile, offset, first, n_held, *state)
    cpu.over(n_rows, loops.finish_top, n_held, kept.values, kept.latents, kept.counts)
    return kept.pairs()


def _above(near: Near, b_enc: Tensor, thresholds: Tensor, room: "Scratch", most: int | None) -> Pairs | None:
    """All that could exceed its latent's threshold, with values of any content. None: they are more than `most`."""
    from mohole.kernels import cpu, screen_loops

    n_rows = len(near.slack)
    offsets = np.full(near.n_latents, -np.inf, np.float32)
    offsets[: len(b_enc)] = (b_enc.double() - thresholds.double()).numpy()
    # For rounding in the comparison itself.
    largest = float(np.abs(offsets[np.isfinite(offsets)]).max(initial=0.0))
    slack = ((near.slack + 8.0 * ROUNDING_OF_SUMS * largest) * (1.0 + 1e-6)).astype(np.float32)
    rounding = np.float32(near.rounding + 2.0**-20)
    counts, width = np.zeros(n_rows, np.int64), room.room
    latents = np.empty((n_rows, width), np.int32)
    for low, first, tile in near.tiles():
        n, offset = len(tile), offsets[first : first + tile.shape[1]]
        here = slice(low, low + n)
        while True:
            found = counts[here].copy()
            cpu.over(n, screen_loops.near_above, tile, offset, slack[here], rounding, first, latents[here], found)
            widest = int(found.max(initial=0))
            if widest <= width:
                break
            wider = np.empty((n_rows, widest + widest // 2), np.int32)
            wider[:, :width] = latents
            latents, width = wider, wider.shape[1]
        counts[here] = found
        if most is not None and counts.sum() > most:
            return None
    room.room = width
    starts = np.concatenate([[0], counts.cumsum()])
    packed = np.empty(starts[-1], np.int32)
    cpu.over(n_rows, screen_loops.pack_latents, latents, starts, packed)
    return Pairs(torch.from_numpy(starts), torch.from_numpy(packed), torch.empty(len(packed)))


ROUNDING_OF_SUMS = 2.0**-24
"""Of a float32 sum, relative to the sum of absolute values, for each number of it."""


def slack_of(
    x_lengths: np.ndarray, x_errors: np.ndarray, longest: float, worst: float, d: int, largest_bias: float
) -> np.ndarray:
    """[row]: how far a row's near values may lie from exact ones, and exact ones from each other by the order of sums.

    Args:
        x_lengths: of each row; x_errors: of what rounding it missed.
        longest: the longest latent; worst: the most that rounding one missed.
    """
    rounding = 2.0 * (d + 8) * ROUNDING_OF_SUMS * (x_lengths + x_errors) * (longest + worst)
    rounding += 4.0 * ROUNDING_OF_SUMS * largest_bias
    slack: np.ndarray = (x_errors * longest + (x_lengths + x_errors) * worst) * (1.0 + 1e-6) + rounding + 1e-30
    return slack
