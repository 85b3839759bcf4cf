"""Finished runs, opened and named. Everything is checked here, before the server says it is there; nothing is written."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mohole import artifact
from mohole.artifact import MANIFEST, Manifest, check_parent, digest_of
from mohole.catalogue import Catalogue
from mohole.catalogue.verify import check_sizes
from mohole.corpus import Corpus
from mohole.errors import ArtifactError, ConfigError, HookpointError, ModelError
from mohole.interpret import Label, Labels, unlabelled
from mohole.model.hookpoints import parse_hookpoint
from mohole.model.source import find_model, name_of
from mohole.record import read_json
from mohole.serve.columns import Columns
from mohole.serve.errors import Refusal, short
from mohole.serve.kept import Kept
from mohole.serve.people import People
from mohole.serve.tiles import Tiles
from mohole.version import __version__
from mohole.visible import visible

READ_AT_ONCE_BYTES = 1 << 28
"""A corpus file up to here is compared with its checksum before anything is shown: a tenth of a second. Of a larger one, which
may be terabytes, the size is looked at."""


class OpenHookpoint:
    """One dictionary of a run with its catalogue and labels."""

    def __init__(self, folder: Path, run: "OpenRun", corpus: Corpus) -> None:
        self.folder, self.run, self.corpus = folder, run, corpus
        self.name = folder.name
        # Plain views of what is mapped: numpy's own class for that takes ten times as long to cut a small piece.
        self.tokens, self.document_starts = np.asarray(corpus.tokens), np.asarray(corpus.document_starts)
        self.catalogue = Catalogue.open(folder / "catalogue")
        self.dictionary = artifact.read_manifest(folder / "dictionary").digest
        """Of its manifest: what people write is about this one."""
        self.labels = Labels.open(folder / "labels") if _is_artifact(folder / "labels") else None
        check_sizes(self.catalogue.path)
        check_parent(self.catalogue.path, self.catalogue.manifest, "dictionary", self.dictionary)
        if self.labels is not None:
            check_parent(self.labels.path, self.labels.manifest, "catalogue", self.catalogue.manifest.digest)
            if len(self.labels) != self.catalogue.n_latents:
                raise ArtifactError(
                    f"{self.labels.path}: {len(self.labels)} labels for {self.catalogue.n_latents} latents; make them again"
                )
        self.kept = Kept(folder)
        self.tiles: Tiles | None = None
        """Of the map, once somebody asks for one."""
        self.columns = Columns(self.catalogue, self.labels, self.kept)
        self._watched = tuple(str(folder / name / MANIFEST) for name in ("catalogue", "labels"))
        self._as_opened = self._manifests()

    def need_unchanged(self) -> None:
        """Part of a catalogue is in memory and part is read when it is asked for: of two catalogues, that would be neither.

        Raises:
            Refusal: the catalogue or the labels have been made again, or are gone.
        """
        if self._manifests() != self._as_opened:
            raise Refusal(
                503,
                f"{self.folder}: its catalogue or labels were made again, or are gone",
                "end mohole serve and start it again",
            )

    def _manifests(self) -> tuple[tuple[int, int] | None, ...]:
        return tuple(map(_identity, self._watched))

    def texts(self, stretches: Sequence[tuple[int, int]]) -> list[list[str]]:
        """The vocabulary's entries at tokens [start, end) of the corpus, for each such stretch.

        Raises:
            ArtifactError: a token is none of the vocabulary's.
        """
        if not stretches:
            return []
        tokens = [self.tokens[start:end] for start, end in stretches]
        try:
            # All at once: one by one it takes thrice as long. A token below 0 is beyond the vocabulary, too.
            found = self._pieces[np.concatenate(tokens).astype(np.uint32)].tolist()
        except IndexError:
            n, (start, _) = len(self.corpus.pieces), min(stretches)
            where = f"{self.corpus.path}: tokens {start} to {max(stretches)[1]} are damaged"
            raise ArtifactError(f"{where}, one is beyond the {n} of its vocabulary; make it again") from None
        ends = accumulate(map(len, tokens))
        return [found[end - len(own) : end] for own, end in zip(tokens, ends, strict=True)]

    @cached_property
    def _pieces(self) -> NDArray[np.object_]:
        pieces = np.empty(len(self.corpus.pieces), dtype=np.object_)
        pieces[:] = self.corpus.pieces
        return pieces

    @property
    def by_hand(self) -> Mapping[int, str]:
        """People's labels as of now. An answer asks once, so that all of it is of one moment."""
        return self.run.people.labels(self.dictionary)

    def label(self, latent: int) -> Label:
        """The automatic label."""
        return unlabelled(latent) if self.labels is None else self.labels.label(latent)

    def need(self, latent: int) -> int:
        """The latent, if there is one of this number."""
        if not 0 <= latent < self.catalogue.n_latents:
            last = self.catalogue.n_latents - 1
            raise Refusal(404, f"{self.name}: latent {latent}: no such latent", f"there are 0 to {last}")
        return latent


