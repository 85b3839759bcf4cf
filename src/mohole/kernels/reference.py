"""Slow, obvious versions of every kernel, over dense codes. Each fast one is tested against these.

Axes: B batch rows, L latents, K kept latents per row, D model width. Codes are [B, L], zero where not kept.
"""

import torch
from jaxtyping import Float, Int
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


def batch_top(pre_BL: Float[Tensor, "B L"], n: int) -> Float[Tensor, "B L"]:
    """Keep the batch's n largest entries where they are positive; among equals those of the lower row, then latent."""
    flat = pre_BL.flatten()
    kept = flat.argsort(descending=True, stable=True)[:n]
    return torch.zeros_like(flat).scatter(0, kept, flat[kept].clamp_min(0.0)).view_as(pre_BL)


def above(pre_BL: Float[Tensor, "B L"], threshold_L: Float[Tensor, " L"]) -> Float[Tensor, "B L"]:
    """Keep entries that exceed their latent's threshold."""
    return pre_BL * (pre_BL > threshold_L)


def decode(codes_BL: Float[Tensor, "B L"], W_dec_LD: Float[Tensor, "L D"]) -> Float[Tensor, "B D"]:
    """Sum each row's decoder directions, weighted by its codes."""
    return codes_BL @ W_dec_LD


def dots(sources_BD: Float[Tensor, "B D"], W_dec_LD: Float[Tensor, "L D"]) -> Float[Tensor, "B L"]:
    """Each row's source along each decoder direction."""
    return sources_BD @ W_dec_LD.T


def sums(factors_BL: Float[Tensor, "B L"], source_BD: Float[Tensor, "B D"]) -> Float[Tensor, "L D"]:
    """For each latent, the sum over rows of its factor times the row's source."""
    return factors_BL.T @ source_BD
