"""One shard: a file of rows of one hookpoint in ascending order of (key, token), that any safetensors reader opens.

    header | key_token u64 [row, 2] | rows [row, d] | cell_starts | cell_checksums | cell_fingerprints

Both columns begin at multiples of 4096 bytes. Cells (rows whose keys share leading bits) are what is read and checked: each
has a checksum of its part of either column, so any range of keys can be read and proved alone.
"""

import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from mohole.errors import ArtifactError, DamageError
from mohole.storage import Storage
from mohole.storage.storage import check_name
from mohole.store.cells import Cells
from mohole.store.columns import SAFETENSORS_NAMES, RowFormat
from mohole.store.fingerprint import Fingerprint

Int64 = NDArray[np.int64]
UInt64 = NDArray[np.uint64]
Bytes = NDArray[np.uint8]

ALIGNMENT_BYTES = 4096
KEY_TOKEN_BYTES = 16
_HEADER_BYTES = ALIGNMENT_BYTES  # always: so that opening is one read of known size


@dataclass(frozen=True)
class ShardFacts:
    """What is known of a shard without opening it."""

    name: str
    n_bytes: int
    digest: str
    """xxh3-128 of the header and of the tables at the end, which hold the checksums of everything between."""
    cells: Cells
    fingerprint: Fingerprint
    first_token: int
    last_token: int
    n_clipped: int = 0
    """Values that int8 could not hold, counted where the model's rows were first stored."""

    @property
    def n_rows(self) -> int:
        return self.fingerprint.n_rows

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"fingerprint": self.fingerprint.as_json()}

    @classmethod
    def from_json(cls, facts: dict[str, Any]) -> "ShardFacts":
        """Raises: KeyError, TypeError, ValueError: not facts of a shard."""
        check_name(facts["name"])
        numbers = [facts[name] for name in ("n_bytes", "first_token", "last_token", "n_clipped")]
        if not all(isinstance(number, int) and -1 <= number < 1 << 62 for number in numbers):
            raise ValueError(f"{facts['name']}: {numbers}")
        nested = {"cells": Cells(**facts["cells"]), "fingerprint": Fingerprint.from_json(facts["fingerprint"])}
        return cls(**(facts | nested))


class Rows(NamedTuple):
    """Rows as they are stored, with what they are sorted by."""

    key_token: UInt64
    """[row, 2]: each row's key and its token's index in the corpus."""
    stored: Bytes
    """[row, row_bytes]"""


def raw(part: NDArray[Any]) -> memoryview:
    """The bytes of an array."""
    return np.ascontiguousarray(part).reshape(-1).view(np.uint8).data


def checksum(part: NDArray[Any]) -> int:
    return xxhash.xxh3_64_intdigest(raw(part))


class ShardLayout:
    """Where everything stands in the file; known before a row is."""

    def __init__(self, row_format: RowFormat, n_rows: int, cells: Cells) -> None:
        ids_bytes, row_bytes = n_rows * KEY_TOKEN_BYTES, n_rows * row_format.row_bytes
        self.pad_after_ids, self.pad_after_rows = -ids_bytes % ALIGNMENT_BYTES, -row_bytes % ALIGNMENT_BYTES
        self.ids_at = _HEADER_BYTES
        self.rows_at = self.ids_at + ids_bytes + self.pad_after_ids
        self.tables_at = self.rows_at + row_bytes + self.pad_after_rows
        self.tables_bytes = 8 * (cells.count + 1) + 32 * cells.count
        self.n_bytes = self.tables_at + self.tables_bytes
        columns = (  # padding is a tensor too: the format allows no holes
            ("key_token", "U64", [n_rows, 2], ids_bytes),
            ("pad_0", "U8", [self.pad_after_ids], self.pad_after_ids),
            ("rows", SAFETENSORS_NAMES[row_format.dtype], [n_rows, row_format.width], row_bytes),
            ("pad_1", "U8", [self.pad_after_rows], self.pad_after_rows),
            ("cell_starts", "I64", [cells.count + 1], 8 * (cells.count + 1)),
            ("cell_checksums", "U64", [cells.count, 2], 16 * cells.count),
            ("cell_fingerprints", "U64", [cells.count, 2], 16 * cells.count),
        )
        header: dict[str, Any] = {
            "__metadata__": {"mohole": "shard 1", "bits": str(cells.bits), "first": str(cells.first)}
        }
        offset = 0
        for name, dtype, shape, n_bytes in columns:
            header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + n_bytes]}
            offset += n_bytes
        text = json.dumps(header).encode()
        self.header = struct.pack("<Q", _HEADER_BYTES - 8) + text.ljust(_HEADER_BYTES - 8)
        assert len(self.header) == _HEADER_BYTES


