"""Which latent of a concept is clamped: the one that makes the model say it, not the one most active at it."""

from dataclasses import dataclass

import numpy as np
import torch
from tests.act.tiny import D_MODEL, N_LATENTS, tiny_model

from mohole.act import most_effective
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


def chosen(latent: int, words: set[int], times_max: float):
    places = np.array([10, 11])
    return most_effective(tiny_model(), says(latent), Seen(), places, words, ["w1 w2 w3", "w9 w4"], times_max=times_max)


def test_only_latents_active_at_the_concept_are_tried_and_the_most_active_wins_a_draw():
    choice = chosen(5, {-1}, 1.0)  # nobody can say it
    assert (choice.latent, choice.share_that_says, choice.n_tried, choice.n_prompts) == (3, 0.0, 3, 2)


def test_a_weaker_detector_that_is_a_cause_is_preferred():
    model = tiny_model()
    tokens = model.tokenizer.prompt("w1 w2 w3")
    assert SAID not in model.generate(tokens, max_new_tokens=16)[0, tokens.shape[1] :].tolist()
    strengths = {strength: chosen(5, {SAID}, strength) for strength in (2.0, 3.0, 4.0, 5.0)}
    causes = [choice for choice in strengths.values() if choice.share_that_says > 0]
    assert causes
    assert all(choice.latent == 5 for choice in causes)


def test_a_model_that_only_babbles_the_word_does_not_count_as_saying_it():
    choice = chosen(5, {SAID}, 100.0)  # nothing but the word, again and again
    assert choice.share_that_says == 0.0
