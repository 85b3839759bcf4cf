"""The rows of one hookpoint in the shuffled order, as batches for training: the last sort of a shuffle, in memory.

The place in the stream is one integer, the row's rank in the order; the same integer is the same row for any number of ranks,
any memory and any layout of the store. A pile of rows is sorted while the one before it is used up.
"""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from mohole.errors import NumericsError, StageError
from mohole.kernels.place import put_rows, room_for_rows
from mohole.store.cells import Cells
from mohole.store.plan import loader_room
from mohole.store.shard import Shard
from mohole.store.shard_writer import sorted_places
from mohole.store.shuffle import grouped
from mohole.store.store import Store

Int64 = NDArray[np.int64]
UInt64 = NDArray[np.uint64]
Bytes = NDArray[np.uint8]

DEFAULT_MEMORY = 2 << 30
_CELL_BYTES = 50
"""What an open shard holds for each of its cells."""
_TABLES_KEPT = 64 << 20
_MOST_GRID_BITS = 22
"""Piles are cut on a grid of 4 million ranges of keys at most: of 10 PB one is 2.4 GB."""


@runtime_checkable
class RowStream(Protocol):
    """What training reads: rows by rank. The same rank is always the same row, so a place in the stream is one integer."""

    @property
    def hookpoint(self) -> str: ...

    @property
    def d_model(self) -> int: ...

    @property
    def n_rows(self) -> int:
        """Rows of one pass."""

    def rows(self, first: int, n_rows: int) -> Float[Tensor, "row d"]:
        """`n_rows` rows from rank `first` on; after the last one the first one again."""

    def batch(self, step: int, n_rows: int, *, rank: int = 0, world: int = 1) -> Float[Tensor, "row d"]:
        """The part of one of `world` ranks of the rows of a step."""


@dataclass(frozen=True)
class _Pile:
    """Rows in memory, in their order."""

    first: int
    """Rank of its first row in the whole order."""
    tokens: UInt64
    stored: Bytes

    @property
    def end(self) -> int:
        return self.first + len(self.tokens)