class _File:
    """A shard's bytes, and where everything stands in them."""

    def __init__(self, storage: Storage, facts: ShardFacts, row_format: RowFormat) -> None:
        self.storage, self.facts, self.row_format = storage, facts, row_format
        self.layout = ShardLayout(row_format, facts.n_rows, facts.cells)

    def read(self, offset: int, target: memoryview) -> None:
        """Fill the target.

        Raises:
            DamageError: the file is gone or cut short.
        """
        try:
            self.storage.read_into(self.facts.name, offset, target)
        except ArtifactError as error:
            name, n_bytes = self.facts.name, self.facts.n_bytes
            if self.storage.exists(name) and self.storage.size(name) == n_bytes:
                raise  # whole, but not for us to read: nothing to be made again
            raise DamageError(str(error), name, self.storage.url) from None

    def damaged(self, how: str) -> DamageError:
        """The error to raise where its content is not what it should be."""
        url, name = self.storage.url, self.facts.name
        return DamageError(f"{url}/{name}: {how}", name, url)

    def wrong_cell(self, cell: int) -> DamageError:
        return self.damaged(f"the checksum of cell {cell} is wrong, so its bytes have changed")


@dataclass(frozen=True)
class Part:
    """The rows of a shard with keys in a range, not read yet. It holds the tables of its own cells alone, so that a merge of
    thousands of shards need not hold the tables of all of them."""

    file: _File
    first_cell: int
    first_row: int
    bounds: Int64
    """Where its cells begin, counted from its first row, and where the last one ends."""
    checksums: UInt64
    """[cell, column]"""
    fingerprint: Fingerprint
    """Of its rows as they were written."""

    @property
    def n_rows(self) -> int:
        return self.fingerprint.n_rows

    def read_into(self, target: Rows) -> None:
        """Read them, and check them.

        Raises:
            DamageError: a cell's checksum is wrong, or the file is gone or cut short.
        """
        self.read_ids(target.key_token)
        self._read(1, target.stored, 0, len(self.bounds) - 1)

    def read_ids(self, target: UInt64) -> None:
        """Read their keys and tokens only, and check them. Raises: DamageError, as `read_into`."""
        self._read(0, target, 0, len(self.bounds) - 1)

    def pieces(self, room: Bytes) -> Iterator[tuple[int, Bytes]]:
        """The stored rows, some cells at a time, each with the number of its first row here. They stand in `room` until the
        next ones are asked for; a cell that is larger than `room` comes in room of its own. Raises: DamageError, as `read_into`.
        """
        first, last = 0, len(self.bounds) - 1
        while first < last:
            start = int(self.bounds[first])
            fits = int(np.searchsorted(self.bounds, start + len(room), side="right")) - 1
            end = max(fits, first + 1)
            n_rows = int(self.bounds[end]) - start
            piece = room[:n_rows] if fits > first else np.empty((n_rows, room.shape[1]), dtype=np.uint8)
            self._read(1, piece, first, end)
            yield start, piece
            first = end

    def _read(self, column: int, target: NDArray[Any], first: int, end: int) -> None:
        """Read some cells' part of a column, and check it."""
        start, stop = int(self.bounds[first]), int(self.bounds[end])
        if start == stop:
            return
        layout, row_bytes = self.file.layout, self.file.row_format.row_bytes
        at, size = ((layout.ids_at, KEY_TOKEN_BYTES), (layout.rows_at, row_bytes))[column]
        self.file.read(at + (self.first_row + start) * size, target.reshape(-1).view(np.uint8).data)
        for cell, (low, high) in enumerate(pairwise(self.bounds[first : end + 1].tolist()), start=first):
            if checksum(target[low - start : high - start]) != int(self.checksums[cell, column]):
                raise self.file.wrong_cell(self.first_cell + cell)


