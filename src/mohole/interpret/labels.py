"""Labels on disk: one JSON line per latent for people and other programs, the same as columns for the reader."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from mohole import artifact
from mohole.errors import ArtifactError
from mohole.interpret.label_columns import LabelColumns, columns_of, write_columns
from mohole.record import read_json

LABELS_FILE = "labels.jsonl"
COLUMNS_FILE = "labels.safetensors"
FACTS_FILE = "labels.json"

Status = Literal["good", "partial", "none", "few", "dead"]


@dataclass(frozen=True, slots=True)
class Label:
    """A latent's name, and how well it foretells where the latent fires in documents that played no part in finding it."""

    latent: int
    text: str
    kind: str
    """Which sort of rule: an aspect's name, with `after` in front where it holds only after a trigger; empty without a rule."""
    f1: float
    """On the test pool. 0 where nothing was scored: see `status`."""
    precision: float
    recall: float
    n_positive: int
    """Tokens of the test pool at which it fires above `threshold`."""
    n_scored: int
    """Tokens of the test pool."""
    status: Status
    """good: F1 of .8 or more; partial: of .5 or more; none: no simple rule; few: fires too rarely to say; dead: never."""
    threshold: float
    """Activations above this count as firing."""

    @property
    def is_scored(self) -> bool:
        """Whether F1, precision and recall mean something: a rule was found, and enough firings to hold it against."""
        return self.status in ("good", "partial", "none")


def unlabelled(latent: int) -> Label:
    """What stands for the label of a latent that nobody has labelled yet."""
    return Label(latent, "(no label yet)", "", 0.0, 0.0, 0.0, 0, 0, "few", 0.0)


class Labels:
    """A finished labels artifact, opened for reading."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest = artifact.open_artifact(path, kind="labels")
        self.firing_share: float = read_json(path / FACTS_FILE, "firing_share")["firing_share"]
        """Above this share of its maximum a latent counted as firing when labels were found and scored."""
        has_columns = COLUMNS_FILE in self.manifest.files
        self.columns = LabelColumns.open(path / COLUMNS_FILE) if has_columns else _from_lines(path / LABELS_FILE)

    @classmethod
    def open(cls, path: Path | str) -> "Labels":
        """Open the labels at `path`.

        Raises:
            ArtifactError: missing, unfinished, damaged, or of another kind.
        """
        return cls(Path(path))

    def label(self, latent: int) -> Label:
        """The label of one latent.

        Raises:
            IndexError: no such latent.
        """
        if not 0 <= latent < len(self):
            raise IndexError(f"latent {latent}: there are labels for {len(self)} (0-{len(self) - 1})")
        return Label(**self.columns.line(latent))

    def __len__(self) -> int:
        return self.columns.n

    def __iter__(self) -> Iterator[Label]:
        return (self.label(latent) for latent in range(len(self)))


def write_labels(path: Path, labels: list[Label]) -> None:
    """Write the lines, and the columns beside them."""
    lines = [asdict(label) for label in labels]
    with path.open("w", encoding="utf-8") as file:
        for line in lines:
            file.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
    write_columns(path.with_name(COLUMNS_FILE), columns_of(lines))


def _from_lines(path: Path) -> LabelColumns:
    """Of labels that were made when there were no columns yet.

    Raises:
        ArtifactError: lines that are no labels.
    """
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
        return LabelColumns(columns_of(lines), str(path))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ArtifactError(
            f"{path}: damaged ({type(error).__name__}: {error}); delete {path.parent} and make it again"
        ) from None
