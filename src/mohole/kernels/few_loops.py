"""The compiled loops of `few`. Arrays only; shapes and laws stand with their callers. Axes as there.

Those that take `low` and `high` work on rows [low, high) and write nothing outside of them; the others work on all rows. A row's
numbers do not depend on which others there are; whether it is left open does. An array of no rows stands for what is not given:
numba compiles a loop anew for each set of types, and None has a type of its own.

The two that a pass of a model waits for take its rows, and memory for others, by address: what makes arrays of tensors and gives
arrays back took 12 of 40 microseconds behind a pass, more than the work. All else stands in a table, [array, 4]: an address, and
its shape with ones before it; of the rows, which are first, the shape alone. What takes 18 arguments apart took 5 to 14.
"""

from typing import no_type_check

import numba
import numpy as np
from numba.core import types
from numba.core.cgutils import voidptr_t
from numba.extending import intrinsic

from mohole.kernels import compiling_loops  # noqa: F401  # it is told of
from mohole.kernels.top_loops import centre, read_top

# As in `loops`. Only the sum of a dot product may be taken in another order. Elsewhere c + (a - b) is taken as it is written:
# in another order, a row that nothing is to move would move.
_SUMS = {"contract", "reassoc", "nsz"}
_IN_ORDER = {"contract", "nsz"}
# Where what stands in a table: `ReadAndMove` writes it, in the order of `Movements` and `tabled`.
_ROWS, _FACTOR, _COLUMNS, _NUMBERS, _ALONG, _HELD, _WANTED, _ORIGIN, _FIRST_OF_READER = range(9)
_DIRECTIONS, _COEFFICIENTS, _FLOOR = range(_FIRST_OF_READER, _FIRST_OF_READER + 3)
_W_ENC, _B_ENC, _LATENTS, _COUNTS, _CODES, _UNITS, _ERRORS = range(_FIRST_OF_READER, _FIRST_OF_READER + 7)


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=_SUMS)
@no_type_check
def _dot(a, b):
    total = np.float32(0)
    for i in range(len(a)):
        total += a[i] * b[i]
    return total


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=_SUMS)
@no_type_check
def _is_finite(row):
    total = np.float32(0)
    for i in range(len(row)):
        total += row[i] * np.float32(0)  # 0, or NaN: no large numbers overflow it
    return total == 0


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=_IN_ORDER)
@no_type_check
def _few_of_row(centred, row, directions, coefficients, floor, wanted, found):
    """found [K]: latents that their own encoder rows decide on; 0 for what is not wanted."""
    bias, threshold, gain, offset = coefficients[0], coefficients[1], coefficients[2], coefficients[3]
    for k in range(len(directions)):
        found[k] = 0
        if len(wanted) and not wanted[row, k]:
            continue
        product = _dot(centred, directions[k])
        if product + bias[k] > threshold[k]:
            value = product * gain[k] + offset[k]
            found[k] = floor if value < floor else value


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=_IN_ORDER)
@no_type_check
def _move_row(given, row, found, factor, columns, numbers, along, held, moved):
    """moved [D]: the row with the terms applied. True: one moved it by anything but 0."""
    read_at, when_at = columns[0], columns[1]
    constant, slope, low, high, bound = numbers[0], numbers[1], numbers[2], numbers[3], numbers[4]
    has_moved = False
    for i in range(len(moved)):
        moved[i] = given[i]
    for term in range(len(along)):
        if len(held) and not held[term]:
            continue
        if when_at[term] >= 0 and not found[when_at[term]] > bound[term]:
            continue
        by = constant[term]
        if read_at[term] >= 0:
            value = found[read_at[term]]
            clipped = high[term] if value > high[term] else value
            clipped = low[term] if clipped < low[term] else clipped
            by += slope[term] * value
            by += clipped - value
        if len(factor):
            by *= factor[row, term]
        if by != 0:
            has_moved = True
            direction = along[term]
            for i in range(len(moved)):
                moved[i] += by * direction[i]
    return has_moved


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _held_at(held, text, position):
    """[T], or nothing: all terms are held."""
    if not len(held):
        return np.empty(0, np.bool_)
    return held[text, position if held.shape[1] > 1 else 0]


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def read_few(rows, directions, origin, coefficients, floor, wanted, found, low, high):
    """found [N, K]."""
    centred = np.empty(rows.shape[1], np.float32)
    for row in range(low, high):
        centre(rows[row], origin, centred)
        _few_of_row(centred, row, directions, coefficients, floor, wanted, found[row])


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def move(rows, found, factor, columns, numbers, along, held, moved, has_moved, low, high):
    """moved [B, P, D] and has_moved [B, P], of rows and what was read of them [N, K]."""
    nothing = np.empty(0, np.float32)
    for row in range(low, high):
        text, position = row // rows.shape[1], row % rows.shape[1]
        read, here = found[row] if len(found) else nothing, _held_at(held, text, position)
        own = moved[text, position]
        has_moved[text, position] = _move_row(
            rows[text, position], row, read, factor, columns, numbers, along, here, own
        )


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _are_finite(moved, has_moved):
    """Is every number of the rows that moved?"""
    for text in range(moved.shape[0]):
        for position in range(moved.shape[1]):
            if has_moved[text, position] and not _is_finite(moved[text, position]):
                return False
    return True


