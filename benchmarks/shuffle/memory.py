"""A permutation of rows in memory, beside copying them. GB/s (1e9 bytes).

python benchmarks/shuffle/memory.py        writes results/DATE-memory.json
"""

import datetime
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from limits import seconds

from mohole.kernels.place import put_rows, room_for_rows
from mohole.store.merge import rows_at
from mohole.store.shard_writer import BLOCK_BYTES

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import machine

_BYTES = 256 << 20
_ROUNDS = 9


def memory(row_bytes: int) -> dict[str, float]:
    """Into memory that has been written before, but for `... into new memory`:

    - memcpy: everything in one stream, which passes the cache by; memcpy by rows: in order, a row at a time.
    - permutation: as the loader does it, each row to its place as it comes. gather: the wanted order by numpy.
    - blocks: as a merge does it, in blocks that stay in the cache until they are hashed and written.
    """
    rows, target = room_for_rows(_BYTES // row_bytes, row_bytes), room_for_rows(_BYTES // row_bytes, row_bytes)
    rows[:], target[:] = np.random.default_rng(0).integers(0, 256, rows.shape, dtype=np.uint8), 1
    places, in_order = np.random.default_rng(1).permutation(len(rows)), np.arange(len(rows))
    step = BLOCK_BYTES // row_bytes

    def blocks() -> None:
        for start in range(0, len(rows), step):
            rows_at(rows, places[start : start + step])

    calls: dict[str, Callable[[], object]] = {
        "memcpy": lambda: np.copyto(target, rows),
        "memcpy by rows": lambda: np.take(rows, in_order, axis=0, out=target, mode="clip"),
        "permutation": lambda: put_rows(target, places, rows),
        "gather": lambda: np.take(rows, places, axis=0, out=target, mode="clip"),
        "blocks": blocks,
        "memcpy into new memory": lambda: np.copyto(room_for_rows(*rows.shape), rows),
        "permutation into new memory": lambda: put_rows(room_for_rows(*rows.shape), places, rows),
    }
    for call in calls.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(_ROUNDS):  # in turn: a machine that is busy for a while slows all of them
        for name, call in calls.items():
            times[name].append(seconds(call))
    return {name: rows.nbytes / float(np.median(found)) / 1e9 for name, found in times.items()}


def ratios(found: dict[str, float]) -> dict[str, float]:
    """What the aim is about, and what it is compared with."""
    return {
        "permutation / memcpy": found["permutation"] / found["memcpy"],
        "permutation / memcpy, into new memory": found["permutation into new memory"] / found["memcpy into new memory"],
        "gather / memcpy": found["gather"] / found["memcpy"],
        "blocks / memcpy": found["blocks"] / found["memcpy"],
    }


def main() -> None:
    found = {f"{row_bytes} B rows": memory(row_bytes) for row_bytes in (1024, 4096)}
    result = {
        "machine": machine.machine(),
        "command": "python benchmarks/shuffle/memory.py",
        "gb_per_s": found,
        "ratios": {rows: ratios(each) for rows, each in found.items()},
    }
    text = json.dumps(result, indent=1)
    print(text)
    out = Path(__file__).parent / "results" / f"{datetime.date.today()}-memory.json"
    out.write_text(text + "\n")


if __name__ == "__main__":
    main()
