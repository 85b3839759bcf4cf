"""The compiled loops of `moments`: the same codes as its operators write, bit for bit.

Axes: T latents of a slab, D width. mean, square [T, D] are float32; scales [2, T].
"""

from typing import no_type_check

import numba
import numpy as np

_ONE = 127 << 3
_N_MEAN, _N_SQUARE = 127, 255


@numba.njit(cache=True, nogil=True, error_model="numpy", inline="always")
@no_type_check
def _mixed(word):
    word = np.uint32((word ^ (word >> np.uint32(16))) * np.uint32(0x7FEB352D))  # numba makes products of 64 bits
    word = np.uint32((word ^ (word >> np.uint32(15))) * np.uint32(0x846CA68B))
    return np.uint32(word ^ (word >> np.uint32(16)))


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def pack_bfloat16(mean, square, mean_codes, square_codes, scales, first, key):
    """The upper halves, rounded by chance."""
    width = mean.shape[1]
    for row in range(len(mean)):
        means, squares = mean[row].view(np.int32), square[row].view(np.int32)
        for i in range(width):
            noise = _mixed(np.uint32(np.uint32((first + row) * width + i) ^ key))
            mean_codes[row, i] = np.int16((means[i] + np.int32(noise & np.uint32(0xFFFF))) >> 16)
            square_codes[row, i] = np.int16((squares[i] + np.int32(noise >> np.uint32(16))) >> 16)


@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def pack_8bit(mean, square, mean_codes, square_codes, scales, first, key):
    """Shares of the row's largest, as floats of eight bits."""
    n_rows, width = mean.shape
    shares, other = np.empty(width, np.float32), np.empty(width, np.float32)
    bits, other_bits = shares.view(np.int32), other.view(np.int32)
    leasts = np.empty(2, np.int32)
    leasts[0], leasts[1] = (_ONE - _N_MEAN + 1) << 20, (_ONE - _N_SQUARE + 1) << 20
    least, other_least = leasts.view(np.float32)
    for row in range(n_rows):
        largest, other_largest = np.float32(0), np.float32(0)
        for i in range(width):
            size, value = abs(mean[row, i]), square[row, i]
            largest = size if size > largest else largest
            other_largest = value if value > other_largest else other_largest
        scales[0, row], scales[1, row] = largest, other_largest
        scale, other_scale = max(largest, np.float32(1e-38)), max(other_largest, np.float32(1e-38))
        for i in range(width):
            shares[i], other[i] = abs(mean[row, i]) / scale, square[row, i] / other_scale
        for i in range(width):
            noise = _mixed(np.uint32(np.uint32((first + row) * width + i) ^ key))
            low, high = np.int32(noise & np.uint32(0xFFFF)), np.int32(noise >> np.uint32(16))
            code = np.int32(shares[i] * np.float32(65536) > np.float32(low) * least)
            if shares[i] >= least:
                code = ((bits[i] + (low << 4)) >> 20) - (_ONE - _N_MEAN)
            mean_codes[row, i] = np.uint8(code | (128 if mean[row, i] < 0 else 0))
            code = np.int32(other[i] > 0)
            if other[i] >= other_least:
                code = ((other_bits[i] + (high << 4)) >> 20) - (_ONE - _N_SQUARE)
            square_codes[row, i] = np.uint8(code)
