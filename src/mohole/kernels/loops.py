"""The compiled loops of `cpu`: what torch has no operator for. Arrays only; shapes and laws stand with their callers.

Axes: B batch rows, L latents, N kept (row, latent) pairs, D width. Every function works on a range of rows or latents and
writes nothing outside it, so a caller may hand ranges to threads, and the numbers do not depend on how many there are.
Functions are written for LLVM to vectorise: fixed widths, no branch inside, one array per name.
"""

from typing import no_type_check

import numba
import numpy as np

from mohole.kernels import compiling_loops  # noqa: F401  # it is told of

# Sums may be taken in another order than written (they are vectorised), products fused with sums: no more. Not `arcp`, `afn`:
# a reciprocal instead of a division differs between machines. Not `nnan`: a bad number must stay one.
# error_model: a division by zero is an infinity, as torch has it, and the loop around it can be vectorised.
_SUMS = {"contract", "reassoc", "nsz"}
_IN_ORDER = {"contract", "nsz"}
_WIDE = 64
_NARROW = 16
_FEW = 64
_FADING = 1e-30


@numba.njit(cache=True, nogil=True, error_model="numpy", inline="always")
@no_type_check
def _before(value, latent, other_value, other_latent):
    """Does the first entry come before the other one: larger, or as large with a lower latent?"""
    return value > other_value or (value == other_value and latent < other_latent)


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def keep_best(values, latents, n, k):
    """Reorder the first n entries so that the k best come first (quickselect)."""
    low, high = 0, n - 1
    while low < high:
        middle = (low + high) // 2
        pivot_value, pivot_latent = values[middle], latents[middle]
        i, j = low, high
        while i <= j:
            while _before(values[i], latents[i], pivot_value, pivot_latent):
                i += 1
            while _before(pivot_value, pivot_latent, values[j], latents[j]):
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                latents[i], latents[j] = latents[j], latents[i]
                i += 1
                j -= 1
        if k - 1 <= j:
            high = j
        elif k - 1 >= i:
            low = i
        else:
            return


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def first_thresholds(pre, bias, k, thresholds, low, high):
    """For rows [low, high): a value that at least k entries of the tile exceed, and at least zero.

    The k-th largest of maxima over strided blocks, or zero where the tile has too few blocks.
    """
    n_blocks = -(-2 * k // _NARROW) * _NARROW  # more give a threshold hardly higher, and take longer to choose from
    width = pre.shape[1] // n_blocks
    if width < 2:
        thresholds[low:high] = 0.0
        return
    maxima, places = np.empty(n_blocks, pre.dtype), np.arange(n_blocks).astype(np.int32)
    for row in range(low, high):
        maxima[:] = -np.inf
        for part in range(width):
            tile, offset = (
                pre[row, part * n_blocks : (part + 1) * n_blocks],
                bias[part * n_blocks : (part + 1) * n_blocks],
            )
            for i in range(n_blocks):
                value, largest = tile[i] + offset[i], maxima[i]
                maxima[i] = value if value > largest else largest  # not max(): its care for NaN is not vectorised
        keep_best(maxima, places, n_blocks, k)
        least = maxima[0]
        for i in range(1, k):
            least = min(least, maxima[i])
        # One step down: entries equal to it may belong to the k best.
        thresholds[row] = max(least - abs(least) * 1e-6, 0.0) if least > 1e-30 else 0.0


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def absorb_top(  # noqa: C901 - one loop over the hottest data there is
    pre, bias, first, k, thresholds, values, latents, counts, low, high
):
    """For rows [low, high): add the tile's entries above the row's threshold to its candidates; raise it when they are many.

    values, latents [B, room] with room >= k + a wide block; counts [B]. Tiles must come in ascending order of latents: an
    entry equal to the k-th best of earlier ones has a higher latent, and loses.
    """
    n_latents, room = pre.shape[1], values.shape[1]
    n_wide = n_latents // _WIDE
    bias_wide = bias[: n_wide * _WIDE].reshape(n_wide, _WIDE)
    for row in range(low, high):
        threshold, count = thresholds[row], counts[row]
        own_values, own_latents = values[row], latents[row]
        tile = pre[row, : n_wide * _WIDE].reshape(n_wide, _WIDE)
        for block in range(n_wide):
            part, offset = tile[block], bias_wide[block]
            any_hit = np.uint8(0)
            for i in range(_WIDE):
                any_hit |= np.uint8(part[i] + offset[i] > threshold)
            if any_hit:
                if count + _WIDE > room:
                    keep_best(own_values, own_latents, count, k)
                    count = k
                    threshold = max(threshold, own_values[:k].min())
                for i in range(_WIDE):
                    value = part[i] + offset[i]
                    if value > threshold:
                        own_values[count] = value
                        own_latents[count] = first + block * _WIDE + i
                        count += 1
        for i in range(n_wide * _WIDE, n_latents):
            value = pre[row, i] + bias[i]
            if value > threshold:
                if count == room:
                    keep_best(own_values, own_latents, count, k)
                    count = k
                    threshold = max(threshold, own_values[:k].min())
                    if value <= threshold:
                        continue
                own_values[count] = value
                own_latents[count] = first + i
                count += 1
        thresholds[row], counts[row] = threshold, count


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def sort_by_latent_in_place(latents, values, n):
    """The first n entries in ascending order of latents. Few are inserted one by one, which allocates nothing."""
    if n > _FEW:
        order = np.argsort(latents[:n])
        values[:n] = values[:n][order]
        latents[:n] = latents[:n][order]
        return
    for i in range(1, n):
        latent, value, j = latents[i], values[i], i
        while j > 0 and latents[j - 1] > latent:
            latents[j], values[j] = latents[j - 1], values[j - 1]
            j -= 1
        latents[j], values[j] = latent, value


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def finish_top(k, values, latents, counts, low, high):
    """For rows [low, high): leave the k best candidates, or all where there are fewer, in ascending order of latents."""
    for row in range(low, high):
        count = counts[row]
        if count > k:
            keep_best(values[row], latents[row], count, k)
            count = k
        sort_by_latent_in_place(latents[row], values[row], count)
        counts[row] = count


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def pack(values, latents, row_starts, packed_values, packed_latents, low, high):
    """Candidates [B, room] of rows [low, high) into one array of all rows, one after the other."""
    for row in range(low, high):
        start, stop = row_starts[row], row_starts[row + 1]
        packed_values[start:stop] = values[row, : stop - start]
        packed_latents[start:stop] = latents[row, : stop - start]


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def absorb_above(  # noqa: C901 - one loop over the hottest data there is
    pre, bias, thresholds, first, values, latents, counts, low, high
):
    """For rows [low, high): add the tile's entries that, with their bias, exceed their latent's threshold, in ascending order.

    values, latents [B, room]; counts [B] are those of all tiles so far. What finds no room is counted, and not written.
    """
    n_latents, room = pre.shape[1], values.shape[1]
    n_wide = n_latents // _WIDE
    wide = thresholds[: n_wide * _WIDE].reshape(n_wide, _WIDE)
    bias_wide = bias[: n_wide * _WIDE].reshape(n_wide, _WIDE)
    for row in range(low, high):
        count, own_values, own_latents = counts[row], values[row], latents[row]
        tile = pre[row, : n_wide * _WIDE].reshape(n_wide, _WIDE)
        for block in range(n_wide):
            part, offset, limit = tile[block], bias_wide[block], wide[block]
            any_hit = np.uint8(0)
            for i in range(_WIDE):
                any_hit |= np.uint8(part[i] + offset[i] > limit[i])
            if any_hit:
                for i in range(_WIDE):
                    value = part[i] + offset[i]
                    if value > limit[i]:
                        if count < room:
                            own_values[count] = value
                            own_latents[count] = first + block * _WIDE + i
                        count += 1
        for latent in range(n_wide * _WIDE, n_latents):
            value = pre[row, latent] + bias[latent]
            if value > thresholds[latent]:
                if count < room:
                    own_values[count] = value
                    own_latents[count] = first + latent
                count += 1
        counts[row] = count


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=_IN_ORDER)
@no_type_check
def decode_rows(row_starts, latents, values, W_dec, out, block, low, high):
    """For rows [low, high): out[row] += sum of values[pair] * W_dec[latents[pair]], of pairs whose value is not zero.

    `block` latents at a time, whose directions stay in the cache from row to row. Four directions at a time, each added after
    the one before: neither changes a bit.
    """
    n_latents, d = W_dec.shape
    places = row_starts[low:high].copy()
    which, factors = np.empty(block, np.int64), np.empty(block, values.dtype)
    for last in range(block, n_latents + block, block):
        for row in range(low, high):
            own, pair, stop, n = out[row], places[row - low], row_starts[row + 1], 0
            while pair < stop and latents[pair] < last:
                which[n], factors[n] = latents[pair], values[pair]
                n += values[pair] != 0
                pair += 1
            places[row - low] = pair
            at = 0
            while at + 4 <= n:
                a, b, c, e = W_dec[which[at]], W_dec[which[at + 1]], W_dec[which[at + 2]], W_dec[which[at + 3]]
                va, vb, vc, ve = factors[at], factors[at + 1], factors[at + 2], factors[at + 3]
                for i in range(d):
                    own[i] = (((own[i] + va * a[i]) + vb * b[i]) + vc * c[i]) + ve * e[i]
                at += 4
            while at < n:
                a, va = W_dec[which[at]], factors[at]
                for i in range(d):
                    own[i] = own[i] + va * a[i]
                at += 1


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=_SUMS)
@no_type_check
def dot_rows(row_starts, latents, sources, source_of, W_dec, dots, block, low, high):
    """For rows [low, high): dots[pair] = sources[source_of[latent], row] . W_dec[latent]. `block` latents at a time."""
    n_latents, d = W_dec.shape
    places = row_starts[low:high].copy()
    for last in range(block, n_latents + block, block):
        for row in range(low, high):
            pair, stop = places[row - low], row_starts[row + 1]
            while pair < stop and latents[pair] < last:
                latent = latents[pair]
                direction, source = W_dec[latent], sources[source_of[latent], row]
                total = W_dec.dtype.type(0)
                for i in range(d):
                    total += direction[i] * source[i]
                dots[pair] = total
                pair += 1
            places[row - low] = pair


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def sum_by_latent(latents, per_pair, sums):
    """sums[latent] += per_pair[pair], pair after pair."""
    for pair in range(len(latents)):
        sums[latents[pair]] += per_pair[pair]


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def sort_by_latent(row_starts, latents, which, starts, order, rows):
    """Counting sort of pairs by latent, rows ascending within one. starts [L + 1] must be zeros.

    which [N]: whether a pair is wanted; empty: all are. Returns how many.
    """
    takes_all = len(which) == 0
    for pair in range(len(latents)):
        starts[latents[pair] + 1] += takes_all or which[pair]
    for latent in range(len(starts) - 1):
        starts[latent + 1] += starts[latent]
    n = starts[-1]
    for row in range(len(row_starts) - 1):
        for pair in range(row_starts[row], row_starts[row + 1]):
            if takes_all or which[pair]:
                place = starts[latents[pair]]
                order[place] = pair
                rows[place] = row
                starts[latents[pair]] = place + 1
    for latent in range(len(starts) - 1, 0, -1):
        starts[latent] = starts[latent - 1]
    starts[0] = 0
    return n


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=_SUMS, inline="always")
@no_type_check
def _sum_pairs(latent, starts, order, rows, factors, source, total):
    """total = sum over a latent's pairs of factors[pair] * source[row]. Four rows at a time."""
    d = source.shape[1]
    total[:] = 0
    place, stop = starts[latent], starts[latent + 1]
    while place + 4 <= stop:
        a, b, c, e = source[rows[place]], source[rows[place + 1]], source[rows[place + 2]], source[rows[place + 3]]
        va, vb = factors[order[place]], factors[order[place + 1]]
        vc, ve = factors[order[place + 2]], factors[order[place + 3]]
        for i in range(d):
            total[i] += va * a[i] + vb * b[i] + vc * c[i] + ve * e[i]
        place += 4
    while place < stop:
        a, va = source[rows[place]], factors[order[place]]
        for i in range(d):
            total[i] += va * a[i]
        place += 1


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=_SUMS, inline="always")
@no_type_check
def _decoder_gradient(
    latent, starts, order, rows, values, sources, source_of, norm_gradient, sites, W_dec, is_unit, total
):
    """Of one latent's decoder row, without its part along the row where that is kept a unit vector."""
    _sum_pairs(latent, starts, order, rows, values, sources[source_of[latent]], total)
    direction, d = W_dec[latent], W_dec.shape[1]
    if is_unit:
        along = W_dec.dtype.type(0)
        for i in range(d):
            along += total[i] * direction[i]
        for i in range(d):
            total[i] -= along * direction[i]
    elif norm_gradient[latent] != 0:
        for site in range(len(sites) - 1):
            square = W_dec.dtype.type(0)
            for i in range(sites[site], sites[site + 1]):
                square += direction[i] * direction[i]
            if square > 0:
                factor = norm_gradient[latent] / np.sqrt(square)
                for i in range(sites[site], sites[site + 1]):
                    total[i] += factor * direction[i]


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=_SUMS)
@no_type_check
def sum_gradients(
    starts, order, rows, d_product, values, read, sources, source_of, norm_gradient, sites, W_dec, is_unit, d_enc, d_dec,
    squares, low, high,
):  # fmt: skip
    """For latents [low, high): gradients of both matrices and the squared length of both rows together.

    d_enc, d_dec are [high - low, D], or [1, D] where only the lengths are wanted.
    """
    keeps = len(d_enc) == high - low
    for latent in range(low, high):
        place = latent - low if keeps else 0
        total, other = d_enc[place], d_dec[place]
        _sum_pairs(latent, starts, order, rows, d_product, read, total)
        _decoder_gradient(
            latent, starts, order, rows, values, sources, source_of, norm_gradient, sites, W_dec, is_unit, other
        )
        square = W_dec.dtype.type(0)
        for i in range(len(total)):
            square += total[i] * total[i]
        for i in range(len(other)):
            square += other[i] * other[i]
        squares[latent] = square


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def bound_squares(
    starts, order, rows, d_product, values, read_lengths, source_lengths, source_of, pulls, squares, low, high
):
    """For latents [low, high): the most that `sum_gradients` may find, from the lengths of what it sums."""
    for latent in range(low, high):
        lengths, enc, dec = source_lengths[source_of[latent]], 0.0, 0.0
        for place in range(starts[latent], starts[latent + 1]):
            pair, row = order[place], rows[place]
            enc += abs(np.float64(d_product[pair])) * read_lengths[row]
            dec += abs(np.float64(values[pair])) * lengths[row]
        dec += pulls[latent]
        squares[latent] = enc * enc + dec * dec


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=_SUMS, inline="always")
@no_type_check
def _adam_row(weight, mean, square, gradient, beta1, beta2, step_size, root_scale, epsilon):
    """Adam on one row; moments that are fading away become zero, before they become denormal and slow for ever."""
    kind = weight.dtype.type
    b1, b2, fading = kind(beta1), kind(beta2), kind(_FADING)
    c1, c2, step, scale, eps = kind(1 - beta1), kind(1 - beta2), kind(step_size), kind(root_scale), kind(epsilon)
    for i in range(len(weight)):
        g = gradient[i]
        m = b1 * mean[i] + c1 * g
        v = b2 * square[i] + c2 * g * g
        m = m if abs(m) > fading else kind(0)
        v = v if v > fading else kind(0)
        mean[i] = m
        square[i] = v
        weight[i] -= step * m / (np.sqrt(v) * scale + eps)


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=_SUMS, inline="always")
@no_type_check
def _to_length_one(direction):
    length = direction.dtype.type(0)
    for i in range(len(direction)):
        length += direction[i] * direction[i]
    factor = direction.dtype.type(1) / np.sqrt(length)
    for i in range(len(direction)):
        direction[i] *= factor


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=_SUMS)
@no_type_check
def adam_latents(
    starts, order, rows, d_product, values, read, sources, source_of, norm_gradient, sites, shrink, is_unit,
    W_enc, enc_mean, enc_square, W_dec, dec_mean, dec_square, squares,
    beta1, beta2, step_size, root_scale, epsilon, low, high,
):  # fmt: skip
    """For latents [low, high): sum the gradients of both rows, and move them at once, so that no gradient is ever stored.

    squares [L] receives the gradients' squared length before `shrink`.
    """
    kind = W_enc.dtype.type
    enc, dec = np.empty(W_enc.shape[1], W_enc.dtype), np.empty(W_dec.shape[1], W_dec.dtype)
    for latent in range(low, high):
        _sum_pairs(latent, starts, order, rows, d_product, read, enc)
        _decoder_gradient(
            latent, starts, order, rows, values, sources, source_of, norm_gradient, sites, W_dec, is_unit, dec
        )
        square = kind(0)
        for i in range(len(enc)):
            square += enc[i] * enc[i]
            enc[i] *= shrink
        for i in range(len(dec)):
            square += dec[i] * dec[i]
            dec[i] *= shrink
        squares[latent] = square
        _adam_row(
            W_enc[latent], enc_mean[latent], enc_square[latent], enc, beta1, beta2, step_size, root_scale, epsilon
        )
        direction = W_dec[latent]
        _adam_row(direction, dec_mean[latent], dec_square[latent], dec, beta1, beta2, step_size, root_scale, epsilon)
        if is_unit:
            _to_length_one(direction)


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=_SUMS)
@no_type_check
def move_latents(
    d_enc, d_dec, W_enc, enc_mean, enc_square, W_dec, dec_mean, dec_square, squares, shrink, is_unit,
    beta1, beta2, step_size, root_scale, epsilon, low, high,
):  # fmt: skip
    """For latents [low, high): what `adam_latents` does, with gradients that are there."""
    kind = W_enc.dtype.type
    enc, dec = np.empty(W_enc.shape[1], W_enc.dtype), np.empty(W_dec.shape[1], W_dec.dtype)
    for latent in range(low, high):
        square = kind(0)
        given, other = d_enc[latent], d_dec[latent]
        for i in range(len(enc)):
            square += given[i] * given[i]
            enc[i] = given[i] * shrink
        for i in range(len(dec)):
            square += other[i] * other[i]
            dec[i] = other[i] * shrink
        squares[latent] = square
        _adam_row(
            W_enc[latent], enc_mean[latent], enc_square[latent], enc, beta1, beta2, step_size, root_scale, epsilon
        )
        direction = W_dec[latent]
        _adam_row(direction, dec_mean[latent], dec_square[latent], dec, beta1, beta2, step_size, root_scale, epsilon)
        if is_unit:
            _to_length_one(direction)


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=_SUMS)
@no_type_check
def add_weighted(weights, matrix, total, low, high):
    """total += sum over rows [low, high) of weights[row] * matrix[row]; rows of weight zero are not read."""
    for row in range(low, high):
        weight = weights[row]
        if weight != 0:
            own = matrix[row]
            for i in range(len(total)):
                total[i] += weight * own[i]
