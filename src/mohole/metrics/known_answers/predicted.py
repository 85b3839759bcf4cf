"""What must be true of cross-entropy, KL and the share of an ablation's damage recovered."""

import math
from collections.abc import Iterator

import numpy as np
import torch

from mohole.metrics.definitions import Definitions
from mohole.metrics.known_answers.answer import Answer, Check


def a_bigram_model_has_its_entropy(d: Definitions) -> Iterator[Answer]:
    """On text in its own proportions, a bigram model's cross-entropy is its entropy; without the bigram, the unigram's.

    Two tokens; each is followed by itself three times in four. Without the source token both follow equally often.
    """
    p_next = torch.tensor([[0.75, 0.25], [0.25, 0.75]], dtype=torch.float64)
    sources = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    targets = torch.tensor([0, 0, 0, 1, 1, 1, 1, 0])
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    clean = float(d.token_nats(p_next.log()[sources], targets).mean())
    ablated = float(d.token_nats(torch.full((8, 2), 0.5).log(), targets).mean())
    yield Answer("nats per token of the bigram model", clean, entropy, 1e-6)
    yield Answer("nats per token without the bigram", ablated, math.log(2), 1e-6)
    half_way = (clean + ablated) / 2
    found = d.ce_recovered(np.array([clean]), np.array([half_way]), np.array([ablated]))
    yield Answer("CE recovered, half the damage undone", found[0], 0.5, 1e-6)


def targets_are_the_next_tokens(d: Definitions) -> Iterator[Answer]:
    """A model that copies its input is sure of the token it has, and wrong about every other one."""
    tokens = torch.tensor([[3, 1, 4, 1, 5]])
    logits = torch.nn.functional.one_hot(tokens[0, :-1], 8).double() * 50.0
    yield Answer("nats per token of a copying model", float(d.token_nats(logits, tokens[0, 1:]).mean()), 50.0, 1e-4)


def pairs_are_text_on_both_sides(d: Definitions) -> Iterator[Answer]:
    """Neither BOS's prediction counts, nor the prediction of padding, nor any across them."""
    text = torch.tensor([[0, 1, 1, 1, 0, 0], [0, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0]]).bool()
    found = d.scored_pairs(text)
    for row, true in enumerate((2, 4, 0)):
        yield Answer(f"pairs of text in window {row}", float(found[row].sum()), float(true), 0)
    yield Answer("pairs from the first piece of text", float(found[0, 1]), 1.0, 0)
    yield Answer("pairs into padding", float(found[0, 3]), 0.0, 0)


def recovered_is_one_for_no_damage_and_zero_for_the_ablation(d: Definitions) -> Iterator[Answer]:
    """1 where nothing is lost, 0 where as much as by the ablation, below 0 where more; undefined where ablation does no harm."""
    clean, ablated = np.array([2.0]), np.array([6.0])
    yield Answer("CE recovered, nothing lost", d.ce_recovered(clean, clean, ablated)[0], 1.0)
    yield Answer("CE recovered, as bad as the ablation", d.ce_recovered(clean, ablated, ablated)[0], 0.0)
    yield Answer("CE recovered, a quarter lost", d.ce_recovered(clean, np.array([3.0]), ablated)[0], 0.75)
    yield Answer("CE recovered, twice the damage", d.ce_recovered(clean, np.array([10.0]), ablated)[0], -1.0)
    harmless = np.array([2.0 + 1e-6])
    yield Answer("CE recovered, harmless ablation", d.ce_recovered(clean, clean, harmless)[0], float("nan"))
    yield Answer("CE recovered, ablation that helps", d.ce_recovered(clean, clean, np.array([1.0]))[0], float("nan"))


def kl_is_zero_of_itself_and_has_a_direction(d: Definitions) -> Iterator[Answer]:
    """KL of a distribution from itself is 0; of two known ones as computed by hand, and not the same the other way round."""
    p, q = torch.tensor([[0.9, 0.1]]), torch.tensor([[0.5, 0.5]])
    yield Answer("KL(p || p)", float(d.kl_nats(p.log(), p.log())[0]), 0.0)
    forward = 0.9 * math.log(1.8) + 0.1 * math.log(0.2)
    backward = 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(5.0)
    yield Answer("KL(p || q)", float(d.kl_nats(p.log(), q.log())[0]), forward, 1e-6)
    yield Answer("KL(q || p)", float(d.kl_nats(q.log(), p.log())[0]), backward, 1e-6)
    shifted = float(d.kl_nats(p.log() + 100.0, q.log() - 30.0)[0])
    yield Answer("KL(p || q), logits shifted", shifted, forward, 1e-5)


def kl_recovered_is_the_share_of_the_ablations_kl_undone(d: Definitions) -> Iterator[Answer]:
    """1 where nothing changes, 0 where as much as by the ablation, below 0 where more; undefined where it changes nothing."""
    ablated = np.array([4.0])
    yield Answer("KL recovered, nothing changed", d.kl_recovered(np.array([0.0]), ablated)[0], 1.0)
    yield Answer("KL recovered, as bad as the ablation", d.kl_recovered(ablated, ablated)[0], 0.0)
    yield Answer("KL recovered, a quarter of its KL left", d.kl_recovered(np.array([1.0]), ablated)[0], 0.75)
    yield Answer("KL recovered, twice its KL", d.kl_recovered(np.array([8.0]), ablated)[0], -1.0)
    nothing, little = np.array([0.0]), np.array([1e-6])
    yield Answer("KL recovered, ablation that changes nothing", d.kl_recovered(nothing, nothing)[0], float("nan"))
    yield Answer(
        "KL recovered, ablation that changes next to nothing", d.kl_recovered(nothing, little)[0], float("nan")
    )


def kl_of_the_unlikely_is_exact(d: Definitions) -> Iterator[Answer]:
    """Small probabilities count in full: an epsilon inside the logarithms would swallow them."""
    p, q = torch.tensor([[1 - 1e-5, 1e-5]], dtype=torch.float64), torch.tensor([[1 - 1e-7, 1e-7]], dtype=torch.float64)
    true = float((p * (p.log() - q.log())).sum())
    yield Answer("KL of probabilities of 1e-5 and 1e-7", float(d.kl_nats(p.log(), q.log())[0]), true, 1e-6)


def extreme_logits_stay_finite(d: Definitions) -> Iterator[Answer]:
    """Logits of 10 000 either way, and logits that are minus infinity on both sides, give finite and right numbers."""
    sure, other = torch.tensor([[1e4, -1e4]]), torch.tensor([[-1e4, 1e4]])
    yield Answer("KL of opposite certainties, 20 000 nats apart", float(d.kl_nats(sure, other)[0]), 2e4, 1e-2)
    yield Answer("nats of the certain token", float(d.token_nats(sure, torch.tensor([0]))[0]), 0.0)
    masked = torch.tensor([[0.0, 0.0, float("-inf")]])
    yield Answer("KL where a token is masked on both sides", float(d.kl_nats(masked, masked)[0]), 0.0)


CHECKS: tuple[Check, ...] = (
    a_bigram_model_has_its_entropy, targets_are_the_next_tokens, pairs_are_text_on_both_sides,
    recovered_is_one_for_no_damage_and_zero_for_the_ablation, kl_is_zero_of_itself_and_has_a_direction,
    kl_recovered_is_the_share_of_the_ablations_kl_undone, kl_of_the_unlikely_is_exact, extreme_logits_stay_finite,
)  # fmt: skip
