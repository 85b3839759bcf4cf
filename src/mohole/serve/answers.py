"""From catalogue objects to answers of the API. Reads what is open; opens, filters and routes nothing.

What an answer has many of (examples, pieces, lines) are plain dictionaries with the keys of their shape, in its order: to make
and check a pydantic model of each took as long as everything else. Tests hold the answers to the shapes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np

from mohole.catalogue import Example, Feature
from mohole.serve.columns import SCORED, STATUSES
from mohole.serve.errors import Refusal
from mohole.serve.queries import ContextAsk, FeaturesAsk
from mohole.serve.relations import family_of, neighbours_of, together_of
from mohole.serve.runs import OpenHookpoint, OpenRun, Served
from mohole.serve.shapes import HookpointFacts, LabelFacts, RunFacts, Runs
from mohole.store.latent_index import Entries
from mohole.version import __version__

if TYPE_CHECKING:
    from mohole.act import AblationEffect

Plain = dict[str, Any]

_SHOWN_MEMBERS = 50


def runs(served: Served, can_write: bool) -> Runs:
    return Runs(version=__version__, can_write=can_write, runs=tuple(run_facts(run) for run in served.runs.values()))


def run_facts(run: OpenRun) -> RunFacts:
    return RunFacts(
        run=run.name,
        model=run.model_name,
        hookpoints=tuple(_hookpoint_facts(each) for each in run.hookpoints.values()),
        can_xray=run.model_source is not None,
    )


def _hookpoint_facts(place: OpenHookpoint) -> HookpointFacts:
    catalogue, columns = place.catalogue, place.columns
    by_hand = place.by_hand
    return HookpointFacts(
        hookpoint=place.name,
        n_latents=catalogue.n_latents,
        n_dead=columns.n_dead,
        n_labelled=columns.n_named + sum(not columns.is_named(latent) for latent in by_hand),
        n_tokens=catalogue.n_tokens,
        n_documents=catalogue.n_documents,
        n_counted_together=catalogue.n_counted_together,
        firing_share=None if place.labels is None else place.labels.firing_share,
    )


def names_of(place: OpenHookpoint, latents: Sequence[int], people: Mapping[int, str]) -> list[str]:
    """The label that stands for each of these latents: a person's, if there is one."""
    automatic = place.columns.texts_of(latents)
    return [people.get(latent, text) for latent, text in zip(latents, automatic, strict=True)]


def label_facts(place: OpenHookpoint, latent: int, people: Mapping[int, str]) -> LabelFacts:
    by_hand = people.get(latent)
    if by_hand is not None:
        nothing = dict.fromkeys(("f1", "precision", "recall", "n_positive", "n_scored"))
        return LabelFacts(text=by_hand, status="person", kind="", **nothing)
    label = place.label(latent)
    is_scored = label.status in SCORED
    return LabelFacts(
        text=label.text,
        status=label.status,
        kind=label.kind,
        f1=label.f1 if is_scored else None,
        precision=label.precision if is_scored else None,
        recall=label.recall if is_scored else None,
        n_positive=label.n_positive if is_scored else None,
        n_scored=label.n_scored if is_scored else None,
    )


def lines(place: OpenHookpoint, latents: Sequence[int], people: Mapping[int, str]) -> list[Plain]:
    """These features as lines of a list, in this order; each a `FeatureLine`."""
    catalogue, columns, here = place.catalogue, place.columns, np.asarray(latents, dtype=np.int64)
    families = [-1] * len(latents) if columns.families is None else columns.families[here].tolist()
    facts = zip(
        latents,
        columns.texts_of(latents),
        columns.status[here].tolist(),
        columns.f1_of(latents),
        catalogue.counts[here].tolist(),
        catalogue.maximum[here].tolist(),
        families,
        strict=True,
    )
    return [
        {
            "latent": latent,
            "label": people.get(latent, text),
            "status": "person" if latent in people else STATUSES[status],
            "f1": None if latent in people else f1,
            "count": count,
            "density": count / catalogue.n_tokens,
            "maximum": maximum,
            "family": family if family >= 0 else None,
        }
        for latent, text, status, f1, count, maximum, family in facts
    ]


def feature_page(place: OpenHookpoint, ask: FeaturesAsk) -> Plain:
    """A `FeaturePage`."""
    edition = place.run.people.edition  # first: labels of a later edition under an earlier number would be kept as its
    people = place.by_hand
    order = place.columns.select(ask, people, edition)
    shown = order[ask.offset : ask.offset + ask.limit]
    return {"total": len(order), "offset": ask.offset, "features": lines(place, shown.tolist(), people)}


