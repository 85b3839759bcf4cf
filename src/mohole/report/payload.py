"""The data of the page: findings as compact plain JSON. Texts are stored once, however many features point into them. No HTML.

A snippet is [place, length, focus, document, [offset, value, ...]]: tokens [place, place + length) of the page's own token list,
with the active ones' activations in thousandths of the feature's maximum. Measured on 1,200 features of 27 snippets each: a
third of the size of snippets written out.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from mohole.act import Demonstration
from mohole.evaluate import Recovery
from mohole.evaluate.recovery.results import FLOORS, Cause, FamilyResult
from mohole.evaluate.results import DarkMatter
from mohole.metrics import Measure
from mohole.metrics.measure import as_json
from mohole.report.choose import merit
from mohole.report.findings import FeatureCard, Findings, HookpointFindings, Snippet
from mohole.report.suites import HEADINGS, NOTE, suite_rows
from mohole.visible import visible, visible_lines

_RECORD_POINTS = 300  # more than a plot has pixels for
_CURVES = ("step", "fvu", "loss", "dead", "l0")


class _Texts:
    """All tokens that any snippet shows, each once, in corpus order; and the pieces they are made of, the commonest first."""

    def __init__(self, findings: Findings) -> None:
        shown: dict[int, str] = {}
        for snippet in _snippets(findings):
            shown.update(enumerate(snippet.pieces, snippet.start))
        self._places = {token: place for place, token in enumerate(sorted(shown))}
        counts = Counter(shown.values())
        ranked = sorted(counts, key=lambda piece: (-counts[piece], piece))
        numbers = {piece: number for number, piece in enumerate(ranked)}
        self.pieces = [visible(piece) for piece in ranked]
        self.tokens = [numbers[shown[token]] for token in self._places]

    def snippet(self, snippet: Snippet, maximum: float) -> list[Any]:
        thousandths = [
            number
            for offset, value in enumerate(snippet.values)
            if value > 0
            for number in (offset, max(1, round(1000 * value / maximum)))
        ]
        return [self._places[snippet.start], len(snippet.pieces), snippet.focus, snippet.document, thousandths]


def page_data(findings: Findings) -> dict[str, Any]:
    """Everything that the page shows, ready for JSON."""
    texts = _Texts(findings)
    return {
        "run": {
            "name": visible(findings.name),
            "model": visible(findings.model),
            "corpus": visible(findings.corpus),
            "n_documents": findings.n_documents,
            "n_tokens": findings.n_tokens,
            "context": findings.context,
            "held_out": findings.held_out,
            "firing_share": findings.firing_share,
            "seed": findings.seed,
            "code": findings.code,
        },
        "pieces": texts.pieces,
        "tokens": texts.tokens,
        "hookpoints": [_hookpoint(place, texts) for place in findings.hookpoints],
        "steering": _steering(findings.steering) if findings.steering else None,
        "artifacts": [asdict(facts) for facts in findings.artifacts],
    }


def _snippets(findings: Findings) -> Iterator[Snippet]:
    for place in findings.hookpoints:
        for feature in place.features:
            yield from feature.top
            for band in feature.bands:
                yield from band.snippets


def _hookpoint(place: HookpointFindings, texts: _Texts) -> dict[str, Any]:
    every = max(1, len(place.record) // _RECORD_POINTS)
    lines = [line for i, line in enumerate(place.record) if i % every == 0 or i + 1 == len(place.record)]
    return {
        "hookpoint": place.hookpoint,
        "n_latents": place.n_latents,
        "d_model": place.d_model,
        "nonlinearity": place.nonlinearity,
        "n_tokens": place.n_tokens,
        "measures": {name: as_json(measure) for name, measure in place.evaluation.measures.items()},
        "tasks": [asdict(task) | {"name": visible(task.name)} for task in place.evaluation.tasks],
        "suites": {
            "columns": HEADINGS,
            "note": NOTE,
            "tables": [suite_rows(suite) for suite in place.evaluation.suites],
        },
        "density": asdict(place.evaluation.density),
        "unexplained": _unexplained(place.evaluation.dark_matter),
        "warnings": [
            *(caution.sentence for caution in place.evaluation.warnings),
            *(place.recovery.warnings if place.recovery else ()),
        ],
        "record": {name: [line.get(name) for line in lines] for name in _CURVES},
        "recovery": _recovery(place.recovery) if place.recovery else None,
        "features": [
            _feature(item, texts) for item in sorted(place.features, key=lambda item: (-merit(item), item.latent))
        ],
    }


def _unexplained(found: DarkMatter) -> dict[str, Any]:
    """Classes of tokens with their part of the error, and the latents that nearly always fire."""
    classes = [
        {
            "name": each.name,
            "n": each.n,
            "rows": each.share_of_rows,
            "error": _interval(each.share_of_error),
            "fvu": each.fvu.value,
        }
        for each in found.classes
    ]
    return {"n_rows": found.n_rows, "classes": classes, "dense": [asdict(latent) for latent in found.dense]}


def _recovery(recovery: Recovery) -> dict[str, Any]:
    """Families and labels in the few numbers that the page shows. Every F1 but `among_all` is within the concept's own family."""
    return {
        "n_rows": recovery.n_rows,
        "n_documents": recovery.n_documents,
        "words": _family(recovery.words) if recovery.words else None,
        "families": [
            _family(row) for row in sorted(recovery.families, key=lambda row: (not row.is_words, -row.f1.latent))
        ],
        "labels": [
            {
                "label": visible(result.label),
                "latent": result.latent.candidate,
                "among_all": {"latent": result.all_latent, "f1": round(result.f1_all_latent, 3)},
                "n": result.n_positive,
                "cause": _cause(result.cause) if result.cause else None,
                "f1": {name: round(getattr(result, name).f1, 3) for name in ("latent", "probe", *FLOORS)},
            }
            for result in recovery.labels
        ],
        "multilingual": {
            "share": recovery.multilingual.share,
            "low": recovery.multilingual.low,
            "high": recovery.multilingual.high,
            "random": recovery.multilingual.share_random,
            "n": len(recovery.multilingual.concepts),
        },
        "n_unscored": len(recovery.unscored),
    }


