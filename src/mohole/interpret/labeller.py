"""The labelling stage, offline: for each latent the simple rule that best says where it fires, scored on unseen documents.

No language model, and no truth: of the corpus only tokens, pieces and document boundaries are looked at (text.View).
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mohole import config
from mohole.catalogue import Catalogue
from mohole.corpus import Corpus
from mohole.interpret.aspects import make_aspects
from mohole.interpret.labels import FACTS_FILE, LABELS_FILE, Label, Status, write_labels
from mohole.interpret.phrasing import Phrasing
from mohole.interpret.rules import Firing, Rule, Score, Search
from mohole.interpret.text import EXPLAIN, POOL_NAMES, SELECT, TEST, Text, View, read_text
from mohole.progress import track
from mohole.record import write_json

Int64 = NDArray[np.int64]

GOOD_F1, PARTIAL_F1 = 0.8, 0.5
_MIN_TEST_FIRINGS = 3


def label(out: Path, catalogue: Catalogue, corpus: Corpus, settings: config.Label, *, seed: int) -> None:
    """Write the files of a labels artifact into `out`: one line per latent."""
    view = View.of(corpus)
    text, place_of_row = read_text(view, catalogue.tokens, settings.max_tokens, seed=seed)
    firings = _firings(catalogue, text, place_of_row, settings.firing_share)
    write_labels(
        out / LABELS_FILE,
        label_latents(text, firings, catalogue.maximum, catalogue.counts, settings, catalogue.hookpoint),
    )
    pools = {
        name: {"tokens": int((text.pool == pool).sum()), "documents": len(np.unique(text.document[text.pool == pool]))}
        for pool, name in enumerate(POOL_NAMES)
    }
    facts = {
        "hookpoint": catalogue.hookpoint,
        "firing_share": settings.firing_share,
        "good_f1": GOOD_F1,
        "partial_f1": PARTIAL_F1,
        "pools": pools,
    }
    write_json(out / FACTS_FILE, facts)


def label_latents(
    text: Text,
    firings: list[Firing],
    maximum: NDArray[np.float32],
    counts: Int64,
    settings: config.Label,
    hookpoint: str,
) -> list[Label]:
    """One label for each latent, from the places at which it fires. `hookpoint`: for the progress display."""
    aspects = make_aspects(text)
    search, phrasing = Search(text, aspects), Phrasing(text, {name: aspect.keys for name, aspect in aspects.items()})
    n_scored = int((text.pool == TEST).sum())
    labels = []
    with track(f"label {hookpoint}", len(firings), "latents") as tracker:
        for latent, firing in enumerate(firings):
            threshold = float(maximum[latent]) * settings.firing_share
            unnamed = _unnamed(firing, int(counts[latent]), len(text), settings.min_firings)
            if unnamed is not None:
                words, status = unnamed
                labels.append(
                    Label(latent, words, "", 0.0, 0.0, 0.0, len(firing.by_pool[TEST]), n_scored, status, threshold)
                )
            else:
                rule = search.best_rule(firing)
                score = search.score(rule, firing)
                words, status = _worded(phrasing, rule, score, firing)
                kind = rule.aspect if rule.context is None else f"after+{rule.aspect}"
                labels.append(
                    Label(
                        latent,
                        words,
                        kind,
                        score.f1,
                        score.precision,
                        score.recall,
                        score.fired,
                        n_scored,
                        status,
                        threshold,
                    )
                )
            tracker.advance()
    return labels


def _unnamed(firing: Firing, count: int, n_tokens: int, min_firings: int) -> tuple[str, Status] | None:
    """What to say of a latent that no rule is sought for."""
    n = sum(len(places) for places in firing.by_pool)
    if count == 0:
        return "dead: never fires", "dead"
    if n < min_firings or len(firing.of(EXPLAIN, SELECT)) == 0:
        return f"fires too rarely to name ({n} times in {n_tokens:,} tokens)", "few"
    if len(firing.by_pool[TEST]) < _MIN_TEST_FIRINGS:
        return f"fires too rarely to check a name ({n} times in {n_tokens:,} tokens)", "few"
    return None


def _worded(phrasing: Phrasing, rule: Rule, score: Score, firing: Firing) -> tuple[str, Status]:
    if score.f1 < PARTIAL_F1:
        return f"no simple rule (best F1 {score.f1:.2f})".replace("0.", "."), "none"
    words = phrasing.describe(rule, firing.of(EXPLAIN, SELECT))
    return words, "good" if score.f1 >= GOOD_F1 else "partial"


def _firings(catalogue: Catalogue, text: Text, place_of_row: Int64, share: float) -> list[Firing]:
    """For each latent, the places at which it is above its threshold, by pool, ascending."""
    _, row_starts, latents, values = catalogue.firings
    places = np.repeat(place_of_row, np.diff(row_starts))
    counted = (places >= 0) & (values > catalogue.maximum[latents] * share)
    places, latents = places[counted], latents[counted]
    by_pool = []
    for pool in (EXPLAIN, SELECT, TEST):
        here = text.pool[places] == pool
        order = np.argsort(latents[here], kind="stable")
        ends = np.searchsorted(latents[here][order], np.arange(1, catalogue.n_latents))
        by_pool.append(np.split(places[here][order], ends))
    return [Firing(pools) for pools in zip(*by_pool, strict=True)]
