"""What the job's steering shows: which latent is clamped and on which prompts, when the recipe leaves that open."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from mohole.act import Choice, demonstrate, most_effective
from mohole.catalogue import Catalogue
from mohole.config import Clamp, PlantedCorpus, Recipe
from mohole.corpus import Corpus
from mohole.dictionary import SparseAutoencoder
from mohole.errors import StageError
from mohole.interpret import Labels
from mohole.model import LanguageModel

_PROMPT_TOKENS = 12
_PROMPTS = 4


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
        latent, chosen_by = _best_labelled(catalogue, labels), "the latent whose label holds best on unseen documents"
    elif clamp.concept is None:
        latent, chosen_by = _numbered(clamp, dictionary), "named in the recipe"
    else:
        choice = _most_effective(model, dictionary, catalogue, corpus, clamp, prompts)
        latent, chosen_by = choice.latent, str(choice)
    demonstrate(
        out,
        model,
        dictionary,
        catalogue,
        recipe.steer,
        latent=latent,
        label=labels.label(latent).text,
        chosen_by=chosen_by,
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
    shown: Sequence[str],
) -> Choice:
    """The concept's latent, chosen on prompts that the demonstration does not show."""
    places = corpus.truth(str(clamp.concept))
    if len(places) == 0:
        known = ", ".join(corpus.labels[:8])
        raise StageError(
            f"steer.clamp.concept: {clamp.concept!r} is nowhere in this corpus; it has {known or 'no truth'}, ..."
        )
    words = {int(token) for token in corpus.tokens[places]}
    trial = [prompt for prompt in _bridge_prompts() if prompt not in shown]
    return most_effective(model, dictionary, catalogue, places, words, trial, times_max=clamp.times_max)


def _bridge_prompts() -> tuple[str, ...]:
    from mohole.planted.prompts import bridge_prompts  # only the planted world has concepts to steer by name

    return bridge_prompts()


def _best_labelled(catalogue: Catalogue, labels: Labels) -> int:
    """The latent whose label holds best on unseen documents; among equals the one that fires more often."""
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
        return _bridge_prompts()[:_PROMPTS]
    documents = corpus.held_out.nonzero()[0][:_PROMPTS]
    starts = [int(corpus.document_starts[document]) for document in documents]
    ends = [int(corpus.document_starts[document + 1]) for document in documents]
    return tuple(corpus.text(start, min(start + _PROMPT_TOKENS, end)) for start, end in zip(starts, ends, strict=True))
