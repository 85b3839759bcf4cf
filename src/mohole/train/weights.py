"""The numbers being learned, where they start, and the units they are learned in. No gradients, no optimiser.

Training happens in units in which the rows' mean squared distance from their centre is d_model, so that one learning rate
suits every hookpoint of every model. `Units` says how to come back: the dictionary that is saved is in the model's units.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mohole import keys
from mohole.config import Nonlinearity
from mohole.dictionary import SparseAutoencoder
from mohole.kernels import sparse

_INIT_LATENTS = (
    1024  # rows drawn at a time: the counters of all of them at once would take more memory than the weights
)
_MAGNITUDE_ROWS = 1024


@dataclass(frozen=True)
class Weights:
    """A sparse autoencoder's weights, or one number for each of them, such as their gradients."""

    W_enc: Float[Tensor, "latent d"]
    b_enc: Float[Tensor, " latent"]
    W_dec: Float[Tensor, "latent d"]
    b_dec: Float[Tensor, " d"]

    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.W_enc, self.b_enc, self.W_dec, self.b_dec


@dataclass(frozen=True)
class Units:
    """x_training = scale * x_model."""

    scale: float

    @classmethod
    def of(cls, sample: Float[Tensor, "row d"], centre: Float[Tensor, " d"]) -> "Units":
        """The scale at which the sample's mean squared distance from its centre is its width."""
        spread = (sample.double() - centre.double()).square().sum(1).mean()
        return cls(float((sample.shape[1] / spread).sqrt()))

    def to_model(self, weights: Weights, hookpoint: str, nonlinearity: Nonlinearity) -> SparseAutoencoder:
        """The same function in the model's units: whatever is added to a row or a code shrinks by the scale.

        pre / s = ((s x - b_dec) W_enc^T + b_enc) / s = (x - b_dec / s) W_enc^T + b_enc / s; the matrices stay as they are.
        """
        return SparseAutoencoder(
            hookpoint=hookpoint,
            nonlinearity=nonlinearity,
            W_enc=weights.W_enc.clone(),
            b_enc=weights.b_enc / self.scale,
            W_dec=weights.W_dec.clone(),
            b_dec=weights.b_dec / self.scale,
        )


def initial_weights(sample: Float[Tensor, "row d"], n_latents: int, k: int, *, seed: int) -> Weights:
    """Where training starts, for a sample of rows in training units.

    - Decoder rows are unit vectors drawn by latent id: the first n latents of a wider dictionary start as these do (law 1).
    - The encoder is the decoder, all of it times one factor that gives reconstructions the magnitude of the rows (Gao et al.
      2024, appendix A.1).
    - b_dec is the mean of the sample. Not the geometric median of Bricken et al. 2023: the mean is what a reconstruction
      without codes should be for squared error, it merges over workers, and it is trained from there anyway.
    """
    directions = decoder_directions(np.arange(n_latents), sample.shape[1], seed=seed)
    centre = sample.double().mean(0).float()
    rows = sample[:_MAGNITUDE_ROWS] - centre
    values, latents = sparse.top_k(rows @ directions.T, k)
    output = sparse.decode(values.clamp_min(0.0), latents, directions)
    magnitude = float((rows.double().square().sum() / output.double().square().sum()).sqrt())
    return Weights(W_enc=directions * magnitude, b_enc=torch.zeros(n_latents), W_dec=directions.clone(), b_dec=centre)


def decoder_directions(latents: np.ndarray, d_model: int, *, seed: int) -> Float[Tensor, "latent d"]:
    """Random unit vectors, one for each latent id."""
    drawn = [
        keys.normal(seed, keys.Use.LATENT_INIT, latents[start : start + _INIT_LATENTS], d_model)
        for start in range(0, len(latents), _INIT_LATENTS)
    ]
    directions = np.concatenate(drawn)
    return torch.from_numpy((directions / np.linalg.norm(directions, axis=1, keepdims=True)).astype(np.float32))
