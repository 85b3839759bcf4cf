"""One slice of the corpus through the model, written as one sorted run for each hookpoint. What a worker does.

Masks: a row exists for every token of the text that is not a special token of the model; the begin-of-text token put in
front of a window, and padding, have none. Windows run alone and padded on the right, so a row depends on its document
only; a slice is always cut and batched alike, so its last bits do not depend on who runs it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from mohole import config
from mohole.corpus import Corpus, batches
from mohole.errors import NumericsError
from mohole.model import LanguageModel
from mohole.model.shared import shared_model
from mohole.storage import Traffic, open_storage
from mohole.store.cells import Cells
from mohole.store.columns import RowFormat, as_bytes, is_finite_bfloat16
from mohole.store.commits import Commit, commit, is_committed
from mohole.store.order import Documents, Order
from mohole.store.plan import cells_of_pile
from mohole.store.shard import ShardFacts
from mohole.store.shard_writer import sorted_places, write_shard

Int64 = NDArray[np.int64]
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
    """The tokens of a slice that have a row, and the order in which the rows are to lie."""

    has_row: Bool
    """For each token of the slice, counted from its first."""
    key_token: NDArray[np.uint64]
    """[row, 2], sorted."""


def run_slice(task: SliceTask) -> None:
    """In a worker: harvest a slice and commit it; nothing where that is done already."""
    out = open_storage(task.out)
    if is_committed(out, RUNS, task.name):
        return
    model, corpus = shared_model(task.model), _corpus(task.corpus, task.corpus_digest)
    documents = documents_of(corpus)
    rows = plan_rows(model, corpus, documents, task.first, task.last, task.order)
    origin, n_rows = int(corpus.windows.start[task.first]), len(rows.key_token)
    formats = dict(task.formats)
    # In the order in which they are made, which fills memory from one end to the other. Put in order when they are written:
    # rows fetched from many places cost half of rows brought to many places.
    made = {hookpoint: np.empty((n_rows, form.row_bytes), dtype=np.uint8) for hookpoint, form in task.formats}
    made_at = np.empty(len(rows.has_row), dtype=np.int64)  # of each token, where its row is in `made`
    n_made, n_clipped = dict.fromkeys(made, 0), dict.fromkeys(made, 0)
    held_as = _held_as(task.formats)

    def place(hookpoint: str, n: int) -> Tensor | None:
        """Where the next rows are to lie; None: they are no rows yet as they are stored."""
        if held_as != torch.bfloat16:
            return None
        start = n_made[hookpoint]
        return torch.from_numpy(made[hookpoint][start : start + n]).view(torch.bfloat16)

    for hookpoint, tokens, values in activations(
        model,
        corpus,
        np.arange(task.first, task.last),
        list(made),
        task.batch_tokens,
        held_as=held_as,
        has_row=lambda tokens: rows.has_row[tokens - origin],
        place=place,
    ):
        encoded, clipped = encode(values, formats[hookpoint], hookpoint, tokens, corpus)
        start, stop = n_made[hookpoint], n_made[hookpoint] + len(tokens)
        if held_as != torch.bfloat16:
            made[hookpoint][start:stop] = encoded
        made_at[tokens - origin] = np.arange(start, stop)
        n_made[hookpoint] = stop
        n_clipped[hookpoint] += clipped
    row_tokens = rows.key_token[:, 1].astype(np.int64)
    order = made_at[row_tokens - origin]
    shards: dict[str, ShardFacts] = {}
    for hookpoint, stored in made.items():
        run_bytes = task.most_tokens * formats[hookpoint].row_bytes
        bits = (cells_of_pile(run_bytes, task.cell_bytes) - 1).bit_length()
        shards[hookpoint] = write_shard(
            out,
            f"shards/{RUNS}/{hookpoint}/{task.name}.safetensors",
            formats[hookpoint],
            Cells.everything(bits),
            rows.key_token,
            partial(_ordered, stored, order),
            n_clipped=n_clipped[hookpoint],
        )
    traffic = Traffic(bytes_written=out.traffic.bytes_written, n_writes=out.traffic.n_writes)
    n_training = int((~documents.held_out[documents.of(row_tokens)]).sum())
    commit(out, RUNS, task.name, Commit(shards, traffic, n_training))
    out.close()


def _ordered(made: NDArray[np.uint8], order: Int64, start: int, stop: int) -> NDArray[np.uint8]:
    """The rows [start, stop) of the sorted order. As single items: numpy moves those 1.4 times as fast as 128 bytes each."""
    row_bytes = made.shape[1]
    items = made.view(f"V{row_bytes}")[:, 0][order[start:stop]]
    return items.view(np.uint8).reshape(-1, row_bytes)


def _held_as(row_formats: Sequence[tuple[str, RowFormat]]) -> torch.dtype:
    """Rows leave the model as bfloat16 where that is what is stored: rounded while they are in the cache, and half the bytes."""
    return torch.bfloat16 if all(form.dtype == "bfloat16" for _, form in row_formats) else torch.float32


def activations(
    model: LanguageModel,
    corpus: Corpus,
    windows: Int64,
    hookpoints: Sequence[str],
    batch_tokens: int,
    *,
    held_as: torch.dtype = torch.float32,
    has_row: Callable[[Int64], Bool] | None = None,
    place: Callable[[str, int], Tensor | None] = lambda hookpoint, n: None,
) -> Iterator[tuple[str, Int64, Float[Tensor, "row d"]]]:
    """Run windows (by number) through the model: for every batch and hookpoint, tokens and their rows, on the CPU.

    Windows of like length run together, the longest first, so that memory runs out at once or not at all.

    Args:
        held_as: the type of the rows.
        has_row: which of these tokens are wanted; None: all.
        place: memory for so many rows of a hookpoint, [n, d] of the type `held_as`; None: memory of their own.
    """
    first = int(corpus.has_bos)
    bos_id = model.bos_id if corpus.has_bos else None
    for batch in batches(corpus.windows, batch_tokens, windows):
        starts, lengths = corpus.windows.start[batch], corpus.windows.length[batch]
        read = model.read(torch.from_numpy(corpus.window_tokens(batch, bos_id)), hookpoints, held_as=held_as)
        offsets = np.arange(int(lengths.max()) + first) - first
        inside = (offsets >= 0) & (offsets < lengths[:, None])
        tokens = (starts[:, None] + offsets)[inside]
        if has_row is not None:
            wanted = has_row(tokens)
            inside[inside], tokens = wanted, tokens[wanted]
        chosen = torch.from_numpy(np.flatnonzero(inside))
        for hookpoint in hookpoints:
            rows = read.pop(hookpoint).flatten(0, 1)
            yield hookpoint, tokens, _chosen(rows, chosen, place(hookpoint, len(tokens)))


def _chosen(rows: Float[Tensor, "all d"], chosen: Tensor, out: Float[Tensor, "row d"] | None) -> Float[Tensor, "row d"]:
    """Some rows on the CPU, in this memory where there is one: a copy less."""
    if out is None:
        return rows.index_select(0, chosen.to(rows.device)).cpu()
    if rows.device.type == "cpu":
        return torch.index_select(rows, 0, chosen, out=out)
    return out.copy_(rows.index_select(0, chosen.to(rows.device)))


def encode(
    values: Float[Tensor, "row d"], row_format: RowFormat, hookpoint: str, tokens: Int64, corpus: Corpus
) -> tuple[NDArray[np.uint8], int]:
    """Rows as they are stored, and how many values were clipped.

    Args:
        values: bfloat16 where that is what is stored, else float32.

    Raises:
        NumericsError: an activation is NaN or infinite, or does not fit; names the hookpoint, the document and the token.
    """
    if values.dtype == torch.bfloat16:
        bits = values.view(torch.uint16).numpy()
        if not is_finite_bfloat16(bits):
            raise _not_a_number(values, hookpoint, tokens, corpus)
        return as_bytes(bits), 0
    held = values.numpy()
    # one pass; a sum that overflows is looked at row by row
    if not (np.isfinite(held.sum(dtype=np.float64)) or np.isfinite(held).all()):
        raise _not_a_number(values, hookpoint, tokens, corpus)
    try:
        return row_format.encode(held)
    except NumericsError as error:
        raise NumericsError(f"{hookpoint}: {error}") from None


def _not_a_number(values: Tensor, hookpoint: str, tokens: Int64, corpus: Corpus) -> NumericsError:
    """What to tell of rows that have a NaN or an infinity: where the first of them is."""
    wrong = ~torch.isfinite(values).all(dim=1).numpy()
    token = int(tokens[np.flatnonzero(wrong)[0]])
    document = int(corpus.document_of(np.asarray([token]))[0])
    too_large = ", or more than bfloat16 holds," if values.dtype == torch.bfloat16 else ""
    return NumericsError(
        f"{hookpoint}: NaN or infinity{too_large} at token {token - corpus.document_starts[document]} "
        f"({corpus.pieces[corpus.tokens[token]]!r}) of document {document}; try model.dtype=float32, or check the weights"
    )


def plan_rows(
    model: LanguageModel, corpus: Corpus, documents: Documents, first: int, last: int, order: Order
) -> SliceRows:
    """The rows of a slice and their order, before the model has run: keys come from ids alone."""
    start = int(corpus.windows.start[first])
    stop = int(corpus.windows.start[last - 1] + corpus.windows.length[last - 1])
    has_row = ~np.isin(corpus.tokens[start:stop], list(model.special_ids))
    tokens = start + np.flatnonzero(has_row)
    key_token = np.stack([order.keys(tokens, documents), tokens.astype(np.uint64)], axis=1)
    return SliceRows(has_row, key_token[sorted_places(key_token)])


def documents_of(corpus: Corpus) -> Documents:
    """What the order of rows needs to know of a corpus."""
    return Documents(np.asarray(corpus.document_starts), np.asarray(corpus.held_out))


@lru_cache(maxsize=1)
def _corpus(folder: str, digest: str) -> Corpus:
    """Opened once in a process; `digest` tells a corpus that was made again from the one before. The driver has read its
    checksums; a worker's reading all of it again would be more than its slice."""
    return Corpus.open(folder, verify=False)
