"""The small files of a store: what it holds (`store.json`), which shards it has (`layout.json`), where documents start.

`store.json` says what is true of the rows whatever plan, machine or number of workers put them there; it is sealed by the
artifact's manifest. `layout.json` is how this copy is cut into files; another plan gives another layout of the same store.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from mohole.errors import ArtifactError
from mohole.storage import Storage, open_storage
from mohole.store.columns import RowFormat
from mohole.store.fingerprint import Fingerprint
from mohole.store.order import Documents, Order
from mohole.store.shard import ShardFacts, total
from mohole.tensors import tensors_from_bytes, write_tensors

FACTS_FILE, LAYOUT_FILE, DOCUMENTS_FILE = "store.json", "layout.json", "documents.safetensors"
SHARDS, TASKS = "shards", "tasks"
COMMITS = (f"{TASKS}/*/**/*.json",)
"""Patterns of what an unfinished store is gone on from; beside the levels stands the plan, which costs nothing."""
CLAIM_FILE = "inputs.json"
"""Of a place that is no folder of a run: for which job it is."""
BULK = (SHARDS, TASKS, LAYOUT_FILE)
"""What the artifact's manifest does not list: it depends on the plan, and has checksums of its own."""


@dataclass(frozen=True)
class StoreFacts:
    """What a store holds."""

    order: Order
    formats: Mapping[str, RowFormat]
    """How rows are stored, by hookpoint."""
    fingerprints: Mapping[str, Fingerprint] = field(default_factory=dict)
    """The rows of each hookpoint, as they were when the model gave them."""
    n_training: int = 0
    """Rows of documents that are not held out: those with the lowest keys, in the random order."""
    is_sorted: bool = False
    """True: shard after shard is the order. False: shards are runs over the same keys, to be merged."""
    n_clipped: Mapping[str, int] = field(default_factory=dict)
    """Values that int8 could not hold, by hookpoint."""
    source: Mapping[str, Any] = field(default_factory=dict)
    """Digests of the corpus, the model and the tokenizer that the rows come from."""

    @property
    def n_rows(self) -> int:
        return next(iter(self.fingerprints.values())).n_rows if self.fingerprints else 0

    def as_json(self) -> dict[str, Any]:
        return {
            "format": "store 2",
            "order": self.order.as_json(),
            "hookpoints": {name: row_format.as_json() for name, row_format in self.formats.items()},
            "fingerprints": {name: mark.as_json() for name, mark in self.fingerprints.items()},
            "n_training": self.n_training,
            "is_sorted": self.is_sorted,
            "n_clipped": dict(self.n_clipped),
            "source": dict(self.source),
        }

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> "StoreFacts":
        return cls(
            order=Order.from_json(facts["order"]),
            formats={name: RowFormat.from_json(entry) for name, entry in facts["hookpoints"].items()},
            fingerprints={name: Fingerprint.from_json(entry) for name, entry in facts["fingerprints"].items()},
            n_training=facts["n_training"],
            is_sorted=facts["is_sorted"],
            n_clipped=facts["n_clipped"],
            source=facts["source"],
        )


@dataclass(frozen=True)
class Layout:
    """The shards of a store, by hookpoint; of a sorted one in their order."""

    shards: Mapping[str, tuple[ShardFacts, ...]]
    place: str | None = None
    """The URL under which the shards stand; None: beside this file."""

    def fingerprint(self, hookpoint: str) -> Fingerprint:
        return total(self.shards[hookpoint])

    def moved(self, place: str | None) -> "Layout":
        """The same shards, said to be elsewhere."""
        return replace(self, place=place)


def write_layout(storage: Storage, layout: Layout, name: str = LAYOUT_FILE) -> str:
    """Write it, and return its digest."""
    shards = {hookpoint: [shard.as_json() for shard in shards] for hookpoint, shards in layout.shards.items()}
    data = sealed({"place": layout.place, "shards": shards})
    storage.put(name, data)
    return xxhash.xxh3_128_hexdigest(data)


def read_layout(storage: Storage, name: str = LAYOUT_FILE) -> Layout:
    """Raises:
    ArtifactError: missing or changed.
    """
    body = unsealed(
        storage.read(name), f"{storage.url}/{name}", f"mohole verify {storage.url} --mend, then make it again"
    )
    try:
        shards = {
            hookpoint: tuple(ShardFacts.from_json(entry) for entry in entries)
            for hookpoint, entries in body["shards"].items()
        }
        return Layout(shards, body["place"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtifactError(f"{storage.url}/{name}: not a list of shards ({error}); make the store again") from None


@lru_cache(maxsize=8)
def layout_at(url: str, name: str, digest: str) -> Layout:
    """As `read_layout`, once in a process: a worker's tasks all start from the same listing, the one with this digest."""
    storage = open_storage(url)
    if (found := xxhash.xxh3_128_hexdigest(storage.read(name))) != digest:
        raise ArtifactError(
            f"{storage.url}/{name}: digest {found}, not {digest}; another job has written here; run again"
        )
    return read_layout(storage, name)


def write_facts(storage: Storage, facts: StoreFacts) -> None:
    storage.put(FACTS_FILE, sealed(facts.as_json()))


def read_facts(storage: Storage) -> StoreFacts:
    """Raises:
    ArtifactError: not a store, or changed.
    """
    where = f"{storage.url}/{FACTS_FILE}"
    body = unsealed(storage.read(FACTS_FILE), where)
    if body.get("format") != "store 2":
        raise ArtifactError(f"{where}: store format {body.get('format')!r}; this mohole reads 'store 2'; harvest again")
    return StoreFacts.from_json(body)


def write_documents(folder: Path, documents: Documents) -> None:
    write_tensors(
        folder / DOCUMENTS_FILE,
        {"document_starts": documents.starts.astype(np.int64), "held_out": documents.held_out.astype(np.uint8)},
    )


def read_documents(storage: Storage) -> Documents:
    """Raises:
    ArtifactError: missing or damaged.
    """
    tensors = tensors_from_bytes(storage.read(DOCUMENTS_FILE), f"{storage.url}/{DOCUMENTS_FILE}")
    return Documents(tensors["document_starts"], tensors["held_out"].astype(np.bool_))


def in_order(shards: Sequence[ShardFacts]) -> tuple[ShardFacts, ...]:
    """By the range of keys they cover, then by name."""
    return tuple(sorted(shards, key=lambda shard: (shard.cells.first / 2.0**shard.cells.bits, shard.name)))


def overlapping(shards: Sequence[ShardFacts]) -> ShardFacts | None:
    """The first shard whose keys do not all come after those of the shard before it. None: they are in order."""
    end = 0.0
    for shard in shards:
        start = shard.cells.first / 2.0**shard.cells.bits
        if start < end:
            return shard
        end = start + shard.cells.count / 2.0**shard.cells.bits
    return None


def sealed(body: Mapping[str, Any]) -> bytes:
    """A small JSON file with its own checksum."""
    text = json.dumps(body, sort_keys=True)
    return (
        json.dumps({"body": body, "xxh3": xxhash.xxh3_128_hexdigest(text.encode())}, sort_keys=True) + "\n"
    ).encode()


def unsealed(data: bytes, where: str, remedy: str = "make the store again") -> dict[str, Any]:
    """Raises:
    ArtifactError: not byte for byte what `sealed` gave.
    """
    try:
        body: dict[str, Any] = json.loads(data)["body"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ArtifactError(f"{where}: damaged ({error}); {remedy}") from None
    if sealed(body) != data:
        raise ArtifactError(f"{where}: its checksum is wrong, its bytes have changed; {remedy}")
    return body
