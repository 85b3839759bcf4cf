"""Checksums of bytes and of plain JSON values, and JSON that carries its own."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xxhash

_BLOCK_BYTES = 1 << 22


def file_digest(path: Path) -> str:
    """Checksum (xxh3, 128 bit, hexadecimal) of a file's bytes."""
    state = xxhash.xxh3_128()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            state.update(block)
    return state.hexdigest()


def tree_digest(source: Path) -> str:
    """Checksum of a file, or of all files under a folder with their names there."""
    if source.is_file():
        return file_digest(source)
    names = sorted(path for path in source.rglob("*") if path.is_file())
    return digest_of([(path.relative_to(source).as_posix(), file_digest(path)) for path in names])


def digest_of(value: Any) -> str:
    """Checksum of plain JSON values; equal values have equal checksums."""
    return data_digest(json.dumps(value, sort_keys=True).encode())


def data_digest(data: bytes) -> str:
    """Checksum (xxh3, 128 bit, hexadecimal) of bytes."""
    return xxhash.xxh3_128(data).hexdigest()


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
