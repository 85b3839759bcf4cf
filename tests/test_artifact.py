"""Artifacts: what is finished is whole, what is broken is named, what is killed leaves nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mohole import artifact
from mohole.artifact import Inputs
from mohole.errors import ArtifactError
from mohole.record import Recorder, write_json


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


def test_what_a_kill_between_two_renames_left_is_put_back_or_taken_away(tmp_path: Path) -> None:
    place, hidden = tmp_path / "a", tmp_path / ".a.replaced"
    make(place)
    place.rename(hidden)  # killed when the old one was out of the way and the new one not yet there
    with pytest.raises(ArtifactError, match="already there"):
        make(place, "new")
    assert (place / "a.txt").read_text() == "hello"
    assert not hidden.exists()
    make(tmp_path / "b", "whole")
    place.rename(hidden)
    (tmp_path / "b").rename(tmp_path / ".a.partial")  # as before, and the new one is known to be whole
    artifact.mend(place)
    assert (place / "a.txt").read_text() == "whole"
    assert not hidden.exists()
    make(tmp_path / "b", "old")
    (tmp_path / "b").rename(hidden)  # killed when the new one was there and the old one not yet gone
    replaced(place)
    assert (place / "a.txt").read_text() == "new"
    assert not hidden.exists()


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


def half_made(path: Path, **config: object) -> None:
    """A block that fails after its first file."""

    def fail() -> None:
        with artifact.create(path, inputs(**config), resume=True, bulk=("rows",)) as draft:
            (draft / f"first-{len(list(draft.glob('first-*')))}").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()


def test_a_failed_draft_is_there_again_for_the_same_inputs_and_leaves_no_mark_in_what_is_finished(
    tmp_path: Path,
) -> None:
    half_made(tmp_path / "x", k=1)
    half_made(tmp_path / "x", k=1)
    assert not (tmp_path / "x").exists()
    with artifact.create(tmp_path / "x", inputs(k=1), resume=True) as draft:
        assert {file.name for file in draft.glob("first-*")} == {"first-0", "first-1"}
    assert set(artifact.open_artifact(tmp_path / "x").files) == {"first-0", "first-1"}
    assert {file.name for file in (tmp_path / "x").iterdir()} == {"first-0", "first-1", "manifest.json"}


@pytest.mark.parametrize(("config", "resume"), [({"k": 2}, True), ({"k": 1}, False)])
def test_a_failed_draft_is_dropped_for_other_inputs_and_by_who_does_not_resume(
    tmp_path: Path, config: dict[str, int], resume: bool
) -> None:
    half_made(tmp_path / "x", k=1)
    with artifact.create(tmp_path / "x", inputs(**config), resume=resume) as draft:
        assert not list(draft.glob("first-*"))


def test_a_draft_that_nobody_may_resume_is_not_taken_up(tmp_path: Path) -> None:
    (tmp_path / ".x.partial").mkdir()
    (tmp_path / ".x.partial" / "first-0").write_text("whose?")
    with artifact.create(tmp_path / "x", inputs(), resume=True) as draft:
        assert not list(draft.glob("first-*"))


def with_bulk(path: Path, rows: str, *, replace: bool = False) -> artifact.Manifest:
    with artifact.create(path, inputs(), replace=replace, bulk=("rows", "layout.json")) as draft:
        (draft / "rows").mkdir()
        (draft / "rows" / "0").write_text(rows)
        (draft / "layout.json").write_text(rows)
        (draft / "a.txt").write_text("same")
    return artifact.open_artifact(path)


def test_bulk_is_in_no_manifest_so_how_it_is_cut_does_not_change_what_it_is(tmp_path: Path) -> None:
    one, other = with_bulk(tmp_path / "x", "0123"), with_bulk(tmp_path / "y", "01 23")
    assert set(one.files) == {"a.txt"}
    assert one.bulk == ("rows", "layout.json")
    assert one.digest == other.digest
    (tmp_path / "x" / "rows" / "0").write_text("its owner looks after it")
    artifact.open_artifact(tmp_path / "x")
    with_bulk(tmp_path / "x", "again", replace=True)  # bulk is ours, and may be replaced
    assert (tmp_path / "x" / "rows" / "0").read_text() == "again"


def test_a_reopened_artifact_is_unfinished_and_goes_on_as_it_was(tmp_path: Path) -> None:
    before = with_bulk(tmp_path / "x", "0123")
    artifact.reopen(tmp_path / "x")
    assert not (tmp_path / "x").exists()
    with pytest.raises(ArtifactError, match="no artifact there"):
        artifact.reopen(tmp_path / "x")
    with artifact.create(tmp_path / "x", inputs(), resume=True, bulk=("rows", "layout.json")) as draft:
        assert (draft / "rows" / "0").read_text() == "0123"
        assert not (draft / "manifest.json").exists()
    assert artifact.open_artifact(tmp_path / "x").digest == before.digest


def test_an_artifact_that_is_being_made_is_not_reopened(tmp_path: Path) -> None:
    make(tmp_path / "x")
    with artifact.create(tmp_path / "x", inputs(), replace=True) as draft:
        (draft / "a.txt").write_text("new")
        with pytest.raises(ArtifactError, match="another process is making it"):
            artifact.reopen(tmp_path / "x")
    assert (tmp_path / "x" / "a.txt").read_text() == "new"


@pytest.mark.parametrize("resume", [False, True])
def test_a_draft_whose_first_file_cannot_be_written_is_named(
    tmp_path: Path, small_files: Callable[[int], None], resume: bool
) -> None:
    def record() -> None:
        with (
            artifact.create(tmp_path / "x", inputs(), resume=resume) as draft,
            Recorder(draft / "record.jsonl") as record,
        ):
            record.write(step=1)

    small_files(0)
    with pytest.raises(OSError, match="too large") as caught:
        record()
    assert caught.value.filename == str(tmp_path / ("x" if resume else ".x.partial/record.jsonl"))


def test_json_that_cannot_be_written_is_named(tmp_path: Path, small_files: Callable[[int], None]) -> None:
    small_files(0)
    with pytest.raises(OSError, match="too large") as caught:
        write_json(tmp_path / "facts.json", {"a": 1})
    assert caught.value.filename == str(tmp_path / "facts.json")


def begun(path: Path, *, replace: bool = False, worth: tuple[str, ...] = ("steps/*.json",), **config: object) -> Path:
    """A block that is interrupted when it has made a step worth keeping. Returns its folder."""

    def interrupted() -> None:
        with artifact.create(path, inputs(**config), replace=replace, resume=True, worth=worth) as draft:
            (draft / "steps").mkdir()
            (draft / "steps" / "1.json").write_text("an hour")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    return path.parent / f".{path.name}.partial"


@pytest.mark.parametrize("resume", [True, False])
def test_a_draft_that_cost_work_is_not_taken_away_for_other_inputs(tmp_path: Path, resume: bool) -> None:
    draft = begun(tmp_path / "x", k=1)
    with (
        pytest.raises(
            ArtifactError,
            match=r"\.x\.partial: begun with other settings and not finished \(k: 1 there, 2 asked for\); "
            r"give those to go on, --replace or delete it to start over$",
        ),
        artifact.create(tmp_path / "x", inputs(k=2), resume=resume),
    ):
        pass
    assert (draft / "steps" / "1.json").read_text() == "an hour"
    with artifact.create(tmp_path / "x", inputs(k=1), resume=True) as again:
        assert (again / "steps" / "1.json").read_text() == "an hour"


def test_a_draft_that_cost_work_is_taken_away_when_it_is_asked_for(tmp_path: Path) -> None:
    begun(tmp_path / "x", k=1)
    with artifact.create(tmp_path / "x", inputs(k=2), resume=True, replace=True) as draft:
        assert {file.name for file in draft.iterdir()} == {"draft-of"}


def test_a_draft_without_anything_to_go_on_from_is_in_nobodys_way(tmp_path: Path) -> None:
    begun(tmp_path / "x", worth=("checkpoints/*.json",), k=1)
    with artifact.create(tmp_path / "x", inputs(k=2), resume=True) as draft:
        assert not (draft / "steps").exists()


@pytest.mark.parametrize("mark", [b"\xff", b"", b"[]", b"{}", b"0" * 32, b"[" * 100_000, "flip"])
def test_a_draft_with_a_damaged_mark_is_named(tmp_path: Path, mark: bytes | str) -> None:
    draft = begun(tmp_path / "x", k=1)
    whole = (draft / "draft-of").read_bytes()
    (draft / "draft-of").write_bytes(whole.replace(b'"k": 1', b'"k": 3') if isinstance(mark, str) else mark)
    with (
        pytest.raises(ArtifactError, match=r"partial: not finished, and its draft-of is damaged or of another version"),
        artifact.create(tmp_path / "x", inputs(k=1), resume=True),
    ):
        pass
    assert (draft / "steps" / "1.json").read_text() == "an hour"
    (draft / "steps" / "1.json").unlink()  # killed in the middle of writing the mark: nothing to lose
    with artifact.create(tmp_path / "x", inputs(k=1), resume=True):
        pass


def test_a_mark_of_an_older_version_still_says_whose_the_draft_is(tmp_path: Path) -> None:
    draft = begun(tmp_path / "x", k=1)
    (draft / "draft-of").write_text(inputs(k=1).digest())
    with artifact.create(tmp_path / "x", inputs(k=1), resume=True) as again:
        assert (again / "steps" / "1.json").exists()


def test_reopening_does_not_cost_an_unfinished_one(tmp_path: Path) -> None:
    with_bulk(tmp_path / "x", "0123")
    draft = begun(tmp_path / "x", replace=True, worth=("steps/*",), k=9)
    with pytest.raises(ArtifactError, match=r"\.x\.partial: begun and not finished; give the settings .* or delete it"):
        artifact.reopen(tmp_path / "x")
    assert (draft / "steps" / "1.json").exists()
    assert artifact.open_artifact(tmp_path / "x").kind == "thing"
