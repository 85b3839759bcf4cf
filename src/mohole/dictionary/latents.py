"""A layer of latents: from what an encoder reads to sparse codes, and from codes to what a decoder adds.

topk       f = pre where it is one of the row's k largest and positive       pre = read W_enc^T + b_enc
batchtopk  f = pre where pre > threshold (one number, learned from batches)
relu       f = max(pre, 0)
jumprelu   f = pre where pre > threshold (of its latent)
gated      f = max(exp(r_mag) * (read W_enc^T) + b_mag, 0) where pre > 0
"""

from dataclasses import dataclass
from typing import assert_never

import torch
from jaxtyping import Float
from torch import Tensor

from mohole.config import BatchTopK, Gated, JumpReLU, Nonlinearity, ReLU, TopK
from mohole.dictionary.codes import SparseCodes
from mohole.dictionary.laws import need_k, need_shape
from mohole.kernels.choice import kernels_for
from mohole.kernels.pairs import Pairs

OPTIONAL = ("threshold", "b_mag", "r_mag")
"""Tensors that some nonlinearities have, one number for each latent."""


@dataclass(frozen=True)
class Latents:
    """Encoder and decoder of some latents."""

    nonlinearity: Nonlinearity
    W_enc: Float[Tensor, "latent d_in"]
    b_enc: Float[Tensor, " latent"]
    W_dec: Float[Tensor, "latent d_out"]
    threshold: Float[Tensor, " latent"] | None = None
    """batchtopk and jumprelu: a latent is active above it."""
    b_mag: Float[Tensor, " latent"] | None = None
    r_mag: Float[Tensor, " latent"] | None = None

    def __repr__(self) -> str:
        """Sizes, not tensors: a notebook that shows a dictionary would fill the screen with numbers."""
        columns = f"{self.W_enc.shape[1]} to {self.W_dec.shape[1]} columns"
        return f"Latents({self.n_latents} of {columns}, nonlinearity={self.nonlinearity!r})"

    def __post_init__(self) -> None:
        """Raises: ValueError: a tensor that the nonlinearity needs is not there, or one that it has no use for is; no latents,
        shapes that do not fit each other, or a k above the number of latents."""
        needs = needed(self.nonlinearity)
        for name in OPTIONAL:
            if (getattr(self, name) is not None) != (name in needs):
                raise ValueError(f"{self.nonlinearity.kind}: {'needs' if name in needs else 'has no use for'} {name}")
        for name, tensor in (("W_enc", self.W_enc), ("W_dec", self.W_dec)):
            if tensor.ndim != 2 or 0 in tensor.shape:
                raise ValueError(f"{name}: shape {list(tensor.shape)}, where [latents, columns] is needed")
        need_shape("W_dec", self.W_dec, len(self.W_enc), self.W_dec.shape[1])
        for name in ("b_enc", *needs):
            need_shape(name, getattr(self, name), self.n_latents)
        need_k(self.nonlinearity, self.n_latents)

    @property
    def n_latents(self) -> int:
        return self.W_dec.shape[0]

    def encode(self, read: Float[Tensor, "row d_in"]) -> SparseCodes:
        """Activations of all latents; absent means zero. Memory is a tile of latents, not all of them."""
        kernels = kernels_for(read.device)
        match self.nonlinearity:
            case TopK(k=k):
                return _codes(kernels.top_k(read, self.W_enc, self.b_enc, k), self.n_latents)
            case BatchTopK() | JumpReLU():
                return _codes(kernels.above(read, self.W_enc, self.b_enc, self.threshold), self.n_latents)
            case ReLU():
                return _codes(kernels.above(read, self.W_enc, self.b_enc, torch.zeros_like(self.b_enc)), self.n_latents)
            case Gated():
                open_gates = kernels.above(read, self.W_enc, self.b_enc, torch.zeros_like(self.b_enc))
                return _codes(self._magnitudes(open_gates), self.n_latents)
            case _:
                assert_never(self.nonlinearity)

    def _magnitudes(self, gates: Pairs) -> Pairs:
        assert self.r_mag is not None
        assert self.b_mag is not None
        latents = gates.latents.long()
        strength = (gates.values - self.b_enc[latents]) * self.r_mag[latents].exp() + self.b_mag[latents]
        return Pairs(gates.row_starts, gates.latents, strength).where(strength > 0)

    def add_to(self, out: Float[Tensor, "row d_out"], codes: SparseCodes) -> Float[Tensor, "row d_out"]:
        """Add the codes' decoder rows to `out`, in place.

        Raises:
            ValueError: `out` is not as many rows as the codes are of, as wide as a decoder row.
        """
        need_shape("out", out, codes.n_rows, self.W_dec.shape[1])
        pairs = Pairs(codes.row_starts, codes.latents.to(torch.int32), codes.values)
        added: Tensor = kernels_for(out.device).decode(pairs, codes.values, self.W_dec, out)
        return added


def needed(nonlinearity: Nonlinearity) -> tuple[str, ...]:
    """Which of the optional tensors a nonlinearity has."""
    match nonlinearity:
        case TopK() | ReLU():
            return ()
        case BatchTopK() | JumpReLU():
            return ("threshold",)
        case Gated():
            return ("b_mag", "r_mag")
        case _:
            assert_never(nonlinearity)


def _codes(pairs: Pairs, n_latents: int) -> SparseCodes:
    found = pairs if bool((pairs.values != 0).all()) else pairs.where(pairs.values != 0)
    return SparseCodes(found.row_starts, found.latents.long(), found.values, n_latents)
