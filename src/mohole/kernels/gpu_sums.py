"""Sums over kept pairs on a CUDA device: decoding, gradients, and steps that never store one. Codes are found by `gpu_encode`.

Axes: B batch rows, L latents, N kept pairs, D width read, E width written, S sources. No gradient tensor is kept, and what is
summed over pairs is float32, or float64 where the weights are. Rows wider than a program can hold are left to `plain`.
"""

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from mohole.kernels import gpu_sum_programs as programs
from mohole.kernels import plain
from mohole.kernels.gpu_encode import power_of_two, starts_of
from mohole.kernels.pairs import AdamStep, Backward, ByLatent, Moving, Pairs

_L2_BYTES = 32 << 20
"""Of 50 MB on an H100; the rest is for what streams through."""
_WIDEST = 16384
_PIECE_PAIRS = 512
"""A latent with more pairs is summed in pieces of so many: one that fires on half of all rows would keep one program busy for
longer than all others together."""


def decode(
    pairs: Pairs, values: Float[Tensor, " N"], W_dec: Float[Tensor, "L E"], out: Float[Tensor, "B E"]
) -> Float[Tensor, "B E"]:
    """Add each row's decoder directions, weighted by its values, to `out`."""
    n_rows, width = out.shape
    block, n_pairs = _block_of_columns(W_dec)
    target = out.contiguous()
    programs.decode_rows[(n_rows * -(-width // block),)](
        pairs.row_starts, pairs.latents, values, W_dec.contiguous(), target, n_rows, width,
        SUM=_sum_type(W_dec), BLOCK_E=block, PAIRS=n_pairs, num_warps=4, enable_fp_fusion=True,
    )  # fmt: skip
    return out if target is out else out.copy_(target)


def dots(
    pairs: Pairs, sources: Float[Tensor, "S B E"], source_of: UInt8[Tensor, " L"], W_dec: Float[Tensor, "L E"]
) -> Float[Tensor, " N"]:
    """For each pair: its latent's source, at its row, along its decoder direction."""
    _, n_rows, width = sources.shape
    block, n_pairs = _block_of_columns(W_dec)
    n_blocks = -(-width // block)
    found = torch.empty(n_blocks, len(pairs.latents), dtype=_sum_dtype(W_dec), device=W_dec.device)
    programs.dot_pairs[(n_rows * n_blocks,)](
        pairs.row_starts, pairs.latents, sources.contiguous(), source_of, W_dec.contiguous(), found,
        n_rows, len(pairs.latents), width,
        SUM=_sum_type(W_dec), BLOCK_E=block, PAIRS=n_pairs, num_warps=4, enable_fp_fusion=True,
    )  # fmt: skip
    return found.sum(0)


def by_latent(pairs: Pairs, n_latents: int, which: Bool[Tensor, " N"] | None = None) -> ByLatent:
    """The pairs in the order of latents: all, or those that are wanted. torch's sort is the device's radix sort."""
    latents, order = pairs.latents.to(torch.int32).sort(stable=True)
    if which is not None:
        wanted = which[order]
        latents, order = latents[wanted], order[wanted]
    edges = torch.arange(n_latents + 1, dtype=torch.int32, device=latents.device)
    return ByLatent(torch.searchsorted(latents, edges), order.to(torch.int32), pairs.rows[order].to(torch.int32))


def gradients(
    back: Backward, W_dec: Float[Tensor, "L E"], first: int = 0, last: int | None = None
) -> tuple[Float[Tensor, "slab D"], Float[Tensor, "slab E"]]:
    """The gradients of W_enc and W_dec as tensors, of all latents or of a range of them."""
    if _is_wide(back):
        return plain.gradients(back, W_dec, first, last)
    n = (len(W_dec) if last is None else last) - first
    d_enc = torch.empty(n, back.read.shape[1], dtype=_sum_dtype(W_dec), device=W_dec.device)
    d_dec = torch.empty(n, W_dec.shape[1], dtype=d_enc.dtype, device=W_dec.device)
    _sum_gradients(back, W_dec, first, n, d_enc, d_dec, d_enc)
    return d_enc, d_dec


def squared_lengths(back: Backward, W_dec: Float[Tensor, "L E"]) -> Float[Tensor, " L"]:
    """The squared length of each latent's gradients, both rows together. No gradient is kept."""
    if _is_wide(back):
        return plain.squared_lengths(back, W_dec)
    squares = torch.empty(len(W_dec), dtype=_sum_dtype(W_dec), device=W_dec.device)
    _sum_gradients(back, W_dec, 0, len(W_dec), None, None, squares)
    return squares


def adam(
    back: Backward, encoder: Moving, decoder: Moving, step: AdamStep, *, shrink: float = 1.0
) -> Float[Tensor, " L"]:
    """Move both matrices by their gradients times `shrink`, without a gradient tensor. Returns what `squared_lengths` does."""
    if _is_wide(back):
        return plain.adam(back, encoder, decoder, step, shrink=shrink)
    W_dec = decoder.weight
    squares = torch.empty(len(W_dec), dtype=_sum_dtype(W_dec), device=W_dec.device)
    numbers = [
        step.beta1,
        1.0 - step.beta1,
        step.beta2,
        1.0 - step.beta2,
        step.step_size,
        step.root_scale,
        step.epsilon,
    ]
    # In a tensor, because Triton would round numbers to float32.
    given = torch.tensor([*numbers, shrink], dtype=squares.dtype, device=W_dec.device)
    matrices = [tensor for moving in (encoder, decoder) for tensor in (moving.weight, moving.mean, moving.square)]
    programs.adam_latents[(len(W_dec),)](
        *_arrays(back), *_pieces(back, W_dec), *matrices, squares, given,
        len(back.read), back.read.shape[1], W_dec.shape[1], IS_UNIT=back.is_unit, **_blocks(back),
    )  # fmt: skip
    return squares


def weighted_sum(weights: Float[Tensor, " L"], matrix: Float[Tensor, "L D"]) -> Float[Tensor, " D"]:
    """weights @ matrix. On a device the order of sums depends on shapes alone, whatever the threads of the processor."""
    return weights @ matrix if matrix.is_cuda else plain.weighted_sum(weights, matrix)


def _sum_gradients(
    back: Backward, W_dec: Tensor, first: int, n: int, d_enc: Tensor | None, d_dec: Tensor | None, squares: Tensor
) -> None:
    """Into d_enc and d_dec where they are given, else their squared lengths into `squares`."""
    programs.sum_gradients[(n,)](
        *_arrays(back), *_pieces(back, W_dec), W_dec,
        squares if d_enc is None else d_enc, squares if d_dec is None else d_dec, squares,
        first, len(back.read), back.read.shape[1], W_dec.shape[1],
        KEEPS=d_enc is not None, IS_UNIT=back.is_unit, **_blocks(back),
    )  # fmt: skip


def _arrays(back: Backward) -> tuple[Tensor | int, ...]:
    """As the programs take them."""
    pairs = back.by_latent
    sites = torch.tensor(back.sites, device=back.read.device)
    return (
        pairs.starts, pairs.order, pairs.rows, back.d_product, back.values, back.read, back.sources, back.source_of,
        back.norm_gradient, sites, len(sites) - 1,
    )  # fmt: skip


def _pieces(back: Backward, W_dec: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(where each latent's pieces start, their sums for W_enc, and for W_dec). Latents with few pairs have no pieces."""
    n_pairs = torch.diff(back.by_latent.starts)
    n_pieces = torch.where(n_pairs > _PIECE_PAIRS, -(-n_pairs // _PIECE_PAIRS), 0)
    starts = starts_of(n_pieces)
    latents = torch.repeat_interleave(n_pieces)
    enc, dec = (
        torch.empty(len(latents), width, dtype=_sum_dtype(W_dec), device=W_dec.device)
        for width in (back.read.shape[1], W_dec.shape[1])
    )
    pairs = back.by_latent
    programs.sum_pieces[(len(latents),)](
        pairs.starts, pairs.order, pairs.rows, back.d_product, back.values, back.read, back.sources, back.source_of,
        starts, latents, enc, dec, _PIECE_PAIRS, len(back.read), back.read.shape[1], W_dec.shape[1], **_blocks(back),
    )  # fmt: skip
    return starts, enc, dec


def _blocks(back: Backward) -> dict[str, object]:
    """Whole rows: the gradient along a unit vector, and the vector's new length, are known when all of it is."""
    widths = back.read.shape[1], back.sources.shape[2]
    widest = max(widths)
    return {
        "BLOCK_D": power_of_two(widths[0]), "BLOCK_E": power_of_two(widths[1]), "PAIRS": 4 if widest <= 2048 else 2,
        "SUM": _sum_type(back.read), "num_warps": 4 if widest <= 1024 else 8 if widest <= 4096 else 16,
        "enable_fp_fusion": True,
    }  # fmt: skip


def _is_wide(back: Backward) -> bool:
    return max(back.read.shape[1], back.sources.shape[2]) > _WIDEST


def _block_of_columns(W_dec: Tensor) -> tuple[int, int]:
    """(columns, pairs) of a gather: as many columns as the L2 cache holds of all decoder rows, or many where it holds too few."""
    n_latents, width = W_dec.shape
    fitting = _L2_BYTES // max(n_latents * W_dec.element_size(), 1)
    columns = 1 << (fitting.bit_length() - 1) if fitting >= 64 else 512
    columns = min(columns, 1024, power_of_two(width))
    return columns, min(max(2048 // columns, 2), 32)


def _sum_dtype(weight: Tensor) -> torch.dtype:
    return torch.float64 if weight.dtype == torch.float64 else torch.float32


def _sum_type(weight: Tensor) -> object:
    return programs.DOUBLE if weight.dtype == torch.float64 else programs.SINGLE
