"""One driver at a time for a storage. A courtesy to the second one: tasks are idempotent, so nothing depends on it."""

import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mohole.errors import ArtifactError
from mohole.storage.storage import Storage

_LOCK = ".driver.lock"


@contextmanager
def lease(storage: Storage) -> Iterator[None]:
    """Hold the storage against other drivers until the block ends.

    Raises:
        ArtifactError: another process holds it, which is named.
    """
    assert storage.local is not None
    with _lock(storage.local):
        yield


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """The lock goes with the process, however it ends. The file stays: who removed it could remove another's."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / _LOCK
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                error.filename = str(path)
                raise
            raise ArtifactError(
                f"{folder}: {_holder(os.pread(descriptor, 4096, 0))} is working on it; wait for that one"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, _card(), 0)
        yield
    finally:
        os.close(descriptor)


def _card() -> bytes:
    return json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode()


def _holder(card: bytes) -> str:
    try:
        holder = json.loads(card)
        return f"another process (pid {holder['pid']} on {holder['host']})"
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
        return "another process"  # it has the lock and has not written its card yet
