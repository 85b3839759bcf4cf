"""What the job's steering shows: which latent is clamped and on which prompts, when the recipe leaves that open."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mohole.act import Clamp as Clamped
from mohole.act import demonstrate
from mohole.act import steer as hold
from mohole.catalogue import Catalogue
from mohole.config import Clamp, PlantedCorpus, Recipe
from mohole.corpus import Corpus
from mohole.dictionary import SparseAutoencoder
from mohole.errors import StageError
from mohole.interpret import Labels
from mohole.model import LanguageModel

_PROMPT_TOKENS = 12
_PROMPTS = 4
_CANDIDATES = 6
_TRIAL_TOKENS = 16


def steer(out: Path, model: LanguageModel, corpus: Corpus, recipe: Recipe, parents: Mapping[str, Path]) -> None:
    """Continue the prompts without and with one latent clamped, and write both into `out`.

    Raises:
        StageError: the recipe's latent or concept is not there, or no latent has a label to choose by.
    """
    dictionary = SparseAutoencoder.open(parents["dictionary"])
    catalogue, labels = Catalogue.open(parents["catalogue"]), Labels.open(parents["labels"])
    clamp = recipe.steer.clamp
    prompts = recipe.steer.prompts or _prompts(corpus, isinstance(recipe.corpus, PlantedCorpus))
    if clamp is None:
        latent = _best_labelled(catalogue, labels)
    elif clamp.concept is None:
        latent = _numbered(clamp, dictionary)
    else:
        latent = _most_effective(model, dictionary, catalogue, corpus, clamp, prompts)
    demonstrate(
        out,
        model,
        dictionary,
        catalogue,
        recipe.steer,
        latent=latent,
        label=labels.label(latent).text,
        prompts=prompts,
        seed=recipe.seed,
    )


def _numbered(clamp: Clamp, dictionary: SparseAutoencoder) -> int:
    assert clamp.latent is not None
    if clamp.latent >= dictionary.n_latents:
        raise StageError(
            f"steer.clamp.latent: {clamp.latent}: the dictionary has {dictionary.n_latents} latents, "
            f"counted from 0 to {dictionary.n_latents - 1}"
        )
    return clamp.latent


def _most_effective(
    model: LanguageModel,
    dictionary: SparseAutoencoder,
    catalogue: Catalogue,
    corpus: Corpus,
    clamp: Clamp,
    prompts: tuple[str, ...],
) -> int:
    """Of the latents most active where the concept holds, the one that most often makes the model say it, and not babble it.

    Not simply the best detector: on the built-in model the latents with the highest F1 for the bridge's name change no
    answer at any strength, while one with an F1 of 0.3, active long after the name, turns 9 of 12 answers into the bridge.
    """
    places = corpus.truth(str(clamp.concept))
    if len(places) == 0:
        known = ", ".join(corpus.labels[:8])
        raise StageError(
            f"steer.clamp.concept: {clamp.concept!r} is nowhere in this corpus; it has {known or 'no truth'}, ..."
        )
    words = {int(token) for token in corpus.tokens[places]}
    shares = {
        latent: _share_that_says(
            model, dictionary, catalogue, Clamped(latent, times_max=clamp.times_max), words, prompts
        )
        for latent in _most_active(catalogue, places)
    }
    return max(shares, key=lambda latent: shares[latent])  # among equals the more active one, which stands first


def _most_active(catalogue: Catalogue, places: NDArray[np.int64]) -> list[int]:
    """The latents with the largest summed activation at these tokens, strongest first."""
    codes = catalogue.codes
    rows = torch.from_numpy(np.isin(catalogue.tokens, places))[codes.rows]
    strength = torch.zeros(codes.n_latents, dtype=torch.float64)
    strength.index_add_(0, codes.latents[rows].long(), codes.values[rows].double())
    return [int(latent) for latent in strength.argsort(descending=True, stable=True)[:_CANDIDATES]]


def _share_that_says(
    model: LanguageModel,
    dictionary: SparseAutoencoder,
    catalogue: Catalogue,
    clamped: Clamped,
    words: set[int],
    prompts: tuple[str, ...],
) -> float:
    """Share of steered continuations that hold one of the words, and in which no token makes up a third."""
    steered = hold(model, dictionary, [clamped], catalogue=catalogue)
    said = 0
    for prompt in prompts:
        tokens = model.tokenizer.prompt(prompt)
        written = steered.generate(tokens, max_new_tokens=_TRIAL_TOKENS).tokens[0, tokens.shape[1] :].tolist()
        said += any(token in words for token in written) and max(Counter(written).values()) <= len(written) / 3
    return said / len(prompts)


def _best_labelled(catalogue: Catalogue, labels: Labels) -> int:
    """The latent whose label holds best on held-out documents; among equals the one that fires more often."""
    scored = [
        (label.f1, int(catalogue.counts[label.latent]), -label.latent)
        for label in map(labels.label, range(catalogue.n_latents))
        if label.status in ("good", "partial")
    ]
    if not scored:
        raise StageError(
            "steer: no latent has a label to choose by; set steer.clamp = { hookpoint = ..., latent = ... }"
        )
    return -max(scored)[2]


def _prompts(corpus: Corpus, is_planted: bool) -> tuple[str, ...]:
    if is_planted:
        from mohole.planted.tasks import bridge_prompts

        return bridge_prompts()[:_PROMPTS]
    documents = corpus.held_out.nonzero()[0][:_PROMPTS]
    starts = [int(corpus.document_starts[document]) for document in documents]
    ends = [int(corpus.document_starts[document + 1]) for document in documents]
    return tuple(corpus.text(start, min(start + _PROMPT_TOKENS, end)) for start, end in zip(starts, ends, strict=True))
