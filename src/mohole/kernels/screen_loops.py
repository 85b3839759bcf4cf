"""The compiled loops of screening: rows rounded, products of 16-bit whole numbers, and which codes they leave no doubt about.

A product of sixteen and sixteen 16-bit numbers, summed in pairs to eight of 32 bits, is one instruction of AVX2 (vpmaddwd). LLVM
is told to use it, because it does not find it in a loop. Per cycle it does twice the multiplications of float32's.

Axes: B batch rows, L latents, D width (padded to whole steps), G rows of a group. Groups are packed [group, D / 16, G, 16], so
that a product reads both sides in one direction.
"""

from typing import Any, no_type_check

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from mohole.kernels.loops import keep_best, sort_by_latent_in_place

LANES = 16
_WIDE = 64
STEP = 32
"""Columns that the loop takes at a time."""
ROWS, LATENTS = 2, 4
"""Of a block. More accumulators than eight and what feeds them do not stay in sixteen registers."""
_LENGTH = 46000.0
"""Of a row of whole numbers: a product of two such rows, and any part of it, is below 2^31 (Cauchy-Schwarz)."""
_LARGEST = 32767.0
_ROUNDED = 0.51
"""Of a unit: how far a number may lie from the whole one it becomes, the rounding of its quotient included."""
_CACHE_BYTES = 16384

_I32, _I64 = ir.IntType(32), ir.IntType(64)
_SUMS, _NUMBERS, _FLOATS = (
    ir.VectorType(_I32, 8), ir.VectorType(ir.IntType(16), LANES), ir.VectorType(ir.FloatType(), 4)
)  # fmt: skip


def _shuffled(builder: Any, one: Any, other: Any, places: list[int]) -> Any:
    return builder.shuffle_vector(one, other, ir.Constant(ir.VectorType(_I32, len(places)), places))


def _pair_sums(builder: Any, one: Any, other: Any) -> Any:
    """Sums of neighbours: in each half those of the first vector, then those of the second."""
    even = _shuffled(builder, one, other, [0, 2, 8, 10, 4, 6, 12, 14])
    return builder.add(even, _shuffled(builder, one, other, [1, 3, 9, 11, 5, 7, 13, 15]))


def _offset(builder: Any, array: Any, index: Any) -> Any:
    return builder.gep(array, [index])


