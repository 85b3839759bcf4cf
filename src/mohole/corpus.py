"""Documents into tokens with a global index, windows to run, and truth about tokens where there is any. No model.

The token index is the address of everything: a row of activations, an example, a truth mark all name a token by its
place in the corpus. A document never touches another: it is cut into windows, and every window is run alone.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from mohole import artifact, keys
from mohole.errors import ArtifactError, CorpusError
from mohole.progress import track
from mohole.record import write_json
from mohole.tensors import open_tensors

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Bool = NDArray[np.bool_]

_PROGRESS_DOCUMENTS = 256


@dataclass(frozen=True, slots=True)
class Span:
    """A truth about the characters [start, end) of a document's text."""

    start: int
    end: int
    label: str
    every: bool = False
    """True: it holds at every token of the span. False: at the span's last token, where a word is complete."""


@dataclass(frozen=True, slots=True)
class Document:
    """A text, with truth about its characters where the writer knows it."""

    text: str
    spans: tuple[Span, ...] = ()


class Tokenizer(Protocol):
    """What the corpus needs of a tokenizer. No special tokens are added; offsets are in characters."""

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Token ids and, for each, the characters [start, end) it covers."""
        ...

    def piece(self, token: int) -> str:
        """The token as a person reads it, spaces kept."""
        ...


@dataclass(frozen=True)
class Windows:
    """Stretches of one document each, to be run alone. Together they cover every token once, in order."""

    start: Int64
    length: Int64

    def __len__(self) -> int:
        return len(self.start)


def read_documents(path: str, separator: str) -> Iterator[Document]:
    """The documents of a UTF-8 file, of a folder's .txt files, or of files matching a pattern, in name order.

    Raises:
        CorpusError: no such file, or bytes that are not text.
    """
    for file in text_files(path):
        yield from _documents_in(file, separator)


def text_files(path: str) -> list[Path]:
    """The files a corpus path stands for, in name order."""
    place = Path(path)
    if place.is_file():
        return [place]
    if place.is_dir():
        files = sorted(place.glob("*.txt"))
        if not files:
            raise CorpusError(f"{path}: a folder without .txt files; name a file, or a pattern such as {path}/*.md")
        return files
    anchor = Path(place.anchor) if place.is_absolute() else Path()
    pattern = str(place.relative_to(place.anchor)) if place.is_absolute() else path
    files = sorted(file for file in anchor.glob(pattern) if file.is_file()) if any(c in path for c in "*?[") else []
    if not files:
        raise CorpusError(f"{path}: no such file, folder or pattern; set corpus.path to UTF-8 text")
    return files


def _documents_in(file: Path, separator: str) -> Iterator[Document]:
    try:
        data = file.read_bytes()
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CorpusError(f"{file}: not UTF-8 text (byte {error.start}); convert it, or name another file") from None
    if "\x00" in text:
        raise CorpusError(f"{file}: holds zero bytes, so it is binary, not text; name another file")
    text = text.replace("\r\n", "\n")
    for part in text.split(separator) if separator else [text]:
        if part.strip():
            yield Document(part)


def build_corpus(
    out: Path,
    documents: Iterable[Document],
    tokenizer: Tokenizer,
    *,
    context: int,
    has_bos: bool,
    held_out: float,
    seed: int,
    max_tokens: int | None = None,
    total: int | None = None,
) -> None:
    """Tokenize documents and write the files of a corpus artifact into `out`.

    Args:
        context: tokens of a window, a begin-of-text token included where the model has one.
        held_out: share of documents kept away from training.
        total: how many documents are coming, for the progress display; None when that is not known.

    Raises:
        CorpusError: nothing to read, or less than one whole window of text, or no document on one side of the split.
    """
    tokens: list[Int32] = []
    starts = [0]
    marks: list[tuple[Int64, Int32]] = []
    labels: dict[str, int] = {}
    with track("corpus", total or 1, "documents") as tracker:
        for document in documents:
            ids, offsets = tokenizer.encode_with_offsets(document.text)
            if not ids:
                continue
            marks.extend(_marks(document.spans, np.asarray(offsets).reshape(-1, 2), starts[-1], labels))
            tokens.append(np.asarray(ids, dtype=np.int32))
            starts.append(starts[-1] + len(ids))
            tracker.advance()
            if max_tokens is not None and starts[-1] >= max_tokens:
                break
    _check_size(starts, context)
    mask = keys.held_out_documents(seed, len(starts) - 1, held_out)
    if mask.all() or not mask.any():
        raise CorpusError(
            f"corpus: {len(mask)} documents, {mask.sum()} of them held out; both sides need some: "
            "give more text, set corpus.separator so that it has more documents, or change windows.held_out"
        )
    truth_tokens, truth_labels = _sorted_marks(marks)
    save_file(
        {
            "tokens": np.concatenate(tokens),
            "document_starts": np.asarray(starts, dtype=np.int64),
            "held_out": mask.astype(np.uint8),
            "truth_tokens": truth_tokens,
            "truth_labels": truth_labels,
        },
        out / "corpus.safetensors",
    )
    pieces = [tokenizer.piece(token) for token in range(int(max(ids.max() for ids in tokens)) + 1)]
    write_json(out / "corpus.json", {"context": context, "has_bos": has_bos, "labels": list(labels), "pieces": pieces})


def _check_size(starts: list[int], context: int) -> None:
    if len(starts) == 1:
        raise CorpusError("corpus: no text in it; set corpus.path to a file with some")
    longest = int(np.diff(starts).max())
    if starts[-1] < context:
        raise CorpusError(
            f"corpus: {starts[-1]} tokens in all, less than one window of {context}; give more text or set windows.context "
            f"to {longest} or less"
        )


def _marks(
    spans: tuple[Span, ...], offsets: Int64, first: int, labels: dict[str, int]
) -> Iterator[tuple[Int64, Int32]]:
    """(token indices, label ids) of each span. A token belongs to a span when it covers one of its characters."""
    for span in spans:
        inside = np.flatnonzero((offsets[:, 0] < span.end) & (offsets[:, 1] > span.start))
        if len(inside) == 0:
            continue
        chosen = inside if span.every else inside[-1:]
        label = labels.setdefault(span.label, len(labels))
        yield first + chosen, np.full(len(chosen), label, dtype=np.int32)


def _sorted_marks(marks: list[tuple[Int64, Int32]]) -> tuple[Int64, Int32]:
    """Marks by label, then by token, each pair once."""
    if not marks:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int32)
    tokens = np.concatenate([mark[0] for mark in marks]).astype(np.int64)
    labels = np.concatenate([mark[1] for mark in marks])
    pairs = np.unique(np.stack([labels.astype(np.int64), tokens]), axis=1)
    return np.ascontiguousarray(pairs[1]), pairs[0].astype(np.int32)


class Corpus:
    """A finished corpus artifact, opened for reading."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest = artifact.open_artifact(path, kind="corpus")
        tensors, facts = open_tensors(path / "corpus.safetensors"), _read_facts(path / "corpus.json")
        self.tokens: Int32 = tensors["tokens"]
        """Token ids, all documents one after the other, no begin-of-text tokens."""
        self.document_starts: Int64 = tensors["document_starts"]
        """Token index at which each document starts, and the number of tokens."""
        self.held_out: Bool = tensors["held_out"].astype(np.bool_)
        """For each document: is it kept away from training?"""
        self.context: int = facts["context"]
        self.has_bos: bool = facts["has_bos"]
        self.labels: tuple[str, ...] = tuple(facts["labels"])
        """Names of the truth labels; empty where nothing is known."""
        self.pieces: tuple[str, ...] = tuple(facts["pieces"])
        """Each token id as a person reads it."""
        self._truth_tokens: Int64 = tensors["truth_tokens"]
        self._truth_starts = np.searchsorted(tensors["truth_labels"], np.arange(len(self.labels) + 1))
        self._label_ids = {label: i for i, label in enumerate(self.labels)}

    @classmethod
    def open(cls, path: Path | str) -> "Corpus":
        """Open the corpus at `path`.

        Raises:
            ArtifactError: missing, unfinished or damaged.
        """
        return cls(Path(path))

    @property
    def n_tokens(self) -> int:
        return len(self.tokens)

    @property
    def n_documents(self) -> int:
        return len(self.document_starts) - 1

    @cached_property
    def windows(self) -> Windows:
        """Every window of every document, in order: at most `context` tokens, a begin-of-text token included."""
        room = self.context - int(self.has_bos)
        lengths = np.diff(self.document_starts)
        n_windows = -(-lengths // room)
        document = np.repeat(np.arange(self.n_documents), n_windows)
        index = np.arange(n_windows.sum()) - np.repeat(np.cumsum(n_windows) - n_windows, n_windows)
        start = self.document_starts[document] + index * room
        return Windows(start, np.minimum(room, self.document_starts[document + 1] - start))

    def document_of(self, tokens: Int64) -> Int64:
        """The document that each token (by global index) belongs to."""
        return np.searchsorted(self.document_starts, tokens, side="right") - 1

    def position_of(self, tokens: Int64) -> Int64:
        """Each token's place in its document, counted from 0."""
        return tokens - self.document_starts[self.document_of(tokens)]

    def truth(self, label: str) -> Int64:
        """Token indices at which a label holds, ascending. None where the label is unknown to this corpus."""
        if label not in self._label_ids:
            return np.zeros(0, dtype=np.int64)
        i = self._label_ids[label]
        return self._truth_tokens[self._truth_starts[i] : self._truth_starts[i + 1]]

    def text(self, start: int, end: int) -> str:
        """The tokens [start, end) as a person reads them."""
        return "".join(self.pieces[token] for token in self.tokens[start:end])


def _read_facts(path: Path) -> dict[str, Any]:
    try:
        facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return facts
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path}: damaged ({error}); delete its folder and make it again") from None


@dataclass(frozen=True, slots=True)
class Task:
    """Prompts with one right continuation each: what a model must still be able to do."""

    name: str
    prompts: tuple[str, ...]
    answers: tuple[str, ...]
