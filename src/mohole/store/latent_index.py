"""An inverted index of codes: all activations of a latent together, in the order of tokens. The scatter engine with another key.

An entry is one latent firing at one token. Its id is (latent, token) in one number, and the store is in the order of ids,
so the index is made by the merges that make a shuffle, for any size, memory and number of workers.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mohole import artifact
from mohole.artifact import Inputs
from mohole.errors import ConfigError
from mohole.execute import Executor
from mohole.kernels.by_latent import by_latent
from mohole.storage import Storage, open_storage
from mohole.store.cells import Cells
from mohole.store.columns import RowFormat
from mohole.store.listing import BULK, Layout, StoreFacts, read_layout, write_documents, write_facts, write_layout
from mohole.store.order import Documents, Order
from mohole.store.plan import Limits, cells_of_pile
from mohole.store.shard import Shard, ShardFacts
from mohole.store.shard_writer import write_shard
from mohole.store.shuffle import Source, shuffle

Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]

_ENTRY = RowFormat("float32", 1)
_COLUMN = "value"
_CELLS_AT_ONCE = 16
"""Cells read together: a few megabytes of entries."""


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
        if self.token_bits + max(self.n_latents - 1, 1).bit_length() > 62:
            raise ConfigError(f"{self.n_latents} latents and {self.n_tokens} tokens do not fit one 62-bit id")

    @property
    def token_bits(self) -> int:
        return max(self.n_tokens - 1, 1).bit_length()

    @property
    def n_ids(self) -> int:
        return self.n_latents << self.token_bits

    def of(self, latents: Int64, tokens: Int64) -> Int64:
        return (latents << self.token_bits) | tokens

    def split(self, ids: Int64) -> tuple[Int64, Int64]:
        """(latents, tokens)"""
        return ids >> self.token_bits, ids & ((1 << self.token_bits) - 1)


def write_run(storage: Storage, name: str, part: Entries, ids: EntryIds, cell_bits: int) -> ShardFacts:
    """Write some entries, in any order, as one sorted run. Quickest where tokens ascend, as those of codes do.

    Args:
        cell_bits: of all runs alike: ranges are read by the coarsest cells there are.
    """
    documents, order = _ordering(ids)
    entry_ids, values = by_latent(part.latent, part.token, part.value, ids.n_latents, ids.token_bits)
    key_token = np.empty((len(entry_ids), 2), dtype=np.uint64)
    key_token[:, 0], key_token[:, 1] = order.keys(entry_ids, documents), entry_ids
    stored, _ = _ENTRY.encode(values[:, None])
    return write_shard(
        storage,
        name,
        _ENTRY,
        Cells.everything(cell_bits),
        key_token,
        lambda first, last: stored[first:last],
    )


def cell_bits_of(n_entries: int, cell_bytes: int) -> int:
    """Into how many cells (a power of two) a run of so many entries is cut."""
    return (cells_of_pile(n_entries * _ENTRY.row_bytes, cell_bytes) - 1).bit_length()


def sort_runs(
    runs: Storage, facts: Sequence[ShardFacts], ids: EntryIds, out: Storage, executor: Executor, limits: Limits
) -> StoreFacts:
    """Merge runs into the index at `out`, with its list of shards. A killed merge is gone on with.

    Raises:
        DamageError: a run is not what was written. ConfigError: too little memory.
    """
    _, order = _ordering(ids)
    layout = Layout({_COLUMN: tuple(facts)})
    store_facts = StoreFacts(order, {_COLUMN: _ENTRY}, {_COLUMN: layout.fingerprint(_COLUMN)})
    made, sorted_layout = shuffle(Source(runs, store_facts, layout), out, executor, limits)
    write_layout(out, sorted_layout)
    return made


def write_latent_index(
    out: Path, parts: Iterable[Entries], ids: EntryIds, executor: Executor, limits: Limits, *, inputs: Inputs
) -> None:
    """Make the index of all entries in `parts`, each of which fits the memory, as a sorted store at `out`.

    Raises:
        ArtifactError: `out` is taken. ConfigError: too little memory.
    """
    with artifact.create(out, inputs, bulk=BULK) as draft:
        storage = open_storage(draft)
        entries = storage.folder("entries")  # apart from what the shuffle makes, and takes away when it begins again
        runs: list[ShardFacts] = []
        bits = 0
        for number, part in enumerate(parts):
            bits = bits if runs else cell_bits_of(len(part.token), limits.cell_bytes)
            runs.append(write_run(entries, f"{number:06}.safetensors", part, ids, bits))
        write_documents(draft, _ordering(ids)[0])
        write_facts(storage, sort_runs(entries, runs, ids, storage, executor, limits))
        entries.delete([run.name for run in runs])


def _ordering(ids: EntryIds) -> tuple[Documents, Order]:
    """Ids are the places of one long text."""
    documents = Documents(np.asarray([0, ids.n_ids]), np.zeros(1, dtype=np.bool_))
    return documents, Order.text(documents)


class LatentIndex:
    """A finished index: the entries of some latents, read without the others."""

    def __init__(self, storage: Storage, ids: EntryIds) -> None:
        """Raises:
        ArtifactError: no index, or its list of shards is damaged.
        """
        self._ids = ids
        self._documents, self._order = _ordering(ids)
        layout = read_layout(storage)
        self._shards = [Shard(storage, facts, _ENTRY) for facts in layout.shards[_COLUMN]]

    def check_sizes(self) -> None:
        """Look whether every shard is there and as long as it was; their bytes are not read.

        Raises:
            DamageError: one is not.
        """
        for shard in self._shards:
            shard.check_size()

    def check(self) -> int:
        """Compare every byte with its checksum. Returns how many entries there are.

        Raises:
            DamageError: a shard is not what was written.
        """
        n_entries = 0
        for shard in self._shards:
            shard.check_size()
            shard.check_padding()
            cells = shard.facts.cells
            for number in range(cells.first, cells.first + cells.count, _CELLS_AT_ONCE):
                n_cells = min(_CELLS_AT_ONCE, cells.first + cells.count - number)
                n_entries += len(shard.read(Cells(cells.bits, number, n_cells)).key_token)
        return n_entries

    def entries(self, latent: int) -> Entries:
        """Where a latent fires and how strongly, tokens ascending.

        Raises:
            DamageError: the part of a shard that holds them is not what was written.
        """
        return joined(list(self.between(latent, latent + 1)))

    def between(self, first: int, last: int) -> Iterator[Entries]:
        """The entries of latents from `first` to before `last` in the order of (latent, token), a bounded number at a time.

        Raises:
            DamageError: a part of a shard is not what was written.
        """
        bounds = self._ids.of(np.asarray([first, last]), np.zeros(2, dtype=np.int64))
        low, high = self._order.keys(bounds, self._documents).tolist()
        if last == self._ids.n_latents:
            high = 1 << 64
        for shard in self._shards:
            wanted = shard.facts.cells.between(low, high)
            if wanted is None:
                continue
            for number in range(wanted.first, wanted.first + wanted.count, _CELLS_AT_ONCE):
                n_cells = min(_CELLS_AT_ONCE, wanted.first + wanted.count - number)
                found = shard.read(Cells(wanted.bits, number, n_cells))
                low_place, high_place = np.searchsorted(found.key_token[:, 1], bounds.astype(np.uint64))
                mine = slice(int(low_place), int(high_place))
                if mine.start < mine.stop:
                    latents, tokens = self._ids.split(found.key_token[mine, 1].astype(np.int64))
                    yield Entries(latents, tokens, _ENTRY.decode(found.stored[mine])[:, 0])


def joined(parts: Sequence[Entries]) -> Entries:
    """Several parts as one."""
    if not parts:
        return Entries(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))
    return Entries(*(np.concatenate(columns) for columns in zip(*parts, strict=True))) if len(parts) > 1 else parts[0]
