"""Where the weights of a dictionary start: drawn by latent id, and made to fit a sample of rows."""

from dataclasses import replace
from typing import assert_never

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mohole import keys
from mohole.config import BatchTopK, Gated, JumpReLU, Nonlinearity, ReLU, TopK
from mohole.kernels.choice import kernels_for
from mohole.parallel import Mesh
from mohole.train.activation import activate
from mohole.train.sums import whole_sum
from mohole.train.weights import Block, Weights

_INIT_LATENTS = (
    1024  # rows drawn at a time: the counters of all of them at once would take more memory than the weights
)
_MAGNITUDE_ROWS = 1024
_TRANSCODER_SHARE = 0.1
"""Length of a transcoder's first predictions, of the target's. Its first latents know nothing of the target."""


def autoencoder(
    sample: Float[Tensor, "row d"],
    n_latents: int,
    nonlinearity: Nonlinearity,
    *,
    initial_l0: float,
    seed: int,
    mesh: Mesh | None = None,
) -> Weights:
    """Where an autoencoder (or a crosscoder) starts, for a sample of rows in training units: a rank's share of the latents.

    - Decoder rows are unit vectors drawn by latent id: the first n latents of a wider dictionary start as these do (law 1).
    - The encoder is the decoder, all of it times one factor that gives reconstructions the magnitude of the rows (Gao et al.
      2024, appendix A.1).
    - b_dec is the mean of the sample. Not the geometric median of Bricken et al. 2023: the mean is what a reconstruction
      without codes should be for squared error, it merges over workers, and it is trained from there anyway.
    - Where thresholds decide, each latent fires on its share of the sample: `initial_l0` of them on average.
    """
    mesh = mesh or Mesh()
    own = mesh.own_latents(n_latents)
    directions = decoder_directions(np.array(own), sample.shape[1], seed=seed).to(sample.device)
    centre = sample.double().mean(0).float()
    centred = sample - centre
    everything = slice(0, sample.shape[1])
    b_enc = torch.zeros_like(directions[:, 0])
    block = Block(everything, everything, directions.clone(), b_enc, directions, first=own.start)
    block = _thresholded(block, centred, nonlinearity, initial_l0 / n_latents)
    return Weights((_magnified(block, centred, centred, nonlinearity, 1.0, mesh),), centre)


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
    mesh: Mesh | None = None,
) -> Weights:
    """Where a transcoder starts, or a cross-layer one with a (reads, writes) for each layer.

    Encoder and decoder rows are drawn apart. The rows have no mean here (`Units.origin`), so no latent wins by it. First
    predictions are a tenth of the target's length; the linear path starts at zero.
    """
    mesh = mesh or Mesh()
    own = mesh.own_latents(n_latents)
    centre = targets.double().mean(0).float()
    blocks = []
    for number, (reads, writes) in enumerate(columns):
        ids = np.array(own) + number * n_latents
        read, target = rows[:, reads], targets[:, writes] - centre[writes]
        W_enc = decoder_directions(ids, read.shape[1], seed=seed, use=keys.Use.LATENT_READS).to(rows.device)
        W_dec = decoder_directions(ids, target.shape[1], seed=seed).to(rows.device)
        block = Block(reads, writes, W_enc, torch.zeros_like(W_enc[:, 0]), W_dec, first=own.start)
        block = _thresholded(block, read, nonlinearity, initial_l0 / n_latents)
        blocks.append(_magnified(block, read, target, nonlinearity, _TRANSCODER_SHARE, mesh))
    W_skip = centre.new_zeros(targets.shape[1], rows.shape[1]) if skip else None
    return Weights(tuple(blocks), centre, W_skip, is_tied=False)


def _thresholded(block: Block, read: Float[Tensor, "row d"], nonlinearity: Nonlinearity, share: float) -> Block:
    """With the bias or the threshold at which each latent fires on a share of the rows."""
    match nonlinearity:
        case TopK() | BatchTopK():
            return block
        case ReLU():
            return replace(block, b_enc=block.b_enc - _quantiles(block, read, share))
        case Gated():
            b_mag = block.b_enc.clone()
            b_enc = block.b_enc - _quantiles(block, read, share)
            return replace(block, b_enc=b_enc, b_mag=b_mag, r_mag=torch.zeros_like(b_mag))
        case JumpReLU():
            return replace(block, log_threshold=_quantiles(block, read, share).clamp_min(1e-6).log())
        case _:
            assert_never(nonlinearity)


def _quantiles(block: Block, read: Float[Tensor, "row d"], share: float) -> Float[Tensor, " latent"]:
    """What each latent's reading exceeds on a share of the rows, at least on one: midway to the next reading below, so that
    rounding does not decide."""
    n_above = max(round(len(read) * share), 1)
    found = []
    for first in range(0, len(block.b_enc), _INIT_LATENTS):
        here = slice(first, first + _INIT_LATENTS)
        pre = block.W_enc[here] @ read.T + block.b_enc[here, None]
        found.append(pre.topk(min(n_above + 1, len(read)), dim=1).values[:, -2:].mean(1))
    return torch.cat(found)


def _magnified(
    block: Block,
    read: Float[Tensor, "row d_in"],
    target: Float[Tensor, "row d_out"],
    nonlinearity: Nonlinearity,
    share: float,
    mesh: Mesh,
) -> Block:
    """With readings times one factor, at which what all ranks' latents decode has `share` of the target's length."""
    read, target = read[:_MAGNITUDE_ROWS].contiguous(), target[:_MAGNITUDE_ROWS]
    if isinstance(nonlinearity, BatchTopK):  # the same number of codes as top-k, spread otherwise
        nonlinearity = TopK(k=nonlinearity.k)
    kernels = kernels_for(read.device)
    active = activate(block, read, nonlinearity, kernels, None, Mesh(latent=mesh.latent))
    output = mesh.latent.total(kernels.decode(active.pairs, active.values, block.W_dec, torch.zeros_like(target)))
    length = whole_sum(output.double().square().sum(1))
    factor = share * (whole_sum(target.double().square().sum(1)) / length) ** 0.5 if length > 0 else 1.0
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
