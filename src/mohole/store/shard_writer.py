"""Writing a shard: rows in the order of their keys, hashed and checked cell by cell on the way to the disk."""

from collections.abc import Callable, Iterator

import numpy as np
import xxhash
from numpy.typing import NDArray

from mohole.storage import Storage
from mohole.store.cells import Cells
from mohole.store.columns import RowFormat
from mohole.store.fingerprint import Fingerprint, row_hashes
from mohole.store.shard import ShardFacts, ShardLayout, checksum, raw

Int64 = NDArray[np.int64]
UInt64 = NDArray[np.uint64]
Bytes = NDArray[np.uint8]

BLOCK_BYTES = 1 << 20
"""Rows are put in order and hashed so many at a time, which stay in the cache: 8.4 GB/s of 1 KB rows, 7.3 with 4 MiB."""
_HASHING_BYTES = 32
"""Of each row, beside it."""
_FEW_SHARDS = 16


def sorted_places(key_token: UInt64) -> Int64:
    """The permutation that sorts by key, equal keys (chance n^2 / 2^65) by token."""
    keys = np.ascontiguousarray(key_token[:, 0])
    # numpy's stable sort merges what ascends already: of 4 shards 6 to 15 ns a row, of 16 10 to 26, where the other takes 22
    n_ascending = 1 + np.count_nonzero(keys[1:] < keys[:-1])
    order = np.argsort(keys, kind="stable" if n_ascending <= _FEW_SHARDS else None)
    ordered = keys[order]
    if (ordered[1:] == ordered[:-1]).any():
        order = np.lexsort((key_token[:, 1], keys))
    return order


def write_shard(
    storage: Storage,
    name: str,
    row_format: RowFormat,
    cells: Cells,
    key_token: UInt64,
    rows: Callable[[int, int], Bytes],
    *,
    n_clipped: int = 0,
) -> ShardFacts:
    """Write a shard whole or not at all, in one pass over its rows.

    Args:
        key_token: sorted by (key, token), within `cells`.
        rows: gives the stored rows [start, stop) of the sorted order; asked for in order, a few megabytes at a time.
    """
    n_rows = len(key_token)
    starts = cells.starts(np.ascontiguousarray(key_token[:, 0]))
    layout = ShardLayout(row_format, n_rows, cells)
    checksums = np.zeros((cells.count, 2), dtype=np.uint64)
    fingerprints = np.zeros((cells.count, 2), dtype=np.uint64)
    lowest, highest = [], []  # tokens of each block
    with storage.writer(name, layout.n_bytes) as writer:
        writer.write(layout.header)
        ids = np.ascontiguousarray(key_token)
        for cell, (start, stop) in enumerate(zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True)):
            checksums[cell, 0] = checksum(ids[start:stop])
        writer.write(raw(ids))
        writer.write(bytes(layout.pad_after_ids))
        for first, last in _blocks(starts, row_format.row_bytes):
            start, stop = int(starts[first]), int(starts[last])
            block = rows(start, stop)
            tokens = key_token[start:stop, 1].astype(np.int64)
            if stop > start:
                lowest.append(int(tokens.min()))
                highest.append(int(tokens.max()))
            hashes = row_hashes(tokens, block)
            for cell in range(first, last):
                low, high = int(starts[cell]) - start, int(starts[cell + 1]) - start
                checksums[cell, 1] = checksum(block[low:high])
                mark = Fingerprint.of(hashes[low:high])
                fingerprints[cell] = mark.sum, mark.xor
            writer.write(raw(block))
        writer.write(bytes(layout.pad_after_rows))
        tables = b"".join(table.tobytes() for table in (starts, checksums, fingerprints))
        writer.write(tables)
    whole = Fingerprint(
        n_rows, int(fingerprints[:, 0].sum(dtype=np.uint64)), int(np.bitwise_xor.reduce(fingerprints[:, 1]))
    )
    return ShardFacts(
        name=name,
        n_bytes=layout.n_bytes,
        digest=xxhash.xxh3_128_hexdigest(layout.header + tables),
        cells=cells,
        fingerprint=whole,
        first_token=min(lowest, default=0),
        last_token=max(highest, default=-1),
        n_clipped=n_clipped,
    )


def _blocks(starts: Int64, row_bytes: int) -> Iterator[tuple[int, int]]:
    """Neighbouring cells, a few megabytes together: (first, one past the last)."""
    room = max(BLOCK_BYTES // max(row_bytes, _HASHING_BYTES), 1)
    first = 0
    while first < len(starts) - 1:
        last = max(int(np.searchsorted(starts, starts[first] + room, side="right")) - 1, first + 1)
        yield first, last
        first = last
