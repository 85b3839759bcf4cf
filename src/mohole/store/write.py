"""A store from rows that are in memory already: for notebooks, for activations from elsewhere, for tests."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mohole import artifact
from mohole.artifact import Inputs
from mohole.storage import Storage, open_storage
from mohole.store.cells import Cells
from mohole.store.columns import RowFormat, RowType, calibrated_scales
from mohole.store.listing import BULK, SHARDS, Layout, StoreFacts, write_documents, write_facts, write_layout
from mohole.store.order import Documents, Order
from mohole.store.plan import CELL_BYTES, cells_of_pile
from mohole.store.shard import ShardFacts
from mohole.store.shard_writer import sorted_places, write_shard

Int64 = NDArray[np.int64]
UInt64 = NDArray[np.uint64]
Float32 = NDArray[np.float32]


@runtime_checkable
class Sliceable(Protocol):
    """Rows that are made when they are asked for."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> Float32: ...


def write_store(
    out: Path | str,
    rows: Mapping[str, Float32 | Sliceable],
    documents: Documents,
    *,
    tokens: Int64 | None = None,
    seed: int = 0,
    epoch: int = 0,
    dtype: RowType = "bfloat16",
    shard_rows: int = 131_072,
    cell_bytes: int = CELL_BYTES,
    inputs: Inputs | None = None,
    replace: bool = False,
) -> None:
    """Write rows [row, d] of each hookpoint as a finished store of runs at `out`.

    Args:
        tokens: each row's token, counted over all documents; None: every token has a row, in order.
        rows: arrays, or what gives arrays when it is sliced: a shard is asked for at a time, so the whole need not be in memory.
        inputs: what the artifact says it was made from; None: nothing but the seed.
        replace: take away a finished artifact that was made from something else.

    Raises:
        ArtifactError: `out` is taken. NumericsError: a value does not fit `dtype`.
        ValueError: a token that is in no document, or that has two rows.
    """
    n_tokens = int(documents.starts[-1])
    chosen = np.arange(n_tokens) if tokens is None else tokens
    _check(chosen, n_tokens)
    order = Order.random(documents, seed=seed, epoch=epoch)
    inputs = inputs or Inputs(kind="activations", config={"epoch": epoch, "dtype": dtype}, seed=seed)
    with artifact.create(out, inputs, bulk=BULK, replace=replace) as draft:
        storage = open_storage(draft)
        shards: dict[str, tuple[ShardFacts, ...]] = {}
        formats: dict[str, RowFormat] = {}
        for hookpoint, values in rows.items():
            if len(values) != len(chosen):
                raise ValueError(f"{hookpoint}: {len(values)} rows for {len(chosen)} tokens")
            scales = calibrated_scales(values[:16_384]) if dtype == "int8" else None
            row_format = formats[hookpoint] = RowFormat(dtype, values.shape[1], scales)
            # all are cut alike, a short last one too: ranges of keys are read by the coarsest cells there are
            shard_bytes = min(shard_rows, len(chosen)) * row_format.row_bytes
            cells = Cells.everything((cells_of_pile(shard_bytes, cell_bytes) - 1).bit_length())
            folder = f"{SHARDS}/runs/{hookpoint}"
            shards[hookpoint] = tuple(
                _write_run(storage, f"{folder}/{number:06}.safetensors", row_format, cells, key_token, values[part])
                for number, (part, key_token) in enumerate(_parts(order, documents, chosen, shard_rows))
            )
        write_documents(draft, documents)
        layout = Layout(shards)
        write_layout(storage, layout)
        write_facts(storage, _facts(order, formats, layout, documents, chosen))


def _parts(order: Order, documents: Documents, tokens: Int64, shard_rows: int) -> Iterator[tuple[slice, UInt64]]:
    """Which rows each shard takes, and the key and token of each."""
    for start in range(0, len(tokens), shard_rows):
        part = slice(start, start + shard_rows)
        yield part, np.stack([order.keys(tokens[part], documents), tokens[part].astype(np.uint64)], axis=1)


def _facts(
    order: Order, formats: dict[str, RowFormat], layout: Layout, documents: Documents, tokens: Int64
) -> StoreFacts:
    return StoreFacts(
        order=order,
        formats=formats,
        fingerprints={hookpoint: layout.fingerprint(hookpoint) for hookpoint in formats},
        n_training=int((~documents.held_out[documents.of(tokens)]).sum()),
        n_clipped={hookpoint: sum(shard.n_clipped for shard in part) for hookpoint, part in layout.shards.items()},
    )


def _write_run(
    storage: Storage, name: str, row_format: RowFormat, cells: Cells, key_token: UInt64, values: Float32
) -> ShardFacts:
    """A shard of these rows, sorted."""
    places = sorted_places(key_token)
    stored, n_clipped = row_format.encode(values[places])
    return write_shard(
        storage, name, row_format, cells, key_token[places], lambda first, last: stored[first:last], n_clipped=n_clipped
    )


def _check(tokens: Int64, n_tokens: int) -> None:
    ordered = np.sort(tokens)
    if len(ordered) and not 0 <= ordered[0] <= ordered[-1] < n_tokens:
        raise ValueError(
            f"token {ordered[-1] if ordered[0] >= 0 else ordered[0]}: the documents have {n_tokens} tokens"
        )
    if len(twice := ordered[1:][ordered[1:] == ordered[:-1]]):
        raise ValueError(f"token {twice[0]} has two rows; a token has one at most")
