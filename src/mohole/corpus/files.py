"""Where text lies: the files that a path, a pattern or a URL stands for, their bytes in blocks, and what tells a changed one.

Local files are opened as such; whatever has a scheme goes through fsspec, which is imported only then.
"""

import gzip
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable
from urllib.parse import unquote, urlsplit

from mohole import artifact
from mohole.errors import CorpusError, MoholeError

BLOCK_BYTES = 1 << 20
_ZSTD_BYTES = 1 << 11
"""Packed bytes taken at once: in the worst case they unpack to 64 MB."""

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_SUFFIXES = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz", ".jsonl.zst", ".ndjson.zst", ".parquet")
"""What is read of a folder without .txt files."""
_STAMPS = (
    "ETag", "etag", "md5Hash", "md5", "content_md5", "Content-MD5", "Digest", "crc32c", "sha256", "oid",
    "LastModified", "last_modified", "Last-Modified", "updated", "mtime", "modified", "created",
)  # fmt: skip
"""What file systems call the thing that changes with a file's bytes, best first."""


@runtime_checkable
class Readable(Protocol):
    """Bytes that come in order. Files of this machine and of fsspec, and what unpacks them, have more; Parquet seeks in it."""

    def read(self, n_bytes: int = -1, /) -> bytes:
        """The next bytes, at most so many; none at the end."""
        ...


@dataclass(frozen=True)
class File:
    """One file, on this machine or behind a URL."""

    name: str
    """The path or the whole URL, as errors show it."""
    filesystem: Any = None
    """fsspec's file system, or None for a local file."""
    path: str = ""
    """What that file system calls it."""

    @property
    def format_name(self) -> str:
        """The name whose end tells the format: without the query of a web address."""
        name = self.name
        return (urlsplit(name).path if name.startswith(("http://", "https://")) else name).lower()

    @contextmanager
    def open(self) -> Iterator[Readable]:
        """The file's bytes, unpacked where its name says that they are packed.

        Raises:
            CorpusError: it is damaged, its packing needs a package, or its place cannot be read.
        """
        try:
            with self._raw() as raw:
                yield self._unpacked(raw)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise CorpusError(f"{self.name}: damaged or cut short ({error}); fetch or pack it again") from error
        except MoholeError:
            raise
        except Exception as error:  # each file system behind fsspec has errors of its own
            if self.filesystem is None:
                raise
            raise unreadable(self.name, error) from error

    def _raw(self) -> Any:
        return Path(self.name).open("rb") if self.filesystem is None else self.filesystem.open(self.path, "rb")

    def _unpacked(self, raw: Any) -> Readable:
        if self.format_name.endswith(".gz"):
            return gzip.GzipFile(fileobj=raw)
        if self.format_name.endswith(".zst"):
            return _unpack_zstd(raw, self.name)
        assert isinstance(raw, Readable)
        return raw

    def identity(self) -> str | dict[str, Any]:
        """What changes when the file does: the checksum of a local one; what its place says of it, for a remote one."""
        if self.filesystem is None:
            return artifact.file_digest(Path(self.name))
        try:
            info = self.filesystem.info(self.path)
        except Exception as error:
            raise unreadable(self.name, error) from error
        stamp = next((str(info[key]) for key in _STAMPS if info.get(key)), "")
        return {"name": self.name.rsplit("/", 1)[-1], "bytes": info.get("size"), "stamp": stamp}


def find_files(path: str, *, setting: str = "corpus.path") -> list[File]:
    """The files that a corpus path stands for, in name order: a file's, a folder's, or those that match a pattern.

    Args:
        setting: what gave `path`, for errors.

    Raises:
        CorpusError: there are none, or the place cannot be read.
    """
    if path.startswith("file://"):
        return find_files(unquote(path.removeprefix("file://")), setting=setting)
    if _SCHEME.match(path):
        return _remote_files(path)
    return [File(str(file)) for file in _local_files(path, setting)]


def blocks(file: Readable, n_bytes: int = BLOCK_BYTES) -> Iterator[bytes]:
    """The file's bytes, a block at a time."""
    while block := file.read(n_bytes):
        yield block


