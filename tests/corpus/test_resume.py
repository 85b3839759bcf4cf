"""A killed build goes on: whatever instant it was killed at, the finished files are those of an undisturbed build."""

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.corpus import killed
from tests.corpus.killed import Letters

from mohole.corpus import Document, Span, build_corpus
from mohole.corpus import build as corpus_build
from mohole.corpus.parts import PROGRESS, Parts
from mohole.corpus.sample import first_equal, first_twins
from mohole.errors import CorpusError

ROOT = Path(__file__).resolve().parents[2]


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def source_of(kind: str, folder: Path) -> str:
    stories = [f"story {i} " * (1 + i % 23) for i in range(600)]
    path = folder / f"stories.{kind}"
    if kind == "jsonl":
        path.write_text("".join(json.dumps({"text": story}) + "\n" for story in stories), encoding="utf-8")
    else:
        path.write_text("\n\n".join(stories), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("kind", ["txt", "jsonl", "planted"])
def test_a_build_killed_again_and_again_gives_the_bytes_of_an_undisturbed_one(kind: str, tmp_path: Path) -> None:
    source, out = source_of(kind, tmp_path), tmp_path / "out"
    killed.build(kind, tmp_path / "whole", source)
    chance, n_committed = random.Random(kind), [0]
    for _ in range(3):
        builder = subprocess.Popen([sys.executable, "-m", "tests.corpus.killed", kind, str(out), source], cwd=ROOT)
        deadline = time.monotonic() + 60
        while builder.poll() is None and time.monotonic() < deadline and committed(out) <= n_committed[-1]:
            time.sleep(0.002)
        time.sleep(chance.random() * 0.05)
        builder.kill()
        builder.wait()
        n_committed.append(committed(out))
    assert n_committed == sorted(n_committed)
    assert 0 < n_committed[1] < n_committed[-1]  # it went on, and not from the start
    killed.build(kind, out, source)
    assert contents(out) == contents(tmp_path / "whole")
    assert set(contents(out)) == {"corpus.safetensors", "corpus.json"}


def committed(out: Path) -> int:
    """Documents committed by the build in `out`: many, once it is whole and has taken its progress away."""
    try:
        return int(json.loads((out / PROGRESS).read_text(encoding="utf-8"))["facts"]["n_documents"])
    except FileNotFoundError:
        return 10**9 if (out / "corpus.json").exists() else 0


class Killed(BaseException):
    """Stands for the end of the process: nobody catches it."""


def documents() -> list[Document]:
    texts = [chr(97 + i % 26) * (2 + i % 9) for i in range(40)] + ["", "xy" * 30]
    return [Document(t, (Span(0, 3, f"label{i % 5}", every=True), Span(1, 2, "all"))) for i, t in enumerate(texts)]


def until(n: int, of: list[Document]) -> Iterator[Document]:
    yield from of[:n]
    raise Killed


def build(out: Path, given: Iterator[Document] | list[Document], **options: int) -> None:
    build_corpus(out, given, Letters(), context=4, has_bos=False, held_out=0.4, seed=3, **options)


@settings(max_examples=25)
@given(ends=st.lists(st.integers(0, 42), max_size=4), commits=st.integers(1, 7), litter=st.binary(max_size=9))
def test_what_stands_beyond_the_last_commit_is_forgotten(ends: list[int], commits: int, litter: bytes) -> None:
    """Killed after any document, between commits, with half-written bytes at the ends of its parts."""
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        whole, out = Path(folder) / "whole", Path(folder) / "out"
        whole.mkdir()
        out.mkdir()
        build(whole, documents())
        clock = iter(range(10**6))
        patch.setattr(corpus_build.time, "monotonic", lambda: next(clock))
        patch.setattr(corpus_build, "COMMIT_SECONDS", commits)
        for end in ends:
            with pytest.raises(Killed):
                build(out, until(end, documents()))
            for part in out.glob("*.part"):
                part.write_bytes(part.read_bytes() + litter)
        build(out, documents())
        assert contents(out) == contents(whole)


@pytest.mark.parametrize("where", ["_check_size", "_held_out", "_assemble", "write_json", "settle", "remove_parts"])
def test_a_build_killed_while_it_puts_the_parts_together_reads_nothing_again(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("whole", "out"):
        (tmp_path / name).mkdir()
    build(tmp_path / "whole", documents())

    def end(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(corpus_build, where, end)
        with pytest.raises(Killed):
            build(tmp_path / "out", documents())
    build(tmp_path / "out", until(0, documents()))
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_build_that_reached_its_limit_reads_no_document_more(tmp_path: Path) -> None:
    """What follows may be broken: an undisturbed build never sees it."""
    n_tokens = sum(-(-len(document.text) // 2) for document in documents()[:20])
    build(tmp_path, until(20, documents()), max_tokens=n_tokens)
    assert set(contents(tmp_path)) == {"corpus.safetensors", "corpus.json"}


@pytest.mark.parametrize("damage", ["progress", "short", "missing"])
def test_a_progress_that_is_not_to_be_trusted_begins_again(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus_build, "COMMIT_SECONDS", 0.0)
    (tmp_path / "whole").mkdir()
    build(tmp_path / "whole", documents())
    (tmp_path / "out").mkdir()
    with pytest.raises(Killed):
        build(tmp_path / "out", until(9, documents()))
    match damage:
        case "progress":
            (tmp_path / "out" / PROGRESS).write_text("{", encoding="utf-8")
        case "short":
            (tmp_path / "out" / "tokens.part").write_bytes(b"")
        case _:
            (tmp_path / "out" / "text_hashes.part").unlink()
    build(tmp_path / "out", documents())
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_failed_build_goes_on_when_what_was_wrong_is_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the network was gone: nothing is tokenized twice."""
    monkeypatch.setattr(corpus_build, "COMMIT_SECONDS", 0.0)
    tokenized: list[str] = []

    class Counting(Letters):
        def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
            tokenized.append(text)
            return super().encode_with_offsets(text)

    def failing() -> Iterator[Document]:
        yield from documents()[:30]
        raise CorpusError("s3://x: cannot be read")

    for attempt in (failing(), documents()):
        try:
            build_corpus(tmp_path, attempt, Counting(), context=4, has_bos=False, held_out=0.4, seed=3)
        except CorpusError:
            continue
    assert tokenized == [document.text for document in documents()]


def test_parts_hold_what_was_committed_and_nothing_else(tmp_path: Path) -> None:
    with Parts(tmp_path, {"a": "<i4", "b": "<u8"}) as parts:
        parts.append("a", np.arange(5))
        parts.commit(n=5)
        parts.append("a", np.arange(3))
        assert parts.length("a") == 8
    with Parts(tmp_path, {"a": "<i4", "b": "<u8"}) as parts:
        assert parts.facts == {"n": 5}
        assert parts.whole("a").tolist() == [0, 1, 2, 3, 4]
        parts.append("a", np.asarray([7]))
        assert [block.tolist() for block in parts.blocks("a", 4)] == [[0, 1, 2, 3], [4, 7]]
        assert parts.length("b") == 0


@given(values=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), max_size=30))
def test_the_first_equal_row_is_found(values: list[tuple[int, int]]) -> None:
    hashes = np.asarray(values, dtype=np.uint64).reshape(-1, 2)
    assert first_equal(hashes).tolist() == [values.index(value) for value in values]


@given(texts=st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=3), max_size=20))
def test_twins_are_documents_with_the_same_tokens(texts: list[list[int]]) -> None:
    tokens = np.asarray([token for text in texts for token in text], dtype=np.int32)
    starts = np.cumsum([0, *map(len, texts)])
    assert first_twins(tokens, starts).tolist() == [texts.index(text) for text in texts]
