"""Entries by latent, then token, with their values: as a sort of pairs has them, with numba and without, for any dictionary."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mohole.kernels import by_latent as module
from mohole.kernels.by_latent import by_latent


@given(
    n=st.integers(0, 200),
    n_latents=st.sampled_from([1, 7, 1 << 16, (1 << 16) + 1, 34_000_000]),
    ascends=st.booleans(),
    has_numba=st.booleans(),
    seed=st.integers(0, 99),
)
def test_entries_are_in_the_order_of_their_numbers(
    n: int, n_latents: int, ascends: bool, has_numba: bool, seed: int
) -> None:
    random = np.random.default_rng(seed)
    tokens = random.permutation(n + 5)[:n]  # an entry for each, and gaps
    tokens = np.sort(tokens) if ascends else tokens
    latents = random.choice([0, n_latents // 2, n_latents - 1, *random.integers(0, n_latents, 5)], n).astype(np.int64)
    values = random.random(n, dtype=np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "HAS_NUMBA", has_numba and module.HAS_NUMBA)
        numbers, placed = by_latent(latents, tokens, values, n_latents, 8)
    order = np.lexsort((tokens, latents))
    np.testing.assert_array_equal(numbers, (latents[order] << 8) | tokens[order])
    np.testing.assert_array_equal(placed, values[order])


@pytest.mark.parametrize("latent", [-1, 4])
def test_a_latent_that_is_not_there_is_refused(latent: int) -> None:
    with pytest.raises(IndexError, match=f"latents 0 to {latent}, of 4|latents {latent} to 0, of 4"):
        by_latent(np.array([0, latent]), np.array([0, 1]), np.ones(2, np.float32), 4, 1)
