"""The Triton programs that sum over kept pairs on a device: decoding, gradients, Adam. Called by `gpu_sums`.

Pointers only; shapes and laws stand with their callers. Axes: B batch rows, L latents, N kept (row, latent) pairs, D width read,
E width written, S sources. Every program writes what no other one writes, and sums in an order that shapes alone decide: no
atomics, so a result has the same bits every time, however many multiprocessors there are. Sums are in float32, in float64
where the weights are.
"""

from typing import no_type_check

import triton
import triton.language as tl

from mohole.kernels.compiling_programs import told

_FADING = tl.constexpr(1e-30)
SINGLE, DOUBLE = tl.float32, tl.float64
"""What sums are kept in."""


@told
@triton.jit
@no_type_check
def decode_rows(
    row_starts, latents, values, W_dec, out, n_rows, width,
    SUM: tl.constexpr, BLOCK_E: tl.constexpr, PAIRS: tl.constexpr,
):  # fmt: skip
    """out[row] += sum of values[pair] * W_dec[latents[pair]], for a block of columns.

    A block's rows all come before the next block's: its part of W_dec stays in the L2 cache meanwhile.
    """
    row = tl.program_id(0) % n_rows
    column = tl.program_id(0) // n_rows * BLOCK_E + tl.arange(0, BLOCK_E)
    is_column = column < width
    target = out + row.to(tl.int64) * width + column
    total = tl.load(target, mask=is_column, other=0.0).to(SUM)
    start = tl.load(row_starts + row)
    stop = tl.load(row_starts + row + 1)
    for first in range(start, stop, PAIRS):
        pair = first + tl.arange(0, PAIRS)
        is_pair = pair < stop
        latent = tl.load(latents + pair, mask=is_pair, other=0).to(tl.int64)
        value = tl.load(values + pair, mask=is_pair, other=0.0).to(SUM)
        is_read = is_pair[:, None] & is_column[None, :]
        direction = tl.load(W_dec + latent[:, None] * width + column[None, :], mask=is_read, other=0.0).to(SUM)
        total += tl.sum(value[:, None] * direction, 0)
    tl.store(target, total.to(out.dtype.element_ty), mask=is_column)


@told
@triton.jit
@no_type_check
def dot_pairs(
    row_starts, latents, sources, source_of, W_dec, found, n_rows, n_pairs, width,
    SUM: tl.constexpr, BLOCK_E: tl.constexpr, PAIRS: tl.constexpr,
):  # fmt: skip
    """found[block, pair] = the part of sources[source_of[latent], row] . W_dec[latent] that a block of columns gives."""
    row = tl.program_id(0) % n_rows
    block = tl.program_id(0) // n_rows
    column = block * BLOCK_E + tl.arange(0, BLOCK_E)
    is_column = column < width
    start = tl.load(row_starts + row)
    stop = tl.load(row_starts + row + 1)
    for first in range(start, stop, PAIRS):
        pair = first + tl.arange(0, PAIRS)
        is_pair = pair < stop
        latent = tl.load(latents + pair, mask=is_pair, other=0).to(tl.int64)
        source = tl.load(source_of + latent, mask=is_pair, other=0).to(tl.int64) * n_rows + row
        is_read = is_pair[:, None] & is_column[None, :]
        direction = tl.load(W_dec + latent[:, None] * width + column[None, :], mask=is_read, other=0.0).to(SUM)
        gradient = tl.load(sources + source[:, None] * width + column[None, :], mask=is_read, other=0.0).to(SUM)
        dots = tl.sum(direction * gradient, 1)
        tl.store(found + block.to(tl.int64) * n_pairs + pair, dots, mask=is_pair)


@triton.jit
@no_type_check
def _sum_pairs(
    start, stop, order, rows, factors, source, column, width,
    SUM: tl.constexpr, BLOCK: tl.constexpr, PAIRS: tl.constexpr,
):  # fmt: skip
    """Sum over pairs [start, stop) of factors[pair] * source[row]. [BLOCK], zero past the width."""
    total = tl.zeros((BLOCK,), SUM)
    for first in range(start, stop, PAIRS):
        place = first + tl.arange(0, PAIRS)
        is_pair = place < stop
        row = tl.load(rows + place, mask=is_pair, other=0).to(tl.int64)
        pair = tl.load(order + place, mask=is_pair, other=0)
        factor = tl.load(factors + pair, mask=is_pair, other=0.0).to(SUM)
        is_read = is_pair[:, None] & (column < width)[None, :]
        each = tl.load(source + row[:, None] * width + column[None, :], mask=is_read, other=0.0).to(SUM)
        total += tl.sum(factor[:, None] * each, 0)
    return total


