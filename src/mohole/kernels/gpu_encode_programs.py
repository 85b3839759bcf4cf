"""The Triton programs that find codes on a device: products of tiles, and what is kept of them. Called by `gpu_encode`.

Pointers only; shapes and laws stand with their callers. Axes: B batch rows, L latents, D width read. Every program writes what no
other one writes, and sums in an order that its tile alone decides: no atomics, so a result has the same bits every time, however
many multiprocessors there are. Sums are in float32.
"""

from typing import no_type_check

import triton
import triton.language as tl

from mohole.kernels.compiling_programs import told

_SMALLEST, _LARGEST = tl.constexpr(2.0**-60), tl.constexpr(2.0**50)
"""Largest numbers of rows that are rounded: products of two, in units of both, are float32 numbers."""
_HALF_EXPONENT = tl.constexpr(14)
"""Of a row's largest number in its unit: halves reach 2^16."""


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


@told
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


@told
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


@told
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


@told
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
