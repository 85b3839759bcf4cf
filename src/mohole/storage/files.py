"""Files that appear whole: drafts renamed or linked into place, synced folders, and errors that name the file."""

import errno
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mohole.errors import ArtifactError, StageError

_UNFINISHED = re.compile(r"^\..+\.\d+-[0-9a-f]{12}\.tmp$")


@contextmanager
def unfinished(path: Path) -> Iterator[tuple[Path, int]]:
    """A hidden file beside `path`, open for writing; what is still under its own name afterwards is removed."""
    draft = path.parent / f".{path.name}.{os.getpid()}-{secrets.token_hex(6)}.tmp"
    with named(path):  # not around the yield: the caller's own errors are none of ours
        make_folder(path.parent)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        yield draft, descriptor
    finally:
        os.close(descriptor)
        draft.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """Write a text file, whole or not at all: until then what was there stays. Where it is a link, what it points to.

    For files that people look at and may lose: nothing is synced.

    Raises:
        OSError: it cannot be written; with its name, not the draft's.
    """
    place = path.resolve()
    draft = place.with_name(f".{place.name[:40]}.{os.getpid()}-{secrets.token_hex(6)}.tmp")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(place)
    except BaseException as error:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = str(path)
        raise


def is_unfinished(path: Path) -> bool:
    """Is it what a writer, living or dead, has not finished?"""
    return _UNFINISHED.match(path.name) is not None


def link(draft: Path, path: Path) -> bool:
    """Give the draft a second name if that name is free: the one atomic "create with this content" that files have."""
    try:
        os.link(draft, path)
    except FileExistsError:
        return draft.stat().st_nlink == 2  # over NFS an answer may be lost and the repeated call find its own link
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
            raise
        raise StageError(
            f"{path.parent}: its filesystem has no hard links, without which no task is committed once; "
            "use a folder on another filesystem"
        ) from None
    return True


def make_folder(folder: Path) -> None:
    """With its parents, each of them safe on disk."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """A rename survives a power cut only when its folder is synced too."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def files_below(folder: Path) -> Iterator[Path]:
    """Every file, in no order. What vanishes while we look was not there."""
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        return
    for entry in entries:
        if entry.is_dir():
            yield from files_below(Path(entry.path))
        else:
            yield Path(entry.path)


def write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view.nbytes:
        view = view[os.write(descriptor, view) :]


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Say in one line what is wrong with a file; what is wrong with the disk keeps its kind and gets the file's name."""
    try:
        yield
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such object; run the stage that writes it again") from None
    except PermissionError as error:
        raise ArtifactError(f"{error.filename or path}: permission denied; change its mode or its owner") from None
    except (IsADirectoryError, NotADirectoryError, FileExistsError) as error:
        raise ArtifactError(f"{error.filename or path}: not what is needed there ({error.strerror})") from None
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)  # a failed read or write does not say where
        raise
