"""From pre-activations to activations and back, for kept pairs alone. One function each way for every nonlinearity.

Straight-through gradients of thresholds are those of Rajamanoharan et al. 2024 (arXiv 2407.14435), with a box of `bandwidth`.
"""

from dataclasses import dataclass
from types import ModuleType
from typing import assert_never

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mohole.config import BatchTopK, Gated, JumpReLU, Nonlinearity, ReLU, TopK
from mohole.kernels.pairs import Pairs
from mohole.train.weights import Block


@dataclass(frozen=True)
class Active:
    """Kept pairs of a batch in one block."""

    pairs: Pairs
    """With pre-activations. Of jumprelu also those that are not active but within reach of their threshold."""
    values: Float[Tensor, " N"]
    """Activations."""
    near: Bool[Tensor, " N"] | None = None
    """jumprelu: pairs within half a bandwidth of their threshold."""

    @property
    def latents(self) -> Int[Tensor, " N"]:
        return self.pairs.latents.long()


@dataclass(frozen=True)
class PulledBack:
    """Gradients of a block's pairs."""

    d_product: Float[Tensor, " N"]
    """Of what the encoder's matrix made of the row."""
    d_vectors: dict[str, Float[Tensor, " N"]]
    """Of each vector's entry at the pair's latent."""


def activate(
    block: Block, read: Float[Tensor, "B D"], nonlinearity: Nonlinearity, kernels: ModuleType, scratch: object
) -> Active:
    """Encode a batch."""
    match nonlinearity:
        case TopK(k=k):
            pairs = kernels.top_k(read, block.W_enc, block.b_enc, k, scratch)
            return Active(pairs, pairs.values)
        case BatchTopK(k=k):
            pairs = kernels.batch_top(read, block.W_enc, block.b_enc, k * len(read), scratch)
            return Active(pairs, pairs.values)
        case ReLU():
            pairs = kernels.above(read, block.W_enc, block.b_enc, torch.zeros_like(block.b_enc), scratch)
            return Active(pairs, pairs.values)
        case JumpReLU(bandwidth=bandwidth):
            assert block.log_threshold is not None
            thresholds = block.log_threshold.exp()
            pairs = kernels.above(read, block.W_enc, block.b_enc, thresholds - bandwidth / 2, scratch)
            own = thresholds[pairs.latents.long()]
            values = pairs.values * (pairs.values > own)
            return Active(pairs, values, (pairs.values - own).abs() < bandwidth / 2)
        case Gated():
            assert block.r_mag is not None
            assert block.b_mag is not None
            pairs = kernels.above(read, block.W_enc, block.b_enc, torch.zeros_like(block.b_enc), scratch)
            latents = pairs.latents.long()
            product = pairs.values - block.b_enc[latents]
            return Active(pairs, (product * block.r_mag[latents].exp() + block.b_mag[latents]).clamp_min(0.0))
        case _:
            assert_never(nonlinearity)


def pull_back(
    block: Block,
    active: Active,
    nonlinearity: Nonlinearity,
    d_values: Float[Tensor, " N"],
    *,
    d_active: float = 0.0,
    d_gate: Float[Tensor, " N"] | None = None,
) -> PulledBack:
    """From gradients of activations to gradients of what made them.

    Args:
        d_active: jumprelu: the price of being active, whatever the value.
        d_gate: gated: gradient of the gate's own reading, max(pre, 0).
    """
    latents = active.latents
    match nonlinearity:
        case TopK() | BatchTopK() | ReLU():
            return PulledBack(d_values, {"b_enc": d_values})
        case JumpReLU(bandwidth=bandwidth):
            assert block.log_threshold is not None
            assert active.near is not None
            thresholds = block.log_threshold[latents].exp()
            d_pre = d_values * (active.values > 0)
            # d f / d threshold = -threshold / bandwidth, d active / d threshold = -1 / bandwidth, inside the box.
            d_threshold = -(thresholds * d_values + d_active) / bandwidth * active.near
            return PulledBack(d_pre, {"b_enc": d_pre, "log_threshold": d_threshold * thresholds})
        case Gated():
            assert block.r_mag is not None
            assert d_gate is not None
            strength = block.r_mag[latents].exp()
            product = active.pairs.values - block.b_enc[latents]
            d_magnitude = d_values * (active.values > 0)
            return PulledBack(
                d_gate + d_magnitude * strength,
                {"b_enc": d_gate, "b_mag": d_magnitude, "r_mag": d_magnitude * strength * product},
            )
        case _:
            assert_never(nonlinearity)
