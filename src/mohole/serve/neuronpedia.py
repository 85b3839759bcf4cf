"""Neuronpedia's addresses and keys over our features, for clients that speak them.

`modelId` is a run's name, or its model's where only one run has that model (with - for /). `layer` (or `source`) is a hookpoint,
`resid_post.6`, or the same as Neuronpedia writes it, `6-resid_post`; it is given back as it was asked for.
What a catalogue does not hold (attention, losses, neuron alignments) is empty. Shapes: the field notes on Neuronpedia's database
columns; where its clients read two names for one thing, both are there.
"""

from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from mohole.catalogue import Example, Feature
from mohole.serve.answers import label_facts
from mohole.serve.bodies import answer, json_bytes
from mohole.serve.errors import Refusal, short
from mohole.serve.finders import XrayRows
from mohole.serve.microscope import Microscope
from mohole.serve.queries import Latent
from mohole.serve.relations import family_of, neighbours_of, places_of, together_of
from mohole.serve.runs import OpenHookpoint, OpenRun, Served

_ALL_ACTIVE = (
    512  # latents asked for at a token: all that are active in most dictionaries, the strongest of a denser one
)
_TOP = -1.0  # their mark of the strongest examples, in place of an interval's bounds
_Text = Annotated[str, Field(min_length=1, max_length=20_000)]


