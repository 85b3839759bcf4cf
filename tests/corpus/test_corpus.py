"""The corpus: every token once, windows that never cross a document, truth at the right token, and clear refusals."""

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.corpus.killed import Letters

from mohole import artifact
from mohole.artifact import Inputs
from mohole.config import TextCorpus
from mohole.corpus import Corpus, Document, Span, Windows, batches, build_corpus, read_documents
from mohole.corpus.windows import cut
from mohole.errors import CorpusError


def build(out: Path, documents: list[Document], *, context: int = 4, has_bos: bool = True, **options: object) -> Corpus:
    with artifact.create(out, Inputs(kind="corpus", config={}, seed=0)) as draft:
        build_corpus(
            draft,
            documents,
            Letters(),
            context=context,
            has_bos=has_bos,
            held_out=0.5,
            seed=1,
            **options,  # type: ignore[arg-type]
        )
    return Corpus.open(out)


def documents(n: int = 12) -> list[Document]:
    return [Document(chr(97 + i) * (3 + 2 * i)) for i in range(n)]


def test_windows_cover_every_token_once_and_never_cross_a_document(tmp_path: Path) -> None:
    corpus = build(tmp_path / "c", documents())
    windows = corpus.windows
    covered = np.concatenate([np.arange(s, s + n) for s, n in zip(windows.start, windows.length, strict=True)])
    assert covered.tolist() == list(range(corpus.n_tokens))
    assert windows.length.max() == 3  # context 4, one of them the begin-of-text token
    ends = windows.start + windows.length - 1
    assert (corpus.document_of(windows.start) == corpus.document_of(ends)).all()


def test_window_tokens_put_the_begin_of_text_first_and_nothing_else_in_between(tmp_path: Path) -> None:
    corpus = build(tmp_path / "c", documents())
    batch = corpus.window_tokens(np.asarray([0, 3]), bos_id=7)
    assert (batch[:, 0] == 7).all()
    start, length = corpus.windows.start[3], corpus.windows.length[3]
    assert batch[1, 1 : 1 + length].tolist() == corpus.tokens[start : start + length].tolist()


@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=30), batch_tokens=st.integers(1, 100))
def test_batches_take_every_window_once_and_stay_small(lengths: list[int], batch_tokens: int) -> None:
    windows = Windows(np.cumsum([0, *lengths[:-1]]), np.asarray(lengths))
    groups = list(batches(windows, batch_tokens))
    assert sorted(np.concatenate(groups).tolist()) == list(range(len(lengths)))
    for group in groups:
        assert len(group) == 1 or len(group) * (windows.length[group].max() + 1) <= batch_tokens


@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=20), room=st.integers(1, 10))
def test_cutting_loses_nothing(lengths: list[int], room: int) -> None:
    windows = cut(np.cumsum([0, *lengths]), room)
    assert windows.length.sum() == sum(lengths)
    assert windows.length.max() <= room
    assert (windows.start[1:] == windows.start[:-1] + windows.length[:-1]).all()


def test_a_truth_holds_at_the_last_token_of_its_span_or_at_every_token(tmp_path: Path) -> None:
    marked = Document("abcdefgh", (Span(1, 5, "word"), Span(1, 5, "state", every=True), Span(1, 5, "word")))
    corpus = build(tmp_path / "c", [*documents(5), marked, *documents(5)])
    first = int(corpus.document_starts[5])
    assert corpus.truth("word").tolist() == [first + 2]  # characters 1-4 touch tokens 0, 1 and 2
    assert corpus.truth("state").tolist() == [first, first + 1, first + 2]
    assert corpus.truth("unheard of").tolist() == []


def test_the_held_out_documents_depend_on_the_seed_and_their_number_alone(tmp_path: Path) -> None:
    few, many = build(tmp_path / "a", documents(12)), build(tmp_path / "b", documents(24))
    assert few.held_out.tolist() == many.held_out[:12].tolist()
    assert 0 < few.held_out.sum() < 12