class Shard:
    """A shard opened for reading: two small reads; rows are read when asked for."""

    def __init__(self, storage: Storage, facts: ShardFacts, row_format: RowFormat) -> None:
        """Raises:
        DamageError: its header or tables are not those that were written.
        """
        self.facts, self._file = facts, _File(storage, facts, row_format)
        header, tables = bytearray(_HEADER_BYTES), bytearray(self._file.layout.tables_bytes)
        self._file.read(0, memoryview(header))
        self._file.read(self._file.layout.tables_at, memoryview(tables))
        if xxhash.xxh3_128_hexdigest(bytes(header + tables)) != facts.digest:
            raise self.damaged("its header or its tables have changed")
        numbers = np.frombuffer(tables, dtype="<u8")
        n_cells = facts.cells.count
        self.starts: Int64 = numbers[: n_cells + 1].astype(np.int64)
        self._checksums: UInt64 = numbers[n_cells + 1 : 3 * n_cells + 1].reshape(n_cells, 2)
        self._fingerprints: UInt64 = numbers[3 * n_cells + 1 :].reshape(n_cells, 2)
        self._proved = np.zeros((2, n_cells), dtype=np.bool_)
        self._columns: dict[int, Bytes] = {}

    @property
    def n_rows(self) -> int:
        return self.facts.n_rows

    def cells_of(self, wanted: Cells) -> slice:
        """Which of its own cells lie in this range of keys (whose cells are not smaller than its own)."""
        finer = wanted.finer(self.facts.cells.bits)
        low = min(max(finer.first - self.facts.cells.first, 0), self.facts.cells.count)
        high = min(finer.first + finer.count - self.facts.cells.first, self.facts.cells.count)
        return slice(low, max(high, low))

    def rows_of(self, wanted: Cells) -> slice:
        """Which of its rows have keys in this range."""
        cells = self.cells_of(wanted)
        return slice(int(self.starts[cells.start]), int(self.starts[cells.stop]))

    def part(self, wanted: Cells) -> "Part":
        """What is needed to read the rows with keys in this range and to prove them; the shard's tables may go."""
        cells, rows = self.cells_of(wanted), self.rows_of(wanted)
        marks = self._fingerprints[cells]
        fingerprint = Fingerprint(
            rows.stop - rows.start, int(marks[:, 0].sum(dtype=np.uint64)), int(np.bitwise_xor.reduce(marks[:, 1]))
        )
        bounds = (self.starts[cells.start : cells.stop + 1] - rows.start).copy()
        return Part(self._file, cells.start, rows.start, bounds, self._checksums[cells].copy(), fingerprint)

    def read(self, wanted: Cells) -> Rows:
        """The rows with keys in this range, checked.

        Raises:
            DamageError: a cell's checksum is wrong, or the file is gone or cut short.
        """
        part = self.part(wanted)
        target = empty_rows(part.n_rows, self._file.row_format)
        part.read_into(target)
        return target

    def check_size(self) -> None:
        """Raises:
        DamageError: the file is longer or shorter than it was written.
        """
        n_bytes = self._file.storage.size(self.facts.name)
        if n_bytes != self.facts.n_bytes:
            raise self.damaged(f"{n_bytes} bytes, {self.facts.n_bytes} expected")

    def check_padding(self) -> None:
        """What stands between the columns is zeros; no checksum covers it, and no reader minds.

        Raises:
            DamageError: it is not.
        """
        layout, row_bytes = self._file.layout, self._file.row_format.row_bytes
        ends = (
            (layout.ids_at + self.n_rows * KEY_TOKEN_BYTES, layout.pad_after_ids),
            (layout.rows_at + self.n_rows * row_bytes, layout.pad_after_rows),
        )
        for at, n_bytes in ends:
            padding = bytearray(n_bytes)
            self._file.read(at, memoryview(padding))
            if any(padding):
                raise self.damaged("the padding of a column is not zeros, so its bytes have changed")

    def key_token(self) -> UInt64:
        """[row, 2]: key and token of every row, in order."""
        return self._checked(0, np.arange(self.facts.cells.count)).view("<u8").reshape(-1, 2)

    def places_of(self, keys: UInt64, tokens: Int64) -> tuple[Int64, NDArray[np.bool_]]:
        """Where the rows with these keys and tokens stand; and for each whether it is here at all."""
        if self.n_rows == 0:
            return np.zeros(len(keys), dtype=np.int64), np.zeros(len(keys), dtype=np.bool_)
        own_keys, own_tokens = self._keys
        places = np.minimum(np.searchsorted(own_keys, keys), self.n_rows - 1)
        found = own_tokens[places] == tokens
        while True:  # equal keys stand by token: go on to the next, while there is one
            further = ~found & (own_keys[places] == keys) & (places + 1 < self.n_rows)
            if not further.any():
                return places, found
            places = places + further
            found = own_tokens[places] == tokens

    def stored_at(self, places: Int64) -> Bytes:
        """The stored rows at these places. Of a file of this machine only their cells are read, and checked the first time."""
        cells = np.unique(np.searchsorted(self.starts, places, side="right") - 1)
        return self._checked(1, cells)[places]

    @cached_property
    def _keys(self) -> tuple[UInt64, Int64]:
        own = self.key_token()
        return np.ascontiguousarray(own[:, 0]), np.ascontiguousarray(own[:, 1]).astype(np.int64)

    def _column(self, number: int) -> Bytes:
        """A column as bytes [row, item]: mapped from a file of this machine, else read whole."""
        if number not in self._columns:
            layout, storage = self._file.layout, self._file.storage
            columns = ((layout.ids_at, KEY_TOKEN_BYTES), (layout.rows_at, self._file.row_format.row_bytes))
            at, size = columns[number]
            if self.n_rows and storage.local is not None:
                path = storage.local / self.facts.name
                self._columns[number] = np.memmap(path, mode="r", dtype=np.uint8, offset=at, shape=(self.n_rows, size))
            else:
                whole = np.empty((self.n_rows, size), dtype=np.uint8)
                if self.n_rows:
                    self._file.read(at, raw(whole))
                self._columns[number] = whole
        return self._columns[number]

    def _checked(self, column: int, cells: Int64) -> Bytes:
        """A column of which at least these cells are known to be right."""
        content = self._column(column)
        for cell in cells[~self._proved[column, cells]].tolist():
            if checksum(content[self.starts[cell] : self.starts[cell + 1]]) != int(self._checksums[cell, column]):
                raise self._file.wrong_cell(cell)
            self._proved[column, cell] = True
        return content

    def damaged(self, how: str) -> DamageError:
        """The error to raise where its content is not what it should be."""
        return self._file.damaged(how)


def empty_rows(n_rows: int, row_format: RowFormat) -> Rows:
    """Room for rows."""
    return Rows(np.empty((n_rows, 2), dtype=np.uint64), np.empty((n_rows, row_format.row_bytes), dtype=np.uint8))


def total(facts: Sequence[ShardFacts]) -> Fingerprint:
    """The fingerprint of all these shards together."""
    whole = Fingerprint()
    for shard in facts:
        whole += shard.fingerprint
    return whole
