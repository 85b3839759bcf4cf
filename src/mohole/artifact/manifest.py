"""The manifest of an artifact: what it is made from, what bytes it holds. Reading and checking, no writing."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mohole.artifact.seal import data_digest, digest_of, file_digest, sealed
from mohole.errors import ArtifactError
from mohole.version import __version__

MANIFEST = "manifest.json"
SCHEMA = 2


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
            digest=data_digest(data),
            bulk=tuple(raw.get("bulk", ())),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ArtifactError(f"{where}/{MANIFEST}: damaged ({error}); delete {where} and make it again") from None


def _what_is_there(path: Path) -> str:
    if not path.exists():
        return f"{path}: no artifact there; `mohole run RECIPE` makes the missing ones"
    return f"{path}: no {MANIFEST}, so not a finished artifact; delete it, or name another folder"


def open_artifact(
    path: Path | str, *, kind: str | None = None, verify: bool = True, most_bytes: int | None = None
) -> Manifest:
    """Check that a whole, undamaged artifact (of this kind) is at `path`, and return its manifest.

    Args:
        verify: compare checksums; else sizes alone are looked at.
        most_bytes: of a larger file the size alone is looked at.

    Raises:
        ArtifactError: missing, of another kind, or with a missing, truncated or changed file, which is named.
    """
    path = Path(path)
    manifest = read_manifest(path)
    if kind is not None and manifest.kind != kind:
        raise ArtifactError(f"{path}: holds {manifest.kind!r}, not {kind!r}")
    for name, (n_bytes, _) in manifest.files.items():
        _check_file(path, manifest, name, is_read=verify and (most_bytes is None or n_bytes <= most_bytes))
    return manifest


def _check_file(path: Path, manifest: Manifest, name: str, *, is_read: bool) -> None:
    file, (n_bytes, checksum) = path / name, manifest.files[name]
    if not file.is_file():
        raise ArtifactError(f"{file}: missing; delete {path} and make it again")
    if file.stat().st_size != n_bytes:
        raise ArtifactError(f"{file}: {file.stat().st_size} bytes, {n_bytes} expected; delete {path} and make it again")
    if is_read and file_digest(file) != checksum:
        raise ArtifactError(f"{file}: checksum is wrong, its bytes have changed; delete {path} and make it again")


def is_part(path: Path, *, of: str) -> bool:
    """Is the folder at `path` part of a finished artifact of this kind, the one that it lies in?

    Raises:
        ArtifactError: that one's manifest is damaged.
    """
    whole = path.absolute().parent
    if (path / MANIFEST).exists() or not (whole / MANIFEST).is_file():
        return False
    manifest = read_manifest(whole)
    return manifest.kind == of and bool(_names_in(manifest, path))


def open_part(path: Path) -> None:
    """Check the files of a folder that `is_part` says is one.

    Raises:
        ArtifactError: one of them is missing, truncated or changed.
    """
    whole = path.absolute().parent
    manifest = read_manifest(whole)
    for name in _names_in(manifest, path):
        _check_file(whole, manifest, name, is_read=True)


def _names_in(manifest: Manifest, path: Path) -> list[str]:
    return [name for name in manifest.files if name.startswith(f"{path.absolute().name}/")]


def check_parent(path: Path, manifest: Manifest, parent: str, digest: str) -> None:
    """Was the artifact at `path` made from the parent that lies beside it, whose manifest has this digest?

    One that does not say what it was made from is believed.

    Raises:
        ArtifactError: it was made from another one.
    """
    if manifest.inputs.parents.get(parent, digest) != digest:
        raise ArtifactError(f"{path}: made from another {parent} than the one beside it; make it again")


def is_finished(path: Path, inputs: Inputs) -> bool:
    """Is there a whole artifact at `path` made from exactly these inputs? Its files' sizes are looked at, not their bytes.

    Raises:
        ArtifactError: it is there, and a file of it is missing or has another size.
    """
    if not (path / MANIFEST).is_file() or read_manifest(path).inputs.digest() != inputs.digest():
        return False
    open_artifact(path, verify=False)
    return True


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


def difference(path: Path, inputs: Inputs) -> str:
    """The first setting in which the artifact at `path` first_difference from `inputs`, for a person to read."""
    return first_difference(read_manifest(path).inputs, inputs)


def first_difference(there: Inputs, asked: Inputs) -> str:
    """The first setting in which inputs that are there differ from those that are asked for, for a person to read."""
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
