"""`mohole convert` and `mohole push`: what they write, what they say, and that nothing is uploaded unless asked."""

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import validate_repo_id
from tests.conftest import exit_status
from tests.dictionary.peer_cases import some_rows, some_sae, some_transcoder

from mohole import artifact
from mohole.config import JumpReLU, TopK
from mohole.dictionary import SparseAutoencoder, load_dictionary
from mohole.dictionary.files import save
from mohole.dictionary.formats import export_dictionary
from mohole.dictionary.formats.export import into_new_folder
from mohole.record import write_json


def trained(place: Path) -> Path:
    """A dictionary as `mohole train` leaves it."""
    config = {"train": {"lr": 0.005, "sparsity": None, "nonlinearity": {"k": 5}}}
    with artifact.create(place, artifact.Inputs(kind="dictionary", config=config, seed=7)) as draft:
        (draft / "record.jsonl").write_text(
            '{"step": 890, "fvu": 0.5}\n{"step": 900, "fvu": 0.04321, "ce_recovered": null}\n'
        )
        save(some_sae(TopK(k=5)), draft, training={"steps": 900, "training_rows": 12345, "note": "a | b <script>"})
    return place


def evaluated(place: Path, hookpoint: str = "resid_post.3", parents: dict[str, str] | None = None) -> Path:
    measure = {
        "name": "fvu", "value": 0.0321, "unit": "fraction", "low": 0.0301, "high": 0.0342, "n": 5000, "n_of": "rows",
        "n_documents": 80, "masks": {"replaced": "none", "counted": "all but BOS", "scored": "none"}, "baseline": "the mean",
        "definition": "...", "undefined": "",
    }  # fmt: skip
    missing = measure | {"name": "ce recovered", "value": None, "low": None, "high": None, "undefined": "no damage"}
    with artifact.create(place, artifact.Inputs(kind="evaluation", config={}, seed=0, parents=parents or {})) as draft:
        write_json(draft / "evaluation.json", {"hookpoint": hookpoint, "measures": {"fvu": measure, "ce": missing}})
    return place


@pytest.mark.parametrize("to", ["saelens", "sparsify", "dictionary-learning"])
def test_convert_there_and_back(
    to: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, there, back = trained(tmp_path / "resid_post.3"), tmp_path / "layers.3", tmp_path / "back"
    assert exit_status(monkeypatch, "convert", source, there, "--to", to) == 0
    assert capsys.readouterr().out == f"{source}: mohole\n{there}: {to}\n"
    assert exit_status(monkeypatch, "convert", there, back) == 0
    assert capsys.readouterr().out == f"{there}: {to}\n{back}: mohole\n"
    before, after = load_dictionary(source), load_dictionary(back)
    assert isinstance(before, SparseAutoencoder)
    assert isinstance(after, SparseAutoencoder)
    assert after.hookpoint == "resid_post.3"
    assert after.nonlinearity == TopK(k=5)
    torch.testing.assert_close(after.encode(some_rows()).dense(), before.encode(some_rows()).dense())
    assert exit_status(monkeypatch, "convert", there, back) == 1
    assert "already there" in capsys.readouterr().err
    assert exit_status(monkeypatch, "show", back) == 0
    assert "no record of its training" in capsys.readouterr().out


def test_convert_several_layers_into_one_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = [tmp_path / f"mlp.{layer}" for layer in range(3)]
    for layer, source in enumerate(sources):
        export_dictionary(some_transcoder(JumpReLU(), layer=layer), source, "saelens")
    assert exit_status(monkeypatch, "convert", *sources, tmp_path / "set", "--to", "circuit-tracer") == 0
    assert sorted(path.name for path in (tmp_path / "set").glob("layer*")) == [
        f"layer_{n}.safetensors" for n in range(3)
    ]


def test_convert_says_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_status(monkeypatch, "convert", tmp_path / "x") == 1
    assert "a source and a target are needed" in capsys.readouterr().err
    assert exit_status(monkeypatch, "convert", tmp_path / "x", tmp_path / "y", "--to", "saelens") == 1
    assert "x: no artifact there" in capsys.readouterr().err
    source = trained(tmp_path / "a")
    assert exit_status(monkeypatch, "convert", source, tmp_path / "y", "--to", "circuit-tracer") == 1
    assert "circuit-tracer: cannot hold this sae" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir() if "y" in path.name] == [".y.lock"]


def test_of_two_that_write_one_folder_the_second_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = trained(tmp_path / "dictionary"), tmp_path / "out"
    said: list[str] = []

    def meanwhile(draft: Path) -> None:
        write_json(draft / "mine.json", {})
        for verb in (
            ("convert", source, target, "--to", "saelens"),
            ("push", source, "me/x", "--dry-run", "--folder", target),
        ):
            assert exit_status(monkeypatch, *verb) == 1
            said.append(capsys.readouterr().err)
        assert [path.name for path in draft.iterdir()] == ["mine.json"]

    into_new_folder(target, meanwhile)
    assert said == [f"error: {target}: another process is making it; wait for that one, or name another folder\n"] * 2
    assert [path.name for path in target.iterdir()] == ["mine.json"]
    (tmp_path / ".two.partial").mkdir()
    (tmp_path / ".two.partial" / "left").touch()  # by a process that was killed
    assert exit_status(monkeypatch, "convert", source, tmp_path / "two", "--to", "saelens") == 0
    assert not (tmp_path / "two" / "left").exists()


