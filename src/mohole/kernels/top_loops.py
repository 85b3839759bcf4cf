"""The compiled loops that read TopK: whether fewer than k latents stand before one, found by counting, not by sorting.

Latents are counted in tiles, for all rows that are not settled: encoder rows that come from memory, of several KB each, cost
what their memory does. Axes, and what an array of no rows is: as in `few_loops`.
"""

from typing import NamedTuple, no_type_check

import numba
import numpy as np

from mohole.kernels import compiling_loops  # noqa: F401  # it is told of
from mohole.kernels.few import MOST_LOOKED_ON
from mohole.kernels.few_products import LANES, ROWS, one_product, products_of

_TILE_BYTES, _TILE_LATENTS = 1 << 15, 64
_ROOM_FOR_DOUBT = 512
_COUNTED_AT_ONCE = 64
"""Latents of which none is noted where all are sure, as most are: to count takes a third of what it takes to note them."""
_EXACT_SHARE = 8
"""This part of the latents is looked at by encoder rows, codes or not: it settles most rows."""
_ZERO = np.int64(0)
"""Of a plain 0 that is handed on, numba compiles what takes it once more: for this very number."""
_LARGEST_CODE = np.float32(127)
_ROUNDING = 2.0**-23
"""What each number that a float32 sum takes up may cost, in lengths of its factors: twice as much."""
_OF_BIAS = np.float32(2.0**-22)
"""What is lost where it is added to both products, of its size: twice as much."""
_LEAST = np.float32(1e-30)
"""Of a length, an error, a doubt: more than is lost of numbers too small for float32, also where a thread takes them for 0."""
_MOST_SURE = np.float32(1e30)
"""Where doubt is less, no part of a sum is infinite, either: none is more than 2^23 / D times as large."""
_MORE = 1 + 1e-5
"""For what is lost in the bound itself."""


class _Rows(NamedTuple):
    """Of which one latent is judged each."""

    centred: np.ndarray
    judged: np.ndarray
    values: np.ndarray
    """Its pre-activation."""
    n_before: np.ndarray
    """Latents that are known to stand before it."""


