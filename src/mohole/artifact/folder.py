"""Artifacts appear whole or not at all: filled in a hidden folder beside their place, sealed, renamed. One writer at a time."""

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mohole.artifact.draft import DRAFT_OF, is_draft_of, leave_mark, refuse_to_lose
from mohole.artifact.manifest import MANIFEST, Inputs, manifest_bytes, read_manifest
from mohole.artifact.seal import file_digest
from mohole.errors import ArtifactError


@contextmanager
def create(
    path: Path | str,
    inputs: Inputs,
    *,
    replace: bool = False,
    resume: bool = False,
    worth: tuple[str, ...] = (),
    bulk: tuple[str, ...] = (),
) -> Iterator[Path]:
    """Give a hidden folder to fill; when the block ends well, seal it with a manifest and rename it to `path`.

    When the block fails or the process dies, nothing appears at `path`. With `replace`, an artifact already there is
    taken away only after the new one is whole, and what is no artifact never. With `resume`, what a failed block has put
    into the folder is kept, and is there again for the next one with the same inputs. One with other inputs takes it away
    only with `replace`, or where it holds nothing of `worth`.

    Args:
        worth: patterns (as of `Path.glob`) of files that cost work and can be gone on from, such as checkpoints.
        bulk: files and folders that are left out of the manifest (see `Manifest.bulk`).

    Raises:
        ArtifactError: `path` is taken, or holds what mohole did not make, or another process is writing it, or what a killed
            one with other inputs has left is worth keeping.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.parent / f".{path.name}.partial"
    with lock(path):
        mend_swap(path)
        if (path.exists() or path.is_symlink()) and not replace:
            raise ArtifactError(f"{path}: already there; delete it or choose another folder")
        _refuse_to_take_away(path, inputs.kind)
        # A draft that is there was left by a killed process: we hold the lock, so nobody is in it.
        goes_on = resume and is_draft_of(draft, inputs)
        if not goes_on and not replace:
            refuse_to_lose(draft, inputs)
        try:
            if goes_on:
                (draft / MANIFEST).unlink(missing_ok=True)  # it was killed when all but its name was there
            else:
                shutil.rmtree(draft, ignore_errors=True)
                draft.mkdir()
                if resume:
                    leave_mark(draft, inputs, worth)
            yield draft
            _seal(draft, inputs, bulk)
            swap(draft, path)
            if not bulk:  # else the mark stays: it tells what a folder is of, should its manifest be lost
                (path / DRAFT_OF).unlink(missing_ok=True)  # only now: without it a killed attempt would be lost
        except BaseException as error:
            if not resume:
                shutil.rmtree(draft, ignore_errors=True)
            if isinstance(error, OSError) and error.filename is None:
                error.filename = str(path)  # a failed write does not say where
            raise


def reopen(path: Path) -> None:
    """Make an unfinished artifact of a finished one, so that `create` with `resume` and the same inputs goes on with it.

    Raises:
        ArtifactError: no artifact there, or another process is at it, or an unfinished one that is worth keeping is beside it.
    """
    with lock(path):
        mend_swap(path)
        draft = path.parent / f".{path.name}.partial"
        inputs = None if (path / DRAFT_OF).is_file() else read_manifest(path).inputs
        refuse_to_lose(draft)
        if inputs is not None:
            leave_mark(path, inputs, ("**/*",))
        shutil.rmtree(draft, ignore_errors=True)
        path.rename(draft)  # whenever we are killed, it is finished or can be gone on with
        (draft / MANIFEST).unlink(missing_ok=True)


def _refuse_to_take_away(path: Path, kind: str) -> None:
    """What mohole did not make may be somebody's only copy, and a mistyped name may be that of another artifact."""
    if path.is_symlink():
        raise ArtifactError(f"{path}: a link, which is not replaced; take it away, or -o run=FOLDER")
    if path.exists() and not _is_ours(path):
        raise ArtifactError(f"{path}: not made by mohole, so not replaced; move it away, or -o run=FOLDER")
    if (there := _kind_of(path)) not in (None, kind):
        raise ArtifactError(f"{path}: holds {there!r}, which {kind!r} does not replace; name another folder")


def _kind_of(path: Path) -> str | None:
    """Of the artifact that is there; None where there is none, or its manifest is damaged."""
    try:
        return read_manifest(path).kind
    except ArtifactError:
        return None


def _is_ours(path: Path) -> bool:
    """Does it hold a manifest, and no file beside those that a manifest can name? A damaged manifest counts."""
    if not (path / MANIFEST).is_file():
        return False
    try:
        manifest = read_manifest(path)
    except ArtifactError:
        return True
    known = {MANIFEST, DRAFT_OF, *manifest.files}
    files = (file.relative_to(path) for file in path.rglob("*") if not file.is_dir())
    return all(str(file) in known or file.parts[0] in manifest.bulk for file in files)


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Only one process makes what will be at `path` at a time. The lock goes with the process, however it ends.

    Raises:
        ArtifactError: another process holds it.
    """
    descriptor = os.open(path.parent / f".{path.name}.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            raise ArtifactError(
                f"{path}: another process is making it; wait for that one, or name another folder"
            ) from None
        yield
    finally:
        os.close(descriptor)


def _seal(draft: Path, inputs: Inputs, bulk: tuple[str, ...]) -> None:
    found = (file for file in draft.rglob("*") if file.is_file())
    files = sorted(file for file in found if file.relative_to(draft).parts[0] not in (*bulk, DRAFT_OF, MANIFEST))
    for file in files:
        sync(file)
    sizes = {str(file.relative_to(draft)): (file.stat().st_size, file_digest(file)) for file in files}
    target = draft / MANIFEST
    target.write_bytes(manifest_bytes(inputs, sizes, bulk))
    sync(target)
    sync(draft)


def swap(draft: Path, path: Path) -> None:
    """Put a whole folder at `path`, in place of what is there. Under its lock, and after `mend_swap`."""
    old = _replaced(path)
    if path.exists():
        path.rename(old)
    draft.rename(path)
    sync(path.parent)
    shutil.rmtree(old, ignore_errors=True)  # what cannot be taken away now is so by the next `mend_swap`


def mend(path: Path) -> None:
    """Undo or finish what a process killed within `swap` has left. To be called before anyone asks what is at `path`.

    Raises:
        ArtifactError: another process is in there.
    """
    if _replaced(path).is_dir():
        with lock(path):
            mend_swap(path)


def mend_swap(path: Path) -> None:
    """As `mend`, under its lock: the new folder is put in place where it is known to be whole, else the old one is put back."""
    old, draft = _replaced(path), path.parent / f".{path.name}.partial"
    if not old.is_dir():
        return
    if not path.exists():
        ready = draft if (draft / MANIFEST).is_file() else old
        ready.rename(path)
    shutil.rmtree(old, ignore_errors=True)


def _replaced(path: Path) -> Path:
    return path.parent / f".{path.name}.replaced"


def sync(path: Path) -> None:
    """Until the bytes of a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
