"""Labels as columns in one safetensors file: a million open at once, and one is read without the others."""

from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mohole.errors import ArtifactError
from mohole.tensors import open_tensors, write_tensors

UInt8 = NDArray[np.uint8]
Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]

STATUSES = ("good", "partial", "none", "few", "dead")
"""A status is kept as its place here."""
_NUMBERS = {
    "f1": "<f8",
    "precision": "<f8",
    "recall": "<f8",
    "threshold": "<f8",
    "n_positive": "<i8",
    "n_scored": "<i8",
}
_NAMES = (*_NUMBERS, "status", "kind", "text_bytes", "text_starts", "kind_bytes", "kind_starts")


def columns_of(lines: Sequence[dict[str, Any]]) -> dict[str, NDArray[Any]]:
    """The columns of labels given as dictionaries; a label's place is its latent.

    Raises:
        KeyError, ValueError, TypeError: a line that is no label, or not that of its place.
    """
    columns: dict[str, NDArray[Any]] = {
        name: np.array([line[name] for line in lines], dtype=dtype) for name, dtype in _NUMBERS.items()
    }
    if [line["latent"] for line in lines] != list(range(len(lines))):
        raise ValueError("latents are not 0, 1, 2...")
    status = {name: code for code, name in enumerate(STATUSES)}
    columns["status"] = np.array([status[line["status"]] for line in lines], dtype="<u1")
    kinds = {kind: code for code, kind in enumerate(sorted({line["kind"] for line in lines}))}
    columns["kind"] = np.array([kinds[line["kind"]] for line in lines], dtype="<i4")
    columns["text_bytes"], columns["text_starts"] = _joined([line["text"] for line in lines])
    columns["kind_bytes"], columns["kind_starts"] = _joined(list(kinds))
    return columns


def write_columns(path: Path, columns: dict[str, NDArray[Any]]) -> None:
    """The file that `LabelColumns.open` reads."""
    write_tensors(path, columns)


class LabelColumns:
    """The columns of all labels, by latent."""

    def __init__(self, columns: dict[str, NDArray[Any]], where: str) -> None:
        """Raises:
        ArtifactError: a column is missing, or of another length than the others; `where` names the file.
        """
        missing = [name for name in _NAMES if name not in columns]
        if missing:
            raise ArtifactError(f"{where}: no column {missing[0]!r}; make the labels again")
        # Plain views of what is mapped: numpy's own class for that takes ten times as long to cut a small piece.
        columns = {name: np.asarray(columns[name]) for name in _NAMES}
        self._columns = columns
        self.n = len(columns["status"])
        lengths = {name: len(columns[name]) for name in (*_NUMBERS, "kind")} | {
            "text_starts": len(columns["text_starts"]) - 1
        }
        if unlike := [name for name, length in lengths.items() if length != self.n]:
            raise ArtifactError(f"{where}: {lengths[unlike[0]]} of {unlike[0]}, {self.n} labels; make the labels again")
        self._text = columns["text_bytes"].data

    @classmethod
    def open(cls, path: Path) -> "LabelColumns":
        """Map the file at `path`. Raises: ArtifactError: missing, or not such a file."""
        return cls(open_tensors(path), str(path))

    @property
    def status(self) -> UInt8:
        """Each latent's status, as its place in STATUSES."""
        return self._columns["status"]

    @property
    def f1(self) -> Float64:
        return self._columns["f1"]

    @property
    def scored_f1(self) -> Float64:
        """As `f1`; NaN where nothing was scored."""
        return np.where(self.status <= STATUSES.index("none"), self.f1, np.nan)

    @property
    def text_starts(self) -> Int64:
        """Where each latent's text begins in `text_bytes`, and the end."""
        return self._columns["text_starts"]

    @property
    def text_bytes(self) -> UInt8:
        """All texts, one after the other, in UTF-8."""
        return self._columns["text_bytes"]

    @cached_property
    def _kinds(self) -> list[str]:
        starts = self._columns["kind_starts"].tolist()
        data = self._columns["kind_bytes"].tobytes()
        return [data[low:high].decode() for low, high in pairwise(starts)]

    def texts(self, latents: Int64 | slice = slice(None)) -> list[str]:
        """The texts of these latents; of all of them."""
        starts, ends = self.text_starts[:-1][latents].tolist(), self.text_starts[1:][latents].tolist()
        return [str(self._text[low:high], "utf-8") for low, high in zip(starts, ends, strict=True)]

    def line(self, latent: int) -> dict[str, Any]:
        """One label as `columns_of` takes it."""
        numbers = {name: self._columns[name][latent].item() for name in _NUMBERS}
        low, high = self.text_starts[latent : latent + 2].tolist()
        return numbers | {
            "latent": latent,
            "text": str(self._text[low:high], "utf-8"),
            "kind": self._kinds[self._columns["kind"][latent]],
            "status": STATUSES[self.status[latent]],
        }


def _joined(texts: list[str]) -> tuple[UInt8, Int64]:
    encoded = [text.encode("utf-8") for text in texts]
    starts = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
    return np.frombuffer(b"".join(encoded), dtype=np.uint8), starts
