"""One stage of a job as data: which verb fills which folder, with what settings, from which parents. Runs nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from mohole.catalogue.layout import BULK as CATALOGUE_BULK
from mohole.catalogue.layout import COMMITS as CATALOGUE_COMMITS
from mohole.corpus.parts import PROGRESS
from mohole.store.listing import BULK as STORE_BULK
from mohole.store.listing import COMMITS

Verb = Literal["corpus", "harvest", "shuffle", "train", "convert", "evaluate", "catalogue", "label", "steer"]
VERBS: tuple[Verb, ...] = get_args(Verb)

# Raised for a stage whose code has changed what it writes for the same settings, so that old artifacts are not taken for new.
_VERSIONS: dict[Verb, int] = dict.fromkeys(VERBS, 2) | {"train": 6, "convert": 3, "evaluate": 5, "catalogue": 3}


@dataclass(frozen=True)
class Stage:
    """One artifact to be made."""

    verb: Verb
    kind: str
    out: Path
    hookpoint: str | None
    """The one it is about, or None for what all hookpoints share."""
    config: Mapping[str, Any]
    parents: Mapping[str, Path]
    needs_model: bool = False

    @property
    def worth(self) -> tuple[str, ...]:
        """Patterns of the files from which a killed attempt is gone on with."""
        match self.verb:
            case "corpus":
                return (PROGRESS,)
            case "harvest" | "shuffle":
                return COMMITS
            case "train":
                return ("checkpoints/*.json",)
            case "catalogue":
                return CATALOGUE_COMMITS
            case _:
                return ()

    @property
    def bulk(self) -> tuple[str, ...]:
        """Files and folders with checksums of their own, which the artifact's manifest does not list."""
        match self.verb:
            case "harvest" | "shuffle":
                return STORE_BULK
            case "catalogue":
                return CATALOGUE_BULK
            case _:
                return ()

    @property
    def resumes(self) -> bool:
        """Can it go on where a killed attempt left off? The others are short, and begin again."""
        return bool(self.worth)

    @property
    def name(self) -> str:
        return self.verb if self.hookpoint is None else f"{self.verb} {self.hookpoint}"

    @property
    def version(self) -> int:
        """Of the code that fills it. Raised when the same settings give other bytes."""
        return _VERSIONS[self.verb]
