"""The file of what people write: several writers at once, a server killed at any moment, a file that is none."""

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from mohole.errors import ArtifactError
from mohole.serve.errors import Refusal
from mohole.serve.people import PEOPLE_FILE, Member, People

WRITER = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from mohole.serve.people import People
    people, who, n = People(Path(sys.argv[1])), sys.argv[2], int(sys.argv[3])
    print("ready", flush=True)
    sys.stdin.readline()
    for i in range(n):
        people.add_note("d", "resid_post.0", 1, f"{who} {i}")
        people.put_label("d", "resid_post.0", i % 50, f"{who} {i}")
        print(i, flush=True)
    """
)


def start(run: Path, who: str, n: int) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(run), who, str(n)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def begin(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def test_two_processes_lose_none_of_each_others_notes(tmp_path: Path) -> None:
    """Both make the file, both write; a third, which reads, sees every moment whole."""
    writers, n = [start(tmp_path, who, 60) for who in "ab"], 60
    people = People(tmp_path)
    for writer in writers:
        begin(writer)
    editions = []
    while any(writer.poll() is None for writer in writers):
        editions.append(people.edition)
    for writer in writers:
        writer.communicate()
        assert writer.returncode == 0
    texts = [note.text for note in people.notes("d", 1)]
    assert sorted(texts) == sorted(f"{who} {i}" for who in "ab" for i in range(n))
    assert [text for text in texts if text[0] == "a"] == [f"a {i}" for i in range(n)], "each in its order"
    assert people.edition == 4 * n
    assert editions == sorted(editions)
    assert len(people.labels("d")) == 50
    people.close()


def test_a_killed_writer_loses_nothing_it_has_acknowledged(tmp_path: Path) -> None:
    acknowledged = 0
    for attempt in range(3):
        writer = start(tmp_path, f"k{attempt}", 10_000)
        assert writer.stdout is not None
        begin(writer)
        for _ in range(5 + 7 * attempt):
            writer.stdout.readline()
            acknowledged += 1
        os.kill(writer.pid, signal.SIGKILL)
        acknowledged += len(writer.stdout.readlines())
        writer.communicate()
        people = People(tmp_path)
        notes = people.notes("d", 1)
        assert len(notes) >= acknowledged
        assert people.edition >= 2 * acknowledged
        people.add_note("d", "resid_post.0", 2, "the next one can write")
        people.close()
        with sqlite3.connect(tmp_path / PEOPLE_FILE) as file:
            assert file.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert file.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        file.close()
        acknowledged = len(notes)


def test_nothing_appears_until_something_is_written(tmp_path: Path) -> None:
    people = People(tmp_path)
    assert (people.edition, people.all_lists(), people.notes("d", 1)) == (0, {}, [])
    assert (people.delete_note(1), people.delete_label("d", 1), people.delete_list("mine")) == (False, False, False)
    assert list(tmp_path.iterdir()) == []
    people.add_note("d", "resid_post.0", 1, "x")
    assert people.edition == 1
    people.close()


def test_what_was_written_is_read_where_nothing_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what a killed server has left in its log. Nothing appears beside the file: SQLite alone would fail there."""
    source = tmp_path / "source"
    source.mkdir()
    writer = People(source)
    writer.put_label("d", "resid_post.0", 3, "in the log")
    run = tmp_path / "run"
    run.mkdir()
    for end in ("", "-wal"):
        (run / (PEOPLE_FILE + end)).write_bytes((source / (PEOPLE_FILE + end)).read_bytes())
    writer.close()
    monkeypatch.setattr("mohole.serve.people.os.access", lambda path, mode: False)
    people = People(run)
    assert people.labels("d") == {3: "in the log"}
    people.close()
    assert people.labels("d") == {3: "in the log"}, "opened again"
    people.close()
    assert sorted(file.name for file in run.iterdir()) == [PEOPLE_FILE, f"{PEOPLE_FILE}-wal"]


def test_a_change_that_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    people, member = People(tmp_path), Member("d", "resid_post.0", 1)
    people.put_list("mine", [member])
    with pytest.raises(OverflowError):
        people.put_list("mine", [member, Member("d", "resid_post.0", 2**70)])
    assert people.members_of("mine") == [member]
    people.put_list("other", [])
    assert (people.edition, people.members_of("mine")) == (2, [member])
    people.close()


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / PEOPLE_FILE).write_bytes(b"not a database" * 100)
    with pytest.raises(ArtifactError, match=PEOPLE_FILE):
        People(tmp_path)


def test_a_file_of_a_later_version_is_left_alone(tmp_path: Path) -> None:
    file = sqlite3.connect(tmp_path / PEOPLE_FILE)
    file.execute("PRAGMA user_version = 99")
    file.close()
    with pytest.raises(ArtifactError, match="of schema 99"):
        People(tmp_path)


def test_a_busy_file_is_said_to_be_busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mohole.serve.people._BUSY_SECONDS", 0.05)
    people = People(tmp_path)
    people.add_note("d", "resid_post.0", 1, "x")
    other = sqlite3.connect(tmp_path / PEOPLE_FILE, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Refusal, match="locked") as refused:
        people.add_note("d", "resid_post.0", 1, "y")
    assert (refused.value.status, refused.value.headers) == (503, {"Retry-After": "2"})
    assert [note.text for note in people.notes("d", 1)] == ["x"], "readers do not wait"
    other.execute("ROLLBACK")
    other.close()
    people.add_note("d", "resid_post.0", 1, "y")
    assert people.edition == 2
    people.close()
