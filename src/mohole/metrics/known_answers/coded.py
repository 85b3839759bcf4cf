"""Sparse codes to ask definitions about, from a matrix that is written out. All entries are stored, or chosen ones."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Coded:
    """Codes as compressed rows."""

    row_starts: Int[Tensor, " row_plus_one"]
    latents: Int[Tensor, " entry"]
    values: Float[Tensor, " entry"]
    n_latents: int


def coded(dense: Float[Tensor, "row latent"], *, with_zeros: bool = False) -> Coded:
    """A matrix's non-zero entries; `with_zeros` all of them, as a code padded to a fixed number of entries stores them."""
    rows, latents = (torch.ones_like(dense) if with_zeros else dense).nonzero(as_tuple=True)
    counts = torch.bincount(rows, minlength=len(dense))
    starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return Coded(starts, latents, dense[rows, latents], dense.shape[1])