@pytest.mark.parametrize("verb", ["convert", "push"])
def test_what_could_not_be_written_is_named(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    small_files: Callable[[int], None],
) -> None:  # fmt: skip
    source, target = trained(tmp_path / "dictionary"), tmp_path / "out"
    rest = [target, "--to", "saelens"] if verb == "convert" else ["me/tiny", "--dry-run", "--folder", target]
    small_files(300)
    assert exit_status(monkeypatch, verb, source, *rest) == 1
    said = capsys.readouterr().err
    assert said.startswith((f"error: {target}: the disk is full", f"error: {tmp_path}/.out.partial/"))
    assert "the disk is full; nothing half-written was kept" in said
    assert not target.exists()
    assert not (tmp_path / ".out.partial").exists()


def test_a_dry_push_writes_the_folder_and_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, evaluation = trained(tmp_path / "dictionary"), evaluated(tmp_path / "evaluation")
    monkeypatch.setattr(huggingface_hub, "HfApi", None)
    assert (
        exit_status(monkeypatch, "push", source, "me/tiny", "--dry-run", "--evaluation", evaluation, "--model", "me/lm")
        == 0
    )
    folder = tmp_path / "tiny-mohole"
    assert (
        capsys.readouterr().out
        == f"{folder}: ready to be uploaded to me/tiny; nothing was. README.md is its model card\n"
    )
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md", "dictionary.json", "dictionary.safetensors", "known_batch.safetensors",
    ]  # fmt: skip
    card = (folder / "README.md").read_text()
    assert card.startswith('---\nbase_model: "me/lm"\nlibrary_name: mohole\ntags:\n- mohole\n')
    for part in (
        "| of the language model | me/lm |", "| train.lr | 0.005 |", "| train.nonlinearity.k | 5 |", "| seed | 7 |",
        "| step | 900 |\n| fvu | 0.04321 |\n\n",
        "`resid_post.3`", "| latents | 48 |", "| nonlinearity | topk, k 5 |", "| training_rows | 12345 |",
        'mohole.load_dictionary("me/tiny", allow_download=True)',
        "| fvu | 0.0321 | 0.0301 to 0.0342 | fraction | 5000 rows | none | all but BOS | none |",
        "| ce recovered | undefined |", "a \\| b &lt;script>",
    ):  # fmt: skip
        assert part in card, part
    assert "sparsity |" not in card
    again = load_dictionary(folder)  # as somebody finds it on the hub: no manifest, proved by its known batch
    torch.testing.assert_close(again.latents.W_dec, load_dictionary(source).latents.W_dec)  # type: ignore[union-attr]
    assert json.loads((folder / "dictionary.json").read_text())["training"]["steps"] == 900


def pushed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], source: Path, name: str, *more: Any
) -> tuple[str, str]:
    """The card and what is said of it."""
    folder = source.parents[1] / name
    assert exit_status(monkeypatch, "push", source, "me/x", "--dry-run", "--folder", folder, *more) == 0
    return (folder / "README.md").read_text(), capsys.readouterr().err


def test_push_takes_the_model_and_the_evaluation_that_a_run_has_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "run" / "resid_post.3"
    source = trained(place / "dictionary")
    card, said = pushed(monkeypatch, capsys, source, "bare")
    assert "not recorded: ask who made it" in card
    assert "Measured on" not in card
    assert said == "note: the card names no language model; --model ID says whose activations these are\n"
    facts = json.loads((source / "dictionary.json").read_text())
    with artifact.create(source, artifact.Inputs(kind="dictionary", config={}, seed=7), replace=True) as draft:
        save(some_sae(TopK(k=5)), draft, training=facts["training"] | {"model": "planted"})
    own = {"dictionary": artifact.read_manifest(source).digest}
    evaluation = evaluated(place / "evaluation", parents=own)
    card, said = pushed(monkeypatch, capsys, source, "whole")
    assert "| of the language model | planted |" in card
    assert "base_model" not in card  # no name on the hub
    assert "| fvu | 0.0321 | 0.0301 to 0.0342 |" in card
    assert said == f"note: its measures in the card are those of {evaluation}\n"
    for folder in (str(place), "../lm", "user/name/more"):  # a stranger finds nothing there
        status = exit_status(monkeypatch, "push", source, "me/ours", "--dry-run", "--model", folder)
        assert (status, capsys.readouterr().err) == (
            1,
            f"error: --model {folder}: no name on the hub; give user/name, or leave it out\n",
        )
    card, _ = pushed(monkeypatch, capsys, source, "named", "--model", "me/lm")
    assert card.startswith('---\nbase_model: "me/lm"\n')
    with artifact.create(source, artifact.Inputs(kind="dictionary", config={}, seed=8), replace=True) as draft:
        save(some_sae(TopK(k=5), seed=1), draft, training={"model": "me/other"})
    card, said = pushed(monkeypatch, capsys, source, "stale")
    assert card.startswith('---\nbase_model: "me/other"\n')
    assert "Measured on" not in card
    assert said.startswith(
        f"note: {evaluation}: of another dictionary, or of these numbers before they were made again;"
    )


