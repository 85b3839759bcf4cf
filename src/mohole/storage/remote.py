"""A storage in a bucket (S3 and what speaks its protocol, Google Cloud Storage) or in this process's memory, through fsspec.

What "whole or not at all" and "once" rest on:

    s3      an upload in parts appears when it is completed; `put_once` is a conditional PUT (If-None-Match: *), which AWS,
            MinIO, Cloudflare R2 and Ceph keep; a server that ignores the condition lets a later `put_once` win too
    gs      the same through a resumable upload and if-generation-match=0 (as gcsfs does it; not tested against Google)
    memory  an object is stored in one assignment; `put_once` holds a lock. One process only: for tests and trials

An answer may be lost after the server has acted, and the library asks again: then the caller whose `put_once` created the
object is told False. So at most one is told True, and who must know exactly puts a mark of its own into the object.
"""

import io
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from threading import Lock
from typing import Any, Literal, assert_never

from mohole.errors import ArtifactError, ConfigError, StageError
from mohole.storage.storage import Buffer, Traffic, as_bytes, check_name, is_listed

_Scheme = Literal["s3", "gs", "memory"]
_SCHEMES: dict[str, tuple[_Scheme, str]] = {
    "s3": ("s3", "s3fs"),
    "s3a": ("s3", "s3fs"),
    "gs": ("gs", "gcsfs"),
    "gcs": ("gs", "gcsfs"),
    "memory": ("memory", "fsspec"),
}
"""What a URL begins with, and the package that reads it."""
PART_BYTES = 32 << 20
"""One PUT, of files longer than that; they take two more, to begin and to end."""
_MAX_PARTS = 9_000  # S3 takes 10 000
RANGE_BYTES = 16 << 20
"""One GET at most; a bucket gives several at once faster than a long one."""
_N_CONFLICTS = 50
_MEMORY_LOCK = Lock()


def open_remote(url: str) -> "FsspecStorage":
    """The storage behind a URL that has a scheme other than `file`. Asks nothing of the network yet.

    Raises:
        ConfigError: an unknown scheme, a missing package, or no bucket.
    """
    written = url.partition("://")[0].lower()
    if written not in _SCHEMES:
        raise ConfigError(f"{url}: no storage of kind {written!r}; write a path, file://, s3://, gs:// or memory://")
    scheme, package = _SCHEMES[written]
    try:
        import fsspec

        # Listings are kept by default, and would not show what other processes have written since.
        options: dict[str, Any] = {"use_listings_cache": False}
        if scheme == "s3":
            options["fixed_upload_size"] = True  # Cloudflare R2 takes only parts of one size
        files, root = fsspec.core.url_to_fs(url, **options)
        failures = _failures(scheme)
    except ImportError as error:
        raise ConfigError(f"{url}: needs the package {package}; pip install {package} ({error})") from None
    if not root.strip("/") and scheme != "memory":
        raise ConfigError(f"{url}: names no bucket; write {written}://BUCKET/FOLDER")
    return FsspecStorage(url.rstrip("/") if root.strip("/") else url, scheme, files, root.rstrip("/"), failures)


def _failures(scheme: _Scheme) -> tuple[type[Exception], ...]:
    """What each library raises, beside OSError, when the place cannot be reached or used."""
    match scheme:
        case "s3":
            from aiohttp import ClientError as HttpError
            from botocore.exceptions import BotoCoreError, ClientError

            return (OSError, BotoCoreError, ClientError, HttpError, HTTPException)
        case "gs":
            from aiohttp import ClientError as HttpError
            from gcsfs.retry import HttpError as GcsError
            from google.auth.exceptions import GoogleAuthError

            return (OSError, GcsError, GoogleAuthError, HttpError)
        case "memory":
            return (OSError,)
        case _:
            assert_never(scheme)


