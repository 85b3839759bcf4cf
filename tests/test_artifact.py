"""Artifacts: what is finished is whole, what is broken is named, what is killed leaves nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mohole import artifact
from mohole.artifact import Inputs
from mohole.errors import ArtifactError


def inputs(**config: object) -> Inputs:
    return Inputs(kind="thing", config=config, seed=3, parents={"corpus": "abc"})


def make(path: Path, text: str = "hello", **config: object) -> None:
    with artifact.create(path, inputs(**config)) as draft:
        (draft / "a.txt").write_text(text)
        (draft / "sub").mkdir()
        (draft / "sub" / "b.txt").write_text("b")


def test_what_was_made_is_read_back(tmp_path: Path) -> None:
    make(tmp_path / "x", k=1)
    manifest = artifact.open_artifact(tmp_path / "x", kind="thing")
    assert set(manifest.files) == {"a.txt", "sub/b.txt"}
    assert manifest.inputs == inputs(k=1)
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == ["x"]


def test_the_same_inputs_and_bytes_give_the_same_digest(tmp_path: Path) -> None:
    make(tmp_path / "x", k=1)
    make(tmp_path / "y", k=1)
    assert artifact.read_manifest(tmp_path / "x").digest == artifact.read_manifest(tmp_path / "y").digest


def test_other_bytes_or_settings_give_another_digest(tmp_path: Path) -> None:
    make(tmp_path / "x", k=1)
    make(tmp_path / "y", "other", k=1)
    make(tmp_path / "z", k=2)
    assert len({artifact.read_manifest(tmp_path / name).digest for name in "xyz"}) == 3


@pytest.mark.parametrize(
    ("changed", "same"),
    [
        (inputs(k=1), True),
        (inputs(k=2), False),
        (Inputs(kind="thing", config={"k": 1}, seed=4, parents={"corpus": "abc"}), False),
        (Inputs(kind="thing", config={"k": 1}, seed=3, parents={"corpus": "abd"}), False),
        (Inputs(kind="thing", config={"k": 1}, seed=3, parents={"corpus": "abc"}, version=2), False),
    ],
)
def test_finished_means_made_from_exactly_these_inputs(tmp_path: Path, changed: Inputs, same: bool) -> None:
    make(tmp_path / "x", k=1)
    assert artifact.is_finished(tmp_path / "x", changed) is same


def test_the_first_difference_is_named(tmp_path: Path) -> None:
    make(tmp_path / "x", train={"k": 1, "steps": 3})
    assert artifact.difference(tmp_path / "x", inputs(train={"k": 2, "steps": 3})) == "train.k: 1 there, 2 asked for"


def test_a_failing_stage_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with artifact.create(tmp_path / "x", inputs()) as draft:
            (draft / "half.txt").write_text("half")
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == [".x.lock"]


def test_a_killed_stage_leaves_nothing_that_looks_finished_and_can_be_made_again(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom mohole import artifact\n"
        "with artifact.create(Path(sys.argv[1]), artifact.Inputs(kind='thing', config={}, seed=3)) as draft:\n"
        "    (draft / 'half.txt').write_text('half')\n    print('ready', flush=True)\n    time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "x")], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    with pytest.raises(ArtifactError, match="another process is making it"):
        make(tmp_path / "x")
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not (tmp_path / "x").exists()
    with pytest.raises(ArtifactError, match="no artifact there"):
        artifact.open_artifact(tmp_path / "x")
    make(tmp_path / "x")
    assert not (tmp_path / "x" / "half.txt").exists()


def test_a_taken_place_is_not_overwritten(tmp_path: Path) -> None:
    make(tmp_path / "x", "old")
    with pytest.raises(ArtifactError, match="already there"):
        make(tmp_path / "x", "new")
    assert (tmp_path / "x" / "a.txt").read_text() == "old"


def test_replacing_takes_the_old_one_away_only_when_the_new_one_is_whole(tmp_path: Path) -> None:
    make(tmp_path / "x", "old")
    with pytest.raises(RuntimeError), artifact.create(tmp_path / "x", inputs(), replace=True):
        raise RuntimeError
    assert (tmp_path / "x" / "a.txt").read_text() == "old"
    with artifact.create(tmp_path / "x", inputs(), replace=True) as draft:
        (draft / "a.txt").write_text("new")
    artifact.open_artifact(tmp_path / "x")
    assert (tmp_path / "x" / "a.txt").read_text() == "new"


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_damage_is_found_and_the_file_is_named(tmp_path: Path, damage: str) -> None:
    make(tmp_path / "x")
    file = tmp_path / "x" / "a.txt"
    match damage:
        case "flip":
            file.write_bytes(b"hellp")
        case "truncate":
            os.truncate(file, 3)
        case _:
            file.unlink()
    with pytest.raises(ArtifactError, match=r"a\.txt.*make it again"):
        artifact.open_artifact(tmp_path / "x")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"schema": 2}', '{"schema": 2, "kind": "x", "inputs": [], "files": {}}', "\xff"]
)
def test_a_damaged_manifest_is_named(tmp_path: Path, text: str) -> None:
    make(tmp_path / "x")
    (tmp_path / "x" / "manifest.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ArtifactError, match=r"manifest\.json: damaged"):
        artifact.read_manifest(tmp_path / "x")


def test_a_later_format_is_refused(tmp_path: Path) -> None:
    make(tmp_path / "x")
    file = tmp_path / "x" / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"schema": 99}))
    with pytest.raises(ArtifactError, match="format 99"):
        artifact.read_manifest(tmp_path / "x")


def test_another_kind_is_refused(tmp_path: Path) -> None:
    make(tmp_path / "x")
    with pytest.raises(ArtifactError, match="holds 'thing', not 'corpus'"):
        artifact.open_artifact(tmp_path / "x", kind="corpus")


def test_no_time_and_no_place_is_in_a_manifest(tmp_path: Path) -> None:
    make(tmp_path / "x")
    text = (tmp_path / "x" / "manifest.json").read_text()
    assert str(tmp_path) not in text
    assert time.strftime("%Y") not in text


def replaced(path: Path) -> None:
    with artifact.create(path, inputs(), replace=True) as draft:
        (draft / "a.txt").write_text("new")


def test_what_mohole_did_not_make_is_never_replaced(tmp_path: Path) -> None:
    foreign = tmp_path / "corpus"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("years of work")
    with pytest.raises(ArtifactError, match=r"corpus: not made by mohole, so not replaced"):
        replaced(foreign)
    assert (foreign / "thesis.txt").read_text() == "years of work"


def test_a_file_put_into_an_artifact_by_somebody_is_not_taken_away_with_it(tmp_path: Path) -> None:
    make(tmp_path / "a")
    (tmp_path / "a" / "notes.txt").write_text("mine")
    with pytest.raises(ArtifactError, match="not made by mohole"):
        replaced(tmp_path / "a")
    assert (tmp_path / "a" / "notes.txt").read_text() == "mine"


def test_a_link_is_not_replaced(tmp_path: Path) -> None:
    make(tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(ArtifactError, match="link: a link, which is not replaced"):
        replaced(tmp_path / "link")
    assert artifact.open_artifact(tmp_path / "real").kind


@pytest.mark.parametrize("damage", ["truncated", "deleted"])
def test_an_artifact_without_all_its_bytes_is_not_finished(tmp_path: Path, damage: str) -> None:
    make(tmp_path / "a")
    inputs = artifact.read_manifest(tmp_path / "a").inputs
    assert artifact.is_finished(tmp_path / "a", inputs)
    name = next(iter(artifact.read_manifest(tmp_path / "a").files))
    file = tmp_path / "a" / name
    if damage == "deleted":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ArtifactError, match=name):
        artifact.is_finished(tmp_path / "a", inputs)
