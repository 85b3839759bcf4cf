"""Putting rows of bytes where they belong, at the speed of copying: a permutation of what is larger than the cache.

Rows are read in the order they lie in and written in the order that is wanted, past the cache. The other way round, reading
in the wanted order, every row waits for its first lines. Measured (rows of 4 KB, one EPYC core; of one streaming memcpy of
everything): .94-.98 so; .73-.77 reading in the wanted order with the next row read ahead; .49 with `np.take`.
"""

import numpy as np
from numpy.typing import NDArray

from mohole.kernels import HAS_NUMBA

Bytes = NDArray[np.uint8]
Int64 = NDArray[np.int64]

_AHEAD_BYTES = 1024
_ALIGNED_BYTES = 64


def put_rows(target: Bytes, places: Int64, rows: Bytes) -> None:
    """target[places[i]] = rows[i] for each i; shapes [any, row_bytes], [row], [row, row_bytes], contiguous; places distinct.

    Raises:
        IndexError: a place that the target does not have.
        ValueError: arrays of other shapes, or that do not lie in one piece.
    """
    if rows.shape != (len(places), target.shape[1]) or not (rows.flags.c_contiguous and target.flags.c_contiguous):
        raise ValueError(
            f"rows {rows.shape}, places {places.shape}, target {target.shape}: not rows for these places, in one piece"
        )
    if len(places) and not 0 <= int(places.min()) <= int(places.max()) < len(target):
        raise IndexError(f"places {places.min()} to {places.max()} of {len(target)} rows")
    row_bytes = target.shape[1]
    if not HAS_NUMBA or row_bytes == 0 or row_bytes % _ALIGNED_BYTES or target.ctypes.data % _ALIGNED_BYTES:
        target[places] = rows  # streaming stores need whole lines
        return
    from mohole.kernels.place_compiled import put_lines  # numba takes 0.3 s to import: only where rows are placed

    put_lines(target.ctypes.data, places, rows.ctypes.data, row_bytes, _AHEAD_BYTES)


def room_for_rows(n_rows: int, row_bytes: int) -> Bytes:
    """Empty rows that begin at a page of memory, as `put_rows` and reading past the page cache like it."""
    whole = np.empty(n_rows * row_bytes + 4096, dtype=np.uint8)
    start = -whole.ctypes.data % 4096
    return whole[start : start + n_rows * row_bytes].reshape(n_rows, row_bytes)
