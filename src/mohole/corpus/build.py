"""Documents into the files of a corpus artifact: token ids, where documents start, which are held out, truth marks.

A stream: what has been tokenized goes to the disk, and a killed build goes on from its last commit.
"""

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mohole import keys
from mohole.corpus.documents import Document, Span
from mohole.corpus.parts import BLOCK_ITEMS, Parts, remove_parts, settle
from mohole.corpus.sample import first_equal, text_hash
from mohole.errors import CorpusError
from mohole.progress import track
from mohole.record import write_json
from mohole.tensors import tensor_writer

Int64 = NDArray[np.int64]

COMMIT_SECONDS = 5.0
"""What a killed build does again, at most. A commit costs some milliseconds: it waits for the disk."""

_FACTS = "corpus.json"
"""Written last: where it stands, the build is whole."""

_PARTS = {
    "tokens": "<i4",
    "document_starts": "<i8",
    "text_hashes": "<u8",  # two for each document
    "truth_tokens": "<i8",
    "truth_labels": "<i4",
}


@runtime_checkable
class Tokenizer(Protocol):
    """What the corpus needs of a tokenizer. No special tokens are added; offsets are in characters."""

    def __len__(self) -> int:
        """Number of tokens."""
        ...

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Token ids and, for each, the characters [start, end) it covers."""
        ...

    def piece(self, token: int) -> str:
        """The token as a person reads it, spaces kept."""
        ...


class _UnusableError(CorpusError):
    """The whole text was read, and no corpus can be made of it by these settings."""


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

    Memory does not grow with the text: tokens and marks go to files as they come; only 16 bytes of each document are
    collected, at the end, to know copies. A killed build is gone on with when it is called again with the same arguments
    and the same `out`: documents that it had committed are read again, which is quick, but not tokenized again.

    Args:
        documents: the same ones in the same order, should the build be gone on with.
        context: tokens of a window, a begin-of-text token included where the model has one.
        held_out: share of documents kept away from training; copies of one text go together.
        total: how many documents are coming, for the progress display; None when that is not known.

    Raises:
        CorpusError: nothing to read, or less than one whole window of text, or no document on one side of the split.
    """
    if not (out / _FACTS).exists():  # else it was killed while it took away its parts
        try:
            with Parts(out, _PARTS) as parts:
                if not parts.facts.get("is_whole"):
                    _append(parts, documents, tokenizer, max_tokens, total)
                _check_size(parts, context)
                mask = _held_out(parts, held_out, seed)
                _assemble(out / "corpus.safetensors", parts, mask)
                labels = parts.facts["labels"]
        except _UnusableError:
            remove_parts(out)  # nobody goes on with these; kept, they would refuse the next text or separator
            raise
        pieces = [tokenizer.piece(token) for token in range(len(tokenizer))]
        facts = out / f"{_FACTS}.part"
        write_json(facts, {"context": context, "has_bos": has_bos, "labels": labels, "pieces": pieces})
        settle(facts)
        facts.rename(out / _FACTS)
    remove_parts(out)


def _append(
    parts: Parts, documents: Iterable[Document], tokenizer: Tokenizer, max_tokens: int | None, total: int | None
) -> None:
    """Tokens, ends, hashes and marks of the documents that are not among the parts yet."""
    n_committed = parts.facts.get("n_documents", 0)
    labels = {label: i for i, label in enumerate(parts.facts.get("labels", []))}
    if not parts.length("document_starts"):
        parts.append("document_starts", np.zeros(1, dtype=np.int64))
    last_commit, n_read = time.monotonic(), 0
    with track("corpus", total, "documents") as tracker:
        for n_read, document in enumerate(documents, start=1):
            tracker.advance()
            if n_read <= n_committed:
                continue
            _append_document(parts, document, tokenizer, labels)
            if max_tokens is not None and parts.length("tokens") >= max_tokens:
                break
            if time.monotonic() - last_commit >= COMMIT_SECONDS:
                parts.commit(n_documents=n_read, labels=list(labels), is_whole=False)
                last_commit = time.monotonic()
    parts.commit(n_documents=n_read, labels=list(labels), is_whole=True)


