"""Which latent of a concept is clamped: the one that makes the model say it, not the one most active at it."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from tests.act.tiny import D_MODEL, N_LATENTS, tiny_model

from mohole.act import Clamp, most_active, most_effective, steer
from mohole.config import TopK
from mohole.dictionary import SparseAutoencoder, SparseCodes

SAID = 33
LAST = "resid_post.2"


@dataclass(frozen=True)
class Seen:
    """A catalogue of four tokens: latent 3 is the most active at tokens 10 and 11, then 7, then 5; 9 is active elsewhere."""

    hookpoint: str = LAST

    @property
    def tokens(self) -> np.ndarray:
        return np.array([10, 11, 12, 13])

    @property
    def codes(self) -> SparseCodes:
        starts, latents = torch.tensor([0, 3, 5, 6, 7]), torch.tensor([3, 5, 7, 3, 7, 9, 9])
        values = torch.tensor([5.0, 1.0, 2.0, 5.0, 2.0, 9.0, 9.0])
        return SparseCodes(starts, latents, values, N_LATENTS)

    @property
    def maximum(self) -> np.ndarray:
        return np.full(N_LATENTS, 3.0, dtype=np.float32)


def says(latent: int) -> SparseAutoencoder:
    """At the last layer, where one latent's direction is the row of the output matrix of the word that is to be said."""
    draw = torch.Generator().manual_seed(1)
    directions = torch.nn.functional.normalize(torch.randn(N_LATENTS, D_MODEL, generator=draw), dim=1)
    row = tiny_model().hf.get_output_embeddings().weight[SAID].detach()
    directions[latent] = row / row.norm()
    zeros = torch.zeros(N_LATENTS)
    return SparseAutoencoder(LAST, TopK(k=4), directions.clone(), zeros, directions, torch.zeros(D_MODEL))


def texts() -> list[torch.Tensor]:
    return [torch.randint(3, 90, (1, 20), generator=torch.Generator().manual_seed(seed)) for seed in range(3)]


def chosen(candidates: dict[int, set[int]], times_max: float):
    return most_effective(
        tiny_model(), says(5), Seen(), candidates, ["w1 w2 w3", "w9 w4"], texts(), times_max=times_max
    )


def test_the_most_active_latents_are_those_with_the_largest_sum_at_the_places_and_none_that_is_silent_there():
    assert most_active(Seen(), np.array([10, 11]), 6) == [3, 7, 5]
    assert most_active(Seen(), np.array([10, 11]), 2) == [3, 7]
    assert most_active(Seen(), np.array([12, 13]), 6) == [9]
    assert most_active(Seen(), np.array([99]), 6) == []


def test_a_weaker_detector_that_is_a_cause_is_preferred():
    model = tiny_model()
    tokens = model.tokenizer.prompt("w1 w2 w3")
    assert SAID not in model.generate(tokens, max_new_tokens=16)[0, tokens.shape[1] :].tolist()
    strengths = [chosen({latent: {SAID} for latent in (3, 7, 5)}, strength) for strength in (2.0, 3.0, 4.0, 5.0)]
    assert any(choice.latent == 5 and choice.share_turned == 1.0 for choice in strengths)
    assert all(choice.latent == 5 for choice in strengths if choice.share_turned > 0.5)


def test_of_equals_the_one_that_harms_other_text_least_is_taken():
    choice = chosen({latent: {-1} for latent in (3, 7, 5)}, 3.0)  # nobody can say it
    alone = {latent: chosen({latent: {-1}}, 3.0) for latent in (3, 7, 5)}
    assert (choice.share_turned, choice.n_tried, choice.n_prompts) == (0.0, 3, 2)
    assert choice.harm == min(one.harm for one in alone.values())
    assert len({one.harm for one in alone.values()}) == 3


def test_harm_is_the_loss_that_the_clamp_adds():
    model, clamp = tiny_model(), Clamp(5, times_max=3.0)
    steered = steer(model, says(5), [clamp], catalogue=Seen())
    total, n = 0.0, 0
    for tokens in texts():
        for sign, logits in ((1, steered.logits(tokens)), (-1, model.logits(tokens))):
            chances = torch.softmax(logits[0].double(), -1)
            total -= sign * sum(float(chances[i, tokens[0, i + 1]].log()) for i in range(19))
        n += 19
    assert chosen({5: {SAID}}, 3.0).harm == pytest.approx(total / n, abs=1e-5)


def test_what_the_model_says_anyway_is_not_turned():
    model = tiny_model()
    written = [
        model.generate(model.tokenizer.prompt(prompt), max_new_tokens=16)[0, 3:].tolist()
        for prompt in ("w1 w2 w3", "w9 w4")
    ]
    both = set(written[0]) & set(written[1])
    assert both
    assert chosen({5: both}, 0.01).share_turned == 0.0


def test_a_model_that_only_babbles_the_word_does_not_count_as_saying_it():
    assert chosen({5: {SAID}}, 100.0).share_turned == 0.0  # nothing but the word, again and again


def test_what_stands_behind_the_end_of_the_text_was_not_said(monkeypatch: pytest.MonkeyPatch):
    model, prompt = tiny_model(), "w1 w2 w3"
    tokens = model.tokenizer.prompt(prompt)
    written = steer(model, says(5), [Clamp(5, times_max=2.0)], catalogue=Seen()).generate(tokens, max_new_tokens=16)
    first, *rest = written.tokens[0, tokens.shape[1] :].tolist()
    words = {token for token in rest if token != first} - set(model.generate(tokens, max_new_tokens=16)[0].tolist())

    def share() -> float:
        trial = most_effective(model, says(5), Seen(), {5: words}, [prompt], texts(), times_max=2.0)
        return trial.share_turned

    assert share() == 1.0
    monkeypatch.setattr(model.tokenizer, "eos_id", first)
    assert share() == 0.0