def test_positions_count_from_the_start_of_the_document(tmp_path: Path) -> None:
    corpus = build(tmp_path / "c", documents())
    for document in range(corpus.n_documents):
        tokens = np.arange(corpus.document_starts[document], corpus.document_starts[document + 1])
        assert corpus.position_of(tokens).tolist() == list(range(len(tokens)))
        assert (corpus.document_of(tokens) == document).all()


def test_max_tokens_stops_after_the_document_that_reaches_it(tmp_path: Path) -> None:
    corpus = build(tmp_path / "c", documents(), max_tokens=20)
    assert corpus.n_tokens >= 20
    assert corpus.document_starts[-2] < 20


def test_documents_without_tokens_are_passed_over(tmp_path: Path) -> None:
    assert build(tmp_path / "c", [Document(""), *documents()]).n_documents == 12


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "no text in it"),
        ([Document("")], "no text in it"),
        ([Document("ab")], "too short: 1 token in all, less than one window of 4; 4 are needed, in two documents"),
        ([Document("abcdefghij")], "both sides need some"),
    ],
)
def test_too_little_text_is_refused(tmp_path: Path, given: list[Document], message: str) -> None:
    with pytest.raises(CorpusError, match=message):
        build(tmp_path / "c", given)
    assert not (tmp_path / "c").exists()


def texts(path: Path | str, separator: str = "\n\n") -> Iterator[str]:
    return (document.text for document in read_documents(TextCorpus(path=str(path), separator=separator)))


def test_files_folders_and_patterns_are_read_in_name_order(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("three\n\nfour", encoding="utf-8")
    (tmp_path / "a.txt").write_text("one\r\n\r\ntwo\n\n\n\n", encoding="utf-8-sig")
    (tmp_path / "c.md").write_text("five", encoding="utf-8")
    assert list(texts(tmp_path / "a.txt")) == ["one", "two"]
    assert list(texts(tmp_path)) == ["one", "two", "three", "four"]
    assert list(texts(tmp_path / "*.md")) == ["five"]
    assert list(texts(tmp_path / "b.txt", "")) == ["three\n\nfour"]


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"abc\xff\xfe", r"not UTF-8 text \(byte 3\)"), (b"abc\x00def", "binary")],
)
def test_what_is_not_text_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "x.txt").write_bytes(data)
    with pytest.raises(CorpusError, match=message):
        list(texts(tmp_path / "x.txt"))


@pytest.mark.parametrize("path", ["nowhere.txt", "nowhere/*.txt", "."])
def test_a_path_without_text_is_named(tmp_path: Path, path: str) -> None:
    with pytest.raises(CorpusError, match=r"name a file|no such file"):
        list(texts(tmp_path / path))


def test_copies_of_one_text_are_all_held_out_or_none(tmp_path: Path) -> None:
    texts = documents(12)
    corpus = build(tmp_path / "c", texts * 3)
    sides = corpus.held_out.reshape(3, len(texts))
    assert (sides == sides[0]).all()
    assert 0 < sides[0].sum() < len(texts)


class Numbered:
    """Any text is 20 000 tokens, the first of which is its number."""

    rest, offsets = [1] * 19_999, [(0, 1)] * 20_000

    def __len__(self) -> int:
        return 3

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        return [int(text), *self.rest], self.offsets

    def piece(self, token: int) -> str:
        return str(token)


def test_memory_does_not_grow_with_the_text(tmp_path: Path) -> None:
    marked = (Span(0, 1, "all", every=True),)
    texts = (Document(str(i), marked if i % 20 == 0 else ()) for i in range(700))
    tracemalloc.start()
    try:
        build_corpus(tmp_path, texts, Numbered(), context=8, has_bos=False, held_out=0.2, seed=0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    n_bytes = (tmp_path / "corpus.safetensors").stat().st_size
    assert n_bytes > 700 * 20_000 * 4
    assert peak < n_bytes / 3
