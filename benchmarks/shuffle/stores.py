"""The stores that are shuffled: rows of noise with the keys, tokens and documents of a real harvest. And eviction of files."""

import os
from pathlib import Path

import numpy as np

from mohole import artifact
from mohole.artifact import Inputs
from mohole.config import Machine
from mohole.job.rows import shuffle_store
from mohole.storage import open_storage
from mohole.store import Documents, Order, RowFormat, Store
from mohole.store.cells import Cells
from mohole.store.listing import BULK, SHARDS, Layout, StoreFacts, write_documents, write_facts, write_layout
from mohole.store.plan import CELL_BYTES, cells_of_pile
from mohole.store.shard import ShardFacts
from mohole.store.shard_writer import sorted_places, write_shard

HOOKPOINT = "resid_post.0"
RUN_ROWS = 131_072  # harvest.shard_tokens
_DOCUMENT_TOKENS = 512


def harvested(out: Path, n_rows: int, width: int) -> None:
    """A store as harvest leaves it: sorted runs. Its rows cannot be compressed; one document in 16 is held out."""
    starts = np.append(np.arange(0, n_rows, _DOCUMENT_TOKENS), n_rows)
    documents = Documents(starts, np.arange(len(starts) - 1) % 16 == 15)
    order, row_format = Order.random(documents, seed=0), RowFormat("bfloat16", width)
    with artifact.create(out, Inputs(kind="activations", config={}, seed=0), bulk=BULK) as draft:
        storage = open_storage(draft)
        runs: list[ShardFacts] = []
        for number, first in enumerate(range(0, n_rows, RUN_ROWS)):
            tokens = np.arange(first, min(first + RUN_ROWS, n_rows))
            key_token = np.stack([order.keys(tokens, documents), tokens.astype(np.uint64)], axis=1)
            rows = noise(number, len(tokens), width)
            cells = Cells.everything((cells_of_pile(rows.nbytes, CELL_BYTES) - 1).bit_length())
            name = f"{SHARDS}/runs/{HOOKPOINT}/{number:06}.safetensors"
            ids = key_token[sorted_places(key_token)]
            runs.append(write_shard(storage, name, row_format, cells, ids, lambda low, high, rows=rows: rows[low:high]))
        layout = Layout({HOOKPOINT: tuple(runs)})
        facts = StoreFacts(
            order=order,
            formats={HOOKPOINT: row_format},
            fingerprints={HOOKPOINT: layout.fingerprint(HOOKPOINT)},
            n_training=int((~documents.held_out[documents.of(np.arange(n_rows))]).sum()),
        )
        write_documents(draft, documents)
        write_layout(storage, layout)
        write_facts(storage, facts)


def noise(seed: int, n_rows: int, width: int) -> np.ndarray:
    """bfloat16 rows as bytes: 15 random bits and a zero in the exponent's top, so that every number is finite."""
    words = np.frombuffer(np.random.default_rng(seed).bytes(n_rows * width * 2), dtype="<u2") & np.uint16(0xBFFF)
    return words.view(np.uint8).reshape(n_rows, width * 2)


def in_text_order(source: Path, out: Path, memory: str) -> None:
    """The same rows as a store in the order of the text."""
    shuffle_store(Store.open(source), str(out), Machine(memory=memory), order_kind="text")


def evict(folder: Path) -> None:
    """Let the page cache forget the files of a folder, so that the next reader meets the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)
