"""Ground-truth recovery: is each planted concept a latent? Beside what a probe reaches, and what is free.

Everything chosen (latent, neuron, threshold, probe) is chosen on training documents and scored on held-out ones.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mohole.config import Evaluate
from mohole.corpus import Corpus
from mohole.dictionary import Autoencoder
from mohole.errors import StageError
from mohole.evaluate.recovery.cause import measure_causes, most_telling
from mohole.evaluate.recovery.finder import Finder, Resampled, Side
from mohole.evaluate.recovery.floors import PrincipalComponents, random_like
from mohole.evaluate.recovery.languages import measure_languages
from mohole.evaluate.recovery.ranking import SparseColumns
from mohole.evaluate.recovery.results import Cause, FamilyResult, Recovery, Unscored
from mohole.evaluate.recovery.summary import Found, summarise
from mohole.evaluate.recovery.truth import Contrast, Truth, read_truth
from mohole.evaluate.rows.choice import COUNTED, Rows, chunks
from mohole.metrics import Masks, require_finite
from mohole.model import LanguageModel
from mohole.progress import track
from mohole.store import Store

DEFINITIONS = {
    "selection": "candidate, threshold and probe are chosen on training documents and scored on held-out documents",
    "positives": "tokens marked with the label",
    "negatives": "tokens with another label of the same family; for a label without alternatives, tokens of the same kind of "
    "document without it; else all tokens without it. Each label's contrast_text says which",
    "f1": "of the rule sign * value > threshold, by token; threshold 0 on a latent means that it fires",
    "auroc": "chance that a positive scores above a negative, ties counting half",
    "latent": "the best latent of this dictionary",
    "neuron": "the best coordinate of the row, high or low",
    "pca": "the best principal component of the selection rows, high or low",
    "random": "the best latent of a dictionary of the same shape and nonlinearity with random unit directions",
    "probe": "logistic regression on the standardised row: the ceiling for one linear direction",
    "margin": "median F1 of latents less the best median of neuron, pca and random",
    "all": "f1_all_*: of the latent with the best F1 against all tokens; only this one is the concept rather than a detector "
    "within its family. auroc_all_*: a random dictionary scores high there, as a word is one or two pieces, so it proves nothing",
    "cause": "the latent of `latent`, edited at every token of the text: held at its maximum (up), at zero (zero), its direction "
    "made that of the mean row (ablate), and as far as up along a random direction (random); in nats of evidence for the label",
    "intervals": "95 %, over documents: F1 and medians by Poisson bootstrap, AUROC by jackknife",
}


def measure_recovery(
    store: Store,
    rows: Rows,
    dictionary: Autoencoder,
    corpus: Corpus,
    settings: Evaluate,
    *,
    seed: int,
    model: LanguageModel | None = None,
) -> Recovery:
    """Score latents, neurons, principal components, a random dictionary and a probe for every label of the corpus's truth.

    Args:
        rows: the held-out rows to score on.
        model: in which the best latents of some labels are edited. None: none is.

    Raises:
        StageError: no rows of training documents to choose on, or no label with enough tokens.
    """
    truth = read_truth(corpus, store, rows, settings, seed=seed)
    labels, chosen = truth.labels, truth.selection.rows
    selection, scoring = _encode(store, truth, dictionary, seed)
    found, unscored = _find(truth, selection, scoring, settings.min_positives, dictionary.hookpoint, seed)
    ordered = [found[label] for label in labels if label in found]
    words, families = summarise(truth, ordered)
    results = [item.result for item in ordered]
    causes: dict[str, Cause] = {}
    if model is not None and settings.causal_labels:
        candidates = most_telling(results, truth.word_families)
        causes = measure_causes(model, dictionary, corpus, truth, selection, candidates, settings, seed=seed)
    return Recovery(
        hookpoint=dictionary.hookpoint,
        n_rows=len(rows),
        n_documents=len(np.unique(rows.documents)),
        n_rows_selection=len(chosen),
        n_documents_selection=len(np.unique(chosen.documents)),
        masks=Masks(counted=COUNTED),
        definitions=DEFINITIONS,
        words=words,
        families=families,
        labels=tuple(replace(result, cause=causes.get(result.label)) for result in results),
        multilingual=measure_languages(truth, selection, scoring, settings.min_language_tokens),
        unscored=tuple(unscored[label] for label in labels if label in unscored),
        warnings=tuple(_warnings(words)),
    )


def _find(
    truth: Truth, selection: Side, scoring: Side, min_positives: int, hookpoint: str, seed: int
) -> tuple[dict[str, Found], dict[str, Unscored]]:
    """Each label's detectors, or why it has none.

    Raises:
        StageError: no label has any.
    """
    found: dict[str, Found] = {}
    unscored: dict[str, Unscored] = {}
    components = PrincipalComponents(selection.vectors)
    resampled = Resampled(truth.scoring.rows.documents, seed)
    with track(f"evaluate {hookpoint}: recovery", len(truth.labels), "labels") as tracker:
        for contrast, members in _by_contrast(truth).items():
            finder = Finder(selection, scoring, components, contrast, resampled, seed)
            for label in members:
                match finder.find(label, min_positives):
                    case Unscored() as missing:
                        unscored[label] = missing
                    case result:
                        found[label] = result
                tracker.advance()
    if not found:
        raise StageError(
            f"recovery: none of {len(truth.labels)} labels has {min_positives} tokens on both sides; "
            "give more documents, or lower evaluate.min_positives"
        )
    return found, unscored


def _encode(store: Store, truth: Truth, dictionary: Autoencoder, seed: int) -> tuple[Side, Side]:
    vectors = [
        torch.from_numpy(store.take(dictionary.hookpoint, marks.rows.tokens))
        for marks in (truth.selection, truth.scoring)
    ]
    for side, name in zip(vectors, ("training", "held-out"), strict=True):
        require_finite(side, f"{dictionary.hookpoint}: stored rows of {name} documents")
    floor = random_like(dictionary, vectors[0], seed)
    selection, scoring = (
        Side(marks, side.numpy(), _columns(side, dictionary), _columns(side, floor))
        for marks, side in zip((truth.selection, truth.scoring), vectors, strict=True)
    )
    return selection, scoring


def _columns(vectors: Float[Tensor, "row d"], dictionary: Autoencoder) -> SparseColumns:
    codes = [dictionary.encode(vectors[part]) for part in chunks(len(vectors), dictionary.n_latents)]
    counts = torch.cat([part.n_active for part in codes])
    return SparseColumns(
        np.concatenate([[0], counts.cumsum(0).numpy()]),
        torch.cat([part.latents for part in codes]).numpy(),
        torch.cat([part.values for part in codes]).numpy(),
        dictionary.n_latents,
    )


def _by_contrast(truth: Truth) -> dict[Contrast, list[str]]:
    """Labels that share a contrast together, so that its ranks are computed once."""
    result: dict[Contrast, list[str]] = {}
    for label in truth.labels:
        result.setdefault(truth.contrast(label), []).append(label)
    return result


def _warnings(words: FamilyResult | None) -> Iterator[str]:
    if words is None:
        return
    if words.margin <= 0:
        yield (
            f"Concept words: the latents' median F1 ({words.f1.latent:.2f}) is no better than that of single neurons, of "
            f"principal components or of a random dictionary ({words.f1.floor:.2f})."
        )
    if words.auroc.probe < 0.9:
        yield (
            f"Concept words: a linear probe reaches only AUROC {words.auroc.probe:.2f}, so these concepts are hardly in the "
            "activation at this hookpoint."
        )
