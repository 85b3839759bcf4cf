"""The two forms in which definitions take sparse codes. A dictionary's own codes have the first; nothing above is imported."""

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix  # type: ignore[import-untyped]

CodeMatrix = Any
"""A scipy.sparse.csr_array [item, latent], for definitions that choose rows and columns; scipy carries no types."""


@runtime_checkable
class Codes(Protocol):
    """Active latents of some rows, as compressed rows. A latent is named once in a row; a stored zero is no firing."""

    @property
    def row_starts(self) -> Int[Tensor, " row_plus_one"]:
        """Where each row's entries begin in `latents` and `values`, and their number."""
        ...

    @property
    def latents(self) -> Int[Tensor, " entry"]: ...

    @property
    def values(self) -> Float[Tensor, " entry"]: ...

    @property
    def n_latents(self) -> int: ...


def entry_rows(codes: Codes) -> Int[Tensor, " entry"]:
    """The row of each entry."""
    return torch.repeat_interleave(torch.arange(len(codes.row_starts) - 1), torch.diff(codes.row_starts))


def matrix_of(codes: Codes) -> "csr_matrix":
    """A float64 matrix [row, latent] without stored zeros."""
    from scipy.sparse import csr_matrix  # a third of a second: not at import

    parts = (codes.values.double().numpy(), codes.latents.numpy(), codes.row_starts.numpy())
    matrix = csr_matrix(parts, shape=(len(codes.row_starts) - 1, codes.n_latents))
    matrix.eliminate_zeros()
    return matrix


def firings_of(codes: Codes) -> "csr_matrix":
    """An int64 matrix [row, latent] of ones where a latent fires."""
    matrix = matrix_of(codes)
    matrix.data = matrix.data.astype(bool).astype("int64")
    return matrix
