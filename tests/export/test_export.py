"""Exports say what the catalogue says, feature by feature, and nothing twice; the same run is the same bytes."""

import gzip
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.conftest import exit_status
from tests.report.run_folder import make_run, remake

from mohole.errors import ArtifactError, ConfigError
from mohole.export.features import Exported, examples, hookpoints_of
from mohole.export.neuronpedia import export_neuronpedia
from mohole.export.parquet import export_parquet
from mohole.search.run import SearchedRun
from mohole.search.statistics import Bounds

PLACE = "resid_post.0"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("export") / "demo"
    make_run(run)
    return run


@pytest.fixture(scope="module")
def exported(run: Path) -> Exported:
    return Exported.open(run, PLACE)


def rows(folder: Path, kind: str) -> list[dict[str, Any]]:
    texts = [gzip.decompress(file.read_bytes()).decode() for file in sorted((folder / kind).glob("*.gz"))]
    return [json.loads(line) for text in texts for line in text.split("\n") if line]


def test_the_number_of_layers_is_that_of_the_very_model_or_not_known(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"text_config": {"num_hidden_layers": 26}}))
    monkeypatch.setattr("mohole.export.features.find_model", lambda name: (name, tmp_path))
    assert replace(exported).n_layers is None  # some model of that name, but not the one that the rows are of
    made_of = exported.catalogue.manifest.inputs.parents.get("model")
    monkeypatch.setattr("mohole.export.features.fingerprint", lambda folder: made_of)
    known = replace(exported)
    assert known.n_layers == 26
    folder = export_neuronpedia(known, tmp_path / "out", model="m")
    assert json.loads((folder / "model.jsonl").read_text())["layers"] == 26


def test_neuronpedia_rows_are_the_catalogues(exported: Exported, tmp_path: Path) -> None:
    folder = export_neuronpedia(exported, tmp_path, model="org/model")
    n = exported.catalogue.n_latents
    assert folder == tmp_path / "org-model" / f"0-mohole-resid-post-{n}"
    features, activations = rows(folder, "features"), rows(folder, "activations")
    assert [row["index"] for row in features] == [str(latent) for latent in range(n)]
    by_feature: dict[str, list[dict[str, Any]]] = {row["index"]: [] for row in features}
    for row in activations:
        by_feature[row["index"]].append(row)
    for row in features:
        feature = exported.catalogue.feature(int(row["index"]))
        assert (row["maxActApprox"], row["frac_nonzero"]) == (feature.maximum, feature.density)
        assert list(zip(row["pos_str"], row["pos_values"], strict=True)) == list(feature.promoted)
        assert list(zip(row["neg_str"], row["neg_values"], strict=True)) == list(feature.suppressed)
        near, together = (
            ("topkCosSimIndices", "topkCosSimValues"),
            ("correlated_features_indices", "correlated_features_pearson"),
        )
        assert list(zip(*(row[name] for name in near), strict=True)) == list(feature.neighbours)
        assert list(zip(*(row[name] for name in together), strict=True)) == [(i, phi) for i, _, phi in feature.together]
        assert sum(row["freq_hist_data_bar_heights"]) == feature.count
        edges = np.array(feature.histogram.edges)
        assert row["freq_hist_data_bar_values"] == ((edges[:-1] + edges[1:]) / 2).tolist(), "the bars' middles"
        shown = by_feature[row["index"]]
        assert len(shown) == len(examples(feature))
        assert not (feature.is_dead and shown)
        for (number, example), told in zip(examples(feature), shown, strict=True):
            assert told["tokens"] == exported.pieces(example)
            assert tuple(told["values"]) == example.activations
            assert told["values"][told["maxValueTokenIndex"]] == told["maxValue"] == max(example.activations)
            assert told["values"][told["qualifyingTokenIndex"]] == example.activation
            assert (told["binMin"] == -1.0) == (number == -1)
            if number >= 0:
                interval = feature.intervals[number]
                wanted = (interval.low, interval.high, interval.count / exported.catalogue.n_tokens)
                assert (told["binMin"], told["binMax"], told["binContains"]) == wanted, (
                    "a share of all tokens, as there"
                )
                assert told["binMin"] < example.activation <= told["binMax"] * (1 + 2**-11)
    assert len({row["id"] for row in activations}) == len(activations)
    texts = {(row["index"], row["dataIndex"]) for row in activations}
    assert len(texts) == len(activations)  # no document twice among a feature's


def test_only_labels_that_hold_become_explanations(exported: Exported, tmp_path: Path) -> None:
    found = rows(export_neuronpedia(exported, tmp_path, model="m"), "explanations")
    assert exported.labels is not None
    good = [label for label in exported.labels if label.status in ("good", "partial")]
    assert [(row["index"], row["description"], row["scoreV1"]) for row in found] == [
        (str(label.latent), label.text, label.f1) for label in good
    ]
    assert 0 < len(found) < exported.catalogue.n_latents


