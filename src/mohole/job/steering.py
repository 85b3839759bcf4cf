"""What the job's steering shows: which latent is clamped and on which prompts, when the recipe leaves that open."""

from collections.abc import Mapping
from pathlib import Path

from mohole import act
from mohole.act import DEFAULT_TIMES_MAX, Choice, demonstrate, most_active, most_effective, save_variant
from mohole.catalogue import Catalogue
from mohole.config import Clamp, PlantedCorpus, Recipe
from mohole.corpus import Corpus
from mohole.dictionary import Autoencoder
from mohole.dictionary.files import open_autoencoder
from mohole.errors import StageError
from mohole.interpret import Labels
from mohole.job.prompts import N_PROMPTS, other_texts, possible_prompts
from mohole.model import LanguageModel

_CANDIDATES = 6
_LABELLED = 12


def steer(out: Path, model: LanguageModel, corpus: Corpus, recipe: Recipe, parents: Mapping[str, Path]) -> None:
    """Continue the prompts without and with one latent clamped, and write both into `out`. The clamp may be kept as a variant.

    Raises:
        StageError: the recipe's latent or concept is not there, or no latent is alive.
    """
    dictionary = open_autoencoder(parents["dictionary"])
    catalogue, labels = Catalogue.open(parents["catalogue"]), Labels.open(parents["labels"])
    clamp = recipe.steer.clamp
    possible = possible_prompts(corpus, is_planted=isinstance(recipe.corpus, PlantedCorpus))
    prompts = recipe.steer.prompts or possible[:N_PROMPTS]
    if clamp is not None and clamp.latent is not None:
        latent, chosen_by = _numbered(clamp.latent, dictionary), "named in the recipe"
    else:
        candidates = _labelled(catalogue, labels, corpus) if clamp is None else _of_concept(clamp, catalogue, corpus)
        choice = most_effective(
            model,
            dictionary,
            catalogue,
            candidates,
            [prompt for prompt in possible if prompt not in prompts] or prompts,
            other_texts(corpus, model),
            times_max=DEFAULT_TIMES_MAX if clamp is None else clamp.times_max,
        )
        latent, chosen_by = choice.latent, _why(choice, clamp)
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
    if recipe.steer.variant:
        times_max = DEFAULT_TIMES_MAX if clamp is None else clamp.times_max
        kept = act.Clamp(latent, times_max=times_max, hookpoint=catalogue.hookpoint)
        save_variant(recipe.run, recipe.steer.variant, [kept], model, replace_it=True)


def _why(choice: Choice, clamp: Clamp | None) -> str:
    among = "best labelled" if clamp is None else f"most active at {clamp.concept}"
    return f"{choice} (tried: those {among})"


def _numbered(latent: int, dictionary: Autoencoder) -> int:
    if latent >= dictionary.n_latents:
        raise StageError(
            f"steer.clamp.latent: {latent}: the dictionary has {dictionary.n_latents} latents, "
            f"counted from 0 to {dictionary.n_latents - 1}"
        )
    return latent


def _of_concept(clamp: Clamp, catalogue: Catalogue, corpus: Corpus) -> dict[int, set[int]]:
    """The latents most active where the concept holds. All of them stand for its words."""
    places = corpus.truth(str(clamp.concept))
    if len(places) == 0:
        known = ", ".join(corpus.labels[:8])
        raise StageError(
            f"steer.clamp.concept: {clamp.concept!r} is nowhere in this corpus; it has {known or 'no truth'}, ..."
        )
    words = {int(token) for token in corpus.tokens[places]}
    active = most_active(catalogue, places, _CANDIDATES)
    if not active:
        raise StageError(f"steer.clamp.concept: no latent of {catalogue.hookpoint} is active at {clamp.concept!r}")
    return dict.fromkeys(active, words)


def _labelled(catalogue: Catalogue, labels: Labels, corpus: Corpus) -> dict[int, set[int]]:
    """The latents whose labels hold best, with the tokens at which each is strongest: what it stands for, if for a word."""
    scored = [label for label in labels if label.status in ("good", "partial")]
    # Of a poor text no label may hold: then the latents that fire most often.
    scored = scored or [label for label in labels if catalogue.counts[label.latent]]
    if not scored:
        raise StageError(f"steer: every latent at {catalogue.hookpoint} is dead; train longer, or on more text")
    best = sorted(scored, key=lambda label: (-label.f1, -int(catalogue.counts[label.latent]), label.latent))[:_LABELLED]
    return {
        label.latent: {int(corpus.tokens[example.token]) for example in catalogue.feature(label.latent).top}
        for label in best
    }
