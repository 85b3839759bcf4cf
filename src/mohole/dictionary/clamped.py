"""Latents held at values: what a row becomes. Rows in, rows out; which latents and how strongly is decided elsewhere.

    x' = x + s(x) sum_i (c_i - f_i(x)) d_i

f_i(x) is the latent's activation in the dictionary's code of x, after its nonlinearity: for TopK that is zero for every
latent that is not among the row's k largest, so all latents have to be encoded to know one. d_i is its decoder row. s is 1,
unless the dictionary normalises each row by itself: then c_i, f_i and d_i are in the row's own units, of which one is s(x) long.
What the dictionary does not explain, x - decode(encode(x)), is in x and stays in x': nothing is reconstructed.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mohole.dictionary.dictionary import Dictionary


@dataclass(frozen=True)
class ClampedLatents:
    """Latents of one dictionary, held at values. All codes are read from the same row, so order does not matter."""

    dictionary: Dictionary
    latents: Int[Tensor, " latent"]
    values: Float[Tensor, " latent"]

    def shift(self, rows: Float[Tensor, "row d"]) -> Float[Tensor, "row latent"]:
        """c_i - f_i(x), in units of the latents."""
        codes = self.dictionary.encode(rows)
        return self.values - torch.stack([codes.column(latent) for latent in self.latents.tolist()], dim=1)

    def movement(self, rows: Float[Tensor, "row d"]) -> Float[Tensor, "row latent"]:
        """s(x) (c_i - f_i(x)): how far each row moves along each direction, in model units."""
        return self.shift(rows) * self.dictionary.scale_of(rows)

    def apply(self, rows: Float[Tensor, "row d"]) -> Float[Tensor, "row d"]:
        """The rows with their latents held. A row that has nothing to move keeps its bits."""
        movement = self.movement(rows)
        moved = rows + movement @ self.dictionary.directions(self.latents)
        return torch.where((movement != 0).any(dim=1, keepdim=True), moved, rows)

    def change(self, rows: Float[Tensor, "batch position d"]) -> Float[Tensor, "batch position d"]:
        """As `apply`, for rows as a model has them: in its dtype, on its device."""
        flat = rows.reshape(-1, rows.shape[-1])
        given = flat.to(dtype=torch.float32, device=self.values.device)
        return self.apply(given).to(dtype=rows.dtype, device=rows.device).reshape(rows.shape)