@intrinsic
@no_type_check
def _pointer(_, address):
    """Of an address, a number: numba itself makes pointers of arrays alone."""

    def inttoptr(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], voidptr_t)

    return types.voidptr(types.int64), inttoptr


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _at(address, shape, kind):
    return numba.carray(_pointer(address), shape, kind)


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _block(table, place, kind):
    at = table[place]
    return _at(at[0], (at[1], at[2], at[3]), kind)


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _matrix(table, place, kind):
    return _block(table, place, kind)[0]


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _vector(table, place, kind):
    return _block(table, place, kind)[0, 0]


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _given(table, rows_at, moved_at, has_moved_at):
    """(rows, moved, has_moved), and what moves them, as `move` takes it: (factor, columns, numbers, along, held)."""
    shape = table[_ROWS, 1], table[_ROWS, 2], table[_ROWS, 3]
    arrays = _at(rows_at, shape, np.float32), _at(moved_at, shape, np.float32), _at(has_moved_at, shape[:2], np.bool_)
    factor, columns = _matrix(table, _FACTOR, np.float32), _matrix(table, _COLUMNS, np.int64)
    numbers, along = _matrix(table, _NUMBERS, np.float32), _matrix(table, _ALONG, np.float32)
    return arrays, (factor, columns, numbers, along, _block(table, _HELD, np.bool_))


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def read_few_and_move(rows_at, moved_at, has_moved_at, table_at):
    """`read_few`, then `move`, of float32 and bool at these addresses: are all rows that moved finite?"""
    table = _at(table_at, (_FLOOR + 1, 4), np.int64)
    (rows, moved, has_moved), (factor, columns, numbers, along, held) = _given(table, rows_at, moved_at, has_moved_at)
    wanted, origin = _matrix(table, _WANTED, np.bool_), _vector(table, _ORIGIN, np.float32)
    directions, coefficients = _matrix(table, _DIRECTIONS, np.float32), _matrix(table, _COEFFICIENTS, np.float32)
    floor = _vector(table, _FLOOR, np.float32)[0]
    n_texts, n_positions, width = rows.shape
    centred, read = np.empty(width, np.float32), np.empty(len(directions), np.float32)
    for row in range(n_texts * n_positions):
        text, position = row // n_positions, row % n_positions
        given, here = rows[text, position], _held_at(held, text, position)
        centre(given, origin, centred)
        _few_of_row(centred, row, directions, coefficients, floor, wanted, read)
        has_moved[text, position] = _move_row(
            given, row, read, factor, columns, numbers, along, here, moved[text, position]
        )
    return _are_finite(moved, has_moved)


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def read_top_and_move(rows_at, moved_at, has_moved_at, table_at):
    """`read_top`, then `move`: as `read_few_and_move`, of as many rows as leave none open."""
    table = _at(table_at, (_ERRORS + 1, 4), np.int64)
    (rows, moved, has_moved), (factor, columns, numbers, along, held) = _given(table, rows_at, moved_at, has_moved_at)
    wanted, origin = _matrix(table, _WANTED, np.bool_), _vector(table, _ORIGIN, np.float32)
    W_enc, b_enc = _matrix(table, _W_ENC, np.float32), _vector(table, _B_ENC, np.float32)
    codes, units = _matrix(table, _CODES, np.int8), _vector(table, _UNITS, np.float32)
    rounded = codes, units, _vector(table, _ERRORS, np.float32)
    latents, counts = _vector(table, _LATENTS, np.int64), _vector(table, _COUNTS, np.int64)
    n = rows.shape[0] * rows.shape[1]
    flat, found = rows.reshape(n, rows.shape[2]), np.empty((n, len(latents)), np.float32)
    read_top(
        flat, W_enc, b_enc, rounded, origin, counts[0], latents, counts[1], wanted, found, np.empty(n, np.bool_), 0, n
    )
    move(rows, found, factor, columns, numbers, along, held, moved, has_moved, 0, n)
    return _are_finite(moved, has_moved)
