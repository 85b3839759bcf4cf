"""Wrong ways to measure what a replaced activation costs the model's predictions."""

import numpy as np
import torch
from torch import Tensor

from mohole.metrics.definitions import OURS, Array
from mohole.metrics.mutants.mutant import Mutant, mutant


def _masked_by_source(is_text: Tensor) -> Tensor:
    """A pair counts by its source: the prediction of padding is scored.

    Seen in: SAELens and SAEBench evals, mask[:, :-1].
    """
    sources: Tensor = is_text[:, :-1]
    return sources


def _every_pair(is_text: Tensor) -> Tensor:
    """BOS and padding are scored.

    Seen in: SAELens #350, #708.
    """
    return torch.ones_like(is_text[:, :-1])


def _own_token(logits: Tensor, targets: Tensor) -> Tensor:
    """Targets are off by one: a token is predicted from itself.

    Seen in: the off-by-one of losses computed by hand.
    """
    return OURS.token_nats(logits, torch.cat([targets[:1] * 0 + logits[0].argmax(), targets[:-1]]))


def _in_bits(logits: Tensor, targets: Tensor) -> Tensor:
    """Bits are called nats.

    Seen in: a change of base.
    """
    bits: Tensor = OURS.token_nats(logits, targets) / np.log(2)
    return bits


def _through_probabilities(clean: Tensor, replaced: Tensor) -> Tensor:
    """KL through probabilities, which round to 0.

    Seen in: SAELens #532.
    """
    p, q = clean.softmax(-1), replaced.softmax(-1)
    return (p * (p / q).log()).double().sum(-1)


def _epsilon_inside(clean: Tensor, replaced: Tensor) -> Tensor:
    """1e-6 is added inside the logarithms.

    Seen in: refusal_direction, kl_div_fn.
    """
    p, q = clean.softmax(-1), replaced.softmax(-1)
    return (p * ((p + 1e-6).log() - (q + 1e-6).log())).double().sum(-1)


def _other_direction(clean: Tensor, replaced: Tensor) -> Tensor:
    """KL(replaced || clean).

    Seen in: the order of arguments of torch's kl_div.
    """
    return OURS.kl_nats(replaced, clean)


def _logits_for_logarithms(clean: Tensor, replaced: Tensor) -> Tensor:
    """Logits are taken for logarithms of probabilities.

    Seen in: softmax forgotten on one side.
    """
    return (clean.softmax(-1) * (clean - replaced)).nan_to_num().double().sum(-1)


def _zero_if_harmless(clean: Array, replaced: Array, ablated: Array) -> Array:
    """Undefined becomes 0.

    Seen in: ratios passed through nan_to_num.
    """
    return np.nan_to_num(OURS.ce_recovered(clean, replaced, ablated))


def _never_undefined(clean: Array, replaced: Array, ablated: Array) -> Array:
    """Divided by whatever damage there is.

    Seen in: SAELens, SAEBench and dictionary_learning evals.
    """
    return (ablated - replaced) / (ablated - clean)


def _of_the_ablation(clean: Array, replaced: Array, ablated: Array) -> Array:
    """The clean loss is forgotten.

    Seen in: a ratio of losses.
    """
    return 1 - replaced / ablated


def _clamped(clean: Array, replaced: Array, ablated: Array) -> Array:
    """Cut off at 0 and 1: damage beyond the ablation's is hidden.

    Seen in: scores cut to [0, 1].
    """
    return OURS.ce_recovered(clean, replaced, ablated).clip(0, 1)


def _kl_zero_if_harmless(replaced: Array, ablated: Array) -> Array:
    """Undefined becomes 0.

    Seen in: ratios passed through nan_to_num.
    """
    return np.nan_to_num(OURS.kl_recovered(replaced, ablated))


def _kl_left(replaced: Array, ablated: Array) -> Array:
    """The share that is left is called the share recovered.

    Seen in: the order of a ratio's two sides.
    """
    return 1 - OURS.kl_recovered(replaced, ablated)


def _kl_clamped(replaced: Array, ablated: Array) -> Array:
    """Cut off at 0: change beyond the ablation's is hidden.

    Seen in: scores cut to [0, 1].
    """
    return OURS.kl_recovered(replaced, ablated).clip(0, None)


MUTANTS: tuple[Mutant, ...] = (
    mutant("scored_pairs", _masked_by_source),
    mutant("scored_pairs", _every_pair),
    mutant("token_nats", _own_token),
    mutant("token_nats", _in_bits),
    mutant("kl_nats", _through_probabilities),
    mutant("kl_nats", _epsilon_inside),
    mutant("kl_nats", _other_direction),
    mutant("kl_nats", _logits_for_logarithms),
    mutant("ce_recovered", _zero_if_harmless),
    mutant("ce_recovered", _never_undefined),
    mutant("ce_recovered", _of_the_ablation),
    mutant("ce_recovered", _clamped),
    mutant("kl_recovered", _kl_zero_if_harmless),
    mutant("kl_recovered", _kl_left),
    mutant("kl_recovered", _kl_clamped),
)
