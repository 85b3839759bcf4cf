"""What two models differ in, by the latents of a crosscoder of both: relative decoder norm and latent scaling.

A latent with a decoder row in one model only may still be in the other: a sparsity penalty can shrink a row to nothing (its
activation is then in the other model's error) or give it to a second latent (it is then in the other latents' part). Latent
scaling asks both. Nothing here knows which model was tuned: exchange them and every number is its mirror image.
Source: Lindsey et al. 2024; Minder et al. 2025 (arXiv 2504.02922).
"""

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from mohole.metrics.codes import Codes, entry_rows
from mohole.metrics.geometry import row_norms

Float64 = NDArray[np.float64]

_BLOCK = 8192  # entries whose directions and rows are held at once


def relative_norm(one: Float[Tensor, " latent"], other: Float[Tensor, " latent"]) -> Float[Tensor, " latent"]:
    """How much a latent belongs to the second model, by its decoder rows' lengths: 0 only the first, 0.5 both, 1 only the second.

        (1 + (|d_other| - |d_one|) / max(|d_one|, |d_other|)) / 2

    NaN where both are zero. It cannot tell a latent of one model from one that a penalty shrank: see `LatentScaling`.
    """
    one, other = one.double(), other.double()
    return (1 + (other - one) / torch.maximum(one, other)) / 2


class LatentScaling:
    """How strongly each latent's direction is present in each model's rows where it fires, by least squares. Mergeable.

        beta = sum_t f_tj <d_j, y_t> / (|d_j|^2 sum_t f_tj^2)

    with y the model's error and this latent's own part (`error`), or the other latents' part (`rest`, with the constant). d_j is
    the longer of the latent's two rows (their mean where they are equally long): the same whichever model is named first.
    """

    def __init__(self, decoders: tuple[Float[Tensor, "latent d"], Float[Tensor, "latent d"]]) -> None:
        one, other = (decoder.double() for decoder in decoders)
        longer = (row_norms(one) - row_norms(other))[:, None]
        self._direction = torch.where(longer > 0, one, torch.where(longer < 0, other, (one + other) / 2))
        self._own = torch.stack([(self._direction * decoder).sum(1) for decoder in (one, other)])
        self._size = self._direction.square().sum(1)
        self.squares: Tensor = torch.zeros(len(one), dtype=torch.float64)
        """sum_t f_tj^2 [latent]"""
        self.errors: Tensor = torch.zeros(2, len(one), dtype=torch.float64)
        """sum_t f_tj <d_j, x_t - x^_t> [model, latent]"""
        self.outputs: Tensor = torch.zeros(2, len(one), dtype=torch.float64)
        """sum_t f_tj <d_j, x^_t> [model, latent]"""

    def add(
        self,
        codes: Codes,
        targets: tuple[Float[Tensor, "row d"], Float[Tensor, "row d"]],
        outputs: tuple[Float[Tensor, "row d"], Float[Tensor, "row d"]],
    ) -> None:
        """Add rows: the codes that both models share, and of each model its rows and their reconstruction.

        Keeps numbers for each latent, no vectors: a product of each entry's direction with its row is all that is needed.
        """
        rows, latents, values = entry_rows(codes), codes.latents, codes.values.double()
        self.squares = self.squares.index_add(0, latents, values.square())
        for model in (0, 1):
            output = outputs[model].double()
            error = targets[model].double() - output
            for low in range(0, len(latents), _BLOCK):
                part = slice(low, low + _BLOCK)
                direction = self._direction[latents[part]] * values[part, None]
                self.errors[model].index_add_(0, latents[part], (direction * error[rows[part]]).sum(1))
                self.outputs[model].index_add_(0, latents[part], (direction * output[rows[part]]).sum(1))

    def merge(self, other: "LatentScaling") -> None:
        """Add what another accumulator of the same decoders has seen."""
        self.squares = self.squares + other.squares
        self.errors, self.outputs = self.errors + other.errors, self.outputs + other.outputs

    @property
    def error(self) -> Float64:
        """beta in the error with the latent's own part [model, latent]. NaN for a latent that never fired."""
        return self._per_square(self.errors + self._own * self.squares)

    @property
    def rest(self) -> Float64:
        """beta in what the other latents and the constant make [model, latent]. NaN for a latent that never fired."""
        return self._per_square(self.outputs - self._own * self.squares)

    @property
    def nu_error(self) -> Float64:
        """First model's beta over the second's, in the error [latent]: near 1, the latent is in both, whatever its norms say."""
        return _quotient(self.error)

    @property
    def nu_rest(self) -> Float64:
        """The same in the other latents' part: near 1, other latents carry it in both models. Infinite if only in the first."""
        return _quotient(self.rest)

    def _per_square(self, sums: Tensor) -> Float64:
        fired = (self.squares > 0) & (self._size > 0)
        return np.asarray(torch.where(fired, sums / (self._size * self.squares), torch.nan).numpy())


def _quotient(beta: Float64) -> Float64:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(beta[0] / beta[1])
