"""Wrong ways to say how much a prediction speaks of a label."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mohole.metrics.definitions import OURS
from mohole.metrics.mutants.mutant import Mutant, mutant

Int64 = NDArray[np.int64]


def _counts_for_shares(following: Int64, elsewhere: Int64, vocab_size: int) -> Tensor:
    """Counts in place of shares: the longer side speaks louder.

    Seen in: log-odds of raw counts.
    """
    having, without = (np.bincount(side, minlength=vocab_size) for side in (following, elsewhere))
    return torch.from_numpy(np.log((having + 1.0) / (without + 1.0)))


def _rare_words_shout(following: Int64, elsewhere: Int64, vocab_size: int) -> Tensor:
    """Next to nothing is added to a share: a word seen once decides everything.

    Seen in: an epsilon inside a logarithm.
    """
    having, without = (np.bincount(side, minlength=vocab_size) / len(side) for side in (following, elsewhere))
    return torch.from_numpy(np.log((having + 1e-9) / (without + 1e-9)))


def _sides_exchanged(following: Int64, elsewhere: Int64, vocab_size: int) -> Tensor:
    """What speaks for the label is taken to speak against it.

    Seen in: the order of a ratio's two sides.
    """
    return OURS.signature(elsewhere, following, vocab_size)


def _logits_for_shares(logits: Tensor, signature: Tensor) -> Tensor:
    """Logits are weighted where probabilities should be.

    Seen in: softmax forgotten.
    """
    return (logits.nan_to_num(neginf=0.0).double() @ signature.double()).double()


def _likeliest_alone(logits: Tensor, signature: Tensor) -> Tensor:
    """Only the likeliest token speaks.

    Seen in: greedy decoding in place of the distribution.
    """
    return signature[logits.argmax(-1)].double()


MUTANTS: tuple[Mutant, ...] = (
    mutant("signature", _counts_for_shares),
    mutant("signature", _rare_words_shout),
    mutant("signature", _sides_exchanged),
    mutant("evidence_nats", _logits_for_shares),
    mutant("evidence_nats", _likeliest_alone),
)
