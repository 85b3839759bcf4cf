"""Other libraries' weights as mohole's: the exact algebra of input scales, missing pre-biases and decoder lengths, in one place.

A library computes  f = act((s x [- b_dec]) W_enc^T + b_enc),  s' y^ = f W_dec + b_dec.  In the model's own units that is

    W_enc' = s W_enc    W_dec' = W_dec / s'    b_dec' = b_dec / s'    b_enc' = b_enc [+ W_enc b_dec where b_dec is not subtracted]

with the same f and the same thresholds. Sums and products are made in float64, a block of rows at a time, and rounded once.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from mohole.config import JumpReLU, Nonlinearity
from mohole.dictionary.latents import Latents
from mohole.dictionary.sae import SparseAutoencoder
from mohole.dictionary.transcoder import Transcoder

_BLOCK_NUMBERS = 1 << 24


@dataclass(frozen=True)
class Parts:
    """Weights in mohole's orientation, in whatever units the library has them."""

    nonlinearity: Nonlinearity
    W_enc: Float[Tensor, "latent d_in"]
    b_enc: Float[Tensor, " latent"]
    W_dec: Float[Tensor, "latent d_out"]
    b_dec: Float[Tensor, " d_out"]
    threshold: Float[Tensor, " latent"] | None = None
    b_mag: Float[Tensor, " latent"] | None = None
    r_mag: Float[Tensor, " latent"] | None = None

    def scaled(self, input_scale: float, output_scale: float) -> "Parts":
        """The same function of rows that have not been multiplied by `input_scale`, with an output that need not be divided."""
        if input_scale == 1.0 and output_scale == 1.0:
            return self
        return replace(
            self,
            W_enc=by_rows(self.W_enc, lambda rows, _: rows * input_scale),
            W_dec=by_rows(self.W_dec, lambda rows, _: rows / output_scale),
            b_dec=self.b_dec.double() / output_scale,
        )

    def unit_decoder(self) -> "Parts":
        """Every code times the length of its decoder row, which becomes 1: what is chosen by length times strength is chosen by
        strength. Thresholds are left alone: they are on that product already, or there are none."""
        lengths = decoder_lengths(self.W_dec)
        safe = torch.where(lengths > 0, lengths, 1.0)
        return replace(
            self,
            W_enc=by_rows(self.W_enc, lambda rows, at: rows * lengths[at, None]),
            b_enc=self.b_enc.double() * lengths,
            W_dec=by_rows(self.W_dec, lambda rows, at: rows / safe[at, None]),
        )

    def with_pre_bias(self, sign: float = 1.0) -> "Parts":
        """For a library that does not subtract b_dec: what makes up for subtracting it. `sign` -1: the other way, for writing."""
        shift = sign * products(self.W_enc, self.b_dec)
        b_mag = self.b_mag
        if b_mag is not None and self.r_mag is not None:
            b_mag = b_mag.double() + self.r_mag.double().exp() * shift
        return replace(self, b_enc=self.b_enc.double() + shift, b_mag=b_mag)

    def never_negative(self) -> "Parts":
        """For a library whose jump follows a ReLU: a threshold below zero is then one of zero."""
        return self if self.threshold is None else replace(self, threshold=self.threshold.clamp(min=0.0))

    def latents(self) -> Latents:
        """As float32, contiguous."""
        optional = {"threshold": self.threshold, "b_mag": self.b_mag, "r_mag": self.r_mag}
        return latents_of(self.nonlinearity, self.W_enc, self.b_enc, self.W_dec, **optional)

    def sae(self, hookpoint: str) -> SparseAutoencoder:
        """A sparse autoencoder; b_dec is subtracted by it."""
        own = self.latents()
        return SparseAutoencoder(
            hookpoint,
            own.nonlinearity,
            own.W_enc,
            own.b_enc,
            own.W_dec,
            _float(self.b_dec),
            own.threshold,
            own.b_mag,
            own.r_mag,
        )

    def transcoder(self, reads: str, writes: str, W_skip: Tensor | None = None) -> Transcoder:
        """A transcoder; nothing is subtracted by it."""
        return Transcoder(reads, writes, self.latents(), _float(self.b_dec), None if W_skip is None else _float(W_skip))


def latents_of(
    nonlinearity: Nonlinearity,
    W_enc: Float[Tensor, "latent d_in"],
    b_enc: Float[Tensor, " latent"],
    W_dec: Float[Tensor, "latent d_out"],
    **optional: Tensor | None,
) -> Latents:
    """A layer of latents, as float32, contiguous."""
    more = {name: None if tensor is None else _float(tensor) for name, tensor in optional.items()}
    return Latents(nonlinearity, _float(W_enc), _float(b_enc), _float(W_dec), **more)


def parts_of(sae: SparseAutoencoder) -> Parts:
    """The other way round, for writing."""
    optional = {"threshold": sae.threshold, "b_mag": sae.b_mag, "r_mag": sae.r_mag}
    return Parts(sae.nonlinearity, sae.W_enc, sae.b_enc, sae.W_dec, sae.b_dec, **optional)


def thresholds(value: float | Tensor, n_latents: int) -> Tensor:
    """One threshold for each latent, from one for all."""
    return torch.as_tensor(value).double().expand(n_latents).clone()


def decoder_lengths(W_dec: Float[Tensor, "latent d"]) -> Float[Tensor, " latent"]:
    """Length of each decoder row, in float64."""
    lengths = torch.empty(len(W_dec), dtype=torch.float64)
    for at in _blocks(W_dec):
        lengths[at] = W_dec[at].double().norm(dim=1)
    return lengths


def products(matrix: Float[Tensor, "latent d"], vector: Float[Tensor, " d"]) -> Float[Tensor, " latent"]:
    """matrix @ vector in float64."""
    found = torch.empty(len(matrix), dtype=torch.float64)
    for at in _blocks(matrix):
        found[at] = matrix[at].double() @ vector.double()
    return found


def by_rows(matrix: Tensor, change: Callable[[Tensor, slice], Tensor]) -> Tensor:
    """`change` of each block of rows, made in float64 and rounded to float32."""
    found = torch.empty(matrix.shape, dtype=torch.float32)
    for at in _blocks(matrix):
        found[at] = change(matrix[at].double(), at).float()
    return found


def jumprelu() -> JumpReLU:
    """Somebody else's: its bandwidth, a setting of training, is not known and does not matter any more."""
    return JumpReLU()


def _blocks(matrix: Tensor) -> list[slice]:
    step = max(1, _BLOCK_NUMBERS // max(1, matrix[0].numel()))
    return [slice(first, first + step) for first in range(0, len(matrix), step)]


def _float(tensor: Tensor) -> Tensor:
    return tensor.detach().float().contiguous()
