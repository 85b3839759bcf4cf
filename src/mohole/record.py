"""JSON of artifacts: whole objects, and time series with one object per line, flushed as they come."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from mohole.artifact import data_digest, sync
from mohole.errors import ArtifactError


@dataclass(frozen=True)
class Seal:
    """How many lines of a record there were at a moment, and a checksum of them that every line goes on from."""

    n_lines: int = 0
    digest: str = ""

    def after(self, line: bytes) -> "Seal":
        """With one line more, its end included."""
        return Seal(self.n_lines + 1, data_digest(self.digest.encode() + line))


class Recorder:
    """Appends lines to a JSONL file. Values must be plain JSON; NaN is written as null, never as bare NaN."""

    def __init__(self, path: Path, seal: Seal | None = None) -> None:
        self._path = path
        self._file = path.open("ab")
        self.seal = seal or Seal()
        """Of all lines, where `seal` is that of the lines before."""

    def write(self, **values: Any) -> None:
        line = (json.dumps(plain(values), sort_keys=True, allow_nan=False) + "\n").encode()
        with _named(self._path):
            self._file.write(line)
            self._file.flush()
        self.seal = self.seal.after(line)

    def sync(self) -> None:
        """Until all lines are on the disk."""
        with _named(self._path):
            os.fsync(self._file.fileno())

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with _named(self._path):
            self._file.close()


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """A failed write does not say where."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def read_record(path: Path) -> list[dict[str, Any]]:
    """All lines of a record, oldest first. A last one that is just being written is left out."""
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.endswith("\n")]


def cut_back(path: Path, seal: Seal) -> list[dict[str, Any]]:
    """Take away what was written to a record after a moment; whenever we are killed, it is as it was or as it shall be.

    Returns:
        The lines that are left.

    Raises:
        ArtifactError: lines from before that moment are missing or changed.
    """
    data = path.read_bytes() if path.exists() else b""
    kept = [line + b"\n" for line in data.split(b"\n")[:-1][: seal.n_lines]]
    found = Seal()
    for line in kept:
        found = found.after(line)
    if found != seal:
        raise ArtifactError(
            f"{path}: the {seal.n_lines} lines up to the checkpoint are not as they were written; delete {path.parent} to "
            "start over"
        )
    if sum(map(len, kept)) < len(data):
        draft = path.with_suffix(".draft")
        draft.write_bytes(b"".join(kept))
        sync(draft)
        draft.replace(path)
    return [json.loads(line) for line in kept]


def read_json(path: Path, *keys: str) -> dict[str, Any]:
    """The object in a file of an artifact.

    Raises:
        ArtifactError: missing, damaged, or without one of the keys.
    """
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        missing = [key for key in keys if key not in facts]
    except (OSError, ValueError, RecursionError, TypeError) as error:  # ValueError: also a number of 5000 digits
        raise ArtifactError(f"{path}: damaged ({error}); delete {path.parent} and make it again") from None
    if not isinstance(facts, dict) or missing:
        raise ArtifactError(
            f"{path}: has no {' or '.join(missing) or 'object'}; delete {path.parent} and make it again"
        )
    return facts


def write_json(path: Path, value: Any) -> None:
    """Write plain JSON with sorted keys, so that equal values are equal bytes."""
    text = json.dumps(plain(value), indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    with _named(path):
        path.write_text(text, "utf-8")


def plain(value: Any) -> Any:
    """JSON has no NaN or infinity: both become null, so that every reader can read the file."""
    match value:
        case float():
            return value if value - value == 0.0 else None
        case Mapping():
            return {str(key): plain(item) for key, item in value.items()}
        case list() | tuple():
            return [plain(item) for item in value]
        case _:
            return value
