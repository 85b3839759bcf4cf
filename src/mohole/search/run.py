"""A finished run, opened for searching: dictionaries, labels, catalogues, and the model it was made with. Writes nothing."""

from functools import cached_property
from math import isnan
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mohole import artifact
from mohole.catalogue import Catalogue
from mohole.corpus import Corpus
from mohole.dictionary import AnyDictionary
from mohole.dictionary.files import open_dictionary, trained_with
from mohole.dictionary.places import places_of
from mohole.errors import ArtifactError, ConfigError, HookpointError, ModelError
from mohole.interpret import Label, Labels
from mohole.model import LanguageModel, load_model
from mohole.model.hookpoints import parse_hookpoint
from mohole.model.source import find_model, fingerprint
from mohole.search.hits import Hit
from mohole.search.labels import LabelIndex
from mohole.search.meaning import Embedder
from mohole.search.statistics import Bounds, By, Statistics, by_statistics
from mohole.search.text import by_text
from mohole.search.tokens import by_token
from mohole.search.xray import XrayRows, xray

_NAMED = ("good", "partial", "person")
"""What a label is worth being found by: the others say only that there is none."""


class Found(NamedTuple):
    """A hit, and the dictionary it is of."""

    place: "Place"
    hit: Hit


class Place:
    """One dictionary of a run, in its folder. What is asked for is opened when it is asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = folder.name

    @cached_property
    def dictionary(self) -> AnyDictionary:
        return open_dictionary(self.folder / "dictionary")

    @cached_property
    def catalogue(self) -> Catalogue:
        """Raises: ArtifactError: damaged, or of another dictionary than the one beside it."""
        catalogue = Catalogue.open(self.folder / "catalogue")
        dictionary = artifact.read_manifest(self.folder / "dictionary").digest
        artifact.check_parent(catalogue.path, catalogue.manifest, "dictionary", dictionary)
        return catalogue

    @property
    def has_catalogue(self) -> bool:
        return (self.folder / "catalogue" / artifact.MANIFEST).is_file()

    @cached_property
    def labels(self) -> Labels | None:
        """None where nobody has labelled it yet.

        Raises:
            ArtifactError: damaged, or of another catalogue than the one beside them.
        """
        folder = self.folder / "labels"
        if not (folder / artifact.MANIFEST).is_file():
            return None
        labels = Labels.open(folder)
        if self.has_catalogue:
            catalogue = artifact.read_manifest(self.folder / "catalogue").digest
            artifact.check_parent(folder, labels.manifest, "catalogue", catalogue)
        return labels

    def label(self, latent: int) -> Label | None:
        """A latent's label; None where there is none."""
        return None if self.labels is None else self.labels.label(latent)

    @property
    def statistics(self) -> Statistics:
        """Of all latents."""
        catalogue, labels = self.catalogue, self.labels
        f1 = np.full(catalogue.n_latents, np.nan) if labels is None else labels.columns.scored_f1
        return Statistics(catalogue.density, catalogue.maximum, f1)

    @property
    def reads(self) -> tuple[str, ...]:
        return places_of(self.dictionary)[0]


