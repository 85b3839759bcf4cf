"""The compiled loops of `thresholds`: whole tiles of codes that thresholds let through. Shapes and laws stand with their callers.

Axes: B batch rows, T latents of a tile. Each loop takes a range of latents in all rows, so sums do not depend on the number of
threads. What is done to a row is done in several short loops: few arrays in each, or LLVM would not vectorise them.
"""

from typing import no_type_check

import numba
import numpy as np


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def settle(pre, thresholds, limits, codes, n_kept, n_active, totals, largest, low, high):
    """For latents [low, high): codes from pre-activations, and sums of them. n_kept [T] is of what exceeds its limit."""
    kind = pre.dtype.type
    threshold, limit, kept = thresholds[low:high], limits[low:high], n_kept[low:high]
    active, total, most = n_active[low:high], totals[low:high], largest[low:high]
    n = high - low
    for row in range(len(pre)):
        given, own = pre[row, low:high], codes[row, low:high]
        for i in range(n):
            kept[i] += kind(given[i] > limit[i])
        for i in range(n):
            own[i] = given[i] * kind(given[i] > threshold[i])
        for i in range(n):
            total[i] += np.float64(own[i])
        for i in range(n):
            active[i] += kind(own[i] > 0)
            most[i] = own[i] if own[i] > most[i] else most[i]


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def settle_in_place(pre, thresholds, n_active, totals, largest, low, high):
    """As `settle`, where what is kept is what is active, and pre-activations are not needed any more."""
    kind = pre.dtype.type
    threshold, active, total, most = thresholds[low:high], n_active[low:high], totals[low:high], largest[low:high]
    n = high - low
    for row in range(len(pre)):
        own = pre[row, low:high]
        for i in range(n):
            own[i] = own[i] * kind(own[i] > threshold[i])
        for i in range(n):
            total[i] += np.float64(own[i])
        for i in range(n):
            active[i] += kind(own[i] > 0)
            most[i] = own[i] if own[i] > most[i] else most[i]


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def pull(pre, slopes, thresholds, prices, half, product_sums, near_sums, n_near, low, high):
    """For latents [low, high): pre becomes codes, slopes (of codes) become those of products; and sums of them over rows.

    prices [T] are added to the slopes of codes. half: of the box around a threshold, in which n_near [T] counts entries and
    near_sums [T] adds up slopes; below zero: there is none.
    """
    kind = pre.dtype.type
    threshold, price, total = thresholds[low:high], prices[low:high], product_sums[low:high]
    near, n_of_near, reach = near_sums[low:high], n_near[low:high], kind(half)
    n = high - low
    for row in range(len(pre)):
        own, slope = pre[row, low:high], slopes[row, low:high]
        for i in range(n):
            slope[i] += price[i]
        if half >= 0:
            for i in range(n):
                is_near = kind(abs(own[i] - threshold[i]) < reach and own[i] > threshold[i] - reach)
                near[i] += np.float64(slope[i] * is_near)
            for i in range(n):
                n_of_near[i] += kind(abs(own[i] - threshold[i]) < reach and own[i] > threshold[i] - reach)
        for i in range(n):
            slope[i] *= kind(own[i] > threshold[i])
        for i in range(n):
            total[i] += np.float64(slope[i])
        for i in range(n):
            own[i] *= kind(own[i] > threshold[i])
