"""One slice of the corpus through the model, written as one sorted run for each hookpoint. What a worker does.

Masks: a row exists for every token of the text that is not a special token of the model; the begin-of-text token put in
front of a window, and padding, have none. Windows run alone and padded on the right, so a row depends on its document
only; a slice is always cut and batched alike, so its last bits do not depend on who runs it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mohole import config
from mohole.corpus import Corpus, batches
from mohole.errors import NumericsError
from mohole.model import LanguageModel
from mohole.model.shared import shared_model
from mohole.storage import Traffic, open_storage
from mohole.store.cells import Cells
from mohole.store.columns import RowFormat
from mohole.store.commits import Commit, commit, is_committed
from mohole.store.order import Documents, Order
from mohole.store.plan import cells_of_pile
from mohole.store.shard import ShardFacts
from mohole.store.shard_writer import sorted_places, write_shard

Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]
Bool = NDArray[np.bool_]

RUNS = "runs"
"""The level of the shards that harvest writes."""


@dataclass(frozen=True)
class SliceTask:
    """Harvest the windows `first` to before `last` of a corpus."""

    name: str
    corpus: str
    """The corpus artifact's folder."""
    corpus_digest: str
    model: config.Model
    first: int
    last: int
    n_tokens: int
    most_tokens: int
    """Of any slice. All runs are cut into cells alike, a short last one too: ranges of keys are read by the coarsest cells
    there are, and a single coarse run would make one pile of everything."""
    formats: tuple[tuple[str, RowFormat], ...]
    """Hookpoints and how their rows are stored."""
    order: Order
    batch_tokens: int
    cell_bytes: int
    out: str
    """URL of the storage that takes the shards."""


@dataclass(frozen=True)
class SliceRows:
    """The tokens of a slice that have a row, and where each one's row goes."""

    tokens: Int64
    key_token: NDArray[np.uint64]
    """[row, 2], sorted."""
    place_of: Int64
    """For each token of the slice, counted from its first: the place of its row in the sorted run, or -1."""


def run_slice(task: SliceTask) -> None:
    """In a worker: harvest a slice and commit it; nothing where that is done already."""
    out = open_storage(task.out)
    if is_committed(out, RUNS, task.name):
        return
    model, corpus = shared_model(task.model), _corpus(task.corpus, task.corpus_digest)
    documents = documents_of(corpus)
    rows = plan_rows(model, corpus, documents, task.first, task.last, task.order)
    buffers = {
        hookpoint: np.empty((len(rows.tokens), row_format.row_bytes), dtype=np.uint8)
        for hookpoint, row_format in task.formats
    }
    n_clipped = dict.fromkeys(buffers, 0)
    formats = dict(task.formats)
    origin = int(corpus.windows.start[task.first])
    for hookpoint, tokens, values in activations(
        model,
        corpus,
        np.arange(task.first, task.last),
        list(buffers),
        task.batch_tokens,
        has_row=lambda tokens: rows.place_of[tokens - origin] >= 0,
    ):
        encoded, clipped = encode(values, formats[hookpoint], hookpoint, tokens, corpus)
        _records(buffers[hookpoint])[rows.place_of[tokens - origin]] = _records(encoded)
        n_clipped[hookpoint] += clipped
    shards: dict[str, ShardFacts] = {}
    for hookpoint, stored in buffers.items():
        run_bytes = task.most_tokens * formats[hookpoint].row_bytes
        bits = (cells_of_pile(run_bytes, task.cell_bytes) - 1).bit_length()
        shards[hookpoint] = write_shard(
            out,
            f"shards/{RUNS}/{hookpoint}/{task.name}.safetensors",
            formats[hookpoint],
            Cells.everything(bits),
            rows.key_token,
            lambda start, stop, stored=stored: stored[start:stop],  # type: ignore[misc]
            n_clipped=n_clipped[hookpoint],
        )
    traffic = Traffic(bytes_written=out.traffic.bytes_written, n_writes=out.traffic.n_writes)
    n_training = int((~documents.held_out[documents.of(rows.tokens)]).sum())
    commit(out, RUNS, task.name, Commit(shards, traffic, n_training))
    out.close()


