"""Artifacts: folders with a `manifest.json` that says what they are, what made them and what bytes they hold.

An artifact is written in a hidden folder beside its place and renamed into it when whole, so a killed stage leaves nothing
that looks finished. Its manifest holds no time and no machine: the same recipe and seed give the same bytes.
"""

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import xxhash

from mohole.errors import ArtifactError
from mohole.version import __version__

MANIFEST = "manifest.json"
SCHEMA = 2
_DRAFT_OF = "draft-of"
"""In an unfinished artifact that can be gone on with: its inputs, and which files in it are worth keeping."""
_BLOCK_BYTES = 1 << 22


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What an artifact is made from. Two artifacts with equal inputs are the same artifact."""

    kind: str
    config: Mapping[str, Any]
    """The resolved settings that matter to the content, as plain JSON values."""
    seed: int
    parents: Mapping[str, str] = field(default_factory=dict)
    """Name of each parent and the digest of its manifest (or of the model's files)."""
    version: int = 1
    """Raised when the stage's code changes what it writes for the same settings."""

    def digest(self) -> str:
        return digest_of(asdict(self))


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The manifest of a finished artifact."""

    kind: str
    inputs: Inputs
    files: Mapping[str, tuple[int, str]]
    """Each file's size in bytes and checksum (xxh3, 128 bit), by its path inside the folder."""
    code: str
    """The version of mohole that wrote it."""
    digest: str
    """Checksum of the manifest itself; children name their parents by it."""
    bulk: tuple[str, ...] = ()
    """Files and folders that are not in `files`: how the content is cut up, which does not change what it is. Their owner
    checks them."""


def file_digest(path: Path) -> str:
    """Checksum (xxh3, 128 bit, hexadecimal) of a file's bytes."""
    state = xxhash.xxh3_128()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            state.update(block)
    return state.hexdigest()


def digest_of(value: Any) -> str:
    """Checksum of plain JSON values; equal values have equal checksums."""
    return _digest(json.dumps(value, sort_keys=True).encode())


def _digest(data: bytes) -> str:
    return xxhash.xxh3_128(data).hexdigest()


def is_finished(path: Path, inputs: Inputs) -> bool:
    """Is there a whole artifact at `path` made from exactly these inputs? Its files' sizes are looked at, not their bytes.

    Raises:
        ArtifactError: it is there, and a file of it is missing or has another size.
    """
    if not (path / MANIFEST).is_file() or read_manifest(path).inputs.digest() != inputs.digest():
        return False
    open_artifact(path, verify=False)
    return True


def difference(path: Path, inputs: Inputs) -> str:
    """The first setting in which the artifact at `path` differs from `inputs`, for a person to read."""
    return _difference(read_manifest(path).inputs, inputs)


def _difference(there: Inputs, asked: Inputs) -> str:
    old, new = flatten(asdict(there)), flatten(asdict(asked))
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            return f"{key.removeprefix('config.')}: {old.get(key)!r} there, {new.get(key)!r} asked for"
    return "nothing"


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested tables as one, keys joined by dots."""
    if isinstance(value, dict):
        return {k: v for name, item in value.items() for k, v in flatten(item, f"{prefix}{name}.").items()}
    return {prefix.rstrip("."): list(value) if isinstance(value, tuple) else value}


def read_manifest(path: Path) -> Manifest:
    """The manifest of the artifact at `path`.

    Raises:
        ArtifactError: no artifact there, an unfinished one, or a damaged manifest.
    """
    try:
        return parse_manifest((path / MANIFEST).read_bytes(), str(path))
    except FileNotFoundError:
        raise ArtifactError(_what_is_there(path)) from None
    except NotADirectoryError:
        raise ArtifactError(f"{path}: a file, not an artifact folder") from None


def parse_manifest(data: bytes, where: str) -> Manifest:
    """The manifest in these bytes; `where` is its artifact, for errors.

    Raises:
        ArtifactError: damaged, or of another format.
    """
    try:
        raw = json.loads(data)
        if raw["schema"] != SCHEMA:
            raise ArtifactError(
                f"{where}/{MANIFEST}: written in artifact format {raw['schema']}; this mohole reads format {SCHEMA}"
            )
        checksum = raw["xxh3"]
        if sealed({key: value for key, value in raw.items() if key != "xxh3"}) != data:
            raise ArtifactError(
                f"{where}/{MANIFEST}: damaged (its checksum is not {checksum}); delete {where} and make it again"
            )
        return Manifest(
            kind=raw["kind"],
            inputs=Inputs(**raw["inputs"]),
            files={name: (entry["bytes"], entry["xxh3"]) for name, entry in raw["files"].items()},
            code=raw["code"],
            digest=_digest(data),
            bulk=tuple(raw.get("bulk", ())),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ArtifactError(f"{where}/{MANIFEST}: damaged ({error}); delete {where} and make it again") from None


def _what_is_there(path: Path) -> str:
    if not path.exists():
        return f"{path}: no artifact there; `mohole run RECIPE` makes the missing ones"
    return f"{path}: no {MANIFEST}, so not a finished artifact; delete it, or name another folder"


def open_artifact(path: Path | str, *, kind: str | None = None, verify: bool = True) -> Manifest:
    """Check that a whole, undamaged artifact (of this kind) is at `path`, and return its manifest.

    Raises:
        ArtifactError: missing, of another kind, or with a missing, truncated or changed file, which is named.
    """
    path = Path(path)
    manifest = read_manifest(path)
    if kind is not None and manifest.kind != kind:
        raise ArtifactError(f"{path}: holds {manifest.kind!r}, not {kind!r}")
    for name, (n_bytes, checksum) in manifest.files.items():
        file = path / name
        if not file.is_file():
            raise ArtifactError(f"{file}: missing; delete {path} and make it again")
        if file.stat().st_size != n_bytes:
            raise ArtifactError(
                f"{file}: {file.stat().st_size} bytes, {n_bytes} expected; delete {path} and make it again"
            )
        if verify and file_digest(file) != checksum:
            raise ArtifactError(f"{file}: checksum is wrong, its bytes have changed; delete {path} and make it again")
    return manifest


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
        if (path.exists() or path.is_symlink()) and not replace:
            raise ArtifactError(f"{path}: already there; delete it or choose another folder")
        _refuse_to_take_away(path, inputs.kind)
        # A draft that is there was left by a killed process: we hold the lock, so nobody is in it.
        goes_on = resume and _is_draft_of(draft, inputs)
        if not goes_on and not replace:
            _refuse_to_lose(draft, inputs)
        try:
            if goes_on:
                (draft / MANIFEST).unlink(missing_ok=True)  # it was killed when all but its name was there
            else:
                shutil.rmtree(draft, ignore_errors=True)
                draft.mkdir()
                if resume:
                    _mark(draft, inputs, worth)
            yield draft
            _seal(draft, inputs, bulk)
            _swap(draft, path)
            if not bulk:  # else the mark stays: it tells what a folder is of, should its manifest be lost
                (path / _DRAFT_OF).unlink(missing_ok=True)  # only now: without it a killed attempt would be lost
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
        draft = path.parent / f".{path.name}.partial"
        inputs = None if (path / _DRAFT_OF).is_file() else read_manifest(path).inputs
        _refuse_to_lose(draft)
        if inputs is not None:
            _mark(path, inputs, ("**/*",))
        shutil.rmtree(draft, ignore_errors=True)
        path.rename(draft)  # whenever we are killed, it is finished or can be gone on with
        (draft / MANIFEST).unlink(missing_ok=True)


def _mark(draft: Path, inputs: Inputs, worth: tuple[str, ...]) -> None:
    (draft / _DRAFT_OF).write_bytes(sealed({"inputs": asdict(inputs), "worth": list(worth)}))


def _is_draft_of(draft: Path, inputs: Inputs) -> bool:
    mark = draft / _DRAFT_OF
    if not mark.is_file():
        return False
    data, digest = mark.read_bytes(), inputs.digest()
    marked = _marked(data)
    return data == digest.encode() if marked is None else marked[0].digest() == digest  # an old mark is that alone


def _marked(data: bytes) -> tuple[Inputs, tuple[str, ...]] | None:
    """What a mark says the draft is made from, and which files of it are worth keeping. None: damaged, or an old one."""
    try:
        raw = unsealed(data)
        return None if raw is None else (Inputs(**raw["inputs"]), tuple(raw["worth"]))
    except (KeyError, TypeError):  # of a later version, perhaps
        return None


def _refuse_to_lose(draft: Path, inputs: Inputs | None = None) -> None:
    """What a killed process has left may have cost a week: only the user takes it away.

    Of a draft whose mark cannot be read, everything is worth keeping; one without a mark was never to be gone on with.
    """
    mark = draft / _DRAFT_OF
    if not mark.is_file():
        return
    marked = _marked(mark.read_bytes())
    there, worth = marked or (None, ("**/*",))
    if not any(file.is_file() and file != mark for pattern in worth for file in draft.glob(pattern)):
        return
    if there is None:
        what = f"not finished, and its {_DRAFT_OF} is damaged or of another version; --replace"
    elif inputs is None:
        what = "begun and not finished; give the settings that it was begun with"
    else:
        what = (
            f"begun with other settings and not finished ({_difference(there, inputs)}); give those to go on, --replace"
        )
    raise ArtifactError(f"{draft}: {what} or delete it to start over")


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
    known = {MANIFEST, _DRAFT_OF, *manifest.files}
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
    files = sorted(file for file in found if file.relative_to(draft).parts[0] not in (*bulk, _DRAFT_OF, MANIFEST))
    for file in files:
        sync(file)
    sizes = {str(file.relative_to(draft)): (file.stat().st_size, file_digest(file)) for file in files}
    target = draft / MANIFEST
    target.write_bytes(manifest_bytes(inputs, sizes, bulk))
    sync(target)
    sync(draft)


def manifest_bytes(inputs: Inputs, files: Mapping[str, tuple[int, str]], bulk: tuple[str, ...]) -> bytes:
    """A manifest, for files of these sizes and checksums."""
    manifest: dict[str, Any] = {
        "schema": SCHEMA,
        "kind": inputs.kind,
        "inputs": asdict(inputs),
        "files": {name: {"bytes": n_bytes, "xxh3": checksum} for name, (n_bytes, checksum) in files.items()},
        "code": __version__,
    }
    if bulk:
        manifest["bulk"] = list(bulk)
    return sealed(manifest)


def sealed(facts: Mapping[str, Any]) -> bytes:
    """Plain JSON as it stands on disk: with a checksum of itself, so that a changed byte of it is found too."""
    whole = {**facts, "xxh3": digest_of(facts)}
    return (json.dumps(whole, indent=1, sort_keys=True) + "\n").encode()


def unsealed(data: bytes) -> dict[str, Any] | None:
    """What was sealed in these bytes; None where it is damaged."""
    try:
        facts = json.loads(data)
        del facts["xxh3"]
        return facts if sealed(facts) == data else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def data_digest(data: bytes) -> str:
    """Checksum (xxh3, 128 bit, hexadecimal) of bytes."""
    return _digest(data)


def _swap(draft: Path, path: Path) -> None:
    if path.exists():
        old = path.parent / f".{path.name}.replaced"
        shutil.rmtree(old, ignore_errors=True)
        path.rename(old)
        draft.rename(path)
        shutil.rmtree(old)
    else:
        draft.rename(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Until the bytes of a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
