"""What a sweep found, a line for each member: the table that is read by people, by its page and by the scaling fit."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from mohole.errors import ArtifactError
from mohole.record import read_json, write_json

TABLE_FILE = "table.json"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One member. Numbers that a failed training has not are None."""

    name: str
    nonlinearity: str
    n_latents: int
    """Of each layer."""
    k: int | None
    """None where a penalty decides how many latents are active."""
    penalty: str | None
    sparsity_weight: float | None
    """Of the penalty; None where there is none."""
    lr: float
    steps: int
    rows: int
    """Rows trained on, each pass over them counted."""
    fvu: float | None
    """Fraction of variance unexplained on the measured rows."""
    l0: float | None
    """Mean active latents of a measured row, of all layers together."""
    dead_share: float | None
    """Share of latents that were silent for train.dead_after_rows when training ended."""
    silent_share: float | None
    """Share of latents that are active at none of the measured rows (of trained rows: in the last tenth of the steps)."""
    flops: float | None
    """Of its training; `SweepTable.flops_are` says which are counted."""
    failure: str | None = None
    """Why the training was stopped."""

    @property
    def setting(self) -> str:
        """How it is kept sparse: dictionaries of one setting differ in width, rows and learning rate only."""
        if self.k is not None:
            return f"{self.nonlinearity}, k {self.k}"
        return f"{self.nonlinearity}, {self.penalty} {self.sparsity_weight:g}"


@dataclass(frozen=True, kw_only=True)
class MeasuredOn:
    """Which rows of the stream fvu, l0 and silent_share are of."""

    rows: Literal["unseen", "trained"]
    """`unseen`: the first that no training has read. `trained`: the last batches, where the training left none."""
    first: int
    """Rank of the first one in the order."""
    n_rows: int

    def __str__(self) -> str:
        what = (
            "that no member was trained on"
            if self.rows == "unseen"
            else "of the last steps of training: none was left unread"
        )
        return f"{self.n_rows:,} rows {what}"


@dataclass(frozen=True, kw_only=True)
class SweepTable:
    """All members of a sweep."""

    place: str
    """The hookpoints that are read (and predicted)."""
    learns: str
    d_in: int
    d_out: int
    pass_rows: int
    """Rows of one pass over the stream."""
    measured_on: MeasuredOn
    flops_are: str
    members: tuple[Entry, ...]

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        write_json(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> "SweepTable":
        """Raises: ArtifactError: missing, damaged, or of another version."""
        raw = read_json(path, *(field.name for field in fields(cls)))
        try:
            members = tuple(Entry(**member) for member in raw.pop("members"))
            return cls(**raw | {"measured_on": MeasuredOn(**raw["measured_on"]), "members": members})
        except TypeError as error:
            raise ArtifactError(f"{path}: not a sweep's table of this version ({error}); sweep again") from None


def table_lines(members: Sequence[Entry]) -> tuple[list[str], list[list[str]]]:
    """The table for people: heads, and a line for each member, the lowest fvu first."""
    heads = ["member", "latents", "k or weight", "lr", "rows", "fvu", "l0", "dead", "silent", "flops"]
    ranked = sorted(members, key=lambda entry: (entry.fvu is None, entry.fvu or 0.0, entry.name))
    return heads, [_line(entry) for entry in ranked]


def _line(entry: Entry) -> list[str]:
    sparsity = f"{entry.sparsity_weight:g} {entry.penalty}" if entry.k is None else str(entry.k)
    known: list[str] = [entry.name, f"{entry.n_latents:,}", sparsity, f"{entry.lr:g}", f"{entry.rows:,}"]
    if entry.failure is not None:
        return [*known, "failed", "", "", "", ""]
    return [
        *known,
        _as(".4g", entry.fvu),
        _as(".1f", entry.l0),
        *(_as(".1%", share) for share in _shares(entry)),
        _as(".2g", entry.flops),
    ]


def _shares(entry: Entry) -> tuple[float | None, float | None]:
    return entry.dead_share, entry.silent_share


def _as(form: str, value: Any) -> str:
    return "" if value is None else format(value, form)
