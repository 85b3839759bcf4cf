"""Screening on a CUDA device: top-k codes found by a product of 16-bit floats, then made from the float32 numbers themselves.

A device multiplies 16-bit floats some fifteen times as fast as float32 numbers as they are. Rows and latents are rounded to
halves times a unit of each. Of every pre-activation it is known what it cannot exceed,

    x . w + b  <=  x~ . w~ + b  +  |x - x~| |w|  +  |x~| |w - w~|  +  rounding of sums        (Cauchy-Schwarz)

and the n largest of these bounds, half as many more as k, are a row's candidates. Their values are made in float32. What is no
candidate does not exceed the least bound among candidates; where that is below the k-th best value, nothing is missing. Other
rows are encoded again without screening. The codes are those of `gpu.top_k`, but for the rounding of float32 sums, whatever the
numbers are.

Halves, not 8 bits: at d 2304 one e4m3 for each number leaves a seventh to a third of all latents as candidates, whole numbers of
8 bits twice to a hundred times k; e4m3 in two parts takes three products, one and a half of halves (docs/log has the numbers).
Which is also why 16-bit rows and weights are encoded as they are.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mohole.kernels import gpu_encode, gpu_sums
from mohole.kernels import gpu_encode_programs as programs
from mohole.kernels.pairs import Pairs

_ROUNDING = 4.0 * 2.0**-24
"""Of a sum, relative to the product of lengths, for each number of it: twice what rounding to the nearest takes for a matrix
unit, which cuts digits off, and once each for both ways of summing in float32."""
_OWN = 1.0 + 2.0**-16
"""For the rounding of bounds themselves."""
_NOTHING = 1e-30
_BLOCK_ROWS, _BLOCK_COLUMNS = 8, 256


class Screen:
    """Top-k encoding by screening, and how often it was not enough."""

    def __init__(self) -> None:
        self.n_rows, self.n_again = 0, 0
        """Rows encoded, and those of them that had to be encoded again."""

    def top_k(
        self, rows: Float[Tensor, "B D"], W_enc: Float[Tensor, "L D"], b_enc: Float[Tensor, " L"], k: int,
        scratch: object = None,
    ) -> Pairs:  # fmt: skip
        """As `gpu.top_k`. Of other numbers than float32 nothing is screened."""
        room = scratch if isinstance(scratch, gpu_encode.Scratch) else gpu_encode.Scratch()
        k, n_held = min(k, len(W_enc)), min(k + max(k // 2, 16), len(W_enc))
        if rows.dtype != torch.float32 or not gpu_encode.holds(n_held, torch.float16, rows.device, room):
            return gpu_encode.top_k(rows, W_enc, b_enc, k)
        bounds = _bounds(rows, W_enc, b_enc, n_held, room)
        kept, is_certain = _certified(bounds, rows, W_enc, b_enc, k, n_held)
        again = (~is_certain).nonzero()[:, 0]
        self.n_rows, self.n_again = self.n_rows + len(rows), self.n_again + len(again)
        if len(again):
            kept.replace(again, gpu_encode.top_k(rows[again], W_enc, b_enc, k))
        return kept.pairs()

    def above(
        self, rows: Float[Tensor, "B D"], W_enc: Float[Tensor, "L D"], b_enc: Float[Tensor, " L"],
        thresholds: Float[Tensor, " L"], scratch: object = None, most: int | None = None,
    ) -> Pairs:  # fmt: skip
        """`gpu.above` itself: here only what competes is screened, and a training that asks for more is refused."""
        room = scratch if isinstance(scratch, gpu_encode.Scratch) else gpu_encode.Scratch()
        return gpu_encode.above(rows, W_enc, b_enc, thresholds, room, most)


@dataclass(frozen=True)
class _Kept:
    """What is kept of each row: the first `counts` entries of its values and latents, which ascend."""

    counts: Int[Tensor, " B"]
    values: Float[Tensor, "B place"]
    latents: Int[Tensor, "B place"]

    @property
    def is_own(self) -> Tensor:
        return torch.arange(self.values.shape[1], device=self.values.device) < self.counts[:, None]

    def replace(self, rows: Int[Tensor, " some"], pairs: Pairs) -> None:
        """Other pairs for some rows."""
        own = pairs.rows
        places = torch.arange(len(own), device=own.device) - pairs.row_starts[own]
        self.counts[rows] = torch.diff(pairs.row_starts).to(self.counts.dtype)
        self.values[rows[own], places] = pairs.values
        self.latents[rows[own], places] = pairs.latents

    def pairs(self) -> Pairs:
        return gpu_encode.packed(self.counts, self.values, self.latents, torch.float32)


def _bounds(rows: Tensor, W_enc: Tensor, b_enc: Tensor, n_held: int, room: gpu_encode.Scratch) -> _Kept:
    """Each row's n_held largest upper bounds, or all above zero where those are fewer."""
    x, w = _Halves.of(rows, room, "rows"), _Halves.of(W_enc, room, "latents")
    x_most, w_most = x.lengths + x.errors, w.lengths + w.errors
    rounding = _ROUNDING * (rows.shape[1] + 8)
    row_facts = torch.stack([x.units, _OWN * x.errors + rounding * x_most, _OWN * x_most])
    latent_facts = torch.stack([w.units, _OWN * w_most, _OWN * w.errors])
    bias = b_enc + (b_enc.abs() * (_OWN - 1.0) + _NOTHING)
    return _Kept(*gpu_encode.strongest(x.halves, w.halves, bias, n_held, room, (row_facts, latent_facts)))