def unreadable(name: str, error: Exception) -> CorpusError:
    """Somebody else's error about a place, in one line."""
    if isinstance(error, ImportError):
        return CorpusError(f"{name}: {_line(error)}; that package is missing, install it with pip")
    if isinstance(error, FileNotFoundError):
        return CorpusError(f"{name}: no such file there; check the address")
    return CorpusError(f"{name}: cannot be read: {_line(error)}; check the address, the network and your access")


def _line(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:300].rstrip(".")


def _local_files(path: str, setting: str) -> list[Path]:
    place = Path(path)
    if place.is_file():
        return [place]
    if place.is_dir():
        files = sorted(place.glob("*.txt")) or [f for f in sorted(place.iterdir()) if f.name.endswith(_SUFFIXES)]
        if not files:
            raise CorpusError(
                f"{path}: a folder without .txt, .jsonl or .parquet files; name a file, or a pattern such as {path}/*.md"
            )
        return files
    anchor = Path(place.anchor) if place.is_absolute() else Path()
    pattern = str(place.relative_to(place.anchor)) if place.is_absolute() else path
    files = sorted(file for file in anchor.glob(pattern) if file.is_file()) if any(c in path for c in "*?[") else []
    if not files:
        raise CorpusError(f"{path}: no such file, folder or pattern; set {setting} to UTF-8 text")
    return files


def _remote_files(url: str) -> list[File]:
    try:
        from fsspec.core import url_to_fs

        filesystem, path = url_to_fs(url)
        filesystem.invalidate_cache()  # a listing from before the file changed would hide the change
        found = _remote_paths(filesystem, path, is_web=url.startswith(("http://", "https://")))
    except Exception as error:
        raise unreadable(url, error) from error
    if not found:
        raise CorpusError(
            f"{url}: no .txt, .jsonl or .parquet files there; name a file, or a pattern such as {url}/*.md"
        )
    return [File(filesystem.unstrip_protocol(path), filesystem, path) for path in found]


def _remote_paths(filesystem: Any, path: str, *, is_web: bool) -> list[str]:
    if is_web:  # a question mark is a query, and asking for a folder would fetch the file
        return [path]
    if any(c in path for c in "*?["):
        return sorted(filesystem.glob(path))
    if not filesystem.isdir(path):
        return [path] if filesystem.info(path) else []  # says what is wrong with it, now
    files = sorted(filesystem.find(path, maxdepth=1))
    return [file for file in files if file.endswith(".txt")] or [file for file in files if file.endswith(_SUFFIXES)]


def _unpack_zstd(raw: Any, name: str) -> Readable:
    try:
        import zstandard
    except ImportError:
        raise CorpusError(f"{name}: to unpack .zst needs the package zstandard; pip install zstandard") from None
    return _Zstd(raw, zstandard.ZstdDecompressor(), zstandard.ZstdError)


class _Zstd:
    """Frames of a .zst file, one after the other. The package's own reader takes a frame that is cut short for a whole one."""

    def __init__(self, raw: Readable, decompressor: Any, error: type[Exception]) -> None:
        self._raw, self._decompressor, self._error = raw, decompressor, error
        self._frame: Any = None
        self._unpacked = bytearray()

    def read(self, n_bytes: int = -1, /) -> bytes:
        while n_bytes < 0 or len(self._unpacked) < n_bytes:
            packed = self._raw.read(_ZSTD_BYTES)
            if not packed:
                if self._frame is not None:
                    raise EOFError("its last frame has no end")
                break
            self._unpack(packed)
        n_taken = len(self._unpacked) if n_bytes < 0 else min(n_bytes, len(self._unpacked))
        found = bytes(self._unpacked[:n_taken])
        del self._unpacked[:n_taken]
        return found

    def _unpack(self, packed: bytes) -> None:
        while packed:
            self._frame = self._frame or self._decompressor.decompressobj()
            try:
                self._unpacked += self._frame.decompress(packed)
            except self._error as error:
                raise EOFError(str(error)) from error  # as gzip says it
            packed = self._frame.unused_data
            if self._frame.eof:
                self._frame = None