class Stream:
    """The training rows of one hookpoint, in the order of their keys; from the start again at their end."""

    def __init__(self, store: Store, hookpoint: str, *, memory_bytes: int = DEFAULT_MEMORY) -> None:
        """Args:
            memory_bytes: for two piles of rows, the one in use and the next.

        Raises:
            StageError: the store is not in the shuffled order, or has fewer than two training rows.
            ConfigError: too little memory.
        """
        if store.facts.order.kind != "random":
            raise StageError(
                f"{store.url}: its rows are in the order of the text; mohole shuffle {store.url} OUT --order random mixes them"
            )
        self.hookpoint, self.d_model = hookpoint, store.d_model(hookpoint)
        self.n_rows = store.facts.n_training
        """Rows that are not held out."""
        if self.n_rows < 2:
            raise StageError(
                f"{store.url}: {self.n_rows} rows that are not held out, and training needs two at least; "
                "give more text, or a smaller windows.held_out"
            )
        self._store, self._format = store, store.facts.formats[hookpoint]
        facts = store.layout.shards[hookpoint]
        self._keeps_tables = sum(shard.cells.count for shard in facts) * _CELL_BYTES <= _TABLES_KEPT
        pile_rows, self._piece_rows = loader_room(memory_bytes, self._format.row_bytes)
        self._ranges, self._firsts = self._cut(pile_rows)
        self._pile: _Pile | None = None
        self._next: tuple[int, Future[_Pile]] | None = None

    def _cut(self, room: int) -> tuple[list[Cells], Int64]:
        """Ranges of keys that fit the memory, and the rank at which each begins."""
        grid = min(min(facts.cells.bits for facts in self._store.layout.shards[self.hookpoint]), _MOST_GRID_BITS)
        counts = np.zeros(1 << grid, dtype=np.int64)
        for shard in self._shards(Cells.everything()):
            cells = shard.facts.cells
            np.add.at(
                counts, np.arange(cells.first, cells.first + cells.count) >> (cells.bits - grid), np.diff(shard.starts)
            )
        ranges = grouped(counts, grid, room)
        sizes = [int(counts[part.first : part.first + part.count].sum()) for part in ranges]
        return ranges, np.cumsum([0, *sizes])

    def _shards(self, wanted: Cells) -> Iterator[Shard]:
        """Those with keys in this range. Their tables are kept only where all together are small."""
        facts = self._store.layout.shards[self.hookpoint]
        if self._keeps_tables:
            opened = self._store.shards(self.hookpoint)
            yield from (shard for shard in opened if shard.facts.cells.overlaps(wanted))
            return
        for shard in facts:
            if shard.cells.overlaps(wanted):
                yield Shard(self._store.shard_storage, shard, self._format)

    @cached_property
    def _reader(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(1, thread_name_prefix="mohole-stream")

    def batch(self, step: int, n_rows: int, *, rank: int = 0, world: int = 1) -> Float[Tensor, "row d"]:
        """The rows of a step, in the model's units: of `n_rows` rows, the part of one of `world` ranks.

        Raises:
            NumericsError: a value that is not finite.
            ValueError: ranks that do not divide the batch.
        """
        if n_rows % world:
            raise ValueError(f"{n_rows} rows cannot be shared by {world} ranks")
        mine = n_rows // world
        return self.rows(step * n_rows + rank * mine, mine)

    def rows(self, first: int, n_rows: int) -> Float[Tensor, "row d"]:
        """`n_rows` rows from rank `first` on, in float32. Ranks go on after the last row with the first one again."""
        found = np.empty((n_rows, self.d_model), dtype=np.float32)
        tokens = np.empty(n_rows, dtype=np.int64)
        done = 0
        while done < n_rows:
            rank = (first + done) % self.n_rows
            pile = self._at(rank)
            here = slice(
                rank - pile.first, min(rank - pile.first + n_rows - done, self.n_rows - pile.first, len(pile.tokens))
            )
            end = done + here.stop - here.start
            found[done:end] = self._format.decode(pile.stored[here])
            tokens[done:end] = pile.tokens[here]
            done = end
        if not np.isfinite(found.sum(dtype=np.float64)) and not np.isfinite(found).all():
            wrong = int(np.flatnonzero(~np.isfinite(found).all(axis=1))[0])
            raise NumericsError(
                f"{self.hookpoint}: not a finite number in the row of token {tokens[wrong]} of {self._store.url}, row "
                f"{first + wrong} of the stream; the model overflows there: harvest with model.dtype and harvest.dtype "
                "float32, or leave that document out"
            )
        return torch.from_numpy(found)

    def _at(self, rank: int) -> _Pile:
        """The pile that holds this rank; the next one is begun in the background."""
        if self._pile is None or not self._pile.first <= rank < self._pile.end:
            number = int(np.searchsorted(self._firsts, rank, side="right")) - 1
            ahead, self._next = self._next, None
            self._pile = None  # let go of it first: memory is for two piles
            self._pile = ahead[1].result() if ahead is not None and ahead[0] == number else self._load(number)
            following = self._following(number)
            if following != number:
                self._next = following, self._reader.submit(self._load, following)
        return self._pile

    def _following(self, number: int) -> int:
        """The pile after this one, of those with training rows."""
        return (number + 1) % int(np.searchsorted(self._firsts, self.n_rows, side="left"))

    def _load(self, number: int) -> _Pile:
        """The keys first, so that every row goes to its place as it is read."""
        wanted = self._ranges[number]
        parts = [shard.part(wanted) for shard in self._shards(wanted)]
        starts = np.cumsum([0, *(part.n_rows for part in parts)]).tolist()
        key_token = np.empty((starts[-1], 2), dtype=np.uint64)
        for part, start in zip(parts, starts, strict=False):
            part.read_ids(key_token[start : start + part.n_rows])
        order = sorted_places(key_token)
        ranks = np.empty_like(order)
        ranks[order] = np.arange(len(order))
        row_bytes = self._format.row_bytes
        stored = room_for_rows(len(order), row_bytes)
        room = room_for_rows(min(self._piece_rows, len(order)), row_bytes)
        for part, start in zip(parts, starts, strict=False):
            for first, piece in part.pieces(room):
                put_rows(stored, ranks[start + first : start + first + len(piece)], piece)
        return _Pile(int(self._firsts[number]), key_token[order, 1], stored)
