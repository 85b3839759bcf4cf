"""Neuronpedia's bulk files of one hookpoint: what its import takes, and its public dataset holds.

    OUT/MODEL/LAYER-SET/{release,model,sourceset,source}.jsonl
                        {features,activations,explanations}/batch-N.jsonl.gz        1024 features each

Keys are the columns of its database (schema.prisma) as SAEDashboard 0.8 writes them (neuronpedia_export.py). What a
catalogue does not hold is empty; so is the model's number of layers (0) where the model is not on this machine. Two
differences, both on purpose: a dead feature has no activations, and no text stands twice among a feature's. `binContains`
is a share of all tokens, as there, where the lowest interval holds the silent ones too: here the intervals add up to
`frac_nonzero`. Correlated features, which are blank there, are those that fire together, by phi over the tokens on which
that is counted.
"""

import gzip
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from mohole.catalogue import Example, Feature
from mohole.catalogue.evidence import TOP
from mohole.errors import ConfigError
from mohole.export.features import Exported, examples
from mohole.export.whole import whole_folder
from mohole.interpret import Label
from mohole.model.hookpoints import parse_hookpoint
from mohole.progress import track

Row = Mapping[str, Any]

_FEATURES_PER_BATCH = 1024
_CREATOR = "mohole"
_FILES = ("release.jsonl", "model.jsonl", "sourceset.jsonl", "source.jsonl", "*/batch-*.jsonl.gz")
_EMPTY = (
    "correlated_features_l1", "correlated_neurons_indices", "correlated_neurons_pearson", "correlated_neurons_l1",
    "neuron_alignment_indices", "neuron_alignment_values", "neuron_alignment_l1", "logits_hist_data_bar_heights",
    "logits_hist_data_bar_values", "decoder_weights_dist",
)  # fmt: skip


def export_neuronpedia(exported: Exported, out: Path, *, model: str, source_set: str | None = None) -> Path:
    """Write the files of one source below `out`: all of them or none, in place of an earlier export of it.

    Args:
        model: the model's id there.
        source_set: the name of the set, `res-1k` for example; None: from the hookpoint and the number of latents.

    Returns:
        The folder of the source.

    Raises:
        ArtifactError: its place holds something else. ConfigError: no id can be made of the model's name.
    """
    catalogue, point = exported.catalogue, parse_hookpoint(exported.catalogue.hookpoint)
    layer = 0 if point.layer is None else point.layer
    source_set = source_set or f"mohole-{point.kind.replace('_', '-')}-{catalogue.n_latents}"
    source = f"{layer}-{source_set}"
    model_id = model.replace("/", "-")
    if not model_id.strip(". ") or "\0" in model_id:
        raise ConfigError(f"--model {model!r}: no name for a folder; give the id that the model has at Neuronpedia")
    place = out / model_id / source
    made = datetime.fromtimestamp((catalogue.path / "manifest.json").stat().st_mtime, tz=UTC).isoformat()
    rows = _Rows(exported, model_id, source, made)
    with whole_folder(place, _FILES) as folder:
        _write_all(folder, exported, rows, source_set)
    return place


def _write_all(folder: Path, exported: Exported, rows: "_Rows", source_set: str) -> None:
    catalogue = exported.catalogue
    for name, row in rows.about(source_set).items():
        (folder / f"{name}.jsonl").write_text(_line(row), encoding="utf-8")
    with track(f"export {catalogue.hookpoint}", catalogue.n_latents, "features") as tracker:
        for number, first in enumerate(range(0, catalogue.n_latents, _FEATURES_PER_BATCH)):
            last = min(first + _FEATURES_PER_BATCH, catalogue.n_latents)
            batch = list(exported.features(first, last))
            _write(folder, "features", number, (rows.feature(feature) for feature, _ in batch))
            _write(folder, "activations", number, rows.activations(batch))
            _write(folder, "explanations", number, rows.explanations(batch))
            tracker.advance(last - first)