def test_two_exports_are_the_same_bytes(exported: Exported, tmp_path: Path) -> None:
    one, other = (export_neuronpedia(exported, tmp_path / name, model="m") for name in "ab")
    files = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert len(files) >= 7
    for file in files:
        assert (one / file).read_bytes() == (other / file).read_bytes()


def test_parquet_tables_are_the_catalogues(exported: Exported, tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed; pip install 'mohole[parquet]'")
    folder = export_parquet(exported, tmp_path)
    features = pq.read_table(folder / "features.parquet").to_pylist()
    shown = pq.read_table(folder / "examples.parquet").to_pylist()
    assert [row["latent"] for row in features] == list(range(exported.catalogue.n_latents))
    for row in features[:50]:
        feature = exported.catalogue.feature(row["latent"])
        assert (row["count"], row["maximum"], row["family"]) == (feature.count, feature.maximum, feature.family)
        assert (row["density"], row["mean"]) == (feature.density, feature.mean)
        assert exported.labels is not None
        label = exported.labels.label(row["latent"])
        assert row["f1"] == (label.f1 if label.status in ("good", "partial", "none") else None), "not scored is not 0"
        assert [tuple(each.values()) for each in row["neighbours"]] == list(feature.neighbours)
        assert [tuple(each.values()) for each in row["together"]] == list(feature.together)
        assert [tuple(each.values()) for each in row["promoted"]] == [
            (token, np.float32(logit)) for token, logit in feature.promoted
        ]
        assert [each["token"] for each in row["suppressed"]] == [token for token, _ in feature.suppressed]
        mine = [line for line in shown if line["latent"] == row["latent"]]
        assert [line["token"] for line in mine] == [example.token for _, example in examples(feature)]
        for line, (number, example) in zip(mine, examples(feature), strict=True):
            assert line["tokens"] == exported.pieces(example)
            assert line["activations"] == np.float32(example.activations).tolist()
            assert line["tokens"][line["at"]] == exported.corpus.pieces[exported.corpus.tokens[example.token]]
            assert line["interval"] == (None if number == -1 else number)


def test_an_export_is_whole_or_not_there(exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And takes the place of an earlier one, but of nothing else."""
    folder = export_neuronpedia(exported, tmp_path, model="m")
    before = {path: path.read_bytes() for path in folder.rglob("*.*")}
    (folder / "features" / "batch-7.jsonl.gz").write_bytes(b"of a larger dictionary")

    def full(row: object) -> str:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("mohole.export.neuronpedia._line", full)
        with pytest.raises(OSError, match="No space left") as failure:
            export_neuronpedia(exported, tmp_path, model="m")
    assert failure.value.filename == str(folder)
    assert (folder / "features" / "batch-7.jsonl.gz").exists(), "the earlier one is there, untouched"
    assert export_neuronpedia(exported, tmp_path, model="m") == folder
    assert {path: path.read_bytes() for path in folder.rglob("*.*")} == before
    (folder / "features" / "notes.txt").write_text("mine")
    with pytest.raises(ArtifactError, match=r"holds features/notes.txt, which no export writes"):
        export_neuronpedia(exported, tmp_path, model="m")
    for model in ("..", "", ". "):
        with pytest.raises(ConfigError, match="no name for a folder"):
            export_neuronpedia(exported, tmp_path / "other", model=model)
    assert not (tmp_path / "other").exists()


def test_what_does_not_belong_together_is_not_exported_nor_searched(run: Path, tmp_path: Path) -> None:
    for name, parent, said in (
        ("catalogue", "dictionary", "catalogue: made from another dictionary"),
        ("labels", "catalogue", "labels: made from another catalogue"),
    ):
        copy = shutil.copytree(run, tmp_path / name)
        remake(copy / PLACE / name, name, **{parent: "0" * 32})
        with pytest.raises(ArtifactError, match=said):
            Exported.open(copy, PLACE)
        with pytest.raises(ArtifactError, match=said):
            SearchedRun.open(copy).by_statistics(Bounds(), 3)


def test_hostile_text_is_exported_as_it_is(exported: Exported, tmp_path: Path) -> None:
    told = json.dumps(rows(export_neuronpedia(exported, tmp_path, model="m"), "activations"), ensure_ascii=False)
    assert "<script>" in told or "</script>" in told


def test_what_cannot_be_exported_is_refused_by_name(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ArtifactError, match="no run with a catalogue"):
        hookpoints_of(tmp_path)
    for arguments, said in (
        (["--to", "safetensors"], "--to safetensors: a run is exported to neuronpedia, parquet, html"),
        (["--to", "parquet", "--hookpoint", "resid_post.9"], "--hookpoint resid_post.9"),
    ):
        assert exit_status(monkeypatch, "export", run, *arguments) == 1
        assert said in " ".join("".join(capfd.readouterr()).split())
    assert exit_status(monkeypatch, "export", tmp_path / "nowhere", "--to", "html") == 1
    assert "nowhere: no such folder" in "".join(capfd.readouterr())
    assert exit_status(monkeypatch, "export", run, "--to", "neuronpedia", tmp_path / "out", "--hookpoint", PLACE) == 0
    assert (tmp_path / "out" / "demo").is_dir()