@dataclass
class OpenRun:
    """A run folder that is served."""

    name: str
    """In addresses."""
    folder: Path
    people: People
    model_name: str = "a model of unknown name"
    model_digest: str | None = None
    model_source: str | None = None
    """Where its model can be loaded from; not yet compared with `model_digest`."""
    hookpoints: dict[str, OpenHookpoint] = field(default_factory=dict)
    """In order of execution."""

    @cached_property
    def manifests(self) -> dict[str, Manifest]:
        """Of every finished artifact, by its place in the folder."""
        places = sorted((*self.folder.glob(f"*/{MANIFEST}"), *self.folder.glob(f"*/*/{MANIFEST}")))
        names = (place.parent.relative_to(self.folder) for place in places)
        return {
            name.as_posix(): artifact.read_manifest(self.folder / name)
            for name in names
            if not any(part.startswith(".") for part in name.parts)
        }

    @cached_property
    def digest(self) -> str:
        """Of all that is served of it and does not change while it is."""
        return digest_of([__version__, *((name, manifest.digest) for name, manifest in self.manifests.items())])

    @property
    def etag(self) -> str:
        """Of any answer about this run, as of now."""
        return f'W/"{self.digest[:20]}-{self.people.edition}"'

    def hookpoint(self, name: str) -> OpenHookpoint:
        """A hookpoint by name. Refusal if the run has none of it, or it has been made again since it was opened."""
        if name not in self.hookpoints:
            raise Refusal(
                404, f"{self.name}: {short(name)}: no such hookpoint", f"there are {', '.join(self.hookpoints)}"
            )
        place = self.hookpoints[name]
        place.need_unchanged()
        return place


class Served:
    """The runs that a server shows, by name."""

    def __init__(self, runs: Sequence[OpenRun]) -> None:
        self.runs = {run.name: run for run in runs}

    @property
    def etag(self) -> str:
        """Of an answer about all of them, as of now."""
        return f'W/"{digest_of([run.etag for run in self.runs.values()])[:20]}"'

    def run(self, name: str) -> OpenRun:
        """A run by name. Refusal if it is not served."""
        if name not in self.runs:
            raise Refusal(404, f"{short(name)}: no such run", f"there are {', '.join(self.runs)}")
        return self.runs[name]

    def hookpoint(self, run: str, hookpoint: str) -> OpenHookpoint:
        """Both by name."""
        return self.run(run).hookpoint(hookpoint)

    def close(self) -> None:
        """Close the files that people's writing is in."""
        for run in self.runs.values():
            run.people.close()


def open_runs(folders: Sequence[Path | str], models: Sequence[str] = ()) -> Served:
    """Open run folders for serving.

    Args:
        models: folders or hub ids where a run's model may be; each run finds its own among them, or by its recorded name.

    Raises:
        ArtifactError: no run, an unfinished one, or artifacts that do not belong together.
        ConfigError: none given, or one twice.
    """
    places = [Path(folder) for folder in folders]
    if not places:
        raise ConfigError("no run to serve; name a run folder")
    resolved = [place.resolve() for place in places]
    if twice := next((place for i, place in enumerate(resolved) if place in resolved[:i]), None):
        raise ConfigError(f"{twice}: named twice; name each run once")
    corpora = {manifest.digest: place for place, manifest in _corpora(resolved)}
    names = list(_names(resolved))
    return Served([_open_run(place, name, corpora, models) for place, name in zip(places, names, strict=True)])