class _Rows:
    """Database rows."""

    def __init__(self, exported: Exported, model: str, source: str, made: str) -> None:
        self.exported, self.model, self.source, self.made = exported, model, source, made

    def about(self, source_set: str) -> dict[str, Row]:
        """What the source belongs to."""
        by = {"creatorId": _CREATOR, "createdAt": self.made, "visibility": "PUBLIC"}
        name, corpus = self.exported.run, self.exported.corpus
        return {
            "release": {"name": name, "description": f"Features of {name}", "creatorName": _CREATOR, "urls": [], **by},
            "model": {"id": self.model, "displayName": self.model, "displayNameShort": self.model, "instruct": False,
                      "layers": self.exported.n_layers or 0, "neuronsPerLayer": 0, "owner": "", "updatedAt": self.made, **by},
            "sourceset": {"modelId": self.model, "name": source_set, "description": "", "type": "", "releaseName": name,
                          "creatorName": _CREATOR, "urls": [], "hasDashboards": True, "showCorrelated": True, **by},
            "source": {"id": self.source, "modelId": self.model, "setName": source_set, "hasDashboards": True,
                       "num_prompts": self.exported.catalogue.n_documents, "num_tokens_in_prompt": corpus.context,
                       "dataset": None, "notes": f"catalogue {self.exported.catalogue.manifest.digest}", **by},
        }  # fmt: skip

    def feature(self, feature: Feature) -> Row:
        hookpoint, together = self.exported.catalogue.hookpoint, feature.together
        edges = feature.histogram.edges
        return {
            "modelId": self.model,
            "layer": self.source,
            "index": str(feature.latent),
            "creatorId": _CREATOR,
            "createdAt": self.made,
            "maxActApprox": feature.maximum,
            "hasVector": False,
            "vector": [],
            "hookName": hookpoint,
            "topkCosSimIndices": [latent for latent, _ in feature.neighbours],
            "topkCosSimValues": [cosine for _, cosine in feature.neighbours],
            "correlated_features_indices": [latent for latent, _, _ in together],
            "correlated_features_pearson": [phi for _, _, phi in together],
            **{key: [] for key in _EMPTY},
            "pos_str": [text for text, _ in feature.promoted],
            "pos_values": [logit for _, logit in feature.promoted],
            "neg_str": [text for text, _ in feature.suppressed],
            "neg_values": [logit for _, logit in feature.suppressed],
            "frac_nonzero": feature.density,
            "freq_hist_data_bar_heights": list(feature.histogram.counts),
            "freq_hist_data_bar_values": [(low + high) / 2 for low, high in pairwise(edges)],
        }

    def activations(self, batch: Iterable[tuple[Feature, Label]]) -> Iterator[Row]:
        for feature, _ in batch:
            for number, example in examples(feature):
                yield self._activation(feature, number, example)

    def _activation(self, feature: Feature, interval: int, example: Example) -> Row:
        low, high, share = -1.0, -1.0, -1.0  # their mark of the strongest examples
        if interval != TOP:
            bounds = feature.intervals[interval]
            low, high, share = bounds.low, bounds.high, bounds.count / self.exported.catalogue.n_tokens
        most = max(range(len(example.activations)), key=example.activations.__getitem__)
        return {
            "id": self._id(feature.latent, example.token),
            "modelId": self.model,
            "layer": self.source,
            "index": str(feature.latent),
            "tokens": self.exported.pieces(example),
            "values": list(example.activations),
            "maxValue": example.activations[most],
            "maxValueTokenIndex": most,
            "minValue": min(example.activations),
            "binMin": low,
            "binMax": high,
            "binContains": share,
            "qualifyingTokenIndex": example.token - example.start,
            "dataIndex": str(example.document),
            "dataSource": None,
            "dfaValues": [],
            "lossValues": [],
            "creatorId": _CREATOR,
            "createdAt": self.made,
        }

    def explanations(self, batch: Iterable[tuple[Feature, Label]]) -> Iterator[Row]:
        """Of the features that have a label; its score is F1 on documents that played no part in finding it."""
        for feature, label in batch:
            if label.status in ("good", "partial"):
                yield {
                    "id": self._id(feature.latent, -1),
                    "modelId": self.model,
                    "layer": self.source,
                    "index": str(feature.latent),
                    "description": label.text,
                    "authorId": _CREATOR,
                    "typeName": "mohole-rules",
                    "explanationModelName": None,
                    "scoreV1": label.f1,
                    "createdAt": self.made,
                }

    def _id(self, latent: int, token: int) -> str:
        """Always the same for the same row: an export that is imported twice changes nothing."""
        name = f"{self.exported.catalogue.manifest.digest}/{latent}/{token}"
        return f"c{hashlib.sha256(name.encode()).hexdigest()[:24]}"


def _write(folder: Path, kind: str, number: int, rows: Iterable[Row]) -> None:
    (folder / kind).mkdir(exist_ok=True)
    with (folder / kind / f"batch-{number}.jsonl.gz").open("wb") as file, gzip.GzipFile("", "wb", 6, file, 0) as packed:
        for row in rows:
            packed.write(_line(row).encode())


def _line(row: Row) -> str:
    return json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"
