"""From catalogue objects to the shapes of the API. Reads what is open; opens, filters and routes nothing."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from mohole.catalogue import Example, Feature
from mohole.serve.columns import SCORED
from mohole.serve.errors import Refusal
from mohole.serve.queries import ContextAsk, FeaturesAsk
from mohole.serve.relations import family_of, neighbours_of, places_of, together_of
from mohole.serve.runs import OpenHookpoint, OpenRun, Served
from mohole.serve.shapes import (
    ExampleFacts,
    FamilyFacts,
    FeatureFacts,
    FeatureLine,
    FeaturePage,
    HistogramFacts,
    HookpointFacts,
    IntervalFacts,
    LabelFacts,
    MapFacts,
    Neighbour,
    Piece,
    RunFacts,
    Runs,
    Together,
)
from mohole.version import __version__

_SHOWN_MEMBERS = 50
MAP_COLUMNS = (
    ("x", "float32"), ("y", "float32"), ("log10_density", "float32"), ("f1", "float32"), ("family", "int32"),
)  # fmt: skip


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
    by_hand = place.run.people.labels(place.dictionary)
    return HookpointFacts(
        hookpoint=place.name,
        n_latents=catalogue.n_latents,
        n_dead=columns.n_dead,
        n_labelled=columns.n_named + sum(not columns.is_named(latent) for latent in by_hand),
        n_tokens=catalogue.n_tokens,
        n_documents=catalogue.n_documents,
    )


def names_of(place: OpenHookpoint) -> Callable[[int], str]:
    """The label that stands for a latent: a person's, if there is one. All of one moment."""
    people = place.run.people.labels(place.dictionary)
    return lambda latent: people[latent] if latent in people else place.label(latent).text


def label_facts(place: OpenHookpoint, latent: int) -> LabelFacts:
    by_hand = place.run.people.labels(place.dictionary).get(latent)
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


def lines(place: OpenHookpoint, latents: Iterable[int]) -> tuple[FeatureLine, ...]:
    """These features as lines of a list, in this order."""
    catalogue, families = place.catalogue, place.columns.families
    people = place.run.people.labels(place.dictionary)
    found = []
    for latent in map(int, latents):
        label, by_hand, count = place.label(latent), people.get(latent), int(catalogue.counts[latent])
        has_f1 = by_hand is None and label.status in SCORED
        family = None if families is None else int(families[latent])
        found.append(
            FeatureLine(
                latent=latent,
                label=label.text if by_hand is None else by_hand,
                status=label.status if by_hand is None else "person",
                f1=label.f1 if has_f1 else None,
                count=count,
                density=count / catalogue.n_tokens,
                maximum=float(catalogue.maximum[latent]),
                family=None if family is None or family < 0 else family,
            )
        )
    return tuple(found)


def feature_page(place: OpenHookpoint, ask: FeaturesAsk) -> FeaturePage:
    people = place.run.people
    edition = people.edition  # first: labels of a later edition under an earlier number would be kept as its
    order = place.columns.select(ask, people.labels(place.dictionary), edition)
    shown = order[ask.offset : ask.offset + ask.limit]
    return FeaturePage(total=len(order), offset=ask.offset, features=lines(place, shown.tolist()))


def feature_facts(place: OpenHookpoint, latent: int) -> FeatureFacts:
    feature = place.catalogue.feature(place.need(latent))
    return FeatureFacts(
        latent=latent,
        hookpoint=place.name,
        label=label_facts(place, latent),
        count=feature.count,
        n_tokens=place.catalogue.n_tokens,
        density=feature.density,
        maximum=feature.maximum,
        mean=feature.mean,
        is_dead=feature.is_dead,
        histogram=_histogram(feature),
        top=tuple(_example(place, example) for example in feature.top),
        intervals=tuple(
            IntervalFacts(
                low=interval.low,
                high=interval.high,
                count=interval.count,
                examples=tuple(_example(place, example) for example in interval.examples),
            )
            for interval in feature.intervals
        ),
        promoted=_pieces(feature.promoted),
        suppressed=_pieces(feature.suppressed),
        neighbours=_neighbours(place, feature),
        together=_together(place, feature),
        family=_family(place, feature),
        matches=(),
    )


def neighbours(place: OpenHookpoint, latent: int) -> tuple[Neighbour, ...]:
    return _neighbours(place, place.catalogue.feature(place.need(latent)))


