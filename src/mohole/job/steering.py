"""What the job's steering shows: which latent is clamped and on which prompts, when the recipe leaves that open."""

from collections.abc import Mapping
from pathlib import Path

from mohole.act import demonstrate
from mohole.catalogue import Catalogue
from mohole.config import Clamp, PlantedCorpus, Recipe
from mohole.corpus import Corpus
from mohole.dictionary import SparseAutoencoder
from mohole.errors import StageError
from mohole.evaluate import read_recovery
from mohole.interpret import Labels
from mohole.model import LanguageModel

_PROMPT_TOKENS = 12
_PROMPTS = 3


def steer(out: Path, model: LanguageModel, corpus: Corpus, recipe: Recipe, parents: Mapping[str, Path]) -> None:
    """Continue the prompts without and with one latent clamped, and write both into `out`.

    Raises:
        StageError: the recipe's latent or concept is not there, or no latent has a label to choose by.
    """
    dictionary = SparseAutoencoder.open(parents["dictionary"])
    catalogue, labels = Catalogue.open(parents["catalogue"]), Labels.open(parents["labels"])
    clamp = recipe.steer.clamp
    latent = _best_labelled(catalogue, labels) if clamp is None else _latent(clamp, dictionary, parents["evaluation"])
    prompts = recipe.steer.prompts or _prompts(corpus, isinstance(recipe.corpus, PlantedCorpus))
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


def _latent(clamp: Clamp, dictionary: SparseAutoencoder, evaluation: Path) -> int:
    """The latent by number, or the one that evaluation found for the concept."""
    if clamp.latent is not None:
        if clamp.latent >= dictionary.n_latents:
            raise StageError(
                f"steer.clamp.latent: {clamp.latent}: the dictionary has {dictionary.n_latents} latents "
                f"(0-{dictionary.n_latents - 1})"
            )
        return clamp.latent
    recovery = read_recovery(evaluation)
    if recovery is None:
        raise StageError(
            f"steer.clamp.concept: {clamp.concept!r}: this corpus has no truth; give steer.clamp.latent instead"
        )
    if (result := recovery.label(str(clamp.concept))) is None:
        known = ", ".join(result.label for result in recovery.labels[:8])
        raise StageError(f"steer.clamp.concept: {clamp.concept!r} was not scored; among those that were: {known}, ...")
    return result.firing_latent


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
