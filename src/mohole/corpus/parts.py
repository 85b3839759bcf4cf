"""Arrays that grow on disk by appending, with a committed length: what a killed writer left beyond it is cut off."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

PROGRESS = "progress.json"
BLOCK_ITEMS = 1 << 18


class Parts:
    """Named arrays in a folder, each a file of plain little-endian numbers, and facts about what they hold.

    Law: opened after a crash, it holds the arrays and the facts of the last `commit`, whatever was appended after that.
    """

    def __init__(self, folder: Path, dtypes: Mapping[str, str]) -> None:
        self.folder = folder
        self._dtypes = {name: np.dtype(dtype) for name, dtype in dtypes.items()}
        self._bytes, self.facts = self._committed()
        self._files = {}
        for name in dtypes:
            path = self._path(name)
            path.touch()
            os.truncate(path, self._bytes[name])
            self._files[name] = path.open("ab", buffering=1 << 20)

    def length(self, name: str) -> int:
        """Items of an array, what is not yet committed included."""
        return self._bytes[name] // self._dtypes[name].itemsize

    def append(self, name: str, items: Array) -> None:
        self._files[name].write(np.ascontiguousarray(items, dtype=self._dtypes[name]).data)
        self._bytes[name] += items.size * self._dtypes[name].itemsize

    def blocks(self, name: str, n_items: int = BLOCK_ITEMS) -> Iterator[Array]:
        """The array from its start, a block in memory at a time."""
        self._files[name].flush()
        with self._path(name).open("rb") as file:
            while len(block := np.fromfile(file, dtype=self._dtypes[name], count=n_items)):
                yield block

    def whole(self, name: str) -> Array:
        """The array in memory."""
        self._files[name].flush()
        return np.fromfile(self._path(name), dtype=self._dtypes[name])

    def commit(self, **facts: Any) -> None:
        """Make everything appended so far, and these facts about it, what a crash leaves behind."""
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
        draft = self.folder / f"{PROGRESS}.part"
        draft.write_text(json.dumps({"bytes": self._bytes, "facts": facts}), encoding="utf-8")
        settle(draft)
        draft.rename(self.folder / PROGRESS)
        settle(self.folder)
        self.facts = facts

    def __enter__(self) -> "Parts":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files.values():
            file.close()

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.part"

    def _committed(self) -> tuple[dict[str, int], dict[str, Any]]:
        """Bytes of each array, and the facts, as last committed: nothing, where that was never or is not to be trusted."""
        nothing: tuple[dict[str, int], dict[str, Any]] = dict.fromkeys(self._dtypes, 0), {}
        try:
            committed = json.loads((self.folder / PROGRESS).read_text(encoding="utf-8"))
            n_bytes = {name: int(committed["bytes"][name]) for name in self._dtypes}
            is_there = all(self._path(name).stat().st_size >= n_bytes[name] for name in self._dtypes)
        except (OSError, ValueError, KeyError, TypeError):
            return nothing
        return (n_bytes, committed["facts"]) if is_there else nothing


def remove_parts(folder: Path) -> None:
    """Take the arrays of a `Parts` away, and its progress first: without it the arrays count for nothing."""
    (folder / PROGRESS).unlink(missing_ok=True)
    for path in folder.glob("*.part"):
        path.unlink()


def settle(path: Path) -> None:
    """Have the disk hold a file, or a folder's list of files, before going on."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