def _append_document(parts: Parts, document: Document, tokenizer: Tokenizer, labels: dict[str, int]) -> None:
    ids, offsets = tokenizer.encode_with_offsets(document.text)
    if not ids:
        return
    tokens = np.asarray(ids, dtype=np.int32)
    first = parts.length("tokens")
    if document.spans:
        marked, place = _marks(document.spans, np.asarray(offsets).reshape(-1, 2), labels)
        parts.append("truth_tokens", first + place)
        parts.append("truth_labels", marked)
    parts.append("tokens", tokens)
    parts.append("document_starts", np.asarray([first + len(tokens)]))
    parts.append("text_hashes", np.frombuffer(text_hash(tokens), dtype="<u8"))


def _marks(spans: tuple[Span, ...], offsets: Int64, labels: dict[str, int]) -> tuple[Int64, Int64]:
    """(label, token of the document) by label, then by token, each pair once.

    A token belongs to a span when it covers one of its characters.
    """
    n_tokens = len(offsets)
    pairs = [np.zeros(0, dtype=np.int64)]
    for span in spans:
        inside = np.flatnonzero((offsets[:, 0] < span.end) & (offsets[:, 1] > span.start))
        if len(inside) == 0:
            continue
        label = labels.setdefault(span.label, len(labels))
        pairs.append(label * n_tokens + (inside if span.every else inside[-1:]))
    chosen = np.unique(np.concatenate(pairs))
    return chosen // n_tokens, chosen % n_tokens


def _check_size(parts: Parts, context: int) -> None:
    n_tokens = parts.length("tokens")
    if n_tokens == 0:
        raise _UnusableError("corpus: no text in it; give a text (--text, corpus.path) with at least two documents")
    if n_tokens < context:
        lengths = np.diff(parts.whole("document_starts"))
        size = f"{n_tokens} {'token' if n_tokens == 1 else 'tokens'} in all, less than one window of {context}"
        if len(lengths) < 2 or lengths.max() < 2:  # no window could be made to fit it
            raise _UnusableError(
                f"corpus: the text is too short: {size}; {context} are needed, in two documents at least of two tokens or more"
            )
        raise _UnusableError(
            f"corpus: {size}; give more text (two documents at least), or set windows.context to {lengths.max()} or less"
        )


def _held_out(parts: Parts, share: float, seed: int) -> NDArray[np.bool_]:
    """Which documents are held out. Copies of one text are on one side: what training has read word for word is not held out."""
    twins = first_equal(parts.whole("text_hashes").reshape(-1, 2))
    cuts = range(0, len(twins), BLOCK_ITEMS)
    mask = np.concatenate([keys.held_out(seed, twins[first : first + BLOCK_ITEMS], share) for first in cuts])
    if mask.all() or not mask.any():
        found = "1 document" if len(mask) == 1 else f"{len(mask)} documents"
        raise _UnusableError(
            f"corpus: {found}, {mask.sum()} of them held out; both sides need some: "
            "give more text, set corpus.separator so that it has more documents, or change windows.held_out"
        )
    return mask


def _assemble(path: Path, parts: Parts, mask: NDArray[np.bool_]) -> None:
    """The parts as one file of tensors, a block in memory at a time."""
    sizes = {name: parts.length(name) for name in ("tokens", "document_starts", "truth_tokens", "truth_labels")}
    tensors = {name: (np.dtype(_PARTS[name]), (size,)) for name, size in sizes.items()}
    with tensor_writer(path, {**tensors, "held_out": (np.dtype(np.uint8), mask.shape)}) as write:
        for name in ("tokens", "document_starts"):
            first = 0
            for block in parts.blocks(name):
                write(name, first, block)
                first += len(block)
        write("held_out", 0, mask.astype(np.uint8))
        _write_by_label(write, parts)
    settle(path)


def _write_by_label(write: Callable[[str, int, NDArray[Any]], None], parts: Parts) -> None:
    """Marks by label, then by token. Each label's tokens ascend already: a counting sort on disk."""
    counts = np.zeros(len(parts.facts["labels"]), dtype=np.int64)
    for labels in parts.blocks("truth_labels"):
        counts += np.bincount(labels, minlength=len(counts))
    places = np.cumsum(counts) - counts
    for labels, tokens in zip(parts.blocks("truth_labels"), parts.blocks("truth_tokens"), strict=True):
        order = np.argsort(labels, kind="stable")
        label_ids, firsts = np.unique(labels[order], return_index=True)
        for label, stretch in zip(label_ids, np.split(tokens[order], firsts[1:]), strict=True):
            write("truth_tokens", int(places[label]), stretch)
            write("truth_labels", int(places[label]), np.full(len(stretch), label, dtype=np.int32))
            places[label] += len(stretch)
