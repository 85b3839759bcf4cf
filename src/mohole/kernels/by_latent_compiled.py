"""The compiled loop of `by_latent`, in a file of its own so that numba is imported where it runs, and nowhere else."""

from typing import no_type_check

import numba
import numpy as np

from mohole.kernels import compiling_loops  # noqa: F401  # it is told of


@numba.njit(cache=True, nogil=True)
@no_type_check  # numba compiles the function as it is written, not what a type checker makes of it
def count_and_place(latents, tokens, values, n_latents, token_bits, numbers, placed):
    """Entries in the order of tokens become `numbers` and `placed` in that of latents, then tokens."""
    free = np.zeros(n_latents + 1, np.int64)  # where the next entry of each latent goes
    for entry in range(len(latents)):
        free[latents[entry] + 1] += 1
    for latent in range(n_latents):
        free[latent + 1] += free[latent]
    for entry in range(len(latents)):
        place = free[latents[entry]]
        free[latents[entry]] = place + 1
        numbers[place] = (latents[entry] << token_bits) | tokens[entry]
        placed[place] = values[entry]
