"""The Triton programs of `gpu`: what torch has no operator for. Pointers only; shapes and laws stand with their callers.

Axes: B batch rows, L latents, N kept (row, latent) pairs, D width read, E width written, S sources. Every program writes what
no other one writes, and sums in an order that its tile alone decides: no atomics, so a result has the same bits every time,
however many multiprocessors there are. Sums are in float32, in float64 where the weights are.
"""

from typing import no_type_check

import triton
import triton.language as tl

_FADING = tl.constexpr(1e-30)
_SMALLEST, _LARGEST = tl.constexpr(2.0**-60), tl.constexpr(2.0**50)
"""Largest numbers of rows that are rounded: products of two, in units of both, are float32 numbers."""
_HALF_EXPONENT = tl.constexpr(14)
"""Of a row's largest number in its unit: halves reach 2^16."""
SINGLE, DOUBLE = tl.float32, tl.float64
"""What sums are kept in."""


@triton.jit
@no_type_check
def _dots(
    rows, W_enc, row, latent, n_rows, n_latents, width,
    BLOCK_B: tl.constexpr, BLOCK_L: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Products of a tile [BLOCK_B, BLOCK_L].

    Rows and latents past the end repeat others, which costs no mask in the loop: the caller keeps none of them.
    """
    column = tl.arange(0, BLOCK_D)
    left = rows + (row % n_rows).to(tl.int64)[:, None] * width + column[None, :]
    right = W_enc + (latent % n_latents).to(tl.int64)[None, :] * width + column[:, None]
    total = tl.zeros((BLOCK_B, BLOCK_L), tl.float32)
    for first in range(0, width, BLOCK_D):
        inside = column < width - first
        read = tl.load(left + first, mask=inside[None, :], other=0.0)
        weights = tl.load(right + first, mask=inside[:, None], other=0.0)
        # ieee: TF32, the default for float32, keeps ten bits of a number, and other latents would win.
        total = tl.dot(read, weights, total, input_precision="ieee")
    return total


@triton.jit
@no_type_check
def _product(
    rows, W_enc, b_enc, row, latent, n_rows, n_latents, width,
    BLOCK_B: tl.constexpr, BLOCK_L: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Pre-activations of a tile [BLOCK_B, BLOCK_L], rounded as b_enc is, in float32."""
    total = _dots(rows, W_enc, row, latent, n_rows, n_latents, width, BLOCK_B, BLOCK_L, BLOCK_D)
    bias = tl.load(b_enc + latent % n_latents)
    return (total + bias[None, :].to(tl.float32)).to(b_enc.dtype.element_ty).to(tl.float32)


@triton.jit
@no_type_check
def _at_most(
    rows, W_enc, b_enc, row_facts, latent_facts, row, latent, n_rows, n_latents, width,
    BLOCK_B: tl.constexpr, BLOCK_L: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """What the pre-activations of a tile [BLOCK_B, BLOCK_L] cannot exceed, from rounded rows and latents: see `gpu_screen`.

    row_facts [3, B]: unit, what rounding missed, length. latent_facts [3, L]: unit, length, what rounding missed.
    """
    total = _dots(rows, W_enc, row, latent, n_rows, n_latents, width, BLOCK_B, BLOCK_L, BLOCK_D)
    row_facts += row % n_rows
    latent_facts += latent % n_latents
    slack = tl.load(row_facts + n_rows)[:, None] * tl.load(latent_facts + n_latents)[None, :]
    slack += tl.load(row_facts + 2 * n_rows)[:, None] * tl.load(latent_facts + 2 * n_latents)[None, :]
    near = total * tl.load(row_facts)[:, None] * tl.load(latent_facts)[None, :]
    most = near + tl.load(b_enc + latent % n_latents)[None, :] + slack
    return tl.where(most == most, most, float("inf"))  # of bad numbers nothing is known


@triton.jit
@no_type_check
def _best(bits, k):
    """Which entries of each row are among its k largest; among equals the first. Also the k-th largest, or 0.

    Entries are the bits of positive floats, which are in the order of the floats, or 0 for none. The k-th is found a bit at a
    time: sorting would hold every entry's place, too.
    """
    kth = tl.sum(bits, 1) * 0
    for step in range(31):
        trial = kth | (1 << (30 - step))
        enough = tl.sum((bits >= trial[:, None]).to(tl.int32), 1) >= k
        kth = tl.where(enough, trial, kth)
    more = bits > kth[:, None]
    equal = ((bits == kth[:, None]) & (bits > 0)).to(tl.int32)
    n_equal = k - tl.sum(more.to(tl.int32), 1)
    return more | ((equal > 0) & (tl.cumsum(equal, 1) <= n_equal[:, None])), kth


@triton.jit
@no_type_check
def _shrink(
    held_values, held_latents, counts, thresholds, to_values, to_latents, to_stride, n_rows, k,
    BLOCK_B: tl.constexpr, ROOM: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """Leave each row's k best candidates, in the order they stand in, at `to`. Some rows at a time, so that registers hold them.

    counts, thresholds [BLOCK_B]: what each row holds, and what a later candidate must exceed. Of the first n_rows only.
    """
    for first in range(0, BLOCK_B, GROUP):
        row = first + tl.arange(0, GROUP)
        place = tl.arange(0, ROOM)
        count = tl.load(counts + row)
        is_held = place[None, :] < count[:, None]
        source = row[:, None] * ROOM + place[None, :]
        values = tl.load(held_values + source, mask=is_held, other=0.0)
        latents = tl.load(held_latents + source, mask=is_held, other=0)
        tl.debug_barrier()  # `to` may be where they were read from
        keep, kth = _best(values.to(tl.int32, bitcast=True), k)
        kept = keep.to(tl.int32)
        target = row.to(tl.int64)[:, None] * to_stride + tl.cumsum(kept, 1) - 1
        is_own = keep & (row < n_rows)[:, None]
        tl.store(to_values + target, values, mask=is_own)
        tl.store(to_latents + target, latents, mask=is_own)
        tl.store(counts + row, tl.sum(kept, 1))
        tl.store(thresholds + row, kth.to(tl.float32, bitcast=True))


@triton.jit
@no_type_check
def stream_top(
    rows, W_enc, b_enc, row_facts, latent_facts, held_values, held_latents, counts, thresholds, out_values, out_latents,
    n_rows, n_latents, width, k, part_latents, n_parts, n_items,
    BLOCK_B: tl.constexpr, BLOCK_L: tl.constexpr, BLOCK_D: tl.constexpr,
    ROOM: tl.constexpr, GROUP: tl.constexpr, KEPT: tl.constexpr, SCREENS: tl.constexpr,
):  # fmt: skip
    """The k largest positive pre-activations of every row in every part of the latents, tile after tile. SCREENS: of what they
    cannot exceed.

    out [B, n_parts, KEPT] must be zeros. held [programs, BLOCK_B, ROOM], counts and thresholds [programs, BLOCK_B] are a
    program's own. An item is a block of rows and a part: those that run at once share rows and parts, and so the L2 cache.
    Tiles come in ascending order of latents: an entry equal to the k-th best of earlier ones has a higher latent, and loses.
    """
    slot = tl.program_id(0)
    own = slot * BLOCK_B
    held_values += own.to(tl.int64) * ROOM
    held_latents += own.to(tl.int64) * ROOM
    counts += own
    thresholds += own
    block_row = tl.arange(0, BLOCK_B)
    for item in range(slot, n_items, tl.num_programs(0)):
        part = item % n_parts
        first_row = item // n_parts * BLOCK_B
        row = first_row + block_row
        last = tl.minimum((part + 1) * part_latents, n_latents)
        count = tl.zeros((BLOCK_B,), tl.int32)
        threshold = tl.zeros((BLOCK_B,), tl.float32)
        for first in range(part * part_latents, last, BLOCK_L):
            latent = first + tl.arange(0, BLOCK_L)
            if SCREENS:
                pre = _at_most(
                    rows, W_enc, b_enc, row_facts, latent_facts, row, latent, n_rows, n_latents, width,
                    BLOCK_B, BLOCK_L, BLOCK_D,
                )  # fmt: skip
            else:
                pre = _product(rows, W_enc, b_enc, row, latent, n_rows, n_latents, width, BLOCK_B, BLOCK_L, BLOCK_D)
            hit = (pre > threshold[:, None]) & (latent < last)[None, :]
            hits = hit.to(tl.int32)
            n_hits = tl.sum(hits, 1)
            if tl.max(n_hits, 0) > 0:
                place = block_row[:, None] * ROOM + count[:, None] + tl.cumsum(hits, 1) - 1
                tl.store(held_values + place, pre, mask=hit)
                tl.store(held_latents + place, latent[None, :] + tl.zeros_like(place), mask=hit)
                count += n_hits
                if tl.max(count, 0) > ROOM - BLOCK_L:
                    tl.store(counts + block_row, count)
                    tl.debug_barrier()
                    _shrink(
                        held_values, held_latents, counts, thresholds, held_values, held_latents, ROOM, BLOCK_B, k,
                        BLOCK_B, ROOM, GROUP,
                    )  # fmt: skip
                    tl.debug_barrier()
                    count = tl.load(counts + block_row)
                    threshold = tl.load(thresholds + block_row)
        tl.store(counts + block_row, count)
        tl.debug_barrier()
        out = (tl.cast(first_row, tl.int64) * n_parts + part) * KEPT
        _shrink(
            held_values, held_latents, counts, thresholds, out_values + out, out_latents + out, n_parts * KEPT,
            n_rows - first_row, k, BLOCK_B, ROOM, GROUP,
        )  # fmt: skip
        tl.debug_barrier()


@triton.jit
@no_type_check
def merge_parts(values, latents, counts, n_rows, k, WIDTH: tl.constexpr, GROUP: tl.constexpr):
    """Leave the k best of each row [B, WIDTH] at its beginning, in the order they stand in; zeros are none."""
    row = tl.program_id(0) * GROUP + tl.arange(0, GROUP)
    place = tl.arange(0, WIDTH)
    is_row = row < n_rows
    start = row.to(tl.int64)[:, None] * WIDTH
    found = tl.load(values + start + place[None, :], mask=is_row[:, None], other=0.0)
    numbers = tl.load(latents + start + place[None, :], mask=is_row[:, None], other=0)
    tl.debug_barrier()
    keep, _ = _best(found.to(tl.int32, bitcast=True), k)
    kept = keep.to(tl.int32)
    target = start + tl.cumsum(kept, 1) - 1
    tl.store(values + target, found, mask=keep)
    tl.store(latents + target, numbers, mask=keep)
    tl.store(counts + row, tl.sum(kept, 1), mask=is_row)


@triton.jit
@no_type_check
def round_rows(
    matrix, halves, units, lengths, errors, n_rows, width, BLOCK_B: tl.constexpr, BLOCK_D: tl.constexpr
):  # fmt: skip
    """Rows as 16-bit floats times a unit of each, a power of two; their lengths, and those of what rounding missed.

    Rows of next to nothing become zeros, and so do those with numbers that are too large or none: all of them is missed.
    """
    row = tl.program_id(0) * BLOCK_B + tl.arange(0, BLOCK_B)
    is_row = row < n_rows
    column = tl.arange(0, BLOCK_D)
    at = row.to(tl.int64)[:, None] * width + column[None, :]
    largest = tl.zeros((BLOCK_B,), tl.float32)
    square = tl.zeros((BLOCK_B,), tl.float64)
    for first in range(0, width, BLOCK_D):
        here = is_row[:, None] & (column < width - first)[None, :]
        values = tl.load(matrix + at + first, mask=here, other=0.0)
        largest = tl.maximum(largest, tl.max(tl.abs(values), 1))
        square += tl.sum(values.to(tl.float64) * values.to(tl.float64), 1)
    is_kept = (largest >= _SMALLEST) & (largest <= _LARGEST) & (square < float("inf"))  # no NaN either
    exponent = tl.where(is_kept, largest, 1.0).to(tl.int32, bitcast=True) >> 23
    unit = ((exponent - _HALF_EXPONENT) << 23).to(tl.float32, bitcast=True)
    inverse = ((254 - exponent + _HALF_EXPONENT) << 23).to(tl.float32, bitcast=True)
    missed = tl.zeros((BLOCK_B,), tl.float64)
    for first in range(0, width, BLOCK_D):
        here = is_row[:, None] & (column < width - first)[None, :]
        values = tl.load(matrix + at + first, mask=here, other=0.0)
        half = (tl.where(is_kept[:, None], values, 0.0) * inverse[:, None]).to(tl.float16)
        tl.store(halves + at + first, half, mask=here)
        error = (values - half.to(tl.float32) * unit[:, None]).to(tl.float64)
        missed += tl.sum(error * error, 1)
    tl.store(units + row, tl.where(is_kept, unit, 0.0), mask=is_row)
    tl.store(lengths + row, tl.sqrt(square).to(tl.float32), mask=is_row)
    tl.store(errors + row, tl.sqrt(tl.where(is_kept, missed, square)).to(tl.float32), mask=is_row)


@triton.jit
@no_type_check
def stream_above(
    rows, W_enc, b_enc, limits, starts, out_values, out_latents, counts,
    n_rows, n_latents, width, part_latents, n_parts, n_items,
    BLOCK_B: tl.constexpr, BLOCK_L: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Pre-activations above their latent's limit, in every part of the latents. counts [B, n_parts] says how many.

    The list of a row and a part stands in `out` from starts[row, part] to the next one's start. What finds no room is counted,
    and not written.
    """
    block_row = tl.arange(0, BLOCK_B)
    for item in range(tl.program_id(0), n_items, tl.num_programs(0)):
        part = item % n_parts
        row = item // n_parts * BLOCK_B + block_row
        is_row = row < n_rows
        list_number = row.to(tl.int64) * n_parts + part
        start = tl.load(starts + list_number, mask=is_row, other=0)
        room = tl.load(starts + list_number + 1, mask=is_row, other=0) - start
        last = tl.minimum((part + 1) * part_latents, n_latents)
        count = tl.zeros((BLOCK_B,), tl.int32)
        for first in range(part * part_latents, last, BLOCK_L):
            latent = first + tl.arange(0, BLOCK_L)
            pre = _product(rows, W_enc, b_enc, row, latent, n_rows, n_latents, width, BLOCK_B, BLOCK_L, BLOCK_D)
            limit = tl.load(limits + latent, mask=latent < last, other=0.0).to(tl.float32)
            hit = (pre > limit[None, :]) & (latent < last)[None, :] & is_row[:, None]
            hits = hit.to(tl.int32)
            n_hits = tl.sum(hits, 1)
            if tl.max(n_hits, 0) > 0:
                place = count[:, None] + tl.cumsum(hits, 1) - 1
                is_held = hit & (place < room[:, None])
                tl.store(out_values + start[:, None] + place, pre, mask=is_held)
                tl.store(out_latents + start[:, None] + place, latent[None, :] + tl.zeros_like(place), mask=is_held)
                count += n_hits
        tl.store(counts + list_number, count, mask=is_row)


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
