"""What a storage promises, whatever is behind it. The promises only: local.py and remote.py keep them."""

import mmap
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

Buffer = bytes | bytearray | memoryview | mmap.mmap
"""Bytes in one piece. An array gives its own with `array.data`."""


@dataclass
class Traffic:
    """What one storage object was asked for, whoever asked; what the network carried beside it (retries) is not in it."""

    bytes_read: int = 0
    bytes_written: int = 0
    n_reads: int = 0
    """Calls of `read` and `read_into` that succeeded."""
    n_writes: int = 0
    """Objects written: by `writer`, `put`, and `put_once` where it was the first."""

    def __add__(self, other: "Traffic") -> "Traffic":
        return Traffic(
            self.bytes_read + other.bytes_read,
            self.bytes_written + other.bytes_written,
            self.n_reads + other.n_reads,
            self.n_writes + other.n_writes,
        )


@runtime_checkable
class Writer(Protocol):
    """Takes an object's bytes in order."""

    def write(self, data: Buffer) -> None:
        """Append. The bytes are taken over before it returns, so the caller may use its buffer again."""


@runtime_checkable
class Storage(Protocol):
    """A flat set of named objects under one folder or URL, for many processes at once.

    A name is a relative path with `/` between its parts. A name with a part that begins with a dot is not listed by
    `names`: such names are for locks and for what is being written.

    Laws: an object appears under its name whole or not at all, and what a method has written when it returns survives a
    crash of the machine. Of many `put_once` of one name, one returns True.

    Every method raises ArtifactError for an object that is missing, truncated or not permitted, and StageError for a
    place that cannot be reached or cannot keep the laws. An OSError of the local disk (full, failing) comes as it is, and
    names the file.
    """

    @property
    def url(self) -> str:
        """Opens the same storage in another process: an absolute path, or the URL."""

    @property
    def local(self) -> Path | None:
        """The folder, where it is one on this machine."""

    @property
    def traffic(self) -> Traffic:
        """Counters of this object since it was opened."""

    def read(self, name: str) -> bytes:
        """The whole object."""

    def read_into(self, name: str, offset: int, target: Buffer) -> None:
        """Fill `target` with the bytes from `offset` on. Ends beyond the object: ArtifactError, "truncated"."""

    def size(self, name: str) -> int:
        """Bytes of the object."""

    def exists(self, name: str) -> bool:
        """Is there an object of this name?"""

    def writer(self, name: str, n_bytes: int) -> AbstractContextManager[Writer]:
        """Write an object of exactly `n_bytes`; one already there is replaced.

        It appears when the block ends well. When the block raises, it does not; other counts of bytes are a ValueError.
        """

    def put_once(self, name: str, data: bytes) -> bool:
        """Create the object; False, and nothing changes, if there is one of this name."""

    def put(self, name: str, data: bytes) -> None:
        """Create or replace the object."""

    def names(self, prefix: str = "") -> list[str]:
        """The names that begin with `prefix`, in every folder below, sorted."""

    def delete(self, names: Sequence[str]) -> None:
        """Take objects away; a missing one is fine."""

    def folder(self, name: str) -> "Storage":
        """The objects under `name/`, as a storage with counters of its own."""

    def sweep(self) -> int:
        """Remove what killed writers left unfinished, and say how many. Only while holding the lease: it would take away
        what a living writer is at."""

    def close(self) -> None:
        """Let go of open files. The storage may be used again after it."""


def check_name(name: str) -> None:
    """Refuse a name that would leave its folder.

    >>> check_name("level0/run-00001.shard")
    >>> check_name("../other")
    Traceback (most recent call last):
    ValueError: '../other': not a name of an object; write relative parts with / between them
    """
    if any(part in ("", ".", "..") for part in name.split("/")) or "\0" in name:
        raise ValueError(f"{name!r}: not a name of an object; write relative parts with / between them")


def is_listed(name: str) -> bool:
    """Does `names` show it? Not where a part begins with a dot."""
    return not any(part.startswith(".") for part in name.split("/"))


def as_bytes(data: Buffer) -> memoryview:
    """The bytes of a buffer of any shape, not copied.

    Raises:
        TypeError: it is not in one piece, as a slice with a step is not.
    """
    view = memoryview(data)
    return view.cast("B") if view.nbytes else memoryview(b"")
