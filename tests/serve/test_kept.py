"""Indices that take long are made once, by one process; they are of the artifacts they are named by, and never half there."""

import logging
import multiprocessing
import shutil
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mohole.serve import kept
from mohole.serve.finders import Hit, Index
from mohole.serve.kept import FOLDER, Kept
from mohole.serve.queries import FeaturesAsk, SearchAsk
from mohole.serve.runs import OpenHookpoint, open_runs
from mohole.serve.searching import Searcher

Arrays = Mapping[str, NDArray[np.generic]]


def never() -> Arrays:
    raise AssertionError("it is there already")


def some(value: int) -> Arrays:
    return {"column": np.full(5, value), "nothing": np.zeros((0, 3), dtype=np.float32)}


class NoHits:
    """Satisfies `Index`."""

    def search(self, query: str, limit: int) -> list[Hit]:
        return []


def test_a_search_does_not_wait_for_an_index_of_another_dictionary() -> None:
    searcher, begun, may_end = Searcher(), threading.Event(), threading.Event()
    ready = NoHits()

    def slowly() -> Index:
        begun.set()
        assert may_end.wait(20)
        return NoHits()

    slow = threading.Thread(target=lambda: searcher._kept(("labels", "large"), slowly))
    slow.start()
    assert begun.wait(20)
    other = threading.Thread(target=lambda: searcher._kept(("labels", "small"), lambda: ready))
    other.start()
    other.join(5)
    is_waiting = other.is_alive()
    may_end.set()
    slow.join()
    other.join()
    assert not is_waiting
    assert searcher._kept(("labels", "small"), NoHits) is ready


def test_what_is_made_is_there_for_the_next_process(tmp_path: Path) -> None:
    made = Kept(tmp_path).arrays("words", ["a"], lambda: some(7))
    found = Kept(tmp_path).arrays("words", ["a"], never)
    for name, array in some(7).items():
        np.testing.assert_array_equal(found[name], array)
        np.testing.assert_array_equal(made[name], array)
        assert found[name].dtype == array.dtype
    assert not found["column"].flags.owndata, "mapped, not read"
    with pytest.raises(ValueError, match="read-only"):
        found["column"][0] = 1


def test_of_another_artifact_it_is_made_again_and_the_old_one_goes(tmp_path: Path) -> None:
    before = Kept(tmp_path).arrays("words", ["a"], lambda: some(1))
    Kept(tmp_path).arrays("map", ["a"], lambda: some(2))
    assert Kept(tmp_path).arrays("words", ["b"], lambda: some(3))["column"][0] == 3
    assert sorted(path.name.split("-")[0] for path in (tmp_path / FOLDER).glob("*.safetensors")) == ["map", "words"]
    assert before["column"][0] == 1, "who has it open keeps it"


def test_a_damaged_or_half_written_file_is_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Kept(tmp_path).arrays("words", ["a"], lambda: some(1))
    (file,) = (tmp_path / FOLDER).glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-9])
    (tmp_path / FOLDER / ".words.partial").write_bytes(b"of one that was killed")
    with caplog.at_level(logging.WARNING):
        assert Kept(tmp_path).arrays("words", ["a"], lambda: some(4))["column"][0] == 4
    assert "made again" in caplog.text
    assert Kept(tmp_path).arrays("words", ["a"], never)["column"][0] == 4


@pytest.mark.parametrize("fault", ["no folder", "full disk"])
def test_where_nothing_can_be_written_it_is_made_in_memory_and_said_once(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(path: Path, arrays: Arrays) -> None:
        path.write_bytes(b"some of it")
        raise OSError(28, "No space left on device", str(path))

    if fault == "no folder":
        (tmp_path / FOLDER).write_text("in its way")
    else:
        monkeypatch.setattr(kept, "write_tensors", full)
    here = Kept(tmp_path)
    with caplog.at_level(logging.WARNING):
        assert here.arrays("words", ["a"], lambda: some(5))["column"][0] == 5
        assert here.arrays("map", ["a"], lambda: some(6))["column"][0] == 6
    assert len(caplog.records) == 1
    assert str(tmp_path / FOLDER) in caplog.text
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".partial", ".safetensors")]


def test_what_cannot_be_made_is_no_question_of_writing(tmp_path: Path) -> None:
    def unreadable() -> Arrays:
        raise OSError(5, "Input/output error", "block 3")

    with pytest.raises(OSError, match="block 3"):
        Kept(tmp_path).arrays("words", ["a"], unreadable)


def _make_slowly(folder: Path, log: Path) -> None:
    def make() -> Arrays:
        with log.open("a") as file:
            file.write("made\n")
        time.sleep(0.3)
        return some(1)

    Kept(folder).arrays("words", ["a"], make)


def test_of_several_processes_one_makes_it(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    workers = [fork.Process(target=_make_slowly, args=(tmp_path, tmp_path / "log")) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert (tmp_path / "log").read_text() == "made\n"


def _place(run: Path) -> OpenHookpoint:
    return next(iter(next(iter(open_runs([run]).runs.values())).hookpoints.values()))


def test_a_second_server_answers_as_the_first_without_looking_at_all_labels(
    pristine_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = shutil.copytree(pristine_run, tmp_path / "run")
    asks = [SearchAsk(q="bridge"), SearchAsk(q="brigde"), SearchAsk(q="the", by="token")]
    listed = [FeaturesAsk(sort="label", which="all"), FeaturesAsk(q="ri")]

    def answers() -> list[object]:
        place, searcher = _place(run), Searcher()
        return [
            *(searcher.search(place, ask) for ask in asks),
            *(place.columns.select(ask, place.by_hand, place.run.people.edition).tolist() for ask in listed),
        ]

    first = answers()
    assert {path.name.split("-")[0] for path in (_place(run).folder / FOLDER).glob("*.safetensors")} == {
        "words",
        "tokens",
        "texts",
    }
    monkeypatch.setattr(kept.Kept, "_write", lambda *_: pytest.fail("made again"))
    assert answers() == first
    place = _place(run)
    place.run.people.put_label(place.dictionary, place.name, 3, "a quite unheard-of name")
    found = Searcher().search(place, SearchAsk(q="unheard-of"))
    assert [hit["feature"]["latent"] for hit in found["hits"]][:1] == [3], "labels by hand are found at once"