class SearchedRun:
    """A run folder, and the dictionaries of it that are searched."""

    def __init__(self, run: Path, places: list[Place]) -> None:
        self.run = run
        self.places = places

    @classmethod
    def open(cls, run: Path | str, hookpoint: str | None = None) -> "SearchedRun":
        """Args:
            hookpoint: only this one's dictionary; or, of one that has no single hookpoint, its folder. None: all.

        Raises:
            ArtifactError: no run there, or no dictionary in it. ConfigError: none at that hookpoint.
        """
        run = Path(run)
        if not run.is_dir():
            what = "a file, not a folder" if run.is_file() else "no such folder"
            raise ArtifactError(f"{run}: {what}; name a run folder, as `mohole run RECIPE` makes it")
        found = [Place(manifest.parent.parent) for manifest in run.glob(f"*/dictionary/{artifact.MANIFEST}")]
        found = sorted((place for place in found if not place.name.startswith(".")), key=_order)
        if not found:
            raise ArtifactError(f"{run}: no dictionary in it; name a run folder, as `mohole run RECIPE` makes it")
        if hookpoint is None:
            return cls(run, found)
        chosen = [place for place in found if place.name in (hookpoint, _canonical(hookpoint))]
        if not chosen:
            raise ConfigError(
                f"--hookpoint {hookpoint}: {run} has no dictionary there, only at {', '.join(place.name for place in found)}"
            )
        return cls(run, chosen)

    @cached_property
    def corpus(self) -> Corpus:
        return Corpus.open(self.run / "corpus", verify=False)

    def by_label(self, query: str, limit: int, embedder: Embedder | None = None) -> list[Found]:
        """Features of all places by their labels, ties in order of the places.

        Raises:
            ArtifactError: nothing is labelled yet.
        """
        labelled = [(place, label) for place in self.places if place.labels is not None for label in place.labels]
        if not labelled:
            raise ArtifactError(f"{self.run}: no labels in it; `mohole label RECIPE` makes them, or search --by token")
        texts = [label.text if label.status in _NAMED else "" for _, label in labelled]
        return [
            Found(labelled[hit.latent][0], Hit(labelled[hit.latent][1].latent, hit.score, hit.why))
            for hit in LabelIndex(texts, embedder=embedder).search(query, limit)
        ]

    def by_statistics(
        self, bounds: Bounds, limit: int, *, sort: By = "density", ascending: bool = False
    ) -> list[Found]:
        """Features of all places by their numbers, ties in order of the places.

        Raises:
            ArtifactError: there is no catalogue. ConfigError: as `statistics.by_statistics`.
        """
        found = [
            Found(place, hit)
            for place in self._with_catalogue()
            for hit in by_statistics(place.statistics, bounds, limit, sort=sort, ascending=ascending)
        ]
        sign = 1 if ascending else -1
        return sorted(found, key=lambda each: (isnan(each.hit.score), sign * each.hit.score))[:limit]  # stable

    def by_token(self, query: str, limit: int) -> list[Found]:
        """Features of all places by the words they fire on or raise.

        Raises:
            ArtifactError: there is no catalogue.
        """
        there = self._with_catalogue()
        return _merged([(place, by_token(place.catalogue, query, limit, corpus=self.corpus)) for place in there], limit)

    def by_text(self, text: str, limit: int, model: LanguageModel) -> list[Found]:
        """Features of all places that fire on a text.

        Raises:
            ArtifactError: there is no catalogue, so that nobody knows what much is. ConfigError: as `text.by_text`.
        """
        context = self.corpus.context
        hits = []
        for place in self._with_catalogue():
            maximum = place.catalogue.maximum
            found = by_text(
                model, place.dictionary, text, hookpoint=place.reads[0], limit=limit, maximum=maximum, context=context
            )
            hits.append((place, found))
        return _merged(hits, limit)

    def xray(self, text: str, model: LanguageModel, *, top: int, follow: int | None) -> XrayRows:
        """Of the one place that is opened.

        Raises:
            ConfigError: several are open; or as `xray`.
        """
        if len(self.places) > 1:
            names = ", ".join(place.name for place in self.places)
            raise ConfigError(f"{self.run}: has dictionaries at {names}; say which with --hookpoint")
        place = self.places[0]
        context = self.corpus.context
        return xray(model, place.dictionary, text, hookpoint=place.reads[0], top=top, follow=follow, context=context)

    def _with_catalogue(self) -> list[Place]:
        there = [place for place in self.places if place.has_catalogue]
        if not there:
            names = ", ".join(place.name for place in self.places)
            raise ArtifactError(f"{self.run}: no catalogue of {names}; `mohole catalogue RECIPE` makes it")
        return there

    def load_model(
        self, source: str | None = None, *, device: str = "cpu", allow_download: bool = False
    ) -> LanguageModel:
        """The model that the run was made with, in the type it was harvested in.

        Args:
            source: a folder or hub id; None: what the training recorded, which is a hub id or the name of a folder.

        Raises:
            ModelError: not found, or another model than the run's; says how to name it.
        """
        recorded = source or self._recorded()
        if recorded is None:
            raise ModelError(f"{self.run}: does not say which model it is of; name it with --model FOLDER")
        try:
            folder = find_model(recorded, None, allow_download)[1]
        except ModelError as error:
            if source is not None:
                raise
            raise ModelError(
                f"{self.run}: made with {recorded}, which is not found here; name its folder with --model FOLDER"
            ) from error
        expected = artifact.read_manifest(self.run / "corpus").inputs.parents.get("model")
        if fingerprint(folder) != expected:
            raise ModelError(
                f"{recorded}: another model than that of {self.run / 'corpus'}; name the one it was made with, --model FOLDER"
            )
        rows = self.run / "activations"
        config = artifact.read_manifest(rows).inputs.config if (rows / artifact.MANIFEST).is_file() else {}
        dtype = config.get("model", {}).get("dtype", "float32")
        return load_model(recorded, dtype=dtype, device=device, allow_download=allow_download)

    def _recorded(self) -> str | None:
        for place in self.places:
            if (model := trained_with(place.folder / "dictionary")) is not None:
                return model
        return None


def _merged(hits: list[tuple[Place, list[Hit]]], limit: int) -> list[Found]:
    """The best of several answers of one kind; ties in order of the places, then by latent."""
    found = [Found(place, hit) for place, several in hits for hit in several]
    return sorted(found, key=lambda each: -each.hit.score)[:limit]  # stable


def _order(place: Place) -> tuple[bool, tuple[int, int, int], str]:
    """In order of execution; those of several hookpoints last."""
    try:
        return False, parse_hookpoint(place.name).execution, place.name
    except HookpointError:
        return True, (0, 0, 0), place.name


def _canonical(hookpoint: str) -> str:
    try:
        return str(parse_hookpoint(hookpoint))
    except HookpointError:
        return hookpoint