def _records(rows: NDArray[np.uint8]) -> NDArray[Any]:
    """Rows as single items, which numpy moves to their places 1.4 times as fast as 128 bytes each."""
    return np.ascontiguousarray(rows).view(f"V{rows.shape[1]}")[:, 0]


def activations(
    model: LanguageModel,
    corpus: Corpus,
    windows: Int64,
    hookpoints: Sequence[str],
    batch_tokens: int,
    *,
    has_row: Callable[[Int64], Bool] | None = None,
) -> Iterator[tuple[str, Int64, Float32]]:
    """Run windows (by number) through the model: for every batch and hookpoint, tokens and their rows in float32.

    Windows of like length run together, the longest first, so that memory runs out at once or not at all.

    Args:
        has_row: which of these tokens are wanted; None: all.
    """
    first = int(corpus.has_bos)
    bos_id = model.bos_id if corpus.has_bos else None
    for batch in batches(corpus.windows, batch_tokens, windows):
        starts, lengths = corpus.windows.start[batch], corpus.windows.length[batch]
        read = model.read(torch.from_numpy(corpus.window_tokens(batch, bos_id)), hookpoints)
        offsets = np.arange(int(lengths.max()))
        inside = offsets < lengths[:, None]
        tokens = (starts[:, None] + offsets)[inside]
        if has_row is not None:
            wanted = has_row(tokens)
            inside[inside], tokens = wanted, tokens[wanted]
        is_full = bool(inside.all())
        for hookpoint in hookpoints:
            values: Float32 = read[hookpoint][:, first:].float().cpu().numpy()
            yield hookpoint, tokens, values.reshape(-1, values.shape[-1]) if is_full else values[inside]


def encode(
    values: Float32, row_format: RowFormat, hookpoint: str, tokens: Int64, corpus: Corpus
) -> tuple[NDArray[np.uint8], int]:
    """Rows as they are stored, and how many values were clipped.

    Raises:
        NumericsError: an activation is NaN or infinite, or does not fit; names the hookpoint, the document and the token.
    """
    # one pass; a sum that overflows is looked at row by row
    if not np.isfinite(values.sum(dtype=np.float64)):
        wrong = ~np.isfinite(values).all(axis=1)
        if wrong.any():
            token = int(tokens[np.flatnonzero(wrong)[0]])
            document = int(corpus.document_of(np.asarray([token]))[0])
            raise NumericsError(
                f"{hookpoint}: NaN or infinity at token {token - corpus.document_starts[document]} "
                f"({corpus.pieces[corpus.tokens[token]]!r}) of document {document}; try model.dtype=float32, or check the weights"
            )
    try:
        return row_format.encode(values)
    except NumericsError as error:
        raise NumericsError(f"{hookpoint}: {error}") from None


def plan_rows(
    model: LanguageModel, corpus: Corpus, documents: Documents, first: int, last: int, order: Order
) -> SliceRows:
    """Where every row of a slice goes, before the model has run: keys come from ids alone."""
    start = int(corpus.windows.start[first])
    stop = int(corpus.windows.start[last - 1] + corpus.windows.length[last - 1])
    has_row = ~np.isin(corpus.tokens[start:stop], list(model.special_ids))
    tokens = start + np.flatnonzero(has_row)
    key_token = np.stack([order.keys(tokens, documents), tokens.astype(np.uint64)], axis=1)
    places = sorted_places(key_token)
    place_of = np.full(stop - start, -1, dtype=np.int64)
    place_of[tokens[places] - start] = np.arange(len(tokens))
    return SliceRows(tokens, key_token[places], place_of)


def documents_of(corpus: Corpus) -> Documents:
    """What the order of rows needs to know of a corpus."""
    return Documents(np.asarray(corpus.document_starts), np.asarray(corpus.held_out))


@lru_cache(maxsize=1)
def _corpus(folder: str, digest: str) -> Corpus:
    """Opened once in a process; `digest` tells a corpus that was made again from the one before. The driver has read its
    checksums; a worker's reading all of it again would be more than its slice."""
    return Corpus.open(folder, verify=False)
