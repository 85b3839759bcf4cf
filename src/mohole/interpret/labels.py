"""Labels on disk: one JSON line per latent, and the reader."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from mohole import artifact
from mohole.errors import ArtifactError
from mohole.record import read_json

LABELS_FILE = "labels.jsonl"
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
        try:
            lines = (path / LABELS_FILE).read_text(encoding="utf-8").split("\n")
            self._labels = [Label(**json.loads(line)) for line in lines if line]
        except (json.JSONDecodeError, UnicodeDecodeError, TypeError) as error:
            raise ArtifactError(f"{path / LABELS_FILE}: damaged ({error}); delete {path} and make it again") from None

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
        if not 0 <= latent < len(self._labels):
            raise IndexError(f"latent {latent}: there are labels for {len(self._labels)} (0-{len(self._labels) - 1})")
        return self._labels[latent]

    def __len__(self) -> int:
        return len(self._labels)

    def __iter__(self) -> Iterator[Label]:
        return iter(self._labels)


def write_labels(path: Path, labels: list[Label]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for label in labels:
            file.write(json.dumps(asdict(label), ensure_ascii=False, allow_nan=False) + "\n")
