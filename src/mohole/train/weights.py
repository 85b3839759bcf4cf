"""The numbers being learned, where they start, and the units they are learned in. No gradients, no optimiser.

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

from mohole import keys
from mohole.config import BatchTopK, Gated, JumpReLU, Nonlinearity, ReLU, TopK
from mohole.dictionary import Latents
from mohole.kernels.choice import kernels_for
from mohole.kernels.pairs import Pairs

_INIT_LATENTS = (
    1024  # rows drawn at a time: the counters of all of them at once would take more memory than the weights
)
_MAGNITUDE_ROWS = 1024
_TRANSCODER_SHARE = 0.1
"""Length of a transcoder's first predictions, of the target's. Its first latents know nothing of the target."""


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
    scales = torch.empty(sites.width)
    for low, high in pairwise(sites.bounds):
        part = sample[:, low:high].double()
        spread = (part - part.mean(0)).square().sum(1).mean()
        scales[low:high] = float(((high - low) / spread).sqrt())
    return scales


def autoencoder(
    sample: Float[Tensor, "row d"], n_latents: int, nonlinearity: Nonlinearity, *, initial_l0: float, seed: int
) -> Weights:
    """Where an autoencoder (or a crosscoder) starts, for a sample of rows in training units.

    - Decoder rows are unit vectors drawn by latent id: the first n latents of a wider dictionary start as these do (law 1).
    - The encoder is the decoder, all of it times one factor that gives reconstructions the magnitude of the rows (Gao et al.
      2024, appendix A.1).
    - b_dec is the mean of the sample. Not the geometric median of Bricken et al. 2023: the mean is what a reconstruction
      without codes should be for squared error, it merges over workers, and it is trained from there anyway.
    - Where thresholds decide, each latent fires on its share of the sample: `initial_l0` of them on average.
    """
    directions = decoder_directions(np.arange(n_latents), sample.shape[1], seed=seed)
    centre = sample.double().mean(0).float()
    centred = sample - centre
    everything = slice(0, sample.shape[1])
    block = Block(everything, everything, directions.clone(), torch.zeros(n_latents), directions)
    block = _thresholded(block, centred, nonlinearity, initial_l0)
    return Weights((_magnified(block, centred, centred, nonlinearity, 1.0),), centre)


def transcoder(
    rows: Float[Tensor, "row d_in"],
    targets: Float[Tensor, "row d_out"],
    columns: list[tuple[slice, slice]],
    n_latents: int,
    nonlinearity: Nonlinearity,
    *,
    skip: bool,
    initial_l0: float,
    seed: int,
) -> Weights:
    """Where a transcoder starts, or a cross-layer one with a (reads, writes) for each layer.

    Encoder and decoder rows are drawn apart. The rows have no mean here (`Units.origin`), so no latent wins by it. First
    predictions are a tenth of the target's length; the linear path starts at zero.
    """
    centre = targets.double().mean(0).float()
    blocks = []
    for number, (reads, writes) in enumerate(columns):
        ids = np.arange(n_latents) + number * n_latents
        own = rows[:, reads]
        W_enc = decoder_directions(ids, own.shape[1], seed=seed, use=keys.Use.LATENT_READS)
        W_dec = decoder_directions(ids, len(centre[writes]), seed=seed)
        block = Block(reads, writes, W_enc, torch.zeros(n_latents), W_dec)
        block = _thresholded(block, own, nonlinearity, initial_l0)
        blocks.append(_magnified(block, own, targets[:, writes] - centre[writes], nonlinearity, _TRANSCODER_SHARE))
    W_skip = torch.zeros(targets.shape[1], rows.shape[1]) if skip else None
    return Weights(tuple(blocks), centre, W_skip, is_tied=False)


def _thresholded(block: Block, read: Float[Tensor, "row d"], nonlinearity: Nonlinearity, initial_l0: float) -> Block:
    """With the bias or the threshold at which each latent fires on initial_l0 / n_latents of the rows."""
    match nonlinearity:
        case TopK() | BatchTopK():
            return block
        case ReLU():
            return replace(block, b_enc=block.b_enc - _quantiles(block, read, initial_l0))
        case Gated():
            quantiles = _quantiles(block, read, initial_l0)
            b_mag = block.b_enc.clone()
            return replace(block, b_enc=block.b_enc - quantiles, b_mag=b_mag, r_mag=torch.zeros_like(b_mag))
        case JumpReLU():
            return replace(block, log_threshold=_quantiles(block, read, initial_l0).clamp_min(1e-6).log())
        case _:
            assert_never(nonlinearity)


def _quantiles(block: Block, read: Float[Tensor, "row d"], initial_l0: float) -> Float[Tensor, " latent"]:
    """What each latent's reading exceeds on its share of the rows, at least on one."""
    n_above = max(round(len(read) * initial_l0 / len(block.b_enc)), 1)
    found = []
    for first in range(0, len(block.b_enc), _INIT_LATENTS):
        here = slice(first, first + _INIT_LATENTS)
        pre = block.W_enc[here] @ read.T + block.b_enc[here, None]
        found.append(pre.topk(min(n_above + 1, len(read)), dim=1).values[:, -1])
    return torch.cat(found)


def _magnified(
    block: Block,
    read: Float[Tensor, "row d_in"],
    target: Float[Tensor, "row d_out"],
    nonlinearity: Nonlinearity,
    share: float,
) -> Block:
    """With readings times one factor, at which what is decoded has `share` of the target's length."""
    read, target = read[:_MAGNITUDE_ROWS], target[:_MAGNITUDE_ROWS]
    threshold = torch.zeros_like(block.b_enc) if isinstance(nonlinearity, BatchTopK) else None
    if isinstance(nonlinearity, BatchTopK):  # the same number of codes as top-k, spread otherwise
        nonlinearity, threshold = TopK(k=nonlinearity.k), None
    if block.log_threshold is not None:
        threshold = block.log_threshold.exp()
    latents = Latents(nonlinearity, block.W_enc, block.b_enc, block.W_dec, threshold, block.b_mag, block.r_mag)
    codes = latents.encode(read)
    pairs = Pairs(codes.row_starts, codes.latents.to(torch.int32), codes.values)
    output = kernels_for(read.device).decode(pairs, codes.values, block.W_dec, torch.zeros_like(target))
    length = float(output.double().square().sum())
    factor = share * float((target.double().square().sum() / length).sqrt()) if length > 0 else 1.0
    moved = {name: vector * factor for name, vector in block.vectors().items() if name in ("b_enc", "b_mag")}
    if block.log_threshold is not None:
        moved["log_threshold"] = block.log_threshold + np.log(factor)
    return block.of({"W_enc": block.W_enc * factor} | moved)


def decoder_directions(
    latents: np.ndarray, d_model: int, *, seed: int, use: keys.Use = keys.Use.LATENT_INIT
) -> Float[Tensor, "latent d"]:
    """Random unit vectors, one for each latent id."""
    drawn = [
        keys.normal(seed, use, latents[start : start + _INIT_LATENTS], d_model)
        for start in range(0, len(latents), _INIT_LATENTS)
    ]
    directions = np.concatenate(drawn)
    return torch.from_numpy((directions / np.linalg.norm(directions, axis=1, keepdims=True)).astype(np.float32))