@intrinsic
def _block(
    typing: Any, rows: Any, latents: Any, row_units: Any, latent_units: Any, out: Any,
    row_at: Any, latent_at: Any, row: Any, latent: Any, out_at: Any, n_steps: Any, width: Any,
) -> Any:  # fmt: skip
    """out[out_at + r * width + c] = row r . latent c, in the units of both; for ROWS rows and LATENTS latents."""
    signature = types.void(rows, latents, row_units, latent_units, out, *[types.intp] * 7)

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        arrays = [
            context.make_array(kind)(context, builder, value).data
            for kind, value in zip(signature.args[:5], given[:5], strict=True)
        ]
        row_at, latent_at, row, latent, out_at, n_steps, width = given[5:]
        x, w = _offset(builder, arrays[0], row_at), _offset(builder, arrays[1], latent_at)
        name = "llvm.x86.avx2.pmadd.wd"
        multiply = builder.module.globals.get(name)
        if multiply is None:
            multiply = ir.Function(builder.module, ir.FunctionType(_SUMS, [_NUMBERS, _NUMBERS]), name)
        before, loop, after = builder.block, builder.append_basic_block("steps"), builder.append_basic_block("end")
        builder.branch(loop)
        builder.position_at_end(loop)
        step = builder.phi(_I64)
        step.add_incoming(ir.Constant(_I64, 0), before)
        held = [builder.phi(_SUMS) for _ in range(ROWS * LATENTS)]
        for each in held:
            each.add_incoming(ir.Constant(_SUMS, None), before)
        sides = [
            _offset(builder, side, builder.mul(step, ir.Constant(_I64, n * STEP)))
            for side, n in ((x, ROWS), (w, LATENTS))
        ]

        def numbers(side: int, place: int) -> Any:
            at = _offset(builder, sides[side], ir.Constant(_I64, place * LANES))
            loaded = builder.load(builder.bitcast(at, _NUMBERS.as_pointer()))
            loaded.align = 2
            return loaded

        sums = list(held)
        for part in range(STEP // LANES):
            own = [numbers(0, part * ROWS + r) for r in range(ROWS)]
            for c in range(LATENTS):
                other = numbers(1, part * LATENTS + c)
                for r in range(ROWS):
                    at = r * LATENTS + c
                    sums[at] = builder.add(sums[at], builder.call(multiply, [own[r], other]))
        following = builder.add(step, ir.Constant(_I64, 1))
        step.add_incoming(following, loop)
        for each, found in zip(held, sums, strict=True):
            each.add_incoming(found, loop)
        builder.cbranch(builder.icmp_signed("<", following, n_steps), loop, after)
        builder.position_at_end(after)
        units = builder.load(builder.bitcast(_offset(builder, arrays[3], latent), _FLOATS.as_pointer()))
        units.align = 4
        for r in range(ROWS):
            four = sums[r * LATENTS : (r + 1) * LATENTS]
            eight = _pair_sums(builder, _pair_sums(builder, four[0], four[1]), _pair_sums(builder, four[2], four[3]))
            low, high = (_shuffled(builder, eight, eight, places) for places in ([0, 1, 2, 3], [4, 5, 6, 7]))
            found = builder.fmul(builder.sitofp(builder.add(low, high), _FLOATS), units)
            unit = builder.load(_offset(builder, arrays[2], builder.add(row, ir.Constant(_I64, r))))
            one = builder.insert_element(ir.Constant(_FLOATS, ir.Undefined), unit, ir.Constant(_I32, 0))
            found = builder.fmul(found, _shuffled(builder, one, one, [0, 0, 0, 0]))
            at = builder.add(out_at, builder.mul(ir.Constant(_I64, r), width))
            stored = builder.store(found, builder.bitcast(_offset(builder, arrays[4], at), _FLOATS.as_pointer()))
            stored.align = 4
        return context.get_dummy_value()

    return signature, generate


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def products(rows, row_units, latents, latent_units, first, out, low, high):
    """out [B, T] = each row times T latents from `first` on, for groups of rows [low, high). rows, latents: packed, flat."""
    n_out, width = len(row_units), out.shape[1]
    padded = len(rows) // n_out
    n_steps = padded // STEP
    flat = out.reshape(-1)
    held = max(_CACHE_BYTES // (2 * padded) // LATENTS, 1) * LATENTS  # latents that stay in the innermost cache
    for block in range(0, width, held):
        for group in range(low, high):
            row = group * ROWS
            for latent in range(block, min(block + held, width), LATENTS):
                _block(
                    rows, latents, row_units, latent_units, flat, row * padded, (first + latent) * padded, row,
                    first + latent, row * width + latent, n_steps, width,
                )  # fmt: skip


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "reassoc", "nsz"})
@no_type_check
def quantise(matrix, group, packed, units, lengths, errors, low, high):
    """Groups [low, high) of rows as whole numbers: row = unit * numbers + error. Lengths of rows, and what errors' are below.

    A row with a number that is not finite is written as zeros, and has an infinite error.
    """
    n, d = matrix.shape
    n_whole = d // LANES
    rest = n_whole * LANES
    for one in range(low, high):
        for g in range(group):
            row = one * group + g
            packed[one, n_whole:, g, :] = 0
            square, largest = 0.0, np.float32(0.0)
            if row < n:
                own = matrix[row]
                for i in range(d):
                    value = np.float64(own[i])
                    square += value * value
                for i in range(d):
                    size = abs(own[i])
                    largest = size if size > largest else largest
            unit = np.float32(max(np.sqrt(square) / _LENGTH, largest / _LARGEST))
            if not np.isfinite(square) or unit < 1e-30:  # too much, or as good as nothing
                packed[one, :, g, :] = 0
                units[row], lengths[row] = 0.0, 0.0
                errors[row] = np.sqrt(square) if np.isfinite(square) else np.inf
                continue
            scale = np.float32(1.0) / unit
            for part in range(n_whole):
                numbers, values = packed[one, part, g], own[part * LANES : (part + 1) * LANES]
                for i in range(LANES):
                    numbers[i] = np.int16(np.rint(values[i] * scale))
            for i in range(rest, d):
                packed[one, n_whole, g, i - rest] = np.int16(np.rint(own[i] * scale))
            units[row], lengths[row] = unit, np.sqrt(square)
            errors[row] = _ROUNDED * np.float64(unit) * np.sqrt(np.float64(d))


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "reassoc", "nsz"})
@no_type_check
def round_rows(values, bits, numbers, lengths, errors, low, high):
    """Rows [low, high) as bfloat16, to the nearest, ties to even: the upper halves of their bits. Lengths of both parts.

    A row with a number that is not finite, or that bfloat16 cannot hold, is written as zeros, and has an infinite error.
    """
    d = values.shape[1]
    rounded_bits = np.empty(d, np.uint32)
    rounded = rounded_bits.view(np.float32)
    more = 1.0 + d * 2.0**-24  # sums of float32 may be a little too small
    for row in range(low, high):
        own, own_bits, out = values[row], bits[row], numbers[row]
        for i in range(d):
            up = own_bits[i] + np.uint32(0x7FFF) + ((own_bits[i] >> np.uint32(16)) & np.uint32(1))
            rounded_bits[i] = up & np.uint32(0xFFFF0000)
            out[i] = np.uint16(up >> np.uint32(16))
        square, missed = np.float32(0.0), np.float32(0.0)
        for i in range(d):
            error = own[i] - rounded[i]
            square += own[i] * own[i]
            missed += error * error
        if not (np.isfinite(square) and np.isfinite(missed)):
            out[:] = 0
            lengths[row], errors[row] = 0.0, np.inf
            continue
        # Squares below 1e-38 are lost: of numbers below 1e-19, which the processor may also multiply as zero.
        tiny = 1e-19 * np.sqrt(np.float64(d))
        lengths[row] = np.sqrt(np.float64(square)) * more + tiny
        errors[row] = np.sqrt(np.float64(missed)) * more + tiny


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "reassoc", "nsz"})
@no_type_check
def _exact(row, latent, bias):
    total = np.float32(0.0)
    for i in range(len(row)):
        total += row[i] * latent[i]
    return total + bias


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def certify(
    row_starts, latents, near, rows, W_enc, bias, slack, rounding, k, n_held, kept_latents, kept_values, counts, is_certain,
    low, high,
):  # fmt: skip
    """For rows [low, high): the k best exact values among candidates, in the order of latents, and whether none can be missing.

    Candidates are the n_held largest near values, or all that could be positive where those are fewer. Exact values lie at most
    `slack`, and `rounding` of the near value's size, from near ones: so does what is no candidate, above the least of them; and
    candidates that cannot reach the k best are not computed.
    """
    values, places = np.empty(n_held, np.float32), np.empty(n_held, np.int32)
    for row in range(low, high):
        start = row_starts[row]
        n = row_starts[row + 1] - start
        values[:n], places[:n] = near[start : start + n], latents[start : start + n]
        bound = 0.0 if slack[row] < np.inf else np.inf
        if n == n_held:
            least_near = np.float64(values[:n].min())
            bound = least_near + abs(least_near) * rounding + slack[row]
        if n > k:
            keep_best(values, places, n, k)  # by near values: most of these stay
        least, n_positive = 0.0, 0
        for i in range(n):
            value, latent = values[i], places[i]
            if i >= k and value + abs(value) * rounding + slack[row] < least:
                continue
            exact = _exact(rows[row], W_enc[latent], bias[latent])
            if exact > 0.0:
                values[n_positive], places[n_positive] = exact, latent
                n_positive += 1
            if i == k - 1 and n_positive == k:
                least = np.float64(values[:k].min())
        if n_positive > k:
            keep_best(values, places, n_positive, k)
        n_kept = min(n_positive, k)
        least = (
            np.float64(values[:k].min()) if n_kept == k else 0.0
        )  # fewer than k: what is missing must not be positive
        sort_by_latent_in_place(places, values, n_kept)
        counts[row] = n_kept
        kept_values[row, :n_kept], kept_latents[row, :n_kept] = values[:n_kept], places[:n_kept]
        is_certain[row] = bound < least if n_kept == k else bound <= 0.0


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def near_above(  # noqa: C901 - one loop over the hottest data there is
    near, offsets, slack, rounding, first, latents, counts, low, high
):
    """For rows [low, high): add the tile's latents that could exceed their threshold, in ascending order.

    offsets: bias minus threshold of each latent. latents [B, room]; counts [B] are those of all tiles so far. What finds no room
    is counted, and not written.
    """
    n_latents, room = near.shape[1], latents.shape[1]
    n_wide = n_latents // _WIDE
    offsets_wide = offsets[: n_wide * _WIDE].reshape(n_wide, _WIDE)
    for row in range(low, high):
        count, own, least = counts[row], latents[row], -slack[row]
        tile = near[row, : n_wide * _WIDE].reshape(n_wide, _WIDE)
        for block in range(n_wide):
            part, offset = tile[block], offsets_wide[block]
            any_hit = np.uint8(0)
            for i in range(_WIDE):
                any_hit |= np.uint8(part[i] + abs(part[i]) * rounding + offset[i] > least)
            if any_hit:
                for i in range(_WIDE):
                    if part[i] + abs(part[i]) * rounding + offset[i] > least:
                        if count < room:
                            own[count] = first + block * _WIDE + i
                        count += 1
        for i in range(n_wide * _WIDE, n_latents):
            if near[row, i] + abs(near[row, i]) * rounding + offsets[i] > least:
                if count < room:
                    own[count] = first + i
                count += 1
        counts[row] = count


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def pack_latents(latents, row_starts, packed, low, high):
    """Candidates [B, room] of rows [low, high) into one array of all rows, one after the other."""
    for row in range(low, high):
        start, stop = row_starts[row], row_starts[row + 1]
        packed[start:stop] = latents[row, : stop - start]