def _cause(cause: Cause) -> dict[str, Any]:
    """Every number with its interval: [value, low, high]."""
    edits = {
        name: {what: _interval(getattr(effect, what)) for what in ("moved", "share", "kl", "specificity")}
        for name, effect in cause.edits.items()
    }
    return {"gap": _interval(cause.gap), "n": cause.gap.n, "edits": edits}


def _interval(measure: Measure) -> list[float | None]:
    return [None if value is None else round(value, 4) for value in (measure.value, measure.low, measure.high)]


def _family(family: FamilyResult) -> dict[str, Any]:
    return {
        "family": visible(family.family),
        "n_labels": family.n_labels,
        "f1": asdict(family.f1),
        "always": family.always_yes,
        "among_all": {"latent": family.f1_all_latent, "random": family.f1_all_random},
        "f1_low": family.f1_low,
        "f1_high": family.f1_high,
    }


def _feature(feature: FeatureCard, texts: _Texts) -> dict[str, Any]:
    return {
        "latent": feature.latent,
        "label": _label(feature),
        "concept": asdict(feature.concept) | {"label": visible(feature.concept.label)} if feature.concept else None,
        "count": feature.count,
        "density": float(f"{feature.density:.4g}"),
        "maximum": float(f"{feature.maximum:.5g}"),
        "mean": float(f"{feature.mean:.4g}"),
        "histogram": list(feature.histogram),
        "top": [texts.snippet(snippet, feature.maximum) for snippet in feature.top],
        "bands": [
            {
                "low": float(f"{band.low:.4g}"),
                "high": float(f"{band.high:.4g}"),
                "count": band.count,
                "snippets": [texts.snippet(snippet, feature.maximum) for snippet in band.snippets],
            }
            for band in feature.bands
        ],
        "promoted": [[visible(piece), round(logit, 2)] for piece, logit in feature.promoted],
        "suppressed": [[visible(piece), round(logit, 2)] for piece, logit in feature.suppressed],
    }


def _label(feature: FeatureCard) -> dict[str, Any]:
    label = feature.label
    return {
        "text": visible(label.text),
        "kind": visible(label.kind),
        "f1": None if feature.f1 is None else round(feature.f1, 4),
        "precision": round(label.precision, 4),
        "recall": round(label.recall, 4),
        "n_positive": label.n_positive,
        "n_scored": label.n_scored,
        "threshold": float(f"{label.threshold:.4g}"),
    }


def _steering(shown: Demonstration) -> dict[str, Any]:
    generations = [
        asdict(item) | {name: visible_lines(getattr(item, name)) for name in ("prompt", "plain", "steered")}
        for item in shown.generations
    ]
    return asdict(shown) | {
        "label": visible(shown.label),
        "chosen_by": visible(shown.chosen_by),
        "generations": generations,
    }
