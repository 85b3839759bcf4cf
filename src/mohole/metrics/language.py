"""What a changed activation costs the model, in nats: cross-entropy, KL, and the share of an ablation's damage recovered."""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

Float64 = NDArray[np.float64]

LEAST_DAMAGE_NATS = 0.01
"""An ablation that costs less than this is no baseline: dividing by it gives noise."""


def scored_pairs(is_text: Bool[Tensor, "batch position"]) -> Bool[Tensor, "batch position_less_one"]:
    """Which predictions count: the token itself and the one it predicts are both text (not BOS, not padding).

    Masking by the source alone would count the prediction of padding after each window's last token.
    """
    return is_text[:, :-1] & is_text[:, 1:]


def token_nats(logits: Float[Tensor, "pair vocab"], targets: Int[Tensor, " pair"]) -> Float[Tensor, " pair"]:
    """-ln p(target), by log-softmax in float32, returned as float64 for summing."""
    return -torch.log_softmax(logits.float(), dim=-1).gather(-1, targets[:, None].long())[:, 0].double()


def kl_nats(clean: Float[Tensor, "pair vocab"], replaced: Float[Tensor, "pair vocab"]) -> Float[Tensor, " pair"]:
    """KL(clean || replaced) of each next-token distribution. Log-softmax in float32 on both sides, no epsilon inside."""
    log_p, log_q = torch.log_softmax(clean.float(), -1), torch.log_softmax(replaced.float(), -1)
    p = log_p.exp()
    # Where p is 0 the term is 0, also where both are masked out with -infinity.
    return torch.where(p > 0, p * (log_p - log_q), 0.0).sum(-1, dtype=torch.float64)


def ce_recovered(clean: Float64, replaced: Float64, ablated: Float64) -> Float64:
    """(ablated - replaced) / (ablated - clean): 1 is no damage, 0 is as bad as the ablation. NaN: undefined.

    Undefined where the ablation costs less than LEAST_DAMAGE_NATS. It saturates: where ablation costs 10 nats, a visible
    0.02 nats of damage still scores 0.998, so always read it beside the excess in nats.
    """
    damage = ablated - clean
    return np.divide(ablated - replaced, damage, out=np.full_like(damage, np.nan), where=damage > LEAST_DAMAGE_NATS)


def kl_recovered(replaced: Float64, ablated: Float64) -> Float64:
    """1 - KL(clean || replaced) / KL(clean || ablated): 1 is no damage, 0 is as bad as the ablation. NaN: undefined.

    Undefined where the ablation costs less than LEAST_DAMAGE_NATS. Unlike CE recovered it cannot be above 1, and a model that
    is wrong either way does not hide that its mind was changed.
    """
    kept = np.full_like(ablated, np.nan)
    return 1.0 - np.divide(replaced, ablated, out=kept, where=ablated > LEAST_DAMAGE_NATS)
