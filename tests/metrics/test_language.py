"""Nats: models whose loss is known by arithmetic, divergences known in closed form, masks that see the target too."""

import math

import numpy as np
import pytest
import torch

from mohole.metrics import ce_recovered, kl_nats, scored_pairs, token_nats


def test_even_odds_cost_the_log_of_the_vocabulary() -> None:
    assert token_nats(torch.zeros(3, 11), torch.tensor([0, 5, 10])).tolist() == pytest.approx([math.log(11)] * 3)


def test_a_bigram_model_costs_its_entropy() -> None:
    odds = torch.tensor([[0.9, 0.1], [0.25, 0.75]], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    source = torch.randint(2, (200_000,), generator=generator)
    target = torch.multinomial(odds[source], 1, generator=generator)[:, 0]
    entropy = float(-(odds * odds.log()).sum(1).mean())
    assert float(token_nats(odds[source].log(), target).mean()) == pytest.approx(entropy, abs=5e-3)


def test_the_loss_is_of_the_target_asked_for() -> None:
    logits = torch.tensor([[10.0, 0.0], [10.0, 0.0]])
    assert token_nats(logits, torch.tensor([0, 1])).tolist() == pytest.approx([4.54e-5, 10.0], rel=1e-2)


def test_kl_of_two_coins_and_its_direction() -> None:
    p, q = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.9, 0.1]]).log()
    assert float(kl_nats(p, p)[0]) == 0.0
    assert float(kl_nats(p, q)[0]) == pytest.approx(0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1), rel=1e-6)
    assert float(kl_nats(q, p)[0]) == pytest.approx(0.9 * math.log(0.9 / 0.5) + 0.1 * math.log(0.1 / 0.5), rel=1e-6)


def test_extreme_and_masked_logits_stay_finite() -> None:
    extreme = torch.tensor([[1e4, -1e4, 0.0]])
    assert math.isfinite(float(kl_nats(extreme, torch.zeros(1, 3))[0]))
    assert float(kl_nats(extreme, -extreme)[0]) == pytest.approx(2e4)
    masked = torch.tensor([[0.0, 0.0, -math.inf]])
    assert float(kl_nats(masked, masked)[0]) == 0.0


def test_kl_of_small_probabilities_is_not_blurred() -> None:
    # An epsilon of 1e-6 inside the logarithms would give 1.7e-6 here, a third of the truth.
    p, q = torch.tensor([[1.0 - 1e-6, 1e-6]]).log(), torch.tensor([[1.0 - 1e-8, 1e-8]]).log()
    assert float(kl_nats(p.double(), q.double())[0]) == pytest.approx(1e-6 * math.log(100) - 1e-6, rel=0.1)


def test_a_pair_counts_when_source_and_target_are_text() -> None:
    bos, text, pad = False, True, False
    is_text = torch.tensor([[bos, text, text, text], [bos, text, text, pad], [bos, text, pad, pad]])
    assert scored_pairs(is_text).tolist() == [[False, True, True], [False, True, False], [False, False, False]]


def test_recovered_is_one_for_no_damage_and_zero_for_all_of_it() -> None:
    clean, replaced, ablated = np.array([2.0, 2.0, 2.0, 2.0]), np.array([2.0, 7.0, 4.5, 9.5]), np.full(4, 7.0)
    assert ce_recovered(clean, replaced, ablated).tolist() == pytest.approx([1.0, 0.0, 0.5, -0.5])


@pytest.mark.parametrize("ablated", [2.0, 1.5, 2.005])
def test_recovered_is_undefined_where_the_ablation_does_no_harm(ablated: float) -> None:
    assert np.isnan(ce_recovered(np.array([2.0]), np.array([2.1]), np.array([ablated]))).all()
