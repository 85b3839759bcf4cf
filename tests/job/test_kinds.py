"""Jobs that learn something else than sparse autoencoders: to the dictionary and no further, and a second call does nothing."""

from pathlib import Path
from typing import Any

import pytest
from tests.job.test_job import small

from mohole.config import Recipe
from mohole.dictionary import Crosscoder, CrossLayerTranscoder, Transcoder, load_dictionary
from mohole.errors import ConfigError, StageError
from mohole.job import run, run_verb
from mohole.record import read_record

KINDS: dict[str, dict[str, Any]] = {
    "transcoder": {"kind": "transcoder", "reads": "mlp_in.1", "writes": "blocks.1.hook_mlp_out", "skip": True},
    "crosscoder": {"kind": "crosscoder", "hookpoints": ["mlp_in.1", "mlp_out.1"]},
    "cross_layer_transcoder": {
        "kind": "cross_layer_transcoder", "reads": ["mlp_in.0", "mlp_in.1"], "writes": ["mlp_out.0", "mlp_out.1"],
    },
}  # fmt: skip


def recipe(folder: Path, **train: Any) -> Recipe:
    hookpoints = ["mlp_in.0", "mlp_out.0", "mlp_in.1", "mlp_out.1"]
    settings = {"n_latents": 64, "steps": 60, "batch_rows": 256, "nonlinearity": {"kind": "topk", "k": 8}}
    return small(
        folder,
        harvest={"hookpoints": hookpoints},
        corpus={"kind": "planted", "n_documents": 100},
        train=settings | train,
        steer={},
    )


def test_every_kind_is_learned_from_the_same_rows(tmp_path: Path) -> None:
    for kind, learns in KINDS.items():
        settings = recipe(tmp_path / "run", learns=learns)
        assert run(settings)[-1] == "train"
        assert run(settings) == []
        found = load_dictionary(tmp_path / "run" / kind / "dictionary")
        assert isinstance(found, Transcoder | Crosscoder | CrossLayerTranscoder)
        assert found.n_latents == (128 if kind == "cross_layer_transcoder" else 64)
        record = read_record(tmp_path / "run" / kind / "dictionary" / "record.jsonl")
        assert record[-1]["fvu"] < 0.7 * record[0]["fvu"]
    transcoder = load_dictionary(tmp_path / "run" / "transcoder" / "dictionary")
    assert isinstance(transcoder, Transcoder)
    assert (transcoder.reads, transcoder.writes) == ("mlp_in.1", "mlp_out.1")


def test_what_cannot_be_learned_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"train.learns: mlp_out.2 is not harvested; add it to harvest.hookpoints, which has mlp_in.0"
    ):
        run(recipe(tmp_path / "run", learns=KINDS["transcoder"] | {"writes": "mlp_out.2"}))
    with pytest.raises(ConfigError, match=r"train.live_rows: a transcoder reads rows from a store; set live_rows = 0"):
        run(recipe(tmp_path / "run", learns=KINDS["transcoder"], live_rows=4096))
    with pytest.raises(ConfigError, match=r"writes: 1 hookpoints, and reads has 2; a layer has one of each"):
        recipe(tmp_path / "run", learns=KINDS["cross_layer_transcoder"] | {"writes": ["mlp_out.0"]})
    with pytest.raises(StageError, match=r"evaluate: not for a transcoder yet"):
        run_verb(recipe(tmp_path / "run", learns=KINDS["transcoder"]), "evaluate")
    assert not (tmp_path / "run").exists()


def test_a_watched_training_is_the_same_training(tmp_path: Path) -> None:
    plain, watched = (
        recipe(tmp_path / "run", learns=KINDS["transcoder"]),
        recipe(tmp_path / "run", learns=KINDS["transcoder"]),
    )
    watched = watched.model_copy(update={"machine": watched.machine.model_copy(update={"watch": ("tensorboard",)})})
    run(watched)
    assert list((tmp_path / "run" / "tensorboard" / "transcoder").glob("events*"))
    assert run(plain) == []