class _Encoder(NamedTuple):
    """With its rows rounded, or none of them: see `EightBits`."""

    W_enc: np.ndarray
    b_enc: np.ndarray
    codes: np.ndarray
    units: np.ndarray
    errors: np.ndarray


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "nsz"})
@no_type_check
def centre(row, origin, centred):
    """centred [D]: the row less the origin, which is what encoder rows multiply."""
    for i in range(len(centred)):
        centred[i] = row[i] - origin[i]


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _aligned(n, width):
    """[n, width] at the begin of a cache line: where rows lie across two, products take 1.4 times as long."""
    numbers = np.empty(n * width + LANES, np.float32)
    first = -(numbers.ctypes.data // 4) % LANES
    return numbers[first : first + n * width].reshape(n, width)


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _length(row):
    """In double: squares of float32 may be 0 or infinite where the row is not."""
    total = 0.0
    for i in range(len(row)):
        total += np.float64(row[i]) * np.float64(row[i])
    return np.float32(np.sqrt(total)) + _LEAST


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def round_rows(W_enc, codes, units, errors, low, high):
    """codes [L, D], units and errors [L]: see `EightBits`."""
    width = W_enc.shape[1]
    for latent in range(low, high):
        row, most = W_enc[latent], np.float32(0)
        for i in range(width):
            most = max(most, abs(row[i]))
        unit = units[latent] = most / _LARGEST_CODE
        missed, exact, near = 0.0, 0.0, 0.0
        for i in range(width):
            whole = np.rint(row[i] / unit) if unit > 0 else np.float32(0)
            code = codes[latent, i] = np.int8(max(min(whole, _LARGEST_CODE), -_LARGEST_CODE))
            number, of_code = np.float64(row[i]), np.float64(code) * np.float64(unit)
            missed += (number - of_code) ** 2
            exact += number**2
            near += of_code**2
        of_sums = (width + 8) * _ROUNDING * (np.sqrt(exact) + np.sqrt(near))
        errors[latent] = (np.sqrt(missed) + of_sums) * _MORE + _LEAST


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _foremost(centred, left, place, row, W_enc, b_enc, latents, wanted, found, product):
    """found [K]: pre-activations of centred[left[place]] that are positive, else 0. Which of them stands before the others; -1:
    none is. product [1, 1]: room for one."""
    foremost = -1
    for k in range(len(latents)):
        found[k] = 0
        if len(wanted) and not wanted[row, k]:
            continue
        one_product(centred, left, place, W_enc, latents[k], product, 0)
        value = product[0, 0] + b_enc[latents[k]]
        if value > 0:
            found[k] = value
            is_first = foremost < 0 or value > found[foremost]
            foremost = k if is_first or (value == found[foremost] and latents[k] < latents[foremost]) else foremost
    return foremost


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _n_before(products, b_enc, first, judged, value):
    """How many of the latents from `first` on, whose products these are, stand before one of that pre-activation."""
    n, biases, n_lower = np.int32(0), b_enc[first : first + len(products)], judged - first
    for c in range(len(products)):
        own = products[c] + biases[c]
        n += np.int32((own > value) | ((own == value) & (c < n_lower)))
    return n


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _settled_behind(left, n_left, n_before, n_kept):
    """Rows that n_kept latents stand before are put behind the others in `left`; how many the others are."""
    place = 0
    while place < n_left:
        i = left[place]
        if n_before[i] >= n_kept:
            n_left -= 1
            left[place], left[n_left] = left[n_left], i
        else:
            place += 1
    return n_left


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _count_by_tiles(rows, left, n_left, encoder, n_kept, low, high):
    """Latents [low, high) are counted for each row that is left; how many rows are left behind them, of which fewer than n_kept
    latents stand before the one that is judged. The others are put behind these in `left`."""
    n_in_tile = min(max(_TILE_BYTES // 4 // rows.centred.shape[1], 1), _TILE_LATENTS)
    products = np.empty((ROWS, n_in_tile), np.float32)
    for first in range(low, high, n_in_tile):
        last = min(first + n_in_tile, high)
        place = _ZERO
        while place < n_left:
            n_rows = products_of(rows.centred, left, place, n_left, encoder.W_enc, first, last, products)
            for r in range(n_rows):
                i = left[place + r]
                found = products[r, : last - first]
                rows.n_before[i] += _n_before(found, encoder.b_enc, first, rows.judged[i], rows.values[i])
            place += n_rows
        n_left = _settled_behind(left, n_left, rows.n_before, n_kept)
        if n_left == 0:
            break
    return n_left


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _ahead(product, bias, unit, error, length, value):
    """(how far a latent stands before one of that pre-activation, by its code; is that sure?)"""
    ahead = product * unit + bias - value
    doubt = error * length + _OF_BIAS * abs(bias) + _LEAST
    # Products with codes may overflow where those with their rows do not, and parts of sums where the sums do not. NaN is never
    # sure.
    return ahead, (abs(ahead) > doubt) & (abs(ahead) < _MOST_SURE)


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _n_certain(products, first, encoder, length, value, doubtful, n_doubtful):
    """(how many surely stand before one of that pre-activation, n_doubtful with those that may, which are noted)."""
    n = 0
    for low in range(0, len(products), _COUNTED_AT_ONCE):
        found = products[low : low + _COUNTED_AT_ONCE]
        at, to = first + low, first + low + len(found)
        biases, units, errors = encoder.b_enc[at:to], encoder.units[at:to], encoder.errors[at:to]
        n_ahead, n_sure = np.int32(0), np.int32(0)
        for c in range(len(found)):
            ahead, is_sure = _ahead(found[c], biases[c], units[c], errors[c], length, value)
            n_ahead += np.int32(is_sure & (ahead > 0))
            n_sure += np.int32(is_sure)
        if n_sure == len(found):
            n += n_ahead
            continue
        for c in range(len(found)):
            ahead, is_sure = _ahead(found[c], biases[c], units[c], errors[c], length, value)
            n += is_sure & (ahead > 0)
            doubtful[n_doubtful] = at + c
            n_doubtful += not is_sure
    return n, n_doubtful


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _n_before_of(rows, left, place, encoder, doubtful, n_most):
    """How many of the doubtful stand before the latent that is judged; no further than to n_most."""
    i, n, product = left[place], 0, np.empty((1, 1), np.float32)
    for latent in doubtful:
        if n >= n_most:
            break
        one_product(rows.centred, left, place, encoder.W_enc, latent, product, 0)
        n += _n_before(product[0], encoder.b_enc, latent, rows.judged[i], rows.values[i])
    return n


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _count_by_codes(rows, left, n_left, encoder, n_kept, low, high):
    """As `_count_by_tiles`, by rounded encoder rows; by the rows themselves where these do not decide."""
    n_in_tile = max(_TILE_BYTES // rows.centred.shape[1], 1)
    n = len(rows.centred)
    lengths, n_doubtful = np.empty(n, np.float32), np.zeros(n, np.int64)
    for i in left[:n_left]:
        lengths[i] = _length(rows.centred[i])
    doubtful, products = np.empty((n, n_in_tile + _ROOM_FOR_DOUBT), np.int32), np.empty((ROWS, n_in_tile), np.float32)
    for first in range(low, high, n_in_tile):
        last = min(first + n_in_tile, high)
        place = _ZERO
        while place < n_left:
            n_rows = products_of(rows.centred, left, place, n_left, encoder.codes, first, last, products)
            for r in range(n_rows):
                i = left[place + r]
                found, noted = products[r, : last - first], doubtful[i]
                certain, n_noted = _n_certain(found, first, encoder, lengths[i], rows.values[i], noted, n_doubtful[i])
                rows.n_before[i] += certain
                if last == high or n_noted >= _ROOM_FOR_DOUBT:
                    n_most = n_kept - rows.n_before[i]
                    rows.n_before[i] += _n_before_of(rows, left, place + r, encoder, noted[:n_noted], n_most)
                    n_noted = 0
                n_doubtful[i] = n_noted
            place += n_rows
        n_left = _settled_behind(left, n_left, rows.n_before, n_kept)
        if n_left == 0:
            break
    return n_left


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _count_on(rows, left, n_left, encoder, n_kept, low, high):
    """As `_count_by_tiles`, by codes where there are any, but for the first latents: where many rows are left, what codes leave
    in doubt costs more than they spare; where few are, it is memory that is waited for."""
    n_exact = len(encoder.W_enc) // _EXACT_SHARE if len(encoder.codes) else high
    if low < n_exact:
        n_left = _count_by_tiles(rows, left, n_left, encoder, n_kept, low, min(n_exact, high))
        low = n_exact
    if low < high and n_left:
        n_left = _count_by_codes(rows, left, n_left, encoder, n_kept, low, high)
    return n_left


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def read_top(rows, W_enc, b_enc, rounded, origin, n_kept, latents, room, wanted, found, is_open, low, high):
    """found [N, K]: latents of which a row keeps n_kept, or fewer; numbers of a row that is_open [N] mean nothing.

    A latent whose pre-activation is not positive is silent, and so is one that n_kept latents stand before. Where the foremost of
    those that are read is silent, all are. Where `room` latents do not say so of more than a few rows, these are left open.
    """
    n, own, encoder = high - low, found[low:high], _Encoder(W_enc, b_enc, rounded[0], rounded[1], rounded[2])
    asked = _Rows(
        _aligned(n, rows.shape[1]), np.empty(n, np.int64), np.empty(n, np.float32), np.zeros(n, np.int64)
    )  # fmt: skip
    foremost, left, n_first = np.empty(n, np.int64), np.empty(n, np.int64), _ZERO
    product = np.empty((1, 1), np.float32)
    for i in range(n):
        is_open[low + i] = False
        centre(rows[low + i], origin, asked.centred[i])
        left[n_first] = i
        k = _foremost(asked.centred, left, n_first, low + i, W_enc, b_enc, latents, wanted, own[i], product)
        if k >= 0:
            foremost[i], asked.judged[i], asked.values[i] = k, latents[k], own[i, k]
            n_first += 1
    n_left = _count_on(asked, left, n_first, encoder, n_kept, _ZERO, room)
    is_looked_on = n_left <= MOST_LOOKED_ON
    if is_looked_on:
        n_left = _count_on(asked, left, n_left, encoder, n_kept, room, len(W_enc))
    for i in left[n_left:n_first]:
        own[i] = 0
    if is_looked_on or room == len(W_enc):
        _silence_others(asked, left[:n_left], own, foremost, encoder, n_kept, latents)
    else:
        for i in left[:n_left]:
            is_open[low + i] = True


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _silence_others(asked, kept, own, foremost, encoder, n_kept, latents):
    """In rows whose foremost is kept, own [N, K] of others that are not becomes 0."""
    left = np.empty(len(kept), np.int64)
    for k in range(len(latents)):
        n_first = _ZERO
        for i in kept:
            if own[i, k] > 0 and k != foremost[i]:
                asked.judged[i], asked.values[i], asked.n_before[i], left[n_first] = latents[k], own[i, k], 0, i
                n_first += 1
        if n_first == 0:
            continue
        n_left = _count_on(asked, left, n_first, encoder, n_kept, _ZERO, len(encoder.W_enc))
        for i in left[n_left:n_first]:
            own[i, k] = 0


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def keep_top(pre, n_kept, latents, found, low, high):
    """found [N, K]: latents of which a row keeps n_kept, or fewer, of pre-activations of all of them [N, L]."""
    for row in range(low, high):
        own, foremost = pre[row], -1
        for k in range(len(latents)):
            value = found[row, k] = own[latents[k]] if own[latents[k]] > 0 else 0  # of NaN, 0
            if value > 0:
                is_first = foremost < 0 or value > found[row, foremost]
                is_tied = not is_first and value == found[row, foremost] and latents[k] < latents[foremost]
                foremost = k if is_first or is_tied else foremost
        if foremost < 0:
            continue
        is_kept = _is_kept(own, latents[foremost], n_kept)
        for k in range(len(latents)):
            is_on = is_kept and found[row, k] > 0 and (k == foremost or _is_kept(own, latents[k], n_kept))
            found[row, k] = found[row, k] if is_on else 0


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _is_kept(pre, judged, n_kept):
    value, n = pre[judged], 0
    for latent in range(len(pre)):
        n += (pre[latent] > value) | ((pre[latent] == value) & (latent < judged))
    return n < n_kept
