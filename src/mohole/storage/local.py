"""A storage in a folder of this machine. How its files appear whole is in files.py, how their bytes move in direct.py."""

import os
import stat
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock

from mohole.errors import ArtifactError
from mohole.storage.direct import (
    ALIGNMENT_BYTES,
    DIRECT_FROM_BYTES,
    READ_BYTES,
    BlockWriter,
    OpenFile,
    give_block,
    read_cached,
    read_direct,
    take_block,
)
from mohole.storage.files import files_below, is_unfinished, link, named, sync_folder, unfinished, write_all
from mohole.storage.storage import Buffer, Traffic, as_bytes, check_name, is_listed

_N_OPEN_FILES = 64
_N_READERS = 2


class LocalStorage:
    """See `Storage`. May be used from several threads.

    A file that `read_into` has opened stays open (up to 64 of them, until `close`), so the disk space of a deleted one
    comes back only then; one that was replaced is opened anew.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = Path(os.path.abspath(folder))  # not resolve(): a link may be pointed elsewhere between runs
        self._traffic = Traffic()
        self._lock = Lock()  # of the counters and of the open files
        self._open_files: OrderedDict[tuple[str, bool], OpenFile] = OrderedDict()
        self._readers = ThreadPoolExecutor(_N_READERS, thread_name_prefix="mohole-read")  # they start at first use

    @property
    def url(self) -> str:
        return str(self._folder)

    @property
    def local(self) -> Path | None:
        return self._folder

    @property
    def traffic(self) -> Traffic:
        return self._traffic

    def read(self, name: str) -> bytes:
        path = self._path(name)
        with named(path):
            data = path.read_bytes()
        self._count_read(len(data))
        return data

    def read_into(self, name: str, offset: int, target: Buffer) -> None:
        path, view = self._path(name), as_bytes(target)
        with named(path):
            file = self._open(name, direct=view.nbytes >= DIRECT_FROM_BYTES)
            n_read = self._read_direct(file, offset, view) if file.is_direct else read_cached(file, offset, view)
        if n_read < view.nbytes:
            raise ArtifactError(
                f"{path}: truncated, it ends at byte {self.size(name)} and byte {offset + view.nbytes} is needed; "
                "delete it and run again"
            )
        self._count_read(view.nbytes)

    def size(self, name: str) -> int:
        path = self._path(name)
        with named(path):
            return path.stat().st_size

    def exists(self, name: str) -> bool:
        path = self._path(name)
        with named(path):
            try:
                return stat.S_ISREG(path.stat().st_mode)
            except (FileNotFoundError, NotADirectoryError):
                return False

    @contextmanager
    def writer(self, name: str, n_bytes: int) -> Iterator[BlockWriter]:
        path = self._path(name)
        with unfinished(path) as (draft, descriptor):
            writer = BlockWriter(descriptor, path, n_bytes)
            try:
                yield writer
                with named(path):
                    writer.finish()
            finally:
                writer.close()
            with named(path):
                os.fsync(descriptor)
                os.replace(draft, path)
                sync_folder(path.parent)
        self._count_write(n_bytes)

    def put_once(self, name: str, data: bytes) -> bool:
        path = self._path(name)
        if self.exists(name):
            return False  # the common case of a second attempt, without writing anything
        with named(path), unfinished(path) as (draft, descriptor):
            write_all(descriptor, data)
            os.fsync(descriptor)
            if not link(draft, path):
                return False
            sync_folder(path.parent)
        self._count_write(len(data))
        return True

    def put(self, name: str, data: bytes) -> None:
        path = self._path(name)
        with named(path), unfinished(path) as (draft, descriptor):
            write_all(descriptor, data)
            os.fsync(descriptor)
            os.replace(draft, path)
            sync_folder(path.parent)
        self._count_write(len(data))

    def names(self, prefix: str = "") -> list[str]:
        with named(self._folder):
            below = prefix.rpartition("/")[0]
            found = (str(path.relative_to(self._folder)) for path in files_below(self._folder / below))
            return sorted(name for name in found if name.startswith(prefix) and is_listed(name))

    def delete(self, names: Sequence[str]) -> None:
        for _ in self._readers.map(self._unlink, names):  # large files take 5 ms each, and less side by side
            pass
        with self._lock:
            for name in names:
                self._open_files.pop((name, True), None)
                self._open_files.pop((name, False), None)

    def _unlink(self, name: str) -> None:
        path = self._path(name)
        with named(path), suppress(FileNotFoundError):
            path.unlink()

    def folder(self, name: str) -> "LocalStorage":
        return LocalStorage(self._path(name))

    def sweep(self) -> int:
        with named(self._folder):
            left = [path for path in files_below(self._folder) if is_unfinished(path)]
            for path in left:
                path.unlink(missing_ok=True)
        return len(left)

    def close(self) -> None:
        with self._lock:
            self._open_files.clear()

    def _path(self, name: str) -> Path:
        check_name(name)
        return self._folder / name

    def _count_read(self, n_bytes: int) -> None:
        with self._lock:
            self._traffic.n_reads += 1
            self._traffic.bytes_read += n_bytes

    def _count_write(self, n_bytes: int) -> None:
        with self._lock:
            self._traffic.n_writes += 1
            self._traffic.bytes_written += n_bytes

    def _open(self, name: str, *, direct: bool) -> OpenFile:
        key = (name, direct)
        with self._lock:
            file = self._open_files.get(key)
            if file is None or file.is_gone():
                file = self._open_files[key] = OpenFile(self._path(name), direct=direct)
            self._open_files.move_to_end(key)
            if len(self._open_files) > _N_OPEN_FILES:
                self._open_files.popitem(last=False)  # another thread may be reading it: it closes when all let go
        return file

    def _read_direct(self, file: OpenFile, offset: int, target: memoryview) -> int:
        """Two blocks at a time: while one is copied out, the disk is at the other."""
        starts = range(-(offset % ALIGNMENT_BYTES), target.nbytes, READ_BYTES)
        parts = [(max(start, 0), min(start + READ_BYTES, target.nbytes)) for start in starts]
        if len(parts) == 1:
            return self._read_block(file, offset, target)
        return sum(
            self._readers.map(lambda part: self._read_block(file, offset + part[0], target[slice(*part)]), parts)
        )

    def _read_block(self, file: OpenFile, offset: int, target: memoryview) -> int:
        scratch = take_block(READ_BYTES)
        try:
            return read_direct(file, offset, target, scratch)
        finally:
            give_block(scratch)
