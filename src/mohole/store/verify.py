"""Proof of a store: every shard alone (bytes, keys, range, fingerprint), and the whole (nothing lost, doubled or changed)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import xxhash
from numpy.typing import NDArray

from mohole.errors import ArtifactError, DamageError
from mohole.progress import track
from mohole.storage import Storage
from mohole.store.cells import Cells
from mohole.store.columns import RowFormat
from mohole.store.fingerprint import Fingerprint, row_hashes
from mohole.store.listing import TASKS, overlapping, unsealed
from mohole.store.order import Documents, Order
from mohole.store.shard import Rows, Shard, ShardFacts
from mohole.store.shard_writer import sorted_places
from mohole.store.store import Store

_PIECE_BYTES = 32 << 20


@dataclass(frozen=True)
class Certificate:
    """What was proved, or what was found wrong."""

    n_shards: int
    n_rows: int
    """Rows of one hookpoint."""
    order_hash: str | None
    """xxh3-128 of the tokens in order: the same for every layout of the same rows. None where shards are runs."""
    damaged: tuple[DamageError, ...] = ()
    wrong: tuple[str, ...] = field(default=())
    """What is not right about the whole, one line each."""

    @property
    def holds(self) -> bool:
        return not self.damaged and not self.wrong


def verify(store: Store) -> Certificate:
    """Read everything, recompute every key, and compare. Damage is collected, not raised.

    Raises:
        DamageError: of the documents, without which no key can be judged.
    """
    documents = store.documents
    damaged: list[DamageError] = []
    wrong: list[str] = []
    order_hash: str | None = None
    n_bytes = sum(shard.n_bytes for shards in store.layout.shards.values() for shard in shards)
    with track("verify", n_bytes, "bytes") as tracker:
        for hookpoint, shards in store.layout.shards.items():
            row_format = store.facts.formats[hookpoint]
            state = xxhash.xxh3_128()
            found = Fingerprint()
            for facts in shards:
                try:
                    for piece in _proved(store.shard_storage, facts, row_format, store.facts.order, documents):
                        state.update(np.ascontiguousarray(piece.key_token[:, 1]).data)
                except DamageError as error:
                    damaged.append(error)
                found += facts.fingerprint
                tracker.advance(facts.n_bytes)
            wrong += _whole(store, hookpoint, shards, found)
            order_hash = state.hexdigest() if store.facts.is_sorted else None
    damaged += _damaged_records(store.shard_storage)
    n_shards = sum(len(shards) for shards in store.layout.shards.values())
    return Certificate(n_shards, store.n_rows, None if damaged else order_hash, tuple(damaged), tuple(wrong))


def _damaged_records(storage: Storage) -> Iterator[DamageError]:
    """Of the tasks that made the store: no reader needs them, but who mends it does."""
    for name in storage.names(f"{TASKS}/"):
        where = f"{storage.url}/{name}"
        try:
            unsealed(storage.read(name), where, f"mohole verify {storage.url} --mend takes it away")
        except ArtifactError as error:
            yield DamageError(str(error), name, storage.url)


def verify_bytes(store: Store) -> None:
    """Compare every byte with its checksum.

    Raises:
        DamageError: the first shard that is not what was written.
    """
    for hookpoint, shards in store.layout.shards.items():
        for facts in shards:
            for _ in _pieces(Shard(store.shard_storage, facts, store.facts.formats[hookpoint])):
                pass


def verify_shard(
    storage: Storage, facts: ShardFacts, row_format: RowFormat, order: Order, documents: Documents
) -> None:
    """Prove one shard alone: its bytes, the key of every row, their order, their range, their fingerprint.

    Raises:
        DamageError: what is wrong.
    """
    for _ in _proved(storage, facts, row_format, order, documents):
        pass


def _proved(
    storage: Storage, facts: ShardFacts, row_format: RowFormat, order: Order, documents: Documents
) -> Iterator[Rows]:
    shard = Shard(storage, facts, row_format)
    found = Fingerprint()
    least, most = facts.last_token + 1, -1
    last: tuple[int, int] = (-1, -1)
    for cells, piece in _pieces(shard):
        keys, tokens = piece.key_token[:, 0], piece.key_token[:, 1].astype(np.int64)
        if (order.keys(tokens, documents) != keys).any():
            raise shard.damaged(f"keys are not those of its tokens under seed {order.seed}")
        same = keys[1:] == keys[:-1]
        ascending = (keys[1:] > keys[:-1]) | (same & (tokens[1:] > tokens[:-1]))
        if not ascending.all() or (len(keys) and (int(keys[0]), int(tokens[0])) <= last):
            raise shard.damaged("its rows are not in order")
        if not cells.holds(keys):
            raise shard.damaged("a row is outside its range of keys")
        if len(keys):
            last = (int(keys[-1]), int(tokens[-1]))
            least, most = min(least, int(tokens.min())), max(most, int(tokens.max()))
        found += Fingerprint.of(row_hashes(tokens, piece.stored))
        yield piece
    if found != facts.fingerprint:
        raise shard.damaged("its fingerprint is not that of its rows")
    if found.n_rows and (least, most) != (facts.first_token, facts.last_token):
        raise shard.damaged(f"its tokens go from {least} to {most}, not from {facts.first_token} to {facts.last_token}")


def _pieces(shard: Shard) -> Iterator[tuple[Cells, Rows]]:
    """The shard in stretches of whole cells that take little memory, each checked as it is read."""
    shard.check_size()
    shard.check_padding()
    cells = shard.facts.cells
    row_bytes = max(shard.facts.n_bytes // max(shard.n_rows, 1), 1)
    room = max(_PIECE_BYTES // row_bytes, 1)
    first = 0
    while first < cells.count:
        last = max(int(np.searchsorted(shard.starts, shard.starts[first] + room, side="right")) - 1, first + 1)
        part = Cells(cells.bits, cells.first + first, last - first)
        yield part, shard.read(part)
        first = last


def _whole(store: Store, hookpoint: str, shards: Sequence[ShardFacts], found: Fingerprint) -> Iterator[str]:
    expected = store.facts.fingerprints[hookpoint]
    if found != expected:
        yield f"{hookpoint}: {found.n_rows} rows with another fingerprint than the {expected.n_rows} that were harvested"
    if store.facts.is_sorted and (shard := overlapping(shards)) is not None:
        yield f"{hookpoint}: {shard.name} overlaps the shard before it"


def tokens_in_order(store: Store) -> NDArray[np.int64]:
    """The tokens of all rows in the order of their keys, whether shards are sorted or runs."""
    parts = [shard.key_token() for shard in store.shards(store.hookpoints[0])]
    whole = np.concatenate(parts) if parts else np.zeros((0, 2), dtype=np.uint64)
    tokens: NDArray[np.int64] = whole[sorted_places(whole), 1].astype(np.int64)
    return tokens
