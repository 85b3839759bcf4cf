"""The compiled loop of `place`, in a file of its own so that numba is imported where it runs, and nowhere else."""

from typing import no_type_check

import numba
import numpy as np

from mohole.kernels import compiling_loops  # noqa: F401  # it is told of
from mohole.kernels.machine import LINE_BYTES, copy_line, fence, read_ahead


@numba.njit(cache=True, nogil=True)
@no_type_check  # numba compiles the function as it is written, not what a type checker makes of it
def put_lines(target: int, places: np.ndarray, rows: int, row_bytes: int, ahead: int) -> None:
    """Copy row i at address `rows` to place places[i] at address `target`, line by line."""
    for row in range(len(places)):
        origin, to = rows + row * row_bytes, target + places[row] * row_bytes
        for offset in range(0, row_bytes, LINE_BYTES):
            read_ahead(np.uintp(origin + offset + ahead))
            copy_line(np.uintp(to + offset), np.uintp(origin + offset))
    fence()
