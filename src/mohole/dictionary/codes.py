"""Sparse codes: which latents are active in each row, and how strongly. Compressed rows, as in a CSR matrix."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class SparseCodes:
    """Active latents of a batch of rows. Every stored value is non-zero; latents of a row ascend and are distinct."""

    row_starts: Int[Tensor, " row_plus_one"]
    """Where each row's entries begin in `latents` and `values`, and their number."""
    latents: Int[Tensor, " entry"]
    values: Float[Tensor, " entry"]
    n_latents: int

    @property
    def n_rows(self) -> int:
        return len(self.row_starts) - 1

    @property
    def rows(self) -> Int[Tensor, " entry"]:
        """The row of each entry."""
        return torch.repeat_interleave(
            torch.arange(self.n_rows, device=self.row_starts.device), torch.diff(self.row_starts)
        )

    @property
    def n_active(self) -> Int[Tensor, " row"]:
        """Active latents of each row; their mean is L0."""
        return torch.diff(self.row_starts)

    def cpu(self) -> "SparseCodes":
        """The same codes in main memory."""
        return SparseCodes(self.row_starts.cpu(), self.latents.cpu(), self.values.cpu(), self.n_latents)

    def dense(self) -> Float[Tensor, "row latent"]:
        """As a matrix. For small dictionaries and tests: memory is rows x latents."""
        dense = self.values.new_zeros(self.n_rows, self.n_latents)
        dense[self.rows, self.latents] = self.values
        return dense

    def column(self, latent: int) -> Float[Tensor, " row"]:
        """One latent's activation in every row, zeros included."""
        column = self.values.new_zeros(self.n_rows)
        here = self.latents == latent
        column[self.rows[here]] = self.values[here]
        return column


def from_dense(dense: Float[Tensor, "row latent"]) -> SparseCodes:
    """The non-zero entries of a matrix."""
    rows, latents = dense.nonzero(as_tuple=True)
    counts = torch.bincount(rows, minlength=len(dense))
    starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return SparseCodes(starts, latents, dense[rows, latents], dense.shape[1])
