"""Dictionaries that are there already, in the place of trained ones; and the rows of another run."""

from pathlib import Path

import pytest

from mohole import load_dictionary
from mohole.config import Recipe, parse
from mohole.dictionary.formats.export import export_dictionary
from mohole.errors import ConfigError, StageError
from mohole.evaluate import read_evaluation
from mohole.job import plan, run, run_verb
from mohole.record import read_json


def recipe(folder: Path, **tables: object) -> Recipe:
    return parse(
        {
            "run": str(folder),
            "machine": {"processes": 1, "threads": 1},
            "corpus": {"kind": "planted", "n_documents": 120},
            "harvest": {"hookpoints": ["resid_post.0"]},
            "train": {"n_latents": 64, "steps": 12, "batch_rows": 256, "nonlinearity": {"kind": "topk", "k": 4}},
            "evaluate": {"max_documents": 10, "recovery": False},
            **tables,
        }
    )


def given(folder: Path, trained: Path, path: Path, **more: str) -> Recipe:
    tables = {"path": str(path), "hookpoint": "blocks.0.hook_resid_post", **more}
    return recipe(folder, rows_of=str(trained), dictionary=[tables], harvest={})


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("given") / "run"
    for verb in ("harvest", "train", "evaluate"):
        run_verb(recipe(folder), verb)  # type: ignore[arg-type]
    return folder


def test_another_library_s_files_measure_as_the_dictionary_did_where_it_was_trained(
    trained: Path, tmp_path: Path
) -> None:
    export_dictionary(load_dictionary(trained / "resid_post.0" / "dictionary"), tmp_path / "theirs", "saelens")
    asked = given(tmp_path / "run", trained, tmp_path / "theirs")
    assert [stage.name for stage in plan(asked).stages][:2] == ["convert resid_post.0", "evaluate resid_post.0"]
    run_verb(asked, "convert")
    run_verb(asked, "evaluate")
    ours = read_evaluation(trained / "resid_post.0" / "evaluation").measures
    theirs = read_evaluation(tmp_path / "run" / "resid_post.0" / "evaluation").measures
    assert {name: each.value for name, each in theirs.items()} == pytest.approx(
        {name: each.value for name, each in ours.items()}, rel=1e-5, nan_ok=True
    )
    assert not (tmp_path / "run" / "activations").exists()


def test_it_says_where_it_came_from_and_other_bytes_are_another_dictionary(trained: Path, tmp_path: Path) -> None:
    export_dictionary(load_dictionary(trained / "resid_post.0" / "dictionary"), tmp_path / "theirs", "sparsify")
    asked = given(tmp_path / "run", trained, tmp_path / "theirs")
    run_verb(asked, "convert")
    facts = read_json(tmp_path / "run" / "resid_post.0" / "dictionary" / "dictionary.json")
    assert facts["training"]["imported"]["format"] == "sparsify"
    (tmp_path / "theirs" / "note.txt").write_text("changed")
    with pytest.raises(StageError, match=r"parents\.source"):
        run_verb(asked, "convert")


def test_the_whole_job_goes_on_from_it(trained: Path, tmp_path: Path) -> None:
    asked = given(tmp_path / "run", trained, trained / "resid_post.0" / "dictionary")
    assert run(asked)[0] == "convert resid_post.0"
    assert (tmp_path / "run" / "steering").is_dir()
    assert run(asked) == []


def test_of_another_width_it_is_refused_by_name(trained: Path, tmp_path: Path) -> None:
    import torch

    from mohole.config import TopK
    from mohole.dictionary import SparseAutoencoder

    weights = torch.eye(8, 5)
    wrong = SparseAutoencoder("resid_post.0", TopK(k=2), weights, torch.zeros(8), weights, torch.zeros(5))
    export_dictionary(wrong, tmp_path / "narrow", "mohole")
    with pytest.raises(StageError, match=r"narrow: reads rows of 5 numbers, and those of resid_post.0 have \d+"):
        run_verb(given(tmp_path / "run", trained, tmp_path / "narrow"), "convert")


def test_hookpoints_need_not_be_named_twice_and_may_not_differ(tmp_path: Path) -> None:
    tables = {"path": "somewhere", "hookpoint": "resid_post.1"}
    assert parse({"run": "r", "dictionary": [tables]}).harvest.hookpoints == ("resid_post.1",)
    with pytest.raises(ConfigError, match=r"harvest.hookpoints: resid_post.0, and the dictionaries .* resid_post.1"):
        recipe(tmp_path, dictionary=[tables])
