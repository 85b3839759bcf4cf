"""Sparse codes are the dense matrix without its zeros."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mohole.dictionary import SparseCodes
from mohole.dictionary.codes import from_dense


def some_dense(n_rows: int, n_latents: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    dense = torch.randn(n_rows, n_latents, generator=generator)
    return torch.where(torch.rand(n_rows, n_latents, generator=generator) < 0.3, dense.abs() + 0.01, 0.0)


@given(n_rows=st.integers(0, 12), n_latents=st.integers(1, 15), seed=st.integers(0, 999))
def test_to_sparse_and_back_loses_nothing(n_rows: int, n_latents: int, seed: int) -> None:
    dense = some_dense(n_rows, n_latents, seed)
    codes = from_dense(dense)
    assert torch.equal(codes.dense(), dense)
    assert codes.n_rows == n_rows
    assert torch.equal(codes.n_active, (dense > 0).sum(1))
    assert (codes.values > 0).all()
    for latent in range(n_latents):
        assert torch.equal(codes.column(latent), dense[:, latent])
    for row in range(n_rows):
        entries = codes.latents[codes.row_starts[row] : codes.row_starts[row + 1]]
        assert torch.equal(entries, dense[row].nonzero()[:, 0])  # ascending, distinct
        assert (codes.rows[codes.row_starts[row] : codes.row_starts[row + 1]] == row).all()


def test_no_rows_are_no_codes() -> None:
    codes = SparseCodes(torch.zeros(1, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), torch.zeros(0), 5)
    assert codes.n_rows == 0
    assert codes.dense().shape == (0, 5)
    with pytest.raises(AttributeError):
        codes.n_latents = 3  # type: ignore[misc]
