"""What takes long to make of an artifact, made once: columns in `HOOKPOINT/indices`, mapped by every process that serves them.

A file is named by the digests of what it was made from, so that of other labels or another catalogue another one is made, and the
old one goes. It appears whole or not at all; one process makes it, the others wait. Where the folder cannot be written to, each
process makes it in memory, and says so once. The folder may be deleted at any time: nothing in it is the only copy of anything.
"""

import fcntl
import logging
import os
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mohole.artifact import digest_of, sync
from mohole.errors import ArtifactError
from mohole.tensors import open_tensors, write_tensors

FOLDER = "indices"
_EDITION = 1
"""One more with every change of what is made or how: files of another number are made again."""

_LOG = logging.getLogger(__name__)

Arrays = Mapping[str, NDArray[Any]]


class Kept:
    """The indices of one hookpoint."""

    def __init__(self, hookpoint: Path) -> None:
        self.folder = hookpoint / FOLDER
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._has_said = False

    def arrays(self, name: str, made_from: Sequence[str], make: Callable[[], Arrays]) -> Arrays:
        """Columns by name, from the file; where there is none yet, `make` makes it.

        Args:
            made_from: digests of all that `make` reads.
        """
        path = self.folder / f"{name}-{digest_of([_EDITION, *made_from])}.safetensors"
        with self._locks[name]:
            if (there := _opened(path)) is not None:
                return there
            with self._alone(name) as can_write:
                if (there := _opened(path)) is not None:  # made while this one waited
                    return there
                made = make()
                return made if not (can_write and self._write(path, name, made)) else _plain(open_tensors(path))

    @contextmanager
    def _alone(self, name: str) -> Iterator[bool]:
        """Only one process makes it at a time. The lock goes with the process, however it ends.

        Gives False where nothing can be written.
        """
        try:
            self.folder.mkdir(exist_ok=True)
            descriptor = os.open(self.folder / f".{name}.lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            self._say(error)
            yield False
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield True
        finally:
            os.close(descriptor)

    def _write(self, path: Path, name: str, arrays: Arrays) -> bool:
        draft = self.folder / f".{name}.partial"
        try:
            write_tensors(draft, arrays)
            sync(draft)
            draft.rename(path)
            sync(self.folder)
            for old in self.folder.glob(f"{name}-*.safetensors"):
                if old != path:
                    old.unlink()  # who has it open keeps it
        except OSError as error:
            draft.unlink(missing_ok=True)
            self._say(error)
            return False
        return True

    def _say(self, error: OSError) -> None:
        if not self._has_said:
            self._has_said = True
            _LOG.warning(
                "%s: cannot be written (%s); every process of every server makes its indices again, in memory; "
                "make room there, or serve a copy of the run that can be written to",
                self.folder,
                error.strerror,
            )


def _opened(path: Path) -> Arrays | None:
    """None: there is none, or it is damaged, and is then made again."""
    if not path.is_file():
        return None
    try:
        return _plain(open_tensors(path))
    except ArtifactError as error:
        _LOG.warning("%s; it is made again now", error)
        return None


def _plain(arrays: Arrays) -> Arrays:
    """Plain views of what is mapped: numpy's own class for that takes ten times as long to cut a small piece."""
    return {name: np.asarray(array) for name, array in arrays.items()}
