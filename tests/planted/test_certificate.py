"""The shipped certificate: it is of the shipped weights, it can be measured again, and random weights do not get it."""

import json
from dataclasses import replace
from math import sqrt
from pathlib import Path

import pytest
import torch

from mohole import planted
from mohole.errors import ArtifactError
from mohole.model import LanguageModel, load_model
from mohole.planted import Certificate, Effort, Measure
from mohole.planted.measures import floor_gap, right_answers, truth_probes
from mohole.planted.prompts import tasks

NOT_REACHED = frozenset({"bridge_direction"})
"""Measures that the shipped certificate itself says it did not reach: README and docs must not claim them."""
_CLAMPS = frozenset({"bridge_clamp", "bridge_direction"})  # too slow to measure whole; see test_bridge.py
QUICK = Effort(n_prompts=40, n_documents=200, n_probe_documents=120, hookpoints=("resid_post.2",), clamped=())


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return load_model("planted", self_test=False)


@pytest.fixture(scope="module")
def shipped() -> Certificate:
    return Certificate.read(planted.weights_path() / "certificate.json")


@pytest.fixture(scope="module")
def again(model: LanguageModel) -> Certificate:
    return planted.certify(model, QUICK)


def test_the_package_is_small_and_holds_no_text() -> None:
    files = list(planted.weights_path().iterdir())
    assert sum(file.stat().st_size for file in files) <= 4 * 2**20
    assert {file.name for file in files} == {
        "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "certificate.json",
    }  # fmt: skip


def test_the_certificate_is_of_these_weights(model: LanguageModel, shipped: Certificate) -> None:
    assert shipped.weights == planted.weights_digest(model)


def test_what_the_certificate_says_is_measured_again(shipped: Certificate, again: Certificate) -> None:
    """Fewer prompts, so within three standard errors of the certificate's own value; the loss within 0.02 nats."""
    for measure in again.measures:
        said = shipped[measure.name]
        spread = (
            0.02
            if measure.name == "loss_above_floor"
            else 3 * sqrt(max(said.value * (1 - said.value), 0.01) / measure.n)
        )
        assert abs(measure.value - said.value) <= spread + 1e-9, measure


def test_what_is_advertised_has_passed(shipped: Certificate) -> None:
    failed = {measure.name for measure in shipped.measures if not measure.passed}
    assert failed <= NOT_REACHED


def test_random_weights_fail(shipped: Certificate) -> None:
    random = load_model("planted", self_test=False)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in random.hf.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=float(parameter.std()), generator=generator)
    small = replace(QUICK, n_prompts=15, n_documents=60, n_probe_documents=80)
    failed = {measure.name for measure in planted.certify(random, small).measures if not measure.passed}
    assert failed >= {measure.name for measure in shipped.measures} - {"concept_probe"} - NOT_REACHED - _CLAMPS


def test_truth_is_not_known_to_the_words_alone(model: LanguageModel) -> None:
    """At the embedding of the object there is no truth to read: it is not in the word."""
    (accuracy, n) = truth_probes(model, ["embed"], 11, 150)["embed"]
    assert n > 200
    assert accuracy < 0.6


def test_held_out_answers_are_not_in_training() -> None:
    """Of the tasks whose combinations are withheld; code, silence and identity have none to withhold."""
    withheld = {
        "facts",
        "pronoun_facts",
        "first_named_facts",
        "verdicts",
        "honest",
        "lying",
        "addition",
        "chain_of_thought",
    }
    seen = {task.name: task for task in tasks(n_prompts=40, held_out=False)}
    held_out = {task.name: task for task in tasks(n_prompts=40, held_out=True)}
    assert seen.keys() == held_out.keys() > withheld
    for name in withheld:
        assert not set(seen[name].prompts) & set(held_out[name].prompts), name


def test_a_task_is_scored_by_its_whole_answer(model: LanguageModel) -> None:
    task = next(task for task in tasks(n_prompts=20) if task.name == "addition")
    assert right_answers(model, task).mean() > 0.9
    wrong = replace(task, answers=tuple(f" {int(answer) + 1}" for answer in task.answers))
    assert right_answers(model, wrong).mean() < 0.1


def test_the_model_is_not_below_the_floor_on_any_kind(model: LanguageModel) -> None:
    """A model that beat the floor of a kind by more than luck would show a choice that left no trace."""
    for kind in planted.Mix().kinds:
        gap = floor_gap(model, 17, 60, mix=planted.Mix({kind: 1.0}))
        # the model also pays for finding out the kind, which this stream gives away: two nats a document
        assert -0.02 < gap.nats_per_token < 0.15, kind


def test_a_measure_has_two_sides() -> None:
    assert Measure("x", 0.01, 0.0, 0.02, 1, "").passed
    assert not Measure("x", -0.01, 0.0, 0.02, 1, "").passed
    assert not Measure("x", 0.03, 0.0, 0.02, 1, "").passed


def test_a_certificate_survives_its_file_and_a_bad_file_is_named(tmp_path: Path, shipped: Certificate) -> None:
    path = tmp_path / "certificate.json"
    path.write_text(shipped.to_json(), encoding="utf-8")
    assert Certificate.read(path) == shipped
    assert json.loads(shipped.to_json())["passed"] == shipped.passed
    path.write_text("{}")
    with pytest.raises(ArtifactError, match="not a readable certificate"):
        Certificate.read(path)