@told
@triton.jit
@no_type_check
def sum_pieces(
    starts, order, rows, d_product, values, read, sources, source_of, piece_starts, piece_latents, enc_sums, dec_sums,
    piece_pairs, n_rows, width_in, width_out,
    SUM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr, PAIRS: tl.constexpr,
):  # fmt: skip
    """What a piece of a latent with many pairs adds to both of its gradients."""
    piece = tl.program_id(0).to(tl.int64)
    latent = tl.load(piece_latents + piece).to(tl.int64)
    start = tl.load(starts + latent) + (piece - tl.load(piece_starts + latent)) * piece_pairs
    stop = tl.minimum(start + piece_pairs, tl.load(starts + latent + 1))
    column = tl.arange(0, BLOCK_D)
    total = _sum_pairs(start, stop, order, rows, d_product, read, column, width_in, SUM, BLOCK_D, PAIRS)
    tl.store(enc_sums + piece * width_in + column, total, mask=column < width_in)
    source = sources + tl.load(source_of + latent).to(tl.int64) * n_rows * width_out
    column = tl.arange(0, BLOCK_E)
    total = _sum_pairs(start, stop, order, rows, values, source, column, width_out, SUM, BLOCK_E, PAIRS)
    tl.store(dec_sums + piece * width_out + column, total, mask=column < width_out)


@triton.jit
@no_type_check
def _sum_latent(
    latent, starts, order, rows, factors, source, piece_starts, sums, column, width,
    SUM: tl.constexpr, BLOCK: tl.constexpr, PAIRS: tl.constexpr,
):  # fmt: skip
    """Sum over all pairs of a latent of factors[pair] * source[row], from its pieces where it has any."""
    piece = tl.load(piece_starts + latent)
    last_piece = tl.load(piece_starts + latent + 1)
    start = tl.load(starts + latent)
    stop = tl.where(piece < last_piece, start, tl.load(starts + latent + 1))
    total = _sum_pairs(start, stop, order, rows, factors, source, column, width, SUM, BLOCK, PAIRS)
    for each in range(piece, last_piece):
        total += tl.load(sums + each * width + column, mask=column < width, other=0.0)
    return total


@triton.jit
@no_type_check
def _decoder_gradient(
    latent, starts, order, rows, values, sources, source_of, norm_gradient, sites, n_sites, piece_starts, sums, W_dec,
    n_rows, width, IS_UNIT: tl.constexpr, SUM: tl.constexpr, BLOCK: tl.constexpr, PAIRS: tl.constexpr,
):  # fmt: skip
    """Of one latent's decoder row, without its part along the row where that is kept a unit vector."""
    column = tl.arange(0, BLOCK)
    direction = tl.load(W_dec + latent * width + column, mask=column < width, other=0.0).to(SUM)
    source = sources + tl.load(source_of + latent).to(tl.int64) * n_rows * width
    total = _sum_latent(
        latent, starts, order, rows, values, source, piece_starts, sums, column, width, SUM, BLOCK, PAIRS
    )
    if IS_UNIT:
        total -= tl.sum(total * direction, 0) * direction
    else:
        pull = tl.load(norm_gradient + latent).to(SUM)
        for site in range(n_sites):
            is_site = (column >= tl.load(sites + site)) & (column < tl.load(sites + site + 1))
            here = tl.where(is_site, direction, 0.0)
            square = tl.sum(here * here, 0)
            length = tl.sqrt(tl.where(square > 0, square, 1.0))
            total += pull / length * here
    return total


