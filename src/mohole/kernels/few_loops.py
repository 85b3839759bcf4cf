"""The compiled loops of `few`. Arrays only; shapes and laws stand with their callers. Axes as there.

Those that take `low` and `high` work on rows [low, high) and write nothing outside of them; the others work on all rows. A row's
numbers do not depend on which others there are. An array of no rows stands for what is not given: numba compiles a loop anew for
each set of types, and None has a type of its own.
"""

from typing import no_type_check

import numba
import numpy as np

from mohole.kernels import compiling_loops  # noqa: F401  # it is told of

# As in `loops`. Only the sum of a dot product may be taken in another order. Elsewhere c + (a - b) is taken as it is written:
# in another order, a row that nothing is to move would move.
_SUMS = {"contract", "reassoc", "nsz"}
_IN_ORDER = {"contract", "nsz"}


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=_SUMS)
@no_type_check
def _dot(a, b):
    total = np.float32(0)
    for i in range(len(a)):
        total += a[i] * b[i]
    return total


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _is_before(value, latent, other, other_latent):
    """Larger, or as large with a lower number."""
    return value > other or (value == other and latent < other_latent)


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=_IN_ORDER)
@no_type_check
def _centre(row, origin, centred):
    """centred [D]: the row less the origin, which is what encoder rows multiply."""
    for i in range(len(centred)):
        centred[i] = row[i] - origin[i]


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
def _top_of_row(  # noqa: C901 - one loop over the hottest data there is
    centred, row, W_enc, b_enc, n_kept, latents, wanted, pre, found
):
    """found [K]: latents of which a row keeps n_kept, or fewer. True: the row is open, for `pre` has room for too few latents.

    One whose pre-activation is not positive is silent, and so is one that n_kept latents stand before. Where the foremost
    of those that are read is silent, all are: in most rows the first hundred latents are enough to say so.
    """
    n_read, room, foremost, n_before = len(latents), len(pre), -1, 0
    # One loop for both: a sum that is compiled twice may be taken in two orders.
    for step in range(n_read + room):
        is_own = step < n_read
        latent = latents[step] if is_own else step - n_read
        if is_own:
            found[step] = 0
            if len(wanted) and not wanted[row, step]:
                continue
        elif foremost < 0:
            return False
        value = _dot(centred, W_enc[latent]) + b_enc[latent]
        if is_own:
            if value > 0:
                found[step] = value
                if foremost < 0 or _is_before(value, latent, found[foremost], latents[foremost]):
                    foremost = step
            continue
        pre[latent] = value
        n_before += _is_before(value, latent, found[foremost], latents[foremost])
        if n_before == n_kept:
            found[:] = 0
            return False
    if room < len(W_enc):
        return True
    for k in range(n_read):
        if found[k] > 0 and k != foremost:
            n_before = 0
            for latent in range(room):
                n_before += _is_before(pre[latent], latent, found[k], latents[k])
            found[k] = found[k] if n_before < n_kept else 0
    return False


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
        _centre(rows[row], origin, centred)
        _few_of_row(centred, row, directions, coefficients, floor, wanted, found[row])


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def read_top(rows, W_enc, b_enc, origin, n_kept, latents, room, wanted, found, is_open, low, high):
    """found [N, K]; numbers of a row that is_open [N] mean nothing."""
    centred, pre = np.empty(rows.shape[1], np.float32), np.empty(room, np.float32)
    for row in range(low, high):
        _centre(rows[row], origin, centred)
        is_open[row] = _top_of_row(centred, row, W_enc, b_enc, n_kept, latents, wanted, pre, found[row])


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
def read_few_and_move(
    rows, directions, origin, coefficients, floor, wanted, factor, columns, numbers, along, held, moved, has_moved
):
    """`read_few`, then `move`."""
    centred, read = np.empty(rows.shape[2], np.float32), np.empty(len(directions), np.float32)
    for row in range(rows.shape[0] * rows.shape[1]):
        text, position = row // rows.shape[1], row % rows.shape[1]
        given, here = rows[text, position], _held_at(held, text, position)
        _centre(given, origin, centred)
        _few_of_row(centred, row, directions, coefficients, floor, wanted, read)
        has_moved[text, position] = _move_row(
            given, row, read, factor, columns, numbers, along, here, moved[text, position]
        )


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def read_top_and_move(
    rows, W_enc, b_enc, origin, n_kept, latents, room, wanted, factor, columns, numbers, along, held, moved, has_moved
):
    """`read_top`, then `move`. False: a row is open, and nothing that was written means anything."""
    centred, pre = np.empty(rows.shape[2], np.float32), np.empty(room, np.float32)
    read = np.empty(len(latents), np.float32)
    for row in range(rows.shape[0] * rows.shape[1]):
        text, position = row // rows.shape[1], row % rows.shape[1]
        given, here = rows[text, position], _held_at(held, text, position)
        _centre(given, origin, centred)
        if _top_of_row(centred, row, W_enc, b_enc, n_kept, latents, wanted, pre, read):
            return False
        has_moved[text, position] = _move_row(
            given, row, read, factor, columns, numbers, along, here, moved[text, position]
        )
    return True
