"""Finished evaluations, found on the disk and opened to be compared: what tells them apart, and differences in pairs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mohole import artifact
from mohole.errors import ArtifactError, ConfigError, StageError
from mohole.evaluate.files import read_evaluation, read_replicates
from mohole.evaluate.guards.finite import NOT_FINITE
from mohole.evaluate.results import Evaluation
from mohole.metrics import interval
from mohole.report.growth import Growth, Size, growth_of

Float64 = NDArray[np.float64]

_SAME = ("corpus", "rows")


@dataclass(frozen=True)
class Evaluated:
    """A finished evaluation."""

    name: str
    """The shortest end of its path that tells it from the others."""
    evaluation: Evaluation
    replicates: dict[str, Float64]
    dictionary: Path | None
    """Its artifact, where it lies beside and is what was evaluated."""
    documents: dict[str, object]
    """What says which documents it is of, and how they were resampled: two with the same can be compared in pairs."""


@dataclass(frozen=True)
class Difference:
    """Of a number from that of the first dictionary. `low` and `high` bound the central 95 %, over resampled documents."""

    value: float
    low: float
    high: float

    @property
    def is_clear(self) -> bool:
        """Does the interval leave out zero?"""
        return self.low > 0 or self.high < 0


def find_evaluations(paths: Sequence[Path]) -> list[Evaluated]:
    """The evaluations at these paths: their own folders, dictionaries or hookpoints beside which they lie, or whole runs.

    Raises:
        ArtifactError: a path without one, or a damaged one. ConfigError: one that is named twice.
    """
    places = [place for path in paths for place in _places(path)]
    twice = {place for place in places if places.count(place) > 1}
    if twice:
        raise ConfigError(f"{min(twice)}: named twice; name each evaluation once")
    return [_open(place, name) for place, name in zip(places, _names(places), strict=True)]


def difference(first: Evaluated, other: Evaluated, name: str) -> Difference | None:
    """other - first of one number, from resamplings that both share. None: not of the same documents, or not defined for both."""
    ours, theirs = (each.evaluation.measures.get(name) for each in (first, other))
    if ours is None or theirs is None or ours.value is None or theirs.value is None:
        return None
    if first.documents != other.documents or not all(name in each.replicates for each in (first, other)):
        return None
    if (ours.n, ours.n_documents) != (theirs.n, theirs.n_documents):
        return None
    low, high = interval(other.replicates[name] - first.replicates[name])
    return None if low is None or high is None else Difference(theirs.value - ours.value, low, high)


def growths(found: Sequence[Evaluated]) -> list[Growth]:
    """Families: dictionaries of one kind, of the same places and documents, of which two differ in their number of latents."""
    families: dict[str, list[Evaluated]] = {}
    for each in found:
        evaluation = each.evaluation
        key = repr((evaluation.kind, evaluation.reads, evaluation.writes, sorted(each.documents.items())))
        families.setdefault(key, []).append(each)
    grown = [growth_of([_size(each) for each in family]) for family in families.values()]
    return [growth for growth in grown if growth]


def _size(each: Evaluated) -> Size:
    measures = each.evaluation.measures
    fvu = replace(measures["fvu"], replicates=each.replicates.get("fvu"))
    return Size(each.name, each.evaluation.n_latents, measures["l0"], fvu, each.dictionary)


def first_other(ours: Mapping[str, object], first: Mapping[str, object]) -> str:
    """Why two cannot be compared in pairs: the first thing in which they differ. A digest says nothing to a person."""
    name = next(key for key in (*ours, *first) if ours.get(key) != first.get(key))
    return f"other {name}" if name in _SAME else f"{name} is {ours.get(name)!r}, not {first.get(name)!r}"


def _places(path: Path) -> list[Path]:
    beside = [path.parent / "evaluation"] if path.name == "dictionary" else []
    for place in (path, path / "evaluation", *beside):
        if (place / artifact.MANIFEST).is_file() and artifact.read_manifest(place).kind == "evaluation":
            return [place]
    found = sorted(manifest.parent for manifest in path.glob(f"*/evaluation/{artifact.MANIFEST}"))
    if not found:
        raise ArtifactError(
            f"{path}: no evaluation there; `mohole evaluate {path} --store RUN` makes one, and says where it lies"
        )
    return found


def _names(places: Sequence[Path]) -> list[str]:
    """Paths without the parts that all of them share."""
    whole = [place.resolve().parts for place in places]
    shared = {part for part in whole[0] if all(part in parts for parts in whole)} if len(whole) > 1 else set()
    names = ["/".join(part for part in parts if part not in shared) for parts in whole]
    if len(names) == 1:
        return ["/".join(part for part in whole[0][-3:] if part != "evaluation")]
    return [name.removesuffix("/evaluation") or place.as_posix() for name, place in zip(names, places, strict=True)]


def _open(place: Path, name: str) -> Evaluated:
    manifest = artifact.open_artifact(place, kind="evaluation")
    inputs = manifest.inputs
    rows = {name: inputs.parents.get(name) for name in _SAME}
    documents = {"seed": inputs.seed} | rows | artifact.flatten(dict(inputs.config))
    evaluation = read_evaluation(place)
    if NOT_FINITE in evaluation.measures:
        raise StageError(f"{name}: nothing to compare: {evaluation.warnings[0].sentence}")
    return Evaluated(name, evaluation, read_replicates(place), _dictionary_of(place, inputs.parents), documents)


def _dictionary_of(place: Path, parents: Mapping[str, str]) -> Path | None:
    beside = place.parent / "dictionary"
    is_it = (beside / artifact.MANIFEST).is_file() and artifact.read_manifest(beside).digest == parents.get(
        "dictionary"
    )
    return beside if is_it else None
