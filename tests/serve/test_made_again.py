"""What requests do to a run's model, where the run is changed under the server: nothing is steered by what is no longer there."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.serve.talking import BRIDGE, HOOKPOINT, dictionary

from mohole import artifact
from mohole.act import Clamp, UsableRange, open_variant, save_variant
from mohole.act.usable import Swept
from mohole.dictionary.files import save
from mohole.errors import ArtifactError
from mohole.model import LanguageModel
from mohole.serve.openai.steering import RunSteering
from mohole.serve.runs import open_runs

CLAMP = Clamp(BRIDGE, value=1.0, hookpoint=HOOKPOINT)


@pytest.fixture
def run(talking_run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(talking_run, tmp_path / "demo")


@pytest.fixture
def steering(run: Path, talking_model: LanguageModel) -> RunSteering:
    return RunSteering(open_runs([run]).runs["demo"], talking_model)


def make_again(run: Path, model: LanguageModel) -> None:
    """Another dictionary in the place of the one that is served."""
    other = dictionary(model)
    inputs = artifact.Inputs(kind="dictionary", config={}, seed=1)
    with artifact.create(run / HOOKPOINT / "dictionary", inputs, replace=True) as out:
        other.W_dec.copy_(torch.roll(other.W_dec, 1, 0))
        save(other, out)


def test_a_dictionary_that_was_made_again_before_anybody_asked_is_refused(
    run: Path, steering: RunSteering, talking_model: LanguageModel
) -> None:
    make_again(run, talking_model)
    with pytest.raises(ArtifactError, match="made again; start the server again"):
        steering.plan(None, [CLAMP])


def test_a_variant_of_a_newer_dictionary_is_not_done_with_the_older_one(
    run: Path, steering: RunSteering, talking_model: LanguageModel
) -> None:
    before, _ = steering.plan(None, [CLAMP])
    make_again(run, talking_model)
    save_variant(run, "newer", [CLAMP], talking_model)
    with pytest.raises(ArtifactError, match=r"newer: .* was made again; start the server again"):
        steering.plan(open_variant(run, "newer"), [])
    assert steering.plan(None, [CLAMP])[0] is before  # of what the server has opened, and goes on serving


def test_whose_strength_was_judged_as_a_whole_is_not_judged_again_and_nobody_elses_is_let_off(
    run: Path, steering: RunSteering, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = UsableRange(
        low=2.0, high=3.0, unit="times its maximum", effect="active", rule="a rule", n_prompts=1, n_texts=1, evidence=()
    )
    one = Clamp(BRIDGE, times_max=1.0, hookpoint=HOOKPOINT)
    monkeypatch.setattr("mohole.act.sources.read_swept", lambda folder, digests: (Swept((one,), found),))
    kept = open_variant(run, "golden-gate")
    judged = replace(kept, usable=replace(found, low=0.5))
    assert kept.interventions == (one,)
    for _ in range(2):  # the second time as it was remembered
        assert [bool(steering.plan(each, [])[1]) for each in (kept, judged)] == [True, False]
