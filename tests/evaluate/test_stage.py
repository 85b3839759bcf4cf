"""The stage's two files: whole, read back the same, the same bytes each time; bad numbers are stopped or warned about."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mohole import config
from mohole.corpus import Corpus, Task
from mohole.dictionary import SparseAutoencoder
from mohole.errors import ArtifactError
from mohole.evaluate import evaluate, read_evaluation, read_recovery
from mohole.evaluate.guards.numbers import numbers_out_of_range
from mohole.evaluate.results import TaskResult
from mohole.metrics import fvu
from mohole.metrics.definitions import OURS
from mohole.metrics.known_answers import seen
from mohole.metrics.measure import as_json
from mohole.metrics.stamp import stamp
from mohole.model import LanguageModel
from mohole.record import plain
from mohole.store import Store

HOOKPOINT = "resid_post.0"
WEIGHTS = {"decoder_norm", "encoder_decoder_cosine", "nearest_decoder_cosine", "mean_direction_cosine"}
TASKS = (Task("next", ("the a", "of"), (" the", " a")),)


@pytest.fixture(scope="module")
def store(harvested: Callable[[Corpus], Store], world: Corpus) -> Store:
    return harvested(world)


@pytest.fixture(scope="module")
def lossy(identity: SparseAutoencoder) -> SparseAutoencoder:
    return replace(identity, nonlinearity=config.TopK(k=8))


@pytest.fixture(scope="module")
def done(
    tmp_path_factory: pytest.TempPathFactory,
    model: LanguageModel,
    lossy: SparseAutoencoder,
    world: Corpus,
    store: Store,
) -> Path:
    place = tmp_path_factory.mktemp("evaluation")
    evaluate(place, model, lossy, world, store, config.Evaluate(max_documents=40), seed=0, tasks=TASKS)
    return place


def test_the_files_are_read_back_as_they_were_written(done: Path) -> None:
    for result, name in ((read_evaluation(done), "evaluation.json"), (read_recovery(done), "recovery.json")):
        assert result is not None
        assert plain(as_json(result)) == json.loads((done / name).read_text())


def test_row_measures_agree_with_the_definitions(
    done: Path, lossy: SparseAutoencoder, world: Corpus, store: Store
) -> None:
    measures = read_evaluation(done).measures
    rows = torch.from_numpy(store.take(HOOKPOINT, store.tokens[store.held_out]))
    codes = lossy.encode(rows)
    assert measures["fvu"].n == len(rows) == np.diff(world.document_starts)[world.held_out].sum()
    assert measures["fvu"].n_documents == world.held_out.sum()
    assert measures["fvu"].value == pytest.approx(float(fvu(rows, lossy.decode(codes))), rel=1e-9)
    x, y = rows.double(), lossy.decode(codes).double()
    centre = x.mean(0)
    distance, error = (x - centre).norm(dim=1), (x - y).square()
    left = x.norm(dim=1).argsort()[: measures["fvu_trimmed"].n]
    firing, documents = codes.dense() != 0, torch.from_numpy(world.document_of(store.tokens[store.held_out]))
    pairs = torch.stack([firing[documents == document].any(0) for document in documents.unique()])
    for name, value in {
        "fvu_by_row_legacy": (error.sum(1) / distance.square()).mean(),
        "fvu_by_dimension": (error.sum(0) / (x - centre).square().sum(0)).mean(),
        "cosine_centred": torch.nn.functional.cosine_similarity(x - centre, y - centre).mean(),
        "fvu_trimmed": fvu(x[left], y[left]),
        "length_ratio": (y.norm(dim=1) / x.norm(dim=1)).mean(),
        "mse_per_dimension": error.mean(),
        "l1": codes.dense().abs().sum(1).mean(),
        "l1_by_length": (codes.dense().abs() @ lossy.W_dec.norm(dim=1)).mean(),
        "firing_consistency": firing.sum() / pairs.sum(),
        "decoder_norm": lossy.W_dec.norm(dim=1).mean(),
    }.items():
        assert measures[name].value == pytest.approx(float(value), rel=1e-6), name
    assert 0 < len(rows) - measures["fvu_trimmed"].n < 0.002 * len(rows)
    assert measures["l0"].value == pytest.approx(codes.n_active.float().mean().item())
    assert measures["dead"].value == (codes.dense().count_nonzero(0) == 0).sum()
    histogram = read_evaluation(done).density
    assert sum(histogram.counts) + histogram.zero == lossy.n_latents
    assert histogram.zero == measures["dead"].value


def test_every_measure_says_what_it_is(done: Path) -> None:
    evaluation = read_evaluation(done)
    assert set(evaluation.measures) == {
        "fvu", "r2_uncentred", "mse", "mse_per_dimension", "cosine", "length_ratio", "relative_bias", "cosine_centred",
        "fvu_by_dimension", "fvu_by_row_legacy", "fvu_trimmed", "l0", "l1", "l1_by_length", "firing_consistency", "dead", "dense",
        *WEIGHTS, "ce_clean", "ce_replaced", "excess_ce",
        "kl", "ce_mean", "ce_recovered", "kl_mean", "kl_recovered", "ce_zero", "ce_recovered_zero", "kl_zero",
        "kl_recovered_zero", "ce_position_mean", "ce_recovered_position_mean", "kl_position_mean",
        "kl_recovered_position_mean", "ce_resample", "ce_recovered_resample", "kl_resample", "kl_recovered_resample",
        "dropped", "error_norm_r2", "error_r2", "fvu_nonlinear", "outlier_variance",
    }  # fmt: skip
    for name, measure in evaluation.measures.items():
        assert measure.name == name
        assert measure.unit
        assert measure.definition
        assert measure.n > 0
        n_masks = sum(mask != "none" for mask in (measure.masks.counted, measure.masks.scored))
        assert n_masks == (name != "dropped" and name not in WEIGHTS)
        assert (measure.value is None) == bool(measure.undefined)
        if measure.value is not None and name not in ("dead", "dense", "dropped", "outlier_variance", *WEIGHTS):
            assert measure.low is not None
            assert measure.high is not None
            assert measure.low <= measure.value <= measure.high
    assert evaluation.tasks[0].n == 2


def test_the_same_inputs_give_the_same_bytes(
    done: Path, model: LanguageModel, lossy: SparseAutoencoder, world: Corpus, store: Store, folder: Path
) -> None:
    evaluate(folder, model, lossy, world, store, config.Evaluate(max_documents=40), seed=0, tasks=TASKS)
    for name in ("evaluation.json", "recovery.json"):
        assert (folder / name).read_bytes() == (done / name).read_bytes()


def test_without_truth_or_without_asking_there_is_no_recovery(
    model: LanguageModel, lossy: SparseAutoencoder, world: Corpus, own_text: Corpus, store: Store,
    harvested: Callable[[Corpus], Store], folder: Path,
) -> None:  # fmt: skip
    settings = config.Evaluate(recovery=False, max_documents=5)
    evaluate(folder, model, lossy, world, store, settings, seed=0)
    assert read_recovery(folder) is None
    assert read_evaluation(folder).tasks == ()
    evaluate(folder, model, lossy, own_text, harvested(own_text), config.Evaluate(), seed=0)
    assert read_recovery(folder) is None


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_bad_rows_leave_a_report_with_their_share_and_no_other_number(
    bad: float,
    model: LanguageModel,
    lossy: SparseAutoencoder,
    world: Corpus,
    store: Store,
    make_store: Callable[..., Store],
    folder: Path,
) -> None:
    rows = store.take(HOOKPOINT, store.tokens)
    rows[world.document_starts[np.flatnonzero(world.held_out)[[3, 5]]]] = bad
    evaluate(folder, model, lossy, world, make_store(world, rows), config.Evaluate(), seed=0)
    found = read_evaluation(folder)
    assert list(found.measures) == ["not_finite"]
    share = found.measures["not_finite"]
    assert share.value == pytest.approx(2 / share.n)
    (warning,) = found.warnings
    assert warning.name == "not_finite"
    assert f"2 of {share.n:,} rows" in warning.sentence
    assert re.search(r"resid_post\.0: stored rows.*NaN or infinity in row", warning.sentence)
    assert read_recovery(folder) is None


def test_a_damaged_or_missing_result_is_named(done: Path, folder: Path) -> None:
    with pytest.raises(ArtifactError, match=r"evaluation\.json: no such file; `mohole evaluate"):
        read_evaluation(folder)
    text = (done / "evaluation.json").read_text()
    (folder / "evaluation.json").write_text(text[:-40])
    with pytest.raises(ArtifactError, match="damaged at its start"):
        read_evaluation(folder)
    (folder / "evaluation.json").write_text(text.replace('"n_latents": 64', '"n_latents": "many"'))
    with pytest.raises(ArtifactError, match="damaged at n_latents"):
        read_evaluation(folder)


def test_numbers_that_should_not_be_are_warned_about(done: Path) -> None:
    measures = read_evaluation(done).measures

    def about(tasks: tuple[TaskResult, ...] = (), **values: float | None) -> list[tuple[str, str]]:
        names = (
            "ce_recovered",
            "ce_recovered_zero",
            "ce_recovered_position_mean",
            "ce_recovered_resample",
            "relative_bias",
        )
        good = dict.fromkeys(names, 0.99) | {"fvu": 0.01, "dead": 0.0, "dense": 0.0, "dropped": 0.0} | values
        changed = {
            name: replace(measures[name], value=value, undefined="it does no harm") for name, value in good.items()
        }
        return [(each.name, each.sentence) for each in numbers_out_of_range(measures | changed, tasks, 64)]

    assert about() == []
    for name, value, guard, text in (
        ("fvu", 1.2, "fvu_above_one", "worse than predicting the mean"),
        ("fvu", 0.95, "fvu_near_one", "hardly better"),
        ("fvu", None, "fvu_undefined", "undefined"),
        ("ce_recovered", 1.03, "recovered_above_one", "against mean ablation is 1.030, above 1"),
        ("ce_recovered_resample", -0.1, "recovered_below_zero", "more harm than the ablation"),
        ("ce_recovered_zero", None, "recovered_undefined", "against zero ablation is undefined: it does no harm"),
        ("dead", 7.0, "dead", "7 of 64 latents"),
        ("dense", 4.0, "dense", "4 of 64 latents"),
        ("relative_bias", 20.0, "biased", "20 times as long"),
        ("dropped", 0.2, "dropped", "20% of the text's tokens"),
    ):
        ((found, sentence),) = about(**{name: value})
        assert found == guard
        assert text in sentence
    lost = TaskResult("addition", 100, 1.0, 0.96, 1.0, 0.97, 0.9, 0.99)
    kept = TaskResult("facts", 100, 1.0, 0.96, 1.0, 0.99, 0.9, 0.99)
    ((name, sentence),) = about((lost, kept))
    assert name == "task_lost"
    assert "Task addition: accuracy falls from 1.000 to 0.970" in sentence


def test_a_dictionary_of_another_model_is_seen(
    model: LanguageModel, world: Corpus, store: Store, identity: SparseAutoencoder, folder: Path
) -> None:
    wrong = replace(identity, b_dec=torch.full((32,), 20.0), nonlinearity=config.TopK(k=1))
    evaluate(folder, model, wrong, world, store, config.Evaluate(max_documents=5, recovery=False), seed=0)
    assert "worse than predicting the mean row" in " ".join(each.sentence for each in read_evaluation(folder).warnings)


def test_the_definitions_it_was_measured_by_are_named_and_right(done: Path) -> None:
    checked = read_evaluation(done).checked
    assert checked == stamp()
    assert checked.n_answers > 500
    assert checked.wrong == ()


def test_a_wrong_definition_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = replace(OURS, wilson=lambda successes, n: (0.0, 0.001))
    monkeypatch.setattr(seen, "OURS", wrong)
    stamp.cache_clear()
    try:
        said = stamp().wrong
    finally:
        stamp.cache_clear()
    assert any(sentence.startswith("intervals_cover_what_they_say: samples of 100") for sentence in said)
