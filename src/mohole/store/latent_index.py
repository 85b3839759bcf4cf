"""An inverted index of codes: all activations of a latent together, in the order of tokens. The scatter engine with another key.

An entry is one latent firing at one token. Its id is (latent, token) in one number, and the store is in the order of ids,
so the index is made by the merges that make a shuffle, for any size, memory and number of workers.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mohole import artifact
from mohole.artifact import Inputs
from mohole.errors import ConfigError
from mohole.execute import Executor
from mohole.storage import open_storage
from mohole.store.cells import Cells
from mohole.store.columns import RowFormat
from mohole.store.listing import BULK, Layout, StoreFacts, write_documents, write_facts, write_layout
from mohole.store.order import Documents, Order
from mohole.store.plan import Limits, cells_of_pile
from mohole.store.shard import ShardFacts
from mohole.store.shard_writer import sorted_places, write_shard
from mohole.store.shuffle import Source, shuffle
from mohole.store.store import Store

Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]

_ENTRY = RowFormat("float32", 1)
_COLUMN = "value"


class Entries(NamedTuple):
    """Activations: `value[i]` of `latent[i]` at `token[i]`."""

    latent: Int64
    token: Int64
    value: Float32


@dataclass(frozen=True)
class EntryIds:
    """(latent, token) as one number below 2^63."""

    n_latents: int
    n_tokens: int

    def __post_init__(self) -> None:
        if self._bits + max(self.n_latents - 1, 1).bit_length() > 62:
            raise ConfigError(f"{self.n_latents} latents and {self.n_tokens} tokens do not fit one 62-bit id")

    @property
    def _bits(self) -> int:
        return max(self.n_tokens - 1, 1).bit_length()

    @property
    def n_ids(self) -> int:
        return self.n_latents << self._bits

    def of(self, latents: Int64, tokens: Int64) -> Int64:
        return (latents << self._bits) | tokens

    def split(self, ids: Int64) -> tuple[Int64, Int64]:
        """(latents, tokens)"""
        return ids >> self._bits, ids & ((1 << self._bits) - 1)


def write_latent_index(
    out: Path, parts: Iterable[Entries], ids: EntryIds, executor: Executor, limits: Limits, *, inputs: Inputs
) -> None:
    """Make the index of all entries in `parts`, each of which fits the memory, as a sorted store at `out`.

    Raises:
        ArtifactError: `out` is taken. ConfigError: too little memory.
    """
    documents = Documents(np.asarray([0, ids.n_ids]), np.zeros(1, dtype=np.bool_))
    order = Order.text(documents)
    with artifact.create(out, inputs, bulk=BULK) as draft:
        storage = open_storage(draft)
        entries = storage.folder("entries")  # apart from what the shuffle makes, and takes away when it begins again
        runs: list[ShardFacts] = []
        bits = 0
        for number, part in enumerate(parts):
            entry_ids = ids.of(part.latent, part.token)
            key_token = np.stack([order.keys(entry_ids, documents), entry_ids.astype(np.uint64)], axis=1)
            places = sorted_places(key_token)
            stored, _ = _ENTRY.encode(part.value[places][:, None])
            if not runs:  # all are cut alike, a short last one too: ranges are read by the coarsest cells there are
                bits = (cells_of_pile(stored.nbytes, limits.cell_bytes) - 1).bit_length()
            name = f"{number:06}.safetensors"
            runs.append(
                write_shard(
                    entries,
                    name,
                    _ENTRY,
                    Cells.everything(bits),
                    key_token[places],
                    lambda first, last, stored=stored: stored[first:last],  # type: ignore[misc]
                )
            )
        layout = Layout({_COLUMN: tuple(runs)})
        facts = StoreFacts(order, {_COLUMN: _ENTRY}, {_COLUMN: layout.fingerprint(_COLUMN)})
        write_documents(draft, documents)
        made, sorted_layout = shuffle(Source(entries, facts, layout), storage, executor, limits)
        entries.delete([run.name for run in runs])
        write_facts(storage, made)
        write_layout(storage, sorted_layout)


class LatentIndex:
    """A finished index: the entries of one latent, read without the others."""

    def __init__(self, store: Store, ids: EntryIds) -> None:
        self._store, self._ids = store, ids

    def entries(self, latent: int) -> Entries:
        """Where a latent fires and how strongly, tokens ascending.

        Raises:
            DamageError: the part of a shard that holds them is not what was written.
        """
        bounds = self._ids.of(np.asarray([latent, latent + 1]), np.zeros(2, dtype=np.int64))
        low, high = self._store.facts.order.keys(bounds, self._store.documents).tolist()
        if latent + 1 == self._ids.n_latents:
            high = 1 << 64
        tokens: list[Int64] = []
        values: list[Float32] = []
        for shard in self._store.shards(_COLUMN):
            cells = shard.facts.cells.between(low, high)
            if cells is None:
                continue
            found = shard.read(cells)
            latents, at = self._ids.split(found.key_token[:, 1].astype(np.int64))
            mine = latents == latent
            tokens.append(at[mine])
            values.append(_ENTRY.decode(found.stored[mine])[:, 0])
        token = np.concatenate(tokens) if tokens else np.zeros(0, dtype=np.int64)
        value = np.concatenate(values) if values else np.zeros(0, dtype=np.float32)
        return Entries(np.full(len(token), latent, dtype=np.int64), token, value)
