"""Small worlds of documents and rows for the tests of the store, and a store shuffled in a few ways. Data only; no tests."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mohole.artifact import Inputs, create
from mohole.execute import Cores, Kind, open_executor
from mohole.job.rows import source_of
from mohole.storage import open_storage
from mohole.store import Documents, Order, Store, write_store
from mohole.store.listing import BULK, write_documents, write_facts, write_layout
from mohole.store.plan import Limits
from mohole.store.shuffle import shuffle

WIDTHS = {"embed": 3, "mlp_out.0": 5}


@dataclass(frozen=True)
class World:
    documents: Documents
    tokens: np.ndarray
    """Those that have a row."""
    rows: dict[str, np.ndarray]


def make_documents(n_documents: int, *, seed: int = 0, longest: int = 30, held_out: float = 0.2) -> Documents:
    draw = np.random.default_rng(seed)
    lengths = draw.integers(1, longest + 1, n_documents)
    return Documents(np.concatenate([[0], np.cumsum(lengths)]), draw.random(n_documents) < held_out)


def make_world(n_documents: int = 60, *, seed: int = 0, skipped: float = 0.1, **settings: Any) -> World:
    """Rows of most tokens; the first dimension of each is its token."""
    documents = make_documents(n_documents, seed=seed, **settings)
    draw = np.random.default_rng(seed + 1)
    tokens = np.flatnonzero(draw.random(int(documents.starts[-1])) >= skipped)
    rows = {name: draw.standard_normal((len(tokens), width)).astype(np.float32) for name, width in WIDTHS.items()}
    for values in rows.values():
        values[:, 0] = tokens
    return World(documents, tokens, rows)


def write(place: Path, world: World, **settings: Any) -> Store:
    """In several shards of several cells each, unless asked otherwise."""
    chosen = {"dtype": "float32", "shard_rows": 150, "cell_bytes": 128} | settings
    write_store(place, world.rows, world.documents, tokens=world.tokens, **chosen)
    return Store.open(place)


def small(memory_rows: int = 100, *, segment_bytes: int = 1, cell_bytes: int = 128) -> Limits:
    """Memory for a few rows."""
    row_bytes = 4 * max(WIDTHS.values()) + 64
    return Limits(memory_rows * row_bytes, segment_bytes=segment_bytes, cell_bytes=cell_bytes, process_bytes=0)


def shuffled(
    place: Path,
    source: Store,
    limits: Limits,
    *,
    levels: int | None = None,
    order: Order | None = None,
    kind: Kind = "inline",
) -> Store:
    inputs = Inputs(kind="shuffled", config={}, seed=0, parents={"activations": source.manifest.digest})
    with create(place, inputs, resume=True, bulk=BULK) as draft, open_executor(kind, Cores(1, 1)) as executor:
        write_documents(draft, source.documents)
        out = open_storage(draft)
        facts, layout = shuffle(source_of(source), out, executor, limits, levels=levels, order=order)
        write_facts(out, facts)
        write_layout(out, layout)
    return Store.open(place)


def tokens_in_order(store: Store, hookpoint: str = "embed") -> np.ndarray:
    """The tokens as the shards hold them, one after the other."""
    return np.concatenate([shard.key_token()[:, 1] for shard in store.shards(hookpoint)]).astype(np.int64)


def flip(file: Path, place: int, bit: int = 1) -> None:
    """Change one byte of a file."""
    with file.open("r+b") as opened:
        opened.seek(place)
        (byte,) = opened.read(1)
        opened.seek(place)
        opened.write(bytes([byte ^ bit]))