@told
@triton.jit
@no_type_check
def sum_gradients(
    starts, order, rows, d_product, values, read, sources, source_of, norm_gradient, sites, n_sites,
    piece_starts, enc_sums, dec_sums, W_dec, d_enc, d_dec, squares, first, n_rows, width_in, width_out,
    KEEPS: tl.constexpr, IS_UNIT: tl.constexpr, SUM: tl.constexpr,
    BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr, PAIRS: tl.constexpr,
):  # fmt: skip
    """Gradients of a latent's rows of both matrices, from latent `first` on, or only their squared length, both together."""
    place = tl.program_id(0).to(tl.int64)
    latent = first + place
    column = tl.arange(0, BLOCK_D)
    gradient = _sum_latent(
        latent, starts, order, rows, d_product, read, piece_starts, enc_sums, column, width_in, SUM, BLOCK_D, PAIRS
    )
    square = tl.sum(gradient * gradient, 0)
    if KEEPS:
        tl.store(d_enc + place * width_in + column, gradient, mask=column < width_in)
    gradient = _decoder_gradient(
        latent, starts, order, rows, values, sources, source_of, norm_gradient, sites, n_sites, piece_starts, dec_sums,
        W_dec, n_rows, width_out, IS_UNIT, SUM, BLOCK_E, PAIRS,
    )  # fmt: skip
    square += tl.sum(gradient * gradient, 0)
    if KEEPS:
        column = tl.arange(0, BLOCK_E)
        tl.store(d_dec + place * width_out + column, gradient, mask=column < width_out)
    else:
        tl.store(squares + place, square)


@triton.jit
@no_type_check
def _moved(weight, means, squares, at, gradient, numbers, is_own, SUM: tl.constexpr):
    """Adam on one row: moves its moments, and returns where the weights go. Moments that are fading away become zero."""
    beta1 = tl.load(numbers)
    fresh1 = tl.load(numbers + 1)
    beta2 = tl.load(numbers + 2)
    fresh2 = tl.load(numbers + 3)
    mean = beta1 * tl.load(means + at, mask=is_own, other=0.0) + fresh1 * gradient
    square = beta2 * tl.load(squares + at, mask=is_own, other=0.0) + fresh2 * gradient * gradient
    mean = tl.where(tl.abs(mean) <= _FADING, 0.0, mean)  # a bad number stays one
    square = tl.where(square <= _FADING, 0.0, square)
    tl.store(means + at, mean, mask=is_own)
    tl.store(squares + at, square, mask=is_own)
    step_size = tl.load(numbers + 4)
    root_scale = tl.load(numbers + 5)
    epsilon = tl.load(numbers + 6)
    old = tl.load(weight + at, mask=is_own, other=0.0).to(SUM)
    return old - step_size * mean / (tl.sqrt(square) * root_scale + epsilon)


@told
@triton.jit
@no_type_check
def adam_latents(
    starts, order, rows, d_product, values, read, sources, source_of, norm_gradient, sites, n_sites,
    piece_starts, enc_sums, dec_sums, W_enc, enc_mean, enc_square, W_dec, dec_mean, dec_square, squares, numbers,
    n_rows, width_in, width_out,
    IS_UNIT: tl.constexpr, SUM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr, PAIRS: tl.constexpr,
):  # fmt: skip
    """Sum the gradients of a latent's two rows, and move them at once, so that no gradient is ever stored.

    squares [L] receives the gradients' squared length before they are shrunk. numbers: see `gpu.adam`.
    """
    latent = tl.program_id(0).to(tl.int64)
    shrink = tl.load(numbers + 7)
    column = tl.arange(0, BLOCK_D)
    gradient = _sum_latent(
        latent, starts, order, rows, d_product, read, piece_starts, enc_sums, column, width_in, SUM, BLOCK_D, PAIRS
    )
    square = tl.sum(gradient * gradient, 0)
    at = latent * width_in + column
    is_own = column < width_in
    weight = _moved(W_enc, enc_mean, enc_square, at, gradient * shrink, numbers, is_own, SUM)
    tl.store(W_enc + at, weight, mask=is_own)

    gradient = _decoder_gradient(
        latent, starts, order, rows, values, sources, source_of, norm_gradient, sites, n_sites, piece_starts, dec_sums,
        W_dec, n_rows, width_out, IS_UNIT, SUM, BLOCK_E, PAIRS,
    )  # fmt: skip
    square += tl.sum(gradient * gradient, 0)
    tl.store(squares + latent, square)
    column = tl.arange(0, BLOCK_E)
    at = latent * width_out + column
    is_own = column < width_out
    weight = _moved(W_dec, dec_mean, dec_square, at, gradient * shrink, numbers, is_own, SUM)
    if IS_UNIT:
        weight = weight / tl.sqrt(tl.sum(weight * weight, 0))
    tl.store(W_dec + at, weight, mask=is_own)
