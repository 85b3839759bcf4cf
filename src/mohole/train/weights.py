"""The numbers being learned, and the units they are learned in. No gradients, no optimiser.

Every kind of dictionary is one or more blocks of latents, each reading some columns of a row and writing some columns of its
target, with a shared b_dec: an autoencoder is one block whose target is the row; a crosscoder the same over the columns of
several hookpoints; a transcoder has another target; a cross-layer transcoder has a block for each layer.

Training happens in units in which the rows' mean squared distance from their centre is d_model at every hookpoint, so that one
learning rate suits every hookpoint of every model. `Units` says how to come back: what is saved is in the model's units.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, assert_never

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mohole.config import BatchTopK, Gated, JumpReLU, Nonlinearity, ReLU, TopK
from mohole.config.train import CrosscoderOf, CrossLayerOf, Learns, Sae, TranscoderOf
from mohole.dictionary import Latents


@dataclass(frozen=True)
class Block:
    """One layer of latents. Optional tensors as the nonlinearity has them."""

    reads: slice
    """Columns of the rows."""
    writes: slice
    """Columns of the targets."""
    W_enc: Float[Tensor, "latent d_in"]
    b_enc: Float[Tensor, " latent"]
    W_dec: Float[Tensor, "latent d_out"]
    log_threshold: Float[Tensor, " latent"] | None = None
    b_mag: Float[Tensor, " latent"] | None = None
    r_mag: Float[Tensor, " latent"] | None = None
    first: int = 0
    """The number of its first latent: a rank may have some of them only."""

    def vectors(self) -> dict[str, Float[Tensor, " latent"]]:
        """What it has of one number for each latent."""
        found = {name: getattr(self, name) for name in ("b_enc", "log_threshold", "b_mag", "r_mag")}
        return {name: tensor for name, tensor in found.items() if tensor is not None}

    def of(self, tensors: Mapping[str, Tensor]) -> "Block":
        """The same block with some other tensors."""
        given: dict[str, Any] = dict(tensors)
        return replace(self, **given)


@dataclass(frozen=True)
class Weights:
    """Everything that is learned."""

    blocks: tuple[Block, ...]
    b_dec: Float[Tensor, " d_out"]
    W_skip: Float[Tensor, "d_out d_in"] | None = None
    is_tied: bool = True
    """b_dec is taken off the rows before they are encoded: what is written is what is read."""

    def named(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor, always in this order."""
        for number, block in enumerate(self.blocks):
            yield f"W_enc.{number}", block.W_enc
            yield f"W_dec.{number}", block.W_dec
            for name, vector in block.vectors().items():
                yield f"{name}.{number}", vector
        yield "b_dec", self.b_dec
        if self.W_skip is not None:
            yield "W_skip", self.W_skip

    def of(self, tensors: dict[str, Tensor]) -> "Weights":
        """The same kind of weights with other tensors, named as `named` names them."""
        blocks = tuple(
            block.of({name: tensors[f"{name}.{n}"] for name in ("W_enc", "W_dec", *block.vectors())})
            for n, block in enumerate(self.blocks)
        )
        return replace(self, blocks=blocks, b_dec=tensors["b_dec"], W_skip=tensors.get("W_skip"))


@dataclass(frozen=True)
class Sites:
    """The hookpoints of one side of a dictionary: their columns stand side by side."""

    names: tuple[str, ...]
    widths: tuple[int, ...]

    @property
    def width(self) -> int:
        return sum(self.widths)

    @property
    def bounds(self) -> tuple[int, ...]:
        """Where each begins, and where the last one ends."""
        return (0, *np.cumsum(self.widths).tolist())


def layers_of(learns: Learns, reads: Sites, writes: Sites) -> list[tuple[slice, slice]]:
    """The columns that each layer of latents reads, and those that it writes: of its own site and all after it, across layers."""
    match learns:
        case CrossLayerOf():
            bounds = zip(reads.bounds, reads.bounds[1:], writes.bounds, strict=False)
            return [(slice(low, high), slice(start, writes.width)) for low, high, start in bounds]
        case Sae() | TranscoderOf() | CrosscoderOf():
            return [(slice(0, reads.width), slice(0, writes.width))]
        case _:
            assert_never(learns)


@dataclass(frozen=True)
class Units:
    """x_training = read * (x_model - origin) and y_training = written * y_model, a number for each column."""

    read: Float[Tensor, " d_in"]
    written: Float[Tensor, " d_out"]
    origin: Float[Tensor, " d_in"]
    """Zero where b_dec is taken off the rows, else the sample's mean: b_enc would have to follow every move of W_enc, and a
    transcoder's fvu rose from 0.26 to 0.7 with the distance of its rows from zero."""

    @classmethod
    def of(
        cls,
        rows: Float[Tensor, "row d_in"],
        targets: Float[Tensor, "row d_out"],
        reads: Sites,
        writes: Sites,
        *,
        is_tied: bool = True,
    ) -> "Units":
        """The scales at which the sample's mean squared distance from its centre is the width, at every site."""
        mean = rows.double().mean(0).float()
        return cls(_scales(rows, reads), _scales(targets, writes), torch.zeros_like(mean) if is_tied else mean)

    def rows(self, rows: Float[Tensor, "row d_in"]) -> Float[Tensor, "row d_in"]:
        """Rows of the model in training units."""
        return (rows - self.origin) * self.read

    def cpu(self) -> "Units":
        """The same in main memory."""
        return Units(self.read.cpu(), self.written.cpu(), self.origin.cpu())

    def to_model(self, block: Block, nonlinearity: Nonlinearity, threshold: float | None = None) -> Latents:
        """The block's function in the model's units.

        Activations shrink by the scale c of the first column it writes, so that decoder rows stay as long as they are there:
        pre / c = x_model (read W_enc / c)^T + b_enc / c. Where all is read and written at scale c the matrices stay as they are.

        Args:
            threshold: of batchtopk, in training units.
        """
        read, written = self.read[block.reads], self.written[block.writes]
        c = written[0]
        W_enc, b_enc = block.W_enc * (read / c), block.b_enc / c
        shift = torch.zeros_like(b_enc)
        if bool((self.origin != 0).any()):  # what the encoder reads of the origin, which training takes off the rows
            shift = (W_enc.double() @ self.origin[block.reads].double()).float()
        optional: dict[str, Tensor] = {}
        match nonlinearity:
            case TopK() | ReLU():
                pass
            case BatchTopK():
                assert threshold is not None
                optional["threshold"] = torch.full_like(block.b_enc, threshold) / c
            case JumpReLU():
                assert block.log_threshold is not None
                optional["threshold"] = block.log_threshold.exp() / c
            case Gated():
                assert block.b_mag is not None
                assert block.r_mag is not None
                optional |= {"b_mag": block.b_mag / c - block.r_mag.exp() * shift, "r_mag": block.r_mag.clone()}
            case _:
                assert_never(nonlinearity)
        return Latents(nonlinearity, W_enc, b_enc - shift, block.W_dec * (c / written), **optional)


def _scales(sample: Float[Tensor, "row d"], sites: Sites) -> Float[Tensor, " d"]:
    scales = torch.empty(sites.width, device=sample.device)
    for low, high in pairwise(sites.bounds):
        part = sample[:, low:high].double()
        spread = (part - part.mean(0)).square().sum(1).mean()
        scales[low:high] = float(((high - low) / spread).sqrt())
    return scales