def _certified(bounds: _Kept, rows: Tensor, W_enc: Tensor, b_enc: Tensor, k: int, n_held: int) -> tuple[_Kept, Tensor]:
    """The k best exact values among candidates, and for which rows none can be missing."""
    candidates, is_held = bounds.pairs(), bounds.is_own
    sources = torch.zeros(len(W_enc), dtype=torch.uint8, device=rows.device)
    exact = gpu_sums.dots(candidates, rows[None], sources, W_enc) + b_enc[candidates.latents.long()]
    least_bound = bounds.values.masked_fill(~is_held, torch.inf).amin(1)
    values, latents = torch.zeros_like(bounds.values), bounds.latents.contiguous()
    values.masked_scatter_(is_held, torch.where(exact > 0, exact, 0.0))  # what is no number is no code
    found = _Kept(gpu_encode.keep_best(values, latents, k), values, latents)
    least = found.values.masked_fill(~found.is_own, torch.inf).amin(1)
    all_are_held = (bounds.counts < n_held) | (n_held == len(W_enc))
    return found, all_are_held | ((found.counts == k) & (least_bound < least))


@dataclass(frozen=True)
class _Halves:
    """The rows of a matrix as halves times a unit of each, with their lengths, and those of what rounding missed."""

    halves: Float[Tensor, "n D"]
    units: Float[Tensor, " n"]
    lengths: Float[Tensor, " n"]
    errors: Float[Tensor, " n"]

    @classmethod
    def of(cls, matrix: Float[Tensor, "n D"], room: gpu_encode.Scratch, name: str) -> "_Halves":
        halves = room(f"halves of {name}", matrix.numel(), torch.float16, matrix.device).view(matrix.shape)
        units, lengths, errors = torch.empty(3, len(matrix), device=matrix.device)
        programs.round_rows[(-(-len(matrix) // _BLOCK_ROWS),)](
            matrix.contiguous(), halves, units, lengths, errors, *matrix.shape,
            BLOCK_B=_BLOCK_ROWS, BLOCK_D=_BLOCK_COLUMNS, num_warps=4, enable_fp_fusion=True,
        )  # fmt: skip
        return cls(halves, units, lengths, errors)