def together(place: OpenHookpoint, latent: int) -> tuple[Together, ...]:
    return _together(place, place.catalogue.feature(place.need(latent)))


def context(place: OpenHookpoint, latent: int, ask: ContextAsk) -> ExampleFacts:
    """A wider stretch of the document around a token, cut to the document."""
    place.need(latent)
    fires = place.catalogue.entries(latent)
    if ask.token not in fires.token:
        raise Refusal(
            404, f"{place.name}: latent {latent} does not fire at token {ask.token}", "name an example's token"
        )
    document = int(place.corpus.document_of(np.array([ask.token]))[0])
    first, last = place.document_starts[document : document + 2].tolist()
    start, end = max(first, ask.token - ask.before), min(last, ask.token + ask.after + 1)
    here = slice(*np.searchsorted(fires.token, (start, end)).tolist())
    activations = np.zeros(end - start, dtype=np.float32)
    activations[fires.token[here] - start] = fires.value[here]
    return _example(place, Example(document, ask.token, start, end, tuple(activations.tolist())))


def _example(place: OpenHookpoint, example: Example) -> ExampleFacts:
    first, last = place.document_starts[example.document : example.document + 2].tolist()
    pieces = place.corpus.pieces
    return ExampleFacts(
        document=example.document,
        token=example.token,
        at=example.token - example.start,
        tokens=tuple([pieces[token] for token in place.tokens[example.start : example.end].tolist()]),
        activations=example.activations,
        begins_document=example.start == first,
        ends_document=example.end == last,
    )


def _histogram(feature: Feature) -> HistogramFacts | None:
    if not feature.histogram.counts:
        return None
    return HistogramFacts(edges=feature.histogram.edges, counts=feature.histogram.counts)


def _pieces(entries: Sequence[tuple[str, float]]) -> tuple[Piece, ...]:
    return tuple(Piece(token=token, logit=logit) for token, logit in entries)


def _neighbours(place: OpenHookpoint, feature: Feature) -> tuple[Neighbour, ...]:
    name = names_of(place)
    return tuple(
        Neighbour(latent=latent, label=name(latent), cosine=cosine) for latent, cosine in neighbours_of(feature)
    )


def _together(place: OpenHookpoint, feature: Feature) -> tuple[Together, ...]:
    name = names_of(place)
    return tuple(
        Together(latent=latent, label=name(latent), n_together=n, phi=phi) for latent, n, phi in together_of(feature)
    )


def _family(place: OpenHookpoint, feature: Feature) -> FamilyFacts | None:
    family = family_of(feature)
    return None if family is None else family_facts(place, family)


def family_facts(place: OpenHookpoint, family: int) -> FamilyFacts:
    """A family with its most frequent members."""
    size, members = place.columns.members(family, _SHOWN_MEMBERS)
    return FamilyFacts(family=family, size=size, members=lines(place, members.tolist()))


def map_facts(place: OpenHookpoint) -> MapFacts:
    xy = _places(place)
    known = xy[np.isfinite(xy).all(1)]
    low, high = (known.min(0), known.max(0)) if len(known) else (np.zeros(2), np.zeros(2))
    return MapFacts(n=len(xy), bounds=(*map(float, (*low, *high)),), columns=MAP_COLUMNS)  # type: ignore[arg-type]


def map_points(place: OpenHookpoint) -> list[bytes]:
    """The columns of `MAP_COLUMNS`, little-endian. NaN: a dead latent's density, an F1 there is not."""
    xy, columns = _places(place), place.columns
    with np.errstate(divide="ignore"):
        density = np.log10(place.catalogue.density)
    density[np.isneginf(density)] = np.nan
    families = np.full(len(xy), -1) if columns.families is None else columns.families
    f1 = columns.f1_with(place.run.people.labels(place.dictionary))
    arrays = ((xy[:, 0], "<f4"), (xy[:, 1], "<f4"), (density, "<f4"), (f1, "<f4"), (families, "<i4"))
    return [np.ascontiguousarray(array, dtype=dtype).tobytes() for array, dtype in arrays]


def _places(place: OpenHookpoint) -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]]":
    xy = places_of(place.catalogue)
    if xy is None:
        raise Refusal(404, f"{place.name}: its catalogue has no map", "`mohole catalogue RECIPE --replace` makes one")
    return xy