def test_push_uploads_the_folder_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[tuple[str, dict[str, Any]]] = []

    class Api:
        def create_repo(self, repo_id: str, **more: Any) -> None:
            calls.append(("create", {"repo_id": repo_id, **more}))

        def upload_folder(self, **more: Any) -> None:
            assert (Path(more["folder_path"]) / "README.md").is_file()
            calls.append(("upload", more))

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    source, folder = trained(tmp_path / "dictionary"), tmp_path / "out"
    assert exit_status(monkeypatch, "push", source, "me/tiny", "--to", "saelens", "--folder", folder, "--private") == 0
    assert [name for name, _ in calls] == ["create", "upload"]
    assert calls[0][1] == {"repo_id": "me/tiny", "private": True, "exist_ok": True}
    assert (calls[1][1]["repo_id"], calls[1][1]["folder_path"]) == ("me/tiny", folder)
    assert "https://huggingface.co/me/tiny" in capsys.readouterr().out
    assert "library_name: saelens" in (folder / "README.md").read_text()
    assert isinstance(load_dictionary(folder), SparseAutoencoder)


def test_the_hub_takes_what_is_asked_of_it() -> None:
    """The real class, whose methods a test cannot call: it has them, with these arguments."""
    api = huggingface_hub.HfApi
    inspect.signature(api.create_repo).bind(None, "me/tiny", private=True, exist_ok=True)
    inspect.signature(api.upload_folder).bind(None, repo_id="me/tiny", folder_path=Path("x"), commit_message="y")
    inspect.signature(api.list_repo_files).bind(None, "me/tiny")


def test_a_refused_upload_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Api:
        def upload_folder(self, **more: Any) -> None:
            raise AssertionError("there is no repository to upload to")

        def create_repo(self, repo_id: str, **more: Any) -> None:

            answer: Any = SimpleNamespace(headers={}, request=None)  # the hub's own type changes with its HTTP library
            raise HfHubHTTPError("401 Unauthorized\nmore", response=answer)

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    source = trained(tmp_path / "dictionary")
    assert exit_status(monkeypatch, "push", source, "me/tiny") == 1
    assert "me/tiny: not uploaded (401 Unauthorized); `hf auth login`" in capsys.readouterr().err
    for wrong in (
        "tiny", "me/tiny/more", "me/ti ny", "../..", "./.", "me/..", "me/a..b", "me/a--b", ".me/tiny", "me-/tiny", "me/-tiny",
        "me/tiny.git", "me/" + "a" * 97, "mé/tiny", "me/tiny\n",
    ):  # fmt: skip
        assert exit_status(monkeypatch, "push", source, wrong, "--dry-run") == 1
        assert "not a repository's name" in capsys.readouterr().err
    for right in ("me/tiny", "Me_2/a.b-c_", "m/T"):
        validate_repo_id(right)
        assert (
            exit_status(monkeypatch, "push", source, right, "--dry-run", "--folder", tmp_path / f"to-{right[-1]}") == 0
        )
    capsys.readouterr()
    other = evaluated(tmp_path / "other", "resid_post.9")
    assert exit_status(monkeypatch, "push", source, "me/two", "--dry-run", "--evaluation", other) == 1
    assert "of resid_post.9, and the dictionary is of resid_post.3" in capsys.readouterr().err


def test_a_hub_out_of_reach_is_not_a_matter_of_logging_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = trained(tmp_path / "dictionary")
    assert exit_status(monkeypatch, "push", source, "me/tiny") == 1  # HF_HUB_OFFLINE is set for all tests
    said = capsys.readouterr().err
    assert "me/tiny: not uploaded, HF_HUB_OFFLINE is set; unset it" in said
    assert "login" not in said
    for error in (HfHubHTTPError.__bases__[0]("[Errno -2] Name or service not known"), ConnectionRefusedError("no")):

        class Api:
            def upload_folder(self, **more: Any) -> None:
                raise AssertionError("there is no repository to upload to")

            def create_repo(self, repo_id: str, error: Exception = error, **more: Any) -> None:
                raise error

        monkeypatch.setattr(huggingface_hub, "HfApi", Api)
        assert exit_status(monkeypatch, "push", source, "me/tiny") == 1
        said = capsys.readouterr().err
        assert f"me/tiny: not uploaded, no answer from the hub ({error}); look at the network" in said
        assert "login" not in said
