"""The crosscoder: one set of latents for several hookpoints at once, of several layers or of several models.

    f = latents of sum over sites of (x_s - b_dec_s) W_enc_s^T        x_s^ = f W_dec_s + b_dec_s      (Lindsey et al. 2024)

Which is a sparse autoencoder of all sites' columns side by side; how strongly a latent belongs to a site is the length of its
decoder row there. Model units throughout.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mohole.dictionary.codes import SparseCodes
from mohole.dictionary.latents import Latents
from mohole.dictionary.laws import need_names, need_shape


@dataclass(frozen=True)
class Crosscoder:
    """Latents shared by `hookpoints`; a row is their rows side by side, in this order."""

    hookpoints: tuple[str, ...]
    widths: tuple[int, ...]
    """Columns of each hookpoint."""
    latents: Latents
    b_dec: Float[Tensor, " d"]

    def __repr__(self) -> str:
        return f"Crosscoder(hookpoints={self.hookpoints!r}, widths={self.widths!r}, latents={self.latents!r})"

    def __post_init__(self) -> None:
        """Raises: ValueError: hookpoints that are not distinct, widths that are not theirs, or tensors of other widths."""
        need_names("hookpoints", self.hookpoints)
        if len(self.widths) != len(self.hookpoints) or min(self.widths) < 1:
            raise ValueError(
                f"widths: {list(self.widths)}, where a width is needed for each of {len(self.hookpoints)} hookpoints"
            )
        d = self.latents.W_enc.shape[1]
        if sum(self.widths) != d:
            raise ValueError(f"widths: {sum(self.widths)} columns in all, where its latents read {d}")
        need_shape("W_dec", self.latents.W_dec, *self.latents.W_enc.shape)
        need_shape("b_dec", self.b_dec, d)

    @property
    def n_latents(self) -> int:
        return self.latents.n_latents

    def encode(self, rows: Float[Tensor, "row d"]) -> SparseCodes:
        """Latent activations; absent means zero."""
        return self.latents.encode(rows - self.b_dec)

    def decode(self, codes: SparseCodes) -> Float[Tensor, "row d"]:
        """The reconstruction of all hookpoints, side by side."""
        return self.latents.add_to(self.b_dec.repeat(codes.n_rows, 1), codes)

    def directions(self, latents: Int[Tensor, " latent"]) -> Float[Tensor, "latent d"]:
        """Decoder rows of these latents."""
        return self.latents.W_dec[latents]

    def norms(self) -> Float[Tensor, "latent site"]:
        """Length of each latent's decoder row at each hookpoint."""
        parts = torch.split(self.latents.W_dec, list(self.widths), dim=1)
        return torch.stack([part.norm(dim=1) for part in parts], dim=1)
