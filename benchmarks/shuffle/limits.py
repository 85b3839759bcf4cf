"""What this machine's disk can do at most, past the page cache. GB/s (1e9 bytes)."""

import mmap
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

_BLOCK_BYTES = 8 << 20
_WRITE_BYTES = 4 << 20  # a merge asks for so much at a time


def disk(folder: Path, n_bytes: int) -> dict[str, float]:
    """One thread writing, one reading, and one of each side by side: the last is what every pass of a shuffle does."""
    n_bytes = n_bytes // _BLOCK_BYTES * _BLOCK_BYTES
    first, second = folder / "limit.0", folder / "limit.1"
    try:
        write = n_bytes / seconds(lambda: _write(first, n_bytes))
        read = n_bytes / seconds(lambda: _read(first))
        with ThreadPoolExecutor(2) as threads:
            mixed = (
                2
                * n_bytes
                / seconds(
                    lambda: [
                        done.result()
                        for done in (threads.submit(_read, first), threads.submit(_write, second, n_bytes))
                    ]
                )
            )
    finally:
        first.unlink(missing_ok=True)
        second.unlink(missing_ok=True)
    return {"write": write / 1e9, "read": read / 1e9, "mixed": mixed / 1e9}


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _write(path: Path, n_bytes: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_DIRECT, 0o644)
    try:
        with mmap.mmap(-1, _BLOCK_BYTES) as block:
            block.write(np.random.default_rng(0).bytes(_BLOCK_BYTES))
            for offset in range(0, n_bytes, _BLOCK_BYTES):
                os.pwrite(descriptor, block, offset)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT)
    try:
        with mmap.mmap(-1, _BLOCK_BYTES) as block:
            for offset in range(0, path.stat().st_size, _BLOCK_BYTES):
                os.preadv(descriptor, [block], offset)
    finally:
        os.close(descriptor)
