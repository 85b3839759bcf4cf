"""Slow, obvious versions of every kernel, and the objective they serve, by autograd. Each fast one is tested against these.

Axes: B batch rows, L latents, K kept latents per row, D model width. Codes are dense here: [B, L], zero where not kept.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def pre_activations(
    rows_BD: Float[Tensor, "B D"],
    W_enc_LD: Float[Tensor, "L D"],
    b_enc_L: Float[Tensor, " L"],
    b_dec_D: Float[Tensor, " D"],
) -> Float[Tensor, "B L"]:
    """Each latent's reading of each row, before the nonlinearity."""
    return (rows_BD - b_dec_D) @ W_enc_LD.T + b_enc_L


def top_k(pre_BL: Float[Tensor, "B L"], k: int) -> tuple[Float[Tensor, "B K"], Int[Tensor, "B K"]]:
    """Each row's k largest entries, largest first, and their places; among equal entries the lower place comes first."""
    order_BK = pre_BL.argsort(dim=1, descending=True, stable=True)[:, :k]
    return pre_BL.gather(1, order_BK), order_BK


def codes(pre_BL: Float[Tensor, "B L"], k: int) -> Float[Tensor, "B L"]:
    """Keep each row's k largest entries where they are positive; zero elsewhere."""
    values_BK, latents_BK = top_k(pre_BL, k)
    return torch.zeros_like(pre_BL).scatter(1, latents_BK, values_BK.clamp_min(0.0))


def decode(
    codes_BL: Float[Tensor, "B L"], W_dec_LD: Float[Tensor, "L D"], b_dec_D: Float[Tensor, " D"]
) -> Float[Tensor, "B D"]:
    """Sum each row's decoder directions, weighted by its codes."""
    return codes_BL @ W_dec_LD + b_dec_D


def reconstruction_loss(rows_BD: Float[Tensor, "B D"], output_BD: Float[Tensor, "B D"]) -> Float[Tensor, ""]:
    """Mean squared error over rows and dimensions."""
    return (output_BD - rows_BD).square().mean()


def auxiliary_loss(
    rows_BD: Float[Tensor, "B D"],
    output_BD: Float[Tensor, "B D"],
    pre_BL: Float[Tensor, "B L"],
    W_dec_LD: Float[Tensor, "L D"],
    dead_L: Bool[Tensor, " L"],
    k: int,
) -> Float[Tensor, ""]:
    """AuxK: how badly each row's k strongest dead latents explain what the others left over.

        e = x - x^ (held fixed)      e^ = relu(top-k of the dead latents) W_dec      loss = |e - e^|^2 / |e - mean(e)|^2

    Source: Gao et al. 2024 (arXiv 2406.04093), appendix A.2, and openai/sparse_autoencoder, train.py.
    """
    residual_BD = (rows_BD - output_BD).detach()
    dead_codes_BL = codes(pre_BL.masked_fill(~dead_L, -torch.inf), min(k, int(dead_L.sum())))
    guess_BD = dead_codes_BL @ W_dec_LD
    return (guess_BD - residual_BD).square().sum() / (residual_BD - residual_BD.mean(0)).square().sum()


def gradients(
    rows_BD: Float[Tensor, "B D"],
    W_enc_LD: Float[Tensor, "L D"],
    b_enc_L: Float[Tensor, " L"],
    W_dec_LD: Float[Tensor, "L D"],
    b_dec_D: Float[Tensor, " D"],
    k: int,
    *,
    dead_L: Bool[Tensor, " L"] | None = None,
    auxk: int = 0,
    auxk_weight: float = 0.0,
) -> tuple[Float[Tensor, "L D"], Float[Tensor, " L"], Float[Tensor, "L D"], Float[Tensor, " D"]]:
    """What autograd says of the whole objective, in the order W_enc, b_enc, W_dec, b_dec."""
    weights = [tensor.detach().clone().requires_grad_() for tensor in (W_enc_LD, b_enc_L, W_dec_LD, b_dec_D)]
    W_enc, b_enc, W_dec, b_dec = weights
    pre = pre_activations(rows_BD, W_enc, b_enc, b_dec)
    output = decode(codes(pre, k), W_dec, b_dec)
    loss = reconstruction_loss(rows_BD, output)
    if dead_L is not None and dead_L.any() and auxk > 0:
        loss = loss + auxk_weight * auxiliary_loss(rows_BD, output, pre, W_dec, dead_L, auxk)
    d_W_enc, d_b_enc, d_W_dec, d_b_dec = torch.autograd.grad(loss, weights)
    return d_W_enc, d_b_enc, d_W_dec, d_b_dec