class FsspecStorage:
    """See `Storage`. May be used from several threads; after a fork, open it anew from its URL."""

    def __init__(self, url: str, scheme: _Scheme, files: Any, root: str, failures: tuple[type[Exception], ...]) -> None:
        self._url, self._scheme, self._files, self._root, self._failures = url, scheme, files, root, failures
        self._traffic = Traffic()
        self._lock = Lock()  # of the counters

    @property
    def url(self) -> str:
        return self._url

    @property
    def local(self) -> Path | None:
        return None

    @property
    def traffic(self) -> Traffic:
        return self._traffic

    def read(self, name: str) -> bytes:
        path = self._path(name)
        with self._named(name):
            data = bytes(self._files.cat_file(path))
        self._count_read(len(data))
        return data

    def read_into(self, name: str, offset: int, target: Buffer) -> None:
        view, end = as_bytes(target), offset + as_bytes(target).nbytes
        try:
            with self._named(name):
                n_read = self._read_ranges(self._path(name), offset, view)
        except StageError:
            if self.size(name) >= end:
                raise
            n_read = 0  # S3 calls a range that begins after the end an error
        if n_read < view.nbytes:
            raise ArtifactError(
                f"{self._url}/{name}: truncated, it ends at byte {self.size(name)} and byte {end} is needed; "
                "delete it and run again"
            )
        self._count_read(view.nbytes)

    def size(self, name: str) -> int:
        path = self._path(name)
        with self._named(name):
            entry = self._files.info(path)
            if entry["type"] != "file":
                raise FileNotFoundError(path)
        return int(entry["size"])

    def exists(self, name: str) -> bool:
        path = self._path(name)
        with self._named(name):
            try:
                return bool(self._files.info(path)["type"] == "file")
            except FileNotFoundError:
                return False

    @contextmanager
    def writer(self, name: str, n_bytes: int) -> Iterator["_RemoteWriter"]:
        with self._named(name):
            writer = _RemoteWriter(self, name, n_bytes, self._begin(self._path(name), n_bytes))
        try:
            yield writer
            with self._named(name):
                writer.finish()
        except BaseException:
            with suppress(*self._failures):  # the error that brought us here says more than that of tidying up
                writer.discard()
            raise
        self._count_write(n_bytes)

    def put_once(self, name: str, data: bytes) -> bool:
        path = self._path(name)
        with self._named(name):
            is_first = self._create_in_memory(path, data) if self._scheme == "memory" else self._create(path, data)
        if is_first:
            self._count_write(len(data))
        return is_first

    def put(self, name: str, data: bytes) -> None:
        path = self._path(name)
        with self._named(name):
            self._files.pipe_file(path, data)
        self._count_write(len(data))

    def names(self, prefix: str = "") -> list[str]:
        below = prefix.rpartition("/")[0]
        with self._named(prefix):
            try:
                found = self._files.find(f"{self._root}/{below}".rstrip("/"))
            except FileNotFoundError:  # nothing was ever written there; or no bucket, which the first write will say
                return []
        names = (path.removeprefix(self._root).removeprefix("/") for path in found)
        return sorted(name for name in names if name.startswith(prefix) and is_listed(name))

    def delete(self, names: Sequence[str]) -> None:
        with ThreadPoolExecutor(max_workers=8) as threads:
            for _ in threads.map(self._delete, names):  # one request each: the bulk request hides what it could not do
                pass

    def folder(self, name: str) -> "FsspecStorage":
        check_name(name)
        return FsspecStorage(
            f"{self._url.rstrip('/')}/{name}", self._scheme, self._files, f"{self._root}/{name}", self._failures
        )

    def sweep(self) -> int:
        """Nothing to remove: what a killed upload has sent is no object. S3 keeps such parts, and bills them, until a
        lifecycle rule of the bucket (AbortIncompleteMultipartUpload) drops them; other people's uploads may be among
        them, so it is not for us to do."""
        return 0

    def close(self) -> None:
        """Nothing is held: fsspec shares one connection per process."""

    def _path(self, name: str) -> str:
        check_name(name)
        return f"{self._root}/{name}"

    def _count_read(self, n_bytes: int) -> None:
        with self._lock:
            self._traffic.n_reads += 1
            self._traffic.bytes_read += n_bytes

    def _count_write(self, n_bytes: int) -> None:
        with self._lock:
            self._traffic.n_writes += 1
            self._traffic.bytes_written += n_bytes

    def _read_ranges(self, path: str, offset: int, target: memoryview) -> int:
        """Bytes read, which are fewer than asked for where the object ends."""
        if not target.nbytes:
            self._files.info(path)  # nothing to read of it, but it must be there
            return 0
        starts = range(offset, offset + target.nbytes, RANGE_BYTES)
        ends = [min(start + RANGE_BYTES, offset + target.nbytes) for start in starts]
        n_read = 0
        for piece in self._files.cat_ranges([path] * len(ends), list(starts), ends, on_error="return"):
            if isinstance(piece, Exception):  # "raise" raises only in fsspec from 2026 on
                raise piece
            target[n_read : n_read + len(piece)] = piece
            n_read += len(piece)
        return n_read

    def _begin(self, path: str, n_bytes: int) -> Any:
        """A file to write to, whose `close` makes the object appear and whose `discard` forgets it."""
        if self._scheme == "memory":
            return _MemoryDraft(self._files, path)
        return self._files.open(path, "wb", block_size=max(PART_BYTES, -(-n_bytes // _MAX_PARTS)))

    def _create(self, path: str, data: bytes) -> bool:
        for _ in range(_N_CONFLICTS):
            try:
                self._files.pipe_file(path, data, mode="create")
            except FileExistsError:
                return False
            except OSError as error:
                match _s3_code(error):
                    case "PreconditionFailed" | "412":
                        return False
                    case "ConditionalRequestConflict" | "OperationAborted" | "409":
                        time.sleep(0.1)  # another is creating it at this moment; S3 asks to try again
                    case _:
                        raise
            else:
                return True
        raise TimeoutError(f"{_N_CONFLICTS} times in conflict with another writer")

    def _create_in_memory(self, path: str, data: bytes) -> bool:
        with _MEMORY_LOCK:
            if self._files.exists(path):
                return False
            self._files.pipe_file(path, data)
            return True

    def _delete(self, name: str) -> None:
        path = self._path(name)
        with self._named(name), suppress(FileNotFoundError):
            self._files.rm_file(path)

    @contextmanager
    def _named(self, name: str) -> Iterator[None]:
        """Say in one line what is wrong, and where."""
        try:
            yield
        except FileNotFoundError as error:
            if _s3_code(error) == "NoSuchBucket":
                raise ArtifactError(f"{self._url}: no such bucket; create it, or name another") from None
            raise ArtifactError(f"{self._url}/{name}: no such object; run the stage that writes it again") from None
        except PermissionError as error:
            raise ArtifactError(
                f"{self._url}/{name}: permission denied ({_one_line(error)}); check the credentials"
            ) from None
        except self._failures as error:
            raise StageError(
                f"{self._url}: cannot be used ({_one_line(error)}); check network, endpoint and credentials"
            ) from error


class _RemoteWriter:
    """Counts what goes into an upload."""

    def __init__(self, storage: FsspecStorage, name: str, n_bytes: int, file: Any) -> None:
        self._storage, self._name, self._n_bytes, self._file = storage, name, n_bytes, file
        self._n_taken = 0

    def write(self, data: Buffer) -> None:
        view = as_bytes(data)
        self._n_taken += view.nbytes
        if self._n_taken > self._n_bytes:
            raise ValueError(f"{self._name}: announced as {self._n_bytes} bytes, more were written")
        with self._storage._named(self._name):
            for start in range(0, view.nbytes, PART_BYTES):  # not in one: the upload copies what it is given
                self._file.write(view[start : start + PART_BYTES])

    def finish(self) -> None:
        if self._n_taken != self._n_bytes:
            raise ValueError(f"{self._name}: announced as {self._n_bytes} bytes, {self._n_taken} were written")
        self._file.close()

    def discard(self) -> None:
        try:
            self._file.discard()
        finally:
            self._file.closed = True  # or its finaliser would close it, which commits


class _MemoryDraft:
    """fsspec's own file in memory is visible from its first byte on."""

    def __init__(self, files: Any, path: str) -> None:
        self._files, self._path, self._bytes = files, path, io.BytesIO()
        self.closed = False

    def write(self, data: memoryview) -> None:
        self._bytes.write(data)

    def close(self) -> None:
        self._files.pipe_file(self._path, self._bytes.getvalue())

    def discard(self) -> None:
        self._bytes.close()


def _s3_code(error: OSError) -> str:
    """What the server called the error: s3fs makes an OSError of it and keeps the original as its cause."""
    response: Any = getattr(error.__cause__, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


def _one_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
