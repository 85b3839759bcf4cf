"""Documents into the files of a corpus artifact: token ids, where documents start, which are held out, truth marks."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mohole import keys
from mohole.corpus.documents import Document, Span
from mohole.corpus.sample import first_twins
from mohole.errors import CorpusError
from mohole.progress import track
from mohole.record import write_json
from mohole.tensors import write_tensors

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]


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
        held_out: share of documents kept away from training; copies of one text go together.
        total: how many documents are coming, for the progress display; None when that is not known.

    Raises:
        CorpusError: nothing to read, or less than one whole window of text, or no document on one side of the split.
    """
    tokens: list[Int32] = []
    starts = [0]
    marks: list[tuple[Int64, Int32]] = []
    labels: dict[str, int] = {}
    with track("corpus", total, "documents") as tracker:
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
    all_tokens, document_starts = np.concatenate(tokens), np.asarray(starts, dtype=np.int64)
    # Copies of one text are on one side: what training has read word for word is not held out.
    mask = keys.held_out(seed, first_twins(all_tokens, document_starts), held_out)
    if mask.all() or not mask.any():
        raise CorpusError(
            f"corpus: {len(mask)} documents, {mask.sum()} of them held out; both sides need some: "
            "give more text, set corpus.separator so that it has more documents, or change windows.held_out"
        )
    truth_tokens, truth_labels = _sorted_marks(marks)
    tensors: dict[str, NDArray[Any]] = {
        "tokens": all_tokens,
        "document_starts": document_starts,
        "held_out": mask.astype(np.uint8),
        "truth_tokens": truth_tokens,
        "truth_labels": truth_labels,
    }
    write_tensors(out / "corpus.safetensors", tensors)
    pieces = [tokenizer.piece(token) for token in range(len(tokenizer))]
    write_json(out / "corpus.json", {"context": context, "has_bos": has_bos, "labels": list(labels), "pieces": pieces})


def _check_size(starts: list[int], context: int) -> None:
    if len(starts) == 1:
        raise CorpusError("corpus: no text in it; set corpus.path to a file with some")
    longest = int(np.diff(starts).max())
    if starts[-1] < context:
        raise CorpusError(
            f"corpus: {starts[-1]} tokens in all, less than one window of {context}; give more text (two documents at least), "
            f"or set windows.context to {longest} or less"
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
