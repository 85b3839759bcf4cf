"""From pre-activations to activations and back. One formula each way for every nonlinearity, for kept pairs and for whole tiles.

Straight-through gradients of thresholds are those of Rajamanoharan et al. 2024 (arXiv 2407.14435), with a box of `bandwidth`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import assert_never

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mohole.config import BatchTopK, Gated, JumpReLU, Nonlinearity, ReLU, TopK
from mohole.kernels import plain
from mohole.kernels.choice import Screening
from mohole.kernels.pairs import Pairs
from mohole.parallel import Axis, Mesh
from mohole.train.spread import largest_of_all, strongest_of_batch, strongest_of_rows
from mohole.train.weights import Block

Vectors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Totals:
    """Of each latent over a batch."""

    n_active: Int[Tensor, " L"]
    total: Float[Tensor, " L"]
    """Of its activations, in double."""
    largest: Float[Tensor, " L"]

    def of_all_rows(self, data: Axis) -> "Totals":
        """Over the rows of all data ranks."""
        if data.size == 1:
            return self
        return Totals(data.total(self.n_active), data.total(self.total), largest_of_all(self.largest, data))


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

    @property
    def n_kept(self) -> int:
        """Pairs, active or not."""
        return len(self.pairs.latents)

    @property
    def n_active(self) -> int:
        """Active pairs."""
        return int((self.values > 0).sum())

    def totals(self, n_latents: int) -> Totals:
        """What each latent did."""
        latents, values = self.latents, self.values
        largest = values.new_zeros(n_latents, dtype=torch.float32).scatter_reduce_(0, latents, values.float(), "amax")
        if values.is_cuda:  # bincount adds with atomics there: in another order every time
            total = plain.by_latent(self.pairs, n_latents).sums(values.double())
        else:
            total = torch.bincount(latents, weights=values.double(), minlength=n_latents)
        return Totals(
            torch.bincount(latents[values > 0], minlength=n_latents),
            total.double(),  # whole numbers where none is
            largest,
        )


@dataclass(frozen=True)
class PulledBack:
    """Gradients of a block's kept entries."""

    d_product: Float[Tensor, "..."]
    """Of what the encoder's matrix made of the row."""
    d_vectors: dict[str, Float[Tensor, "..."]]
    """Of each vector's entry at the latent."""


def activate(
    block: Block,
    read: Float[Tensor, "B D"],
    nonlinearity: Nonlinearity,
    kernels: ModuleType,
    scratch: object,
    mesh: Mesh,
    most: int | None = None,
    screen: Screening | None = None,
) -> Active:
    """Encode this rank's rows with its latents; where latents compete, those of all ranks do.

    Args:
        screen: how codes are found, instead of by the kernels.

    Raises:
        TooManyError: where a threshold decides, more than `most` pairs.
    """
    match nonlinearity:
        case TopK(k=k):
            top_k = kernels.top_k if screen is None else screen.top_k
            pairs = strongest_of_rows(top_k(read, block.W_enc, block.b_enc, k, scratch), k, mesh.latent)
        case BatchTopK(k=k):
            n = k * len(read) * mesh.data.size
            pairs = strongest_of_batch(kernels.batch_top(read, block.W_enc, block.b_enc, n, scratch), n, mesh)
        case ReLU() | JumpReLU() | Gated():
            above = kernels.above if screen is None else screen.above
            pairs = above(read, block.W_enc, block.b_enc, limits(block, nonlinearity), scratch, most=most)
        case _:
            assert_never(nonlinearity)
    own = vectors_at(block, pairs.latents.long(), nonlinearity)
    return Active(pairs, *strengths(own, pairs.values, nonlinearity))


def limits(block: Block, nonlinearity: ReLU | JumpReLU | Gated) -> Float[Tensor, " L"]:
    """What a pre-activation must exceed to matter to the loss or to its gradient."""
    if isinstance(nonlinearity, JumpReLU):
        assert block.log_threshold is not None
        return block.log_threshold.exp() - nonlinearity.bandwidth / 2
    return torch.zeros_like(block.b_enc)


def vectors_at(block: Block, which: Int[Tensor, " N"] | slice, nonlinearity: Nonlinearity) -> Vectors:
    """The block's vectors as some entries need them: each pair's latent's, or those of a tile."""
    vectors = block.vectors()
    match nonlinearity:
        case TopK() | BatchTopK() | ReLU():
            return {}
        case JumpReLU():
            return {"log_threshold": vectors["log_threshold"][which]}
        case Gated():
            return {name: vector[which] for name, vector in vectors.items()}
        case _:
            assert_never(nonlinearity)


def strengths(
    own: Vectors, pre: Float[Tensor, "..."], nonlinearity: Nonlinearity
) -> tuple[Float[Tensor, "..."], Bool[Tensor, "..."] | None]:
    """Activations of kept pre-activations, and of jumprelu which lie within half a bandwidth of their threshold.

    Args:
        own: the block's vectors, `vectors_at` for these entries.
    """
    match nonlinearity:
        case TopK() | BatchTopK() | ReLU():
            return pre, None
        case JumpReLU(bandwidth=bandwidth):
            thresholds = own["log_threshold"].exp()
            return pre * (pre > thresholds), (pre - thresholds).abs() < bandwidth / 2
        case Gated():
            return ((pre - own["b_enc"]) * own["r_mag"].exp() + own["b_mag"]).clamp_min(0.0), None
        case _:
            assert_never(nonlinearity)


def pull_back(
    own: Vectors,
    pre: Float[Tensor, "..."],
    values: Float[Tensor, "..."],
    near: Bool[Tensor, "..."] | None,
    nonlinearity: Nonlinearity,
    d_values: Float[Tensor, "..."],
    *,
    d_active: float = 0.0,
    d_gate: Float[Tensor, "..."] | None = None,
) -> PulledBack:
    """From gradients of activations to gradients of what made them, for kept entries.

    Args:
        own: the block's vectors, `vectors_at` for these entries.
        d_active: jumprelu: the price of being active, whatever the value.
        d_gate: gated: gradient of the gate's own reading, max(pre, 0).
    """
    match nonlinearity:
        case TopK() | BatchTopK() | ReLU():
            return PulledBack(d_values, {"b_enc": d_values})
        case JumpReLU(bandwidth=bandwidth):
            assert near is not None
            thresholds = own["log_threshold"].exp()
            d_pre = d_values * (values > 0)
            # d f / d threshold = -threshold / bandwidth, d active / d threshold = -1 / bandwidth, inside the box.
            d_threshold = -(thresholds * d_values + d_active) / bandwidth * near
            return PulledBack(d_pre, {"b_enc": d_pre, "log_threshold": d_threshold * thresholds})
        case Gated():
            assert d_gate is not None
            strength = own["r_mag"].exp()
            d_magnitude = d_values * (values > 0)
            return PulledBack(
                d_gate + d_magnitude * strength,
                {"b_enc": d_gate, "b_mag": d_magnitude, "r_mag": d_magnitude * strength * (pre - own["b_enc"])},
            )
        case _:
            assert_never(nonlinearity)
