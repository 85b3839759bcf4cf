"""How much a prediction speaks of a label, in nats, with no knowledge of what the label means.

What a label does to text is learned from the text. Its signature is what is written after the label and not after others:

    s(v) = ln p_with(v) - ln p_without(v)        how often token v stands after the label, and where the label is not
    evidence(p) = sum_v p(v) s(v)                of one prediction p

The mean evidence of a model's predictions after the label less that of its predictions elsewhere is the gap: what the model
makes of the label. A model that predicts as the text goes on has Jeffreys' divergence of the two distributions as its gap.
"""

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

Int64 = NDArray[np.int64]

LEAST_GAP_NATS = 0.02
"""Where the model predicts nearly the same with the label and without it, a share of the difference is noise."""


def signature(following: Int64, elsewhere: Int64, vocab_size: int) -> Float[Tensor, " vocab"]:
    """ln p_with - ln p_without of tokens that follow the label, and of tokens where it is not. 0 for a token never seen.

    Both shares have that of one token of the smaller side added: a word seen once on one side alone says ln 2, and no more.

    Raises:
        ValueError: a side without a token.
    """
    n = min(len(following), len(elsewhere))
    if n == 0:
        raise ValueError(
            f"signature: {len(following)} tokens after the label, {len(elsewhere)} elsewhere; both are needed"
        )
    having, without = (np.bincount(side, minlength=vocab_size) / len(side) for side in (following, elsewhere))
    return torch.from_numpy(np.log((having + 1 / n) / (without + 1 / n)))


def evidence_nats(
    logits: Float[Tensor, "prediction vocab"], signature: Float[Tensor, " vocab"]
) -> Float[Tensor, " prediction"]:
    """sum_v p(v) s(v) of each prediction: above zero where it looks like what follows the label."""
    return (torch.softmax(logits.float(), dim=-1) @ signature.float()).double()