def _names(places: Iterable[Path]) -> Iterator[str]:
    """The folders' names, made fit for an address and each made the only one of its kind."""
    taken: set[str] = set()
    for place in places:
        name = base = re.sub(r"[^\w.-]+", "-", place.name).strip(".-") or "run"
        number = 2
        while name in taken:
            name, number = f"{base}-{number}", number + 1
        taken.add(name)
        yield name


def _corpora(places: Iterable[Path]) -> Iterator[tuple[Path, Manifest]]:
    return (
        (place / "corpus", artifact.read_manifest(place / "corpus"))
        for place in places
        if _is_artifact(place / "corpus")
    )


def _open_run(folder: Path, name: str, corpora: dict[str, Path], models: Sequence[str]) -> OpenRun:
    run = OpenRun(name, folder, People(_run_folder(folder)))
    for place in _hookpoint_folders(folder):
        catalogue = artifact.read_manifest(place / "catalogue")
        corpus = _corpus_of(folder, place, catalogue, corpora)
        run.hookpoints[place.name] = OpenHookpoint(place, run, corpus)
        run.model_digest = catalogue.inputs.parents.get("model", run.model_digest)
    recorded = _recorded_model(run.hookpoints.values())
    run.model_source = _first_found([*models, *([recorded] if recorded else [])], run.model_digest)
    if recorded or run.model_source:
        run.model_name = recorded or name_of(str(run.model_source))
    return run


def _run_folder(folder: Path) -> Path:
    if not folder.is_dir():
        raise ArtifactError(f"{folder}: {'a file' if folder.exists() else 'no such folder'}; name a run's folder")
    if _is_artifact(folder):
        raise ArtifactError(f"{folder}: an artifact, not a run; name the folder of the whole run")
    return folder


def _hookpoint_folders(run: Path) -> list[Path]:
    """Of every dictionary of one hookpoint, in order of execution; each has its catalogue, or the run is not finished."""
    points = {}
    for folder in (manifest.parent.parent for manifest in run.glob(f"*/dictionary/{MANIFEST}")):
        try:
            points[folder] = parse_hookpoint(folder.name).execution
        except HookpointError:
            continue  # a dictionary of several hookpoints, which no catalogue is made of
    if not points:
        raise ArtifactError(f"{run}: no hookpoint with a dictionary in it; `mohole run RECIPE` makes one")
    for folder in points:
        if not _is_artifact(folder / "catalogue"):
            raise ArtifactError(f"{folder}: not finished, it has no catalogue; `mohole catalogue RECIPE` makes it")
    return sorted(points, key=lambda folder: points[folder])


def _corpus_of(run: Path, place: Path, catalogue: Manifest, corpora: dict[str, Path]) -> Corpus:
    """The corpus that the catalogue points into: the run's own, or that of another served run whose rows it was learned from."""
    wanted = catalogue.inputs.parents.get("corpus")
    if wanted is None:
        return Corpus.open(run / "corpus", most_bytes=READ_AT_ONCE_BYTES)
    if wanted not in corpora:
        there = "another corpus is there" if _is_artifact(run / "corpus") else "it is not there"
        raise ArtifactError(
            f"{place / 'catalogue'}: made from a corpus that {run} does not hold ({there}); "
            "serve the run that holds it too, or make the catalogue again"
        )
    return Corpus.open(corpora[wanted], most_bytes=READ_AT_ONCE_BYTES)


def _recorded_model(hookpoints: Iterable[OpenHookpoint]) -> str | None:
    """The name of the model as the training of a dictionary recorded it."""
    for each in hookpoints:
        training = read_json(each.folder / "dictionary" / "dictionary.json").get("training")
        if isinstance(training, dict) and isinstance(training.get("model"), str):
            return visible(training["model"])
    return None


def _first_found(sources: Sequence[str], digest: str | None) -> str | None:
    """The first of these that is a model here. Whether it is the right one is seen when it is loaded: bytes are many."""
    if digest is None:
        return None
    for source in sources:
        try:
            find_model(source)
        except ModelError:
            continue
        return source
    return None


def _identity(file: str) -> tuple[int, int] | None:
    """Another one for a file that was put in its place. None: there is none."""
    try:
        status = os.stat(file)
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def _is_artifact(path: Path) -> bool:
    return (path / MANIFEST).is_file()
