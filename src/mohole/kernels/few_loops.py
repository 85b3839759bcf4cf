"""The compiled loops of `few`. Arrays only; shapes and laws stand with their callers.

Each works on rows [low, high) and writes nothing outside of them. A row's numbers do not depend on which others there are.
An array of no rows stands for what is not given: a loop of numba's is compiled anew for each set of types.
"""

from typing import no_type_check

import numba
import numpy as np

from mohole.kernels import compiling_loops  # noqa: F401  # it is told of

# As in `loops`. Only a product's sum may be taken in another order: elsewhere (a - b) + c must be as exact as it is written, or a
# row that nothing is to move would move.
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
def _take(row, origin, taken):
    """taken [D]: the row as the encoder has it."""
    for i in range(len(taken)):
        taken[i] = row[i] - origin[i]


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=_IN_ORDER)
@no_type_check
def _few_of_row(taken, row, ways, law, floor, wanted, found):
    """found [K]: latents of their own encoder rows."""
    bias, threshold, gain, offset = law[0], law[1], law[2], law[3]
    for k in range(len(ways)):
        found[k] = 0
        if len(wanted) and not wanted[row, k]:
            continue
        product = _dot(taken, ways[k])
        if product + bias[k] > threshold[k]:
            value = product * gain[k] + offset[k]
            found[k] = floor if value < floor else value


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=_IN_ORDER)
@no_type_check
def _top_of_row(  # noqa: C901 - one loop over the hottest data there is
    taken, row, W_enc, b_enc, n_kept, latents, wanted, before, found
):
    """found [K]: latents of which a row has no more than n_kept. True: those that `before` has room for did not settle it.

    One whose pre-activation is not positive is silent, and so are all that n_kept latents stand before. Of most rows that is the
    first of those that are read, and n_kept are found within the first few that are looked at.
    """
    n_read, most, first, n = len(latents), len(before), -1, 0
    for step in range(n_read + most):  # one loop for both: a sum that is compiled twice may be taken in two orders
        is_own = step < n_read
        latent = latents[step] if is_own else step - n_read
        if is_own:
            found[step] = 0
            if len(wanted) and not wanted[row, step]:
                continue
        elif first < 0:
            return False
        value = _dot(taken, W_enc[latent]) + b_enc[latent]
        if is_own:
            if value > 0:
                found[step] = value
                if first < 0 or _is_before(value, latent, found[first], latents[first]):
                    first = step
            continue
        before[latent] = value
        n += _is_before(value, latent, found[first], latents[first])
        if n == n_kept:
            found[:] = 0
            return False
    if most < len(W_enc):
        return True
    for k in range(n_read):
        if found[k] > 0 and k != first:
            n = 0
            for latent in range(most):
                n += _is_before(before[latent], latent, found[k], latents[k])
            found[k] = found[k] if n < n_kept else 0
    return False


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=_IN_ORDER)
@no_type_check
def _move_row(given, row, found, factor, places, numbers, along, held, moved):
    """moved [D]: the row with the terms applied. True: one moved it by anything but 0."""
    read, when = places[0], places[1]
    constant, slope, least, largest, bound = numbers[0], numbers[1], numbers[2], numbers[3], numbers[4]
    has_moved = False
    for i in range(len(moved)):
        moved[i] = given[i]
    for term in range(len(along)):
        if len(held) and not held[term]:
            continue
        if when[term] >= 0 and not found[when[term]] > bound[term]:
            continue
        by = constant[term]
        if read[term] >= 0:
            value = found[read[term]]
            clipped = largest[term] if value > largest[term] else value
            clipped = least[term] if clipped < least[term] else clipped
            by += slope[term] * value
            by += clipped - value
        if len(factor):
            by *= factor[row, term]
        if by != 0:
            has_moved = True
            way = along[term]
            for i in range(len(moved)):
                moved[i] += by * way[i]
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
def read_few(rows, ways, origin, law, floor, wanted, found, low, high):
    """found [N, K]."""
    taken = np.empty(rows.shape[1], np.float32)
    for row in range(low, high):
        _take(rows[row], origin, taken)
        _few_of_row(taken, row, ways, law, floor, wanted, found[row])


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def read_top(rows, W_enc, b_enc, origin, n_kept, latents, most, wanted, found, is_open, low, high):
    """found [N, K], but for rows that is_open [N] are."""
    taken, before = np.empty(rows.shape[1], np.float32), np.empty(most, np.float32)
    for row in range(low, high):
        _take(rows[row], origin, taken)
        is_open[row] = _top_of_row(taken, row, W_enc, b_enc, n_kept, latents, wanted, before, found[row])


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def move(rows, found, factor, places, numbers, along, held, moved, has_moved, low, high):
    """moved [B, P, D] and has_moved [B, P], of rows and what was read of them [N, K]."""
    nothing = np.empty(0, np.float32)
    for row in range(low, high):
        text, position = row // rows.shape[1], row % rows.shape[1]
        read, here = found[row] if len(found) else nothing, _held_at(held, text, position)
        own = moved[text, position]
        has_moved[text, position] = _move_row(
            rows[text, position], row, read, factor, places, numbers, along, here, own
        )


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def read_few_and_move(rows, ways, origin, law, floor, wanted, factor, places, numbers, along, held, moved, has_moved):
    """`read_few`, then `move`."""
    taken, read = np.empty(rows.shape[2], np.float32), np.empty(len(ways), np.float32)
    for row in range(rows.shape[0] * rows.shape[1]):
        text, position = row // rows.shape[1], row % rows.shape[1]
        given, here = rows[text, position], _held_at(held, text, position)
        _take(given, origin, taken)
        _few_of_row(taken, row, ways, law, floor, wanted, read)
        has_moved[text, position] = _move_row(
            given, row, read, factor, places, numbers, along, here, moved[text, position]
        )


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def read_top_and_move(
    rows, W_enc, b_enc, origin, n_kept, latents, most, wanted, factor, places, numbers, along, held, moved, has_moved
):
    """`read_top`, then `move`. False: a row is open, and nothing that was written means anything."""
    taken, before = np.empty(rows.shape[2], np.float32), np.empty(most, np.float32)
    read = np.empty(len(latents), np.float32)
    for row in range(rows.shape[0] * rows.shape[1]):
        text, position = row // rows.shape[1], row % rows.shape[1]
        given, here = rows[text, position], _held_at(held, text, position)
        _take(given, origin, taken)
        if _top_of_row(taken, row, W_enc, b_enc, n_kept, latents, wanted, before, read):
            return False
        has_moved[text, position] = _move_row(
            given, row, read, factor, places, numbers, along, here, moved[text, position]
        )
    return True
