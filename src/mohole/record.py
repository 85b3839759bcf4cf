"""JSON of artifacts: whole objects, and time series with one object per line, flushed as they come."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from mohole.errors import ArtifactError


class Recorder:
    """Appends lines to a JSONL file. Values must be plain JSON; NaN is written as null, never as bare NaN."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")

    def write(self, **values: Any) -> None:
        self._file.write(json.dumps(plain(values), sort_keys=True, allow_nan=False) + "\n")
        self._file.flush()

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def read_record(path: Path) -> list[dict[str, Any]]:
    """All lines of a record, oldest first. A last one that is just being written is left out."""
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.endswith("\n")]


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
    path.write_text(
        json.dumps(plain(value), indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n", "utf-8"
    )


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
