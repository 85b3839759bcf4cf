"""The compiled loops of `together`, in a file of their own so that numba is imported where they run, and nowhere else."""

from typing import no_type_check

import numba
import numpy as np

from mohole.kernels import compiling  # noqa: F401  # it is told of


@numba.njit(cache=True, nogil=True)
@no_type_check  # numba compiles the function as it is written, not what a type checker makes of it
def tokens_of(row_starts, latents, first, last):
    """The tokens (rows) in which each latent of [first, last) fires: starts [R + 1] and rows, ascending within a latent."""
    starts = np.zeros(last - first + 1, np.int64)
    for place in range(len(latents)):
        if first <= latents[place] < last:
            starts[latents[place] - first + 1] += 1
    starts = np.cumsum(starts)
    free, rows = starts[:-1].copy(), np.empty(starts[-1], np.int64)
    for row in range(len(row_starts) - 1):
        for place in range(row_starts[row], row_starts[row + 1]):
            if first <= latents[place] < last:
                latent = latents[place] - first
                rows[free[latent]] = row
                free[latent] += 1
    return starts, rows


@numba.njit(cache=True, nogil=True, inline="always")
@no_type_check
def _count_one(row_starts, latents, rows, low, high, counters, touched, n_touched):
    """Add the rows' latents to `counters` [L]; those no longer zero are written to `touched`. Returns how many they are."""
    n_touched = np.uint64(n_touched)
    for number in range(np.uint64(low), np.uint64(high)):
        row = rows[number]
        for place in range(np.uint64(row_starts[row]), np.uint64(row_starts[row + 1])):
            latent = np.uint64(latents[place])  # unsigned: numba then asks of no index whether it counts from the end
            so_far = counters[latent]
            touched[n_touched] = latent
            n_touched += np.uint64(so_far == 0)
            counters[latent] = so_far + 1
    return np.int64(n_touched)


@numba.njit(cache=True, nogil=True)
@no_type_check
def count(row_starts, latents, starts, rows, first, n_latents):
    """Pairs that fire together, of each latent of the range: the arrays of `Counted`."""
    n_range = len(starts) - 1
    counters, touched = np.zeros(n_latents, np.int64), np.empty(n_latents + 1, np.int32)
    pair_starts = np.zeros(n_range + 1, np.int64)
    others, counts, used = np.empty(1024, np.int32), np.empty(1024, np.int64), 0
    for one in range(n_range):
        n_touched = _count_one(row_starts, latents, rows, starts[one], starts[one + 1], counters, touched, 0)
        if used + n_touched > len(others):
            room = max(2 * len(others), used + n_touched)
            wider_others, wider_counts = np.empty(room, np.int32), np.empty(room, np.int64)
            wider_others[:used], wider_counts[:used] = others[:used], counts[:used]
            others, counts = wider_others, wider_counts
        if n_touched > n_latents // 32:  # going through all is cheaper than sorting
            n_touched = 0
            for latent in range(n_latents):
                touched[n_touched] = latent
                n_touched += counters[latent] > 0
        else:
            touched[:n_touched].sort()
        for latent in touched[:n_touched]:
            if latent != one + first:
                others[used], counts[used] = latent, counters[latent]
                used += 1
            counters[latent] = 0
        pair_starts[one + 1] = used
    return pair_starts, others[:used].copy(), counts[:used].copy()


@numba.njit(cache=True, nogil=True)
@no_type_check
def best(  # noqa: C901 - one loop over the hottest data there is
    row_starts, latents, starts, rows, before_starts, before_latents, before_counts,
    first, totals, spread, n_tokens, n, least,
):  # fmt: skip
    """The arrays of `Best`. Pairs are counted and forgotten, one latent of the range after the other."""
    n_range, n_latents = len(starts) - 1, len(totals)
    best_latents = np.full((n_range, n), -1, np.int32)
    best_counts, best_phi = np.zeros((n_range, n), np.int64), np.zeros((n_range, n), np.float32)
    counters, touched = np.zeros(n_latents, np.int64), np.empty(n_latents + 1, np.int32)
    for one in range(n_range):
        n_touched = 0
        for place in range(before_starts[one], before_starts[one + 1]):
            counters[before_latents[place]] = before_counts[place]
            touched[n_touched] = before_latents[place]
            n_touched += 1
        n_touched = _count_one(row_starts, latents, rows, starts[one], starts[one + 1], counters, touched, n_touched)
        counters[one + first] = 0
        total, own_spread, n_kept, bar = np.float64(totals[one + first]), spread[one + first], 0, 0.0
        for latent in touched[:n_touched]:
            together = counters[latent]
            counters[latent] = 0
            if together < least or n == 0:
                continue
            covariance = n_tokens * np.float64(together) - total * np.float64(totals[latent])
            deviations = own_spread * spread[latent]
            if deviations <= 0 or covariance <= bar * deviations:  # most pairs: a division saved
                continue
            phi = np.float32(covariance / deviations)
            if phi <= 0:
                continue
            place = n_kept
            while place > 0 and (
                best_phi[one, place - 1] < phi
                or (best_phi[one, place - 1] == phi and best_latents[one, place - 1] > latent)
            ):
                place -= 1
            if place == n:
                continue
            n_kept = min(n_kept + 1, n)
            for later in range(n_kept - 1, place, -1):
                best_latents[one, later] = best_latents[one, later - 1]
                best_counts[one, later] = best_counts[one, later - 1]
                best_phi[one, later] = best_phi[one, later - 1]
            best_latents[one, place], best_counts[one, place], best_phi[one, place] = latent, together, phi
            if n_kept == n:
                bar = np.float64(best_phi[one, n - 1]) * (1 - 1e-6)
    return best_latents, best_counts, best_phi