class Lenient(BaseModel):
    """Keys that their clients send and that mean nothing here are passed over."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class FeatureName(Lenient):
    """A feature as they name it."""

    modelId: str  # noqa: N815
    source: str | None = None
    layer: str | None = None
    index: Annotated[str, Field(pattern=r"^[0-9]{1,9}$")] | Annotated[int, Field(ge=0, lt=10**9)]


class ActivationAsk(Lenient):
    """Their POST /api/activation/new."""

    feature: FeatureName
    customText: _Text | Annotated[tuple[_Text, ...], Field(min_length=1, max_length=8)]  # noqa: N815


class SearchAllAsk(Lenient):
    """Their POST /api/search-all."""

    modelId: str  # noqa: N815
    sourceSet: str = ""  # noqa: N815
    text: _Text
    selectedLayers: Annotated[tuple[str, ...], Field(max_length=200)] = ()  # noqa: N815
    sortIndexes: Annotated[tuple[Annotated[int, Field(ge=0, lt=2**31)], ...], Field(max_length=1000)] = ()  # noqa: N815
    densityThreshold: Annotated[float, Field(allow_inf_nan=False)] = -1.0  # noqa: N815
    """Features that fire at a larger share of tokens are left out; negative: none are."""
    numResults: Annotated[int, Field(ge=1, le=100)] = 50  # noqa: N815


def neuronpedia_routes(served: Served, microscope: Microscope) -> APIRouter:
    """The part of their API that reads."""
    router = APIRouter(tags=["neuronpedia"])

    @router.get("/feature/{modelId}/{layer}/{index}", response_model=dict[str, Any])
    def feature(request: Request, modelId: str, layer: str, index: Latent) -> Response:
        """A feature with its activations and explanations, in their keys."""
        place = _place(served, modelId, layer)
        return answer(request, place.run.etag, lambda: _feature_row(place, modelId, layer, index))

    @router.post("/activation/new", response_model=dict[str, Any] | list[dict[str, Any]])
    async def activation(ask: ActivationAsk) -> Response:
        """One feature along a text, or along each of several."""
        layer = ask.feature.source or ask.feature.layer or ""
        place = _place(served, ask.feature.modelId, layer)
        latent = place.need(int(ask.feature.index))
        texts = (ask.customText,) if isinstance(ask.customText, str) else ask.customText
        rows = [await microscope.look(place, text, top=1, follow=latent) for text in texts]
        found = [_along(ask.feature.modelId, layer, latent, each) for each in rows]
        return _json(found[0] if isinstance(ask.customText, str) else found)

    @router.post("/search-all", response_model=dict[str, Any])
    async def search_all(ask: SearchAllAsk) -> Response:
        """The features that fire on a text, of one layer or several."""
        run = _run(served, ask.modelId)
        asked = ask.selectedLayers or tuple(name for name in run.hookpoints if _is_of_set(name, ask.sourceSet))
        tokens: tuple[str, ...] = ()
        found: list[dict[str, Any]] = []
        for layer in dict.fromkeys(asked):
            place = _hookpoint(run, layer)
            rows = await microscope.look(place, ask.text, top=min(_ALL_ACTIVE, place.catalogue.n_latents))
            tokens = rows.tokens
            found += _rows_of_layer(place, layer, rows, ask)
        found.sort(key=lambda row: (-_weight(row, ask.sortIndexes), row["layer"], int(row["index"])))
        return _json({"tokens": tokens, "result": found[: ask.numResults], "sortIndexes": ask.sortIndexes})

    return router


def _run(served: Served, model: str) -> OpenRun:
    if model in served.runs:
        return served.runs[model]
    found = [run for run in served.runs.values() if model in (run.model_name, run.model_name.replace("/", "-"))]
    if len(found) == 1:
        return found[0]
    why = "several runs have it" if found else "no such model"
    raise Refusal(404, f"{short(model)}: {why}", f"give a run's name: {', '.join(served.runs)}")


def _place(served: Served, model: str, layer: str) -> OpenHookpoint:
    return _hookpoint(_run(served, model), layer)


def _hookpoint(run: OpenRun, layer: str) -> OpenHookpoint:
    number, _, rest = layer.partition("-")
    return run.hookpoint(f"{rest}.{number}" if f"{rest}.{number}" in run.hookpoints else layer)


def _is_of_set(hookpoint: str, source_set: str) -> bool:
    return not source_set or hookpoint.rpartition(".")[0] == source_set


def _feature_row(place: OpenHookpoint, model: str, layer: str, latent: int) -> dict[str, Any]:
    """Their database row of a feature, with what hangs on it."""
    feature = place.catalogue.feature(place.need(latent))
    histogram, near, together = feature.histogram, neighbours_of(feature), together_of(feature)
    xy = places_of(place.catalogue)
    return {
        "modelId": model,
        "layer": layer,
        "index": str(latent),
        "hookName": place.name,
        "maxActApprox": feature.maximum,
        "frac_nonzero": feature.density,
        "pos_str": [text for text, _ in feature.promoted],
        "pos_values": [logit for _, logit in feature.promoted],
        "neg_str": [text for text, _ in feature.suppressed],
        "neg_values": [logit for _, logit in feature.suppressed],
        "freq_hist_data_bar_heights": list(histogram.counts),
        "freq_hist_data_bar_values": [
            (low + high) / 2 for low, high in zip(histogram.edges, histogram.edges[1:], strict=False)
        ],
        "logits_hist_data_bar_heights": [],
        "logits_hist_data_bar_values": [],
        "topkCosSimIndices": [latent for latent, _ in near],
        "topkCosSimValues": [cosine for _, cosine in near],
        "neuron_alignment_indices": [],
        "neuron_alignment_values": [],
        "neuron_alignment_l1": [],
        "correlated_neurons_indices": [],
        "correlated_neurons_pearson": [],
        "correlated_neurons_l1": [],
        "correlated_features_indices": [latent for latent, _, _ in together],
        "correlated_features_pearson": [phi for _, _, phi in together],
        "correlated_features_l1": [],
        "decoder_weights_dist": [],
        "umap_x": None if xy is None else float(xy[latent, 0]),
        "umap_y": None if xy is None else float(xy[latent, 1]),
        "umap_cluster": family_of(feature),
        "umap_log_feature_sparsity": None,
        "hasVector": False,
        "vector": [],
        "vectorLabel": None,
        "vectorDefaultSteerStrength": None,
        "activations": list(_activation_rows(place, model, layer, feature)),
        "explanations": [_explanation(place, model, layer, latent)],
        "comments": [],
        "lists": [],
    }


def _activation_rows(place: OpenHookpoint, model: str, layer: str, feature: Feature) -> Iterator[dict[str, Any]]:
    rows = [(example, (_TOP, _TOP, _TOP)) for example in feature.top]
    for interval in reversed(feature.intervals):
        share = interval.count / place.catalogue.n_tokens  # of all tokens, as their makers of pages have it
        rows += [(example, (interval.low, interval.high, share)) for example in interval.examples]
    texts = place.texts([(example.start, example.end) for example, _ in rows])
    for (example, bin_), tokens in zip(rows, texts, strict=True):
        yield _activation_row(place, model, layer, feature.latent, example, tokens, bin_)


def _activation_row(
    place: OpenHookpoint,
    model: str,
    layer: str,
    latent: int,
    example: Example,
    tokens: list[str],
    bin_: tuple[float, float, float],
) -> dict[str, Any]:
    values = list(example.activations)
    peak = max(range(len(values)), key=values.__getitem__)
    return {
        "id": f"{place.name}-{latent}-{example.token}",
        "modelId": model,
        "layer": layer,
        "index": str(latent),
        "tokens": tokens,
        "values": values,
        "maxValue": values[peak],
        "maxValueTokenIndex": peak,
        "minValue": min(values),
        "binMin": bin_[0],
        "binMax": bin_[1],
        "binContains": bin_[2],
        "qualifyingTokenIndex": example.token - example.start,
        "dataIndex": str(example.document),
        "dataSource": place.run.name,
        "dfaValues": [],
        "dfaTargetIndex": None,
        "dfaMaxValue": None,
        "lossValues": [],
    }


def _explanation(place: OpenHookpoint, model: str, layer: str, latent: int) -> dict[str, Any]:
    label = label_facts(place, latent, place.by_hand)
    scores = [{"explanationScoreTypeName": "f1", "value": label.f1}] if label.f1 is not None else []
    return {
        "modelId": model,
        "layer": layer,
        "index": str(latent),
        "description": label.text,
        "typeName": "human" if label.status == "person" else "mohole_rule",
        "explanationModelName": None,
        "scores": scores,
    }


def _along(model: str, layer: str, latent: int, rows: XrayRows) -> dict[str, Any]:
    values = list(rows.along or ())
    peak = max(range(len(values)), key=values.__getitem__) if values else 0
    return {
        "modelId": model,
        "layer": layer,
        "index": str(latent),
        "tokens": rows.tokens,
        "values": values,
        "activations": values,
        "maxValue": values[peak] if values else 0.0,
        "maxValueIndex": peak,
        "maxValueTokenIndex": peak,
        "minValue": min(values, default=0.0),
    }


def _rows_of_layer(place: OpenHookpoint, layer: str, rows: XrayRows, ask: SearchAllAsk) -> list[dict[str, Any]]:
    """Every latent that fires on the text, with its activation at each token."""
    values: dict[int, list[float]] = {}
    for i, (latents, activations) in enumerate(zip(rows.latents, rows.activations, strict=True)):
        for latent, activation in zip(latents, activations, strict=True):
            values.setdefault(latent, [0.0] * len(rows.tokens))[i] = activation
    density = place.catalogue.density
    return [
        {
            "modelId": ask.modelId,
            "layer": layer,
            "index": str(latent),
            "values": along,
            "maxValue": max(along),
            "maxValueIndex": max(range(len(along)), key=along.__getitem__),
        }
        for latent, along in values.items()
        if ask.densityThreshold < 0 or density[latent] <= ask.densityThreshold
    ]


def _weight(row: dict[str, Any], places: tuple[int, ...]) -> float:
    """Sum of a feature's activations at the tokens asked for; without any, its largest."""
    values = row["values"]
    return float(sum(values[place] for place in places if place < len(values)) if places else row["maxValue"])


def _json(value: object) -> Response:
    return Response(json_bytes(value), headers={"Cache-Control": "no-store"}, media_type="application/json")