def feature_facts(place: OpenHookpoint, latent: int) -> Plain:
    """A `FeatureFacts`."""
    feature, people = place.catalogue.feature(place.need(latent)), place.by_hand
    n_examples = [len(interval.examples) for interval in feature.intervals]
    ends = list(accumulate(n_examples, initial=len(feature.top)))[1:]
    examples = _examples(place, [*feature.top, *(each for interval in feature.intervals for each in interval.examples)])
    return {
        "latent": latent,
        "hookpoint": place.name,
        "label": label_facts(place, latent, people),
        "count": feature.count,
        "n_tokens": place.catalogue.n_tokens,
        "density": feature.density,
        "maximum": feature.maximum,
        "mean": feature.mean,
        "is_dead": feature.is_dead,
        "histogram": _histogram(feature),
        "top": examples[: len(feature.top)],
        "intervals": [
            {"low": interval.low, "high": interval.high, "count": interval.count, "examples": examples[end - n : end]}
            for interval, n, end in zip(feature.intervals, n_examples, ends, strict=True)
        ],
        "promoted": _pieces(feature.promoted),
        "suppressed": _pieces(feature.suppressed),
        "neighbours": _neighbours(place, feature, people),
        "together": _together(place, feature, people),
        "family": _family(place, feature, people),
    }


def neighbours(place: OpenHookpoint, latent: int) -> list[Plain]:
    """Each a `Neighbour`."""
    return _neighbours(place, place.catalogue.feature(place.need(latent)), place.by_hand)


def together(place: OpenHookpoint, latent: int) -> list[Plain]:
    """Each a `Together`."""
    return _together(place, place.catalogue.feature(place.need(latent)), place.by_hand)


def firings_at(place: OpenHookpoint, latent: int, token: int) -> Entries:
    """Where a latent fires, this token among the places. Refusal if there is no such latent, or it is silent there."""
    fires = place.catalogue.entries(place.need(latent))
    if token not in fires.token:
        raise Refusal(404, f"{place.name}: latent {latent} does not fire at token {token}", "name an example's token")
    return fires


def effect_facts(effect: "AblationEffect") -> Plain:
    """An `EffectFacts`, as it was measured."""
    return {name: value for name, value in asdict(effect).items() if name not in ("hookpoint", "latent")}


def context(place: OpenHookpoint, latent: int, ask: ContextAsk) -> Plain:
    """A wider stretch of the document around a token, cut to the document: an `ExampleFacts`."""
    fires = firings_at(place, latent, ask.token)
    document = int(place.corpus.document_of(np.array([ask.token]))[0])
    first, last = place.document_starts[document : document + 2].tolist()
    start, end = max(first, ask.token - ask.before), min(last, ask.token + ask.after + 1)
    here = slice(*np.searchsorted(fires.token, (start, end)).tolist())
    activations = np.zeros(end - start, dtype=np.float32)
    activations[fires.token[here] - start] = fires.value[here]
    (example,) = _examples(place, [Example(document, ask.token, start, end, tuple(activations.tolist()))])
    return example


def _examples(place: OpenHookpoint, examples: Sequence[Example]) -> list[Plain]:
    """Each an `ExampleFacts`."""
    documents = np.array([example.document for example in examples], dtype=np.int64)
    firsts, lasts = (place.document_starts[documents + i].tolist() for i in (0, 1))
    texts = place.texts([(example.start, example.end) for example in examples])
    return [
        {
            "document": example.document,
            "token": example.token,
            "at": example.token - example.start,
            "tokens": tokens,
            "activations": example.activations,
            "begins_document": example.start == first,
            "ends_document": example.end == last,
        }
        for example, tokens, first, last in zip(examples, texts, firsts, lasts, strict=True)
    ]


def _histogram(feature: Feature) -> Plain | None:
    if not feature.histogram.counts:
        return None
    return {"edges": feature.histogram.edges, "counts": feature.histogram.counts}


def _pieces(entries: Sequence[tuple[str, float]]) -> list[Plain]:
    return [{"token": token, "logit": logit} for token, logit in entries]


def _neighbours(place: OpenHookpoint, feature: Feature, people: Mapping[int, str]) -> list[Plain]:
    near = neighbours_of(feature)
    names = names_of(place, [latent for latent, _ in near], people)
    return [
        {"latent": latent, "label": name, "cosine": cosine} for (latent, cosine), name in zip(near, names, strict=True)
    ]


def _together(place: OpenHookpoint, feature: Feature, people: Mapping[int, str]) -> list[Plain]:
    found = together_of(feature)
    names = names_of(place, [latent for latent, _, _ in found], people)
    return [
        {"latent": latent, "label": name, "n_together": n, "phi": phi}
        for (latent, n, phi), name in zip(found, names, strict=True)
    ]


def _family(place: OpenHookpoint, feature: Feature, people: Mapping[int, str]) -> Plain | None:
    family = family_of(feature)
    return None if family is None else family_facts(place, family, people)


def family_facts(place: OpenHookpoint, family: int, people: Mapping[int, str]) -> Plain:
    """A family with its most frequent members: a `FamilyFacts`."""
    size, members = place.columns.members(family, _SHOWN_MEMBERS)
    return {"family": family, "size": size, "members": lines(place, members.tolist(), people)}
