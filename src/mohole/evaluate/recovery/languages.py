"""Is a concept one latent in every language? Firing rates by language, on documents that did not choose the latent."""

from itertools import chain

import numpy as np
from numpy.typing import NDArray

from mohole.evaluate.recovery.finder import Side
from mohole.evaluate.recovery.ranking import SparseColumns
from mohole.evaluate.recovery.results import ConceptLanguages, LanguageRate, Multilingual
from mohole.evaluate.recovery.truth import LANGUAGE_FAMILY, Marks, Truth
from mohole.metrics import wilson

Int64 = NDArray[np.int64]

FIRES = 0.9
SILENT = 0.05


def measure_languages(truth: Truth, selection: Side, scoring: Side, min_tokens: int) -> Multilingual:
    """For each concept seen in two or more languages, its best latent's firing rate in each; and the same for random directions.

    A language is present when at least `min_tokens` tokens of the concept are in it, to choose on and to score on.
    """
    concepts = _concepts(truth, selection.latents, scoring.latents, min_tokens)
    floor = _concepts(truth, selection.randoms, scoring.randoms, min_tokens)
    if not concepts:
        return Multilingual(None, None, None, None, ())
    n_one, n_random = (sum(concept.is_multilingual for concept in found) for found in (concepts, floor))
    return Multilingual(n_one / len(concepts), *wilson(n_one, len(concepts)), n_random / len(concepts), concepts)


def _concepts(
    truth: Truth, selection: SparseColumns, scoring: SparseColumns, min_tokens: int
) -> tuple[ConceptLanguages, ...]:
    labels = chain.from_iterable(truth.families[family] for family in truth.word_families)
    found = (_concept(label, truth, selection, scoring, min_tokens) for label in labels)
    return tuple(concept for concept in found if concept is not None)


def _concept(
    label: str, truth: Truth, selection: SparseColumns, scoring: SparseColumns, min_tokens: int
) -> ConceptLanguages | None:
    contrast = truth.contrast(label)
    choosing, judging = (_by_language(label, truth, marks) for marks in (truth.selection, truth.scoring))
    languages = [name for name in choosing if min(len(choosing[name]), len(judging[name])) >= min_tokens]
    if len(languages) < 2:
        return None
    others, judged_others = (
        np.setdiff1d(marks.contrast_rows(contrast), marks.of(label)) for marks in (truth.selection, truth.scoring)
    )
    rates = np.stack([selection.fired(choosing[name]) / len(choosing[name]) for name in languages])
    everywhere = selection.totals / selection.n_rows  # of equals, not one that fires on much else outside the family
    latent = int(np.argmax(rates.min(axis=0) - selection.fired(others) / len(others) - everywhere))
    judged = tuple(
        LanguageRate(name, float((scoring.column(latent, judging[name]) > 0).mean()), len(judging[name]))
        for name in languages
    )
    other_rate = float((scoring.column(latent, judged_others) > 0).mean())
    n_fired = sum(language.rate > FIRES for language in judged)
    return ConceptLanguages(
        label=label,
        latent=latent,
        languages=judged,
        n_fired=n_fired,
        other_rate=other_rate,
        n_other=len(judged_others),
        is_multilingual=n_fired == len(judged) and other_rate < SILENT,
    )


def _by_language(label: str, truth: Truth, marks: Marks) -> dict[str, Int64]:
    return {
        language.partition("/")[2]: np.intersect1d(marks.of(label), marks.of(language), assume_unique=True)
        for language in truth.families.get(LANGUAGE_FAMILY, [])
    }
