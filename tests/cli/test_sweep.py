"""The verb `sweep` as a user meets it: from a recipe to a table, logged, skipped the second time, refused when it is another."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.cli.test_cli import TINY
from tests.conftest import exit_status

from mohole import load_dictionary
from mohole.config import read_recipe
from mohole.errors import ArtifactError
from mohole.job import run_verb
from mohole.record import read_record

Mohole = Callable[..., tuple[int, str, str]]
GRID = ["-o", "sweep.n_latents=[32, 64]", "-o", "train.log_every=3", "-o", "train.evaluate_every=6"]


@pytest.fixture
def mohole(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Mohole:
    def call(*arguments: object) -> tuple[int, str, str]:
        status = exit_status(monkeypatch, *arguments)
        out, err = capfd.readouterr()
        return status, out, err

    return call


def test_train_learns_all_dictionaries_that_a_recipe_lists(mohole: Mohole, tmp_path: Path) -> None:
    run, recipe = tmp_path / "run", tmp_path / "tiny.toml"
    tables = "".join(f'\n[[train.dictionary]]\nname = "w{n}"\nn_latents = {n}\n' for n in (32, 48))
    recipe.write_text(TINY.format(run=run) + tables, encoding="utf-8")
    status, out, err = mohole("train", recipe, "-o", "train.evaluate_every=0")
    assert status == 0, err
    assert "w32" in out
    assert "w48" in out
    assert sorted(path.parent.name for path in (run / "sweep" / "resid_post.0").glob("*/dictionary.json")) == [
        "w32",
        "w48",
    ]
    assert not (run / "resid_post.0" / "dictionary").exists()
    assert "nothing to do" in mohole("sweep", recipe, "-o", "train.evaluate_every=0")[1]

    member = run / "sweep" / "resid_post.0" / "w48"  # is a dictionary, to be read wherever one is
    assert load_dictionary(member).n_latents == 48
    assert mohole("convert", member, tmp_path / "theirs", "--to", "saelens")[0] == 0
    assert mohole("push", member, "me/ours", "--dry-run")[0] == 0
    assert (run / "sweep" / "ours-mohole" / "README.md").is_file()  # not among the sweep's own files
    weights = member / "dictionary.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(ArtifactError, match=r"w48/dictionary\.safetensors: checksum is wrong"):
        load_dictionary(member)
    (member.parent / "manifest.json").unlink()
    with pytest.raises(ArtifactError, match=r"w48: no manifest\.json, so not a finished artifact"):
        load_dictionary(member)


def stages(run: Path) -> list[str]:
    return [line["stage"] for line in map(json.loads, (run / "job.jsonl").read_text().splitlines())]


def test_a_sweep_from_a_recipe_to_its_table(mohole: Mohole, tmp_path: Path) -> None:
    run, recipe = tmp_path / "run", tmp_path / "tiny.toml"
    recipe.write_text(TINY.format(run=run), encoding="utf-8")
    status, out, err = mohole("sweep", recipe, *GRID)
    assert status == 0, err
    assert "n32" in out
    assert "n64" in out
    assert stages(run) == ["corpus", "harvest", "sweep resid_post.0"]
    line = json.loads((run / "job.jsonl").read_text().splitlines()[-1])
    assert line["cpu_seconds"] > 0
    assert line["wall_seconds"] > 0
    assert "sweep resid_post.0: done in" in err

    # A member is what `mohole train` makes of its settings, what it lost in the model included.
    train = ["train.n_latents=64", "train.log_every=3", "train.evaluate_every=6"]
    told: list[str] = []
    run_verb(read_recipe(recipe, train), "train", say=told.append)
    last = read_record(run / "resid_post.0" / "dictionary" / "record.jsonl")[-1]
    assert f"last batch: fvu {last['fvu']:.4f}, l0 {last['l0']:.1f}, dead 0; a step took" in told[-1]
    shown = " ".join(mohole("show", run / "resid_post.0" / "dictionary")[1].split())
    assert "step 12, rows 3,072, dead 0, fvu" in shown
    assert "excess_ce" in shown
    alone, member = run / "resid_post.0" / "dictionary", run / "sweep" / "resid_post.0" / "n64"
    for name in ("dictionary.safetensors", "record.jsonl", "in_model.json", "statistics.safetensors"):
        assert (member / name).read_bytes() == (alone / name).read_bytes()
    asked = {line["step"]: line for line in read_record(member / "record.jsonl") if "ce_recovered" in line}
    assert list(asked) == [6, 12]
    assert asked[6]["ce_recovered"] < asked[12]["ce_recovered"] < 1

    status, out, err = mohole("plot", run / "sweep" / "resid_post.0")
    page = run / "sweep" / "training.html"
    assert (status, out.split(" pictures of ")[1]) == (0, f"2 trainings: {page}\n"), err
    assert "CE recovered, mean ablation" in page.read_text(encoding="utf-8")
    assert mohole("plot", run, "--out", tmp_path / "one.svg")[1].endswith(f"1 training: {tmp_path / 'one.svg'}\n")
    status, _, err = mohole("plot", run / "corpus")
    assert (
        status,
        err.splitlines()[-1].endswith("holds no record of a training; `mohole train RECIPE` makes one"),
    ) == (1, True)

    status, out, err = mohole("sweep", recipe, *GRID)
    assert status == 0, err
    assert "there already, made from the same settings; nothing to do" in out
    assert stages(run)[3:] == ["train resid_post.0"]
    status, _, err = mohole("sweep", recipe, *GRID, "-o", "train.lr=0.001")
    assert status == 1
    assert err.splitlines()[-1].startswith(f"error: {run / 'sweep' / 'resid_post.0'}: made with other settings")
    assert stages(run)[3:] == ["train resid_post.0"]
    status, _, err = mohole("sweep", recipe)
    assert status == 1
    assert "sweep: no members" in err.splitlines()[-1]
