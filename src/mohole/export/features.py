"""What an export reads: the features of one hookpoint, one after the other, with their labels and the texts of their examples."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mohole import artifact
from mohole.catalogue import Catalogue, Example, Feature
from mohole.catalogue.evidence import TOP
from mohole.corpus import Corpus
from mohole.errors import ArtifactError, ModelError
from mohole.interpret import Label, Labels, unlabelled
from mohole.model.source import find_model, fingerprint, stated_layers
from mohole.record import read_json


@dataclass(frozen=True)
class Exported:
    """One hookpoint of a run, open for reading."""

    run: str
    catalogue: Catalogue
    corpus: Corpus
    labels: Labels | None

    @classmethod
    def open(cls, run: Path, hookpoint: str) -> "Exported":
        """Raises:
        ArtifactError: the run has no catalogue there, or something is damaged, or was not made from what lies beside it.
        """
        folder = run / hookpoint
        labels = Labels.open(folder / "labels") if (folder / "labels").is_dir() else None
        catalogue, corpus = Catalogue.open(folder / "catalogue"), Corpus.open(run / "corpus")
        dictionary = artifact.read_manifest(folder / "dictionary").digest
        artifact.check_parent(catalogue.path, catalogue.manifest, "dictionary", dictionary)
        artifact.check_parent(catalogue.path, catalogue.manifest, "corpus", corpus.manifest.digest)
        if labels is not None:
            artifact.check_parent(labels.path, labels.manifest, "catalogue", catalogue.manifest.digest)
        return cls(run.resolve().name, catalogue, corpus, labels)

    @property
    def model(self) -> str:
        """The name of the model that the dictionary is of, as its training wrote it down; of a dictionary without: the run's."""
        training = read_json(self.catalogue.path.with_name("dictionary") / "dictionary.json").get("training") or {}
        return str(training.get("model") or self.run)

    @cached_property
    def n_layers(self) -> int | None:
        """Of the model; None where the very one that the rows are of is not on this machine, by its name, or does not say."""
        try:
            _, folder = find_model(self.model)
        except ModelError:
            return None
        is_it = fingerprint(folder) == self.catalogue.manifest.inputs.parents.get("model")
        return stated_layers(folder) if is_it else None

    def features(self, first: int, last: int) -> Iterator[tuple[Feature, Label]]:
        """Latents [first, last) and what they are called."""
        for latent in range(first, last):
            yield self.catalogue.feature(latent), self.labels.label(latent) if self.labels else unlabelled(latent)

    def pieces(self, example: Example) -> list[str]:
        """The vocabulary entries of an example's stretch, as the corpus has them."""
        return [self.corpus.pieces[token] for token in self.corpus.tokens[example.start : example.end]]


def examples(feature: Feature) -> list[tuple[int, Example]]:
    """All of a feature's examples, each with its interval: the strongest, then from the strongest interval down."""
    found = [(TOP, example) for example in feature.top]
    for number, interval in reversed(list(enumerate(feature.intervals))):
        found += [(number, example) for example in interval.examples]
    return found


def hookpoints_of(run: Path) -> list[str]:
    """The hookpoints of a run that have a catalogue.

    Raises:
        ArtifactError: none has.
    """
    found = sorted(path.parents[1].name for path in run.glob("*/catalogue/manifest.json"))
    if not found:
        raise ArtifactError(f"{run}: no run with a catalogue; make one with mohole run or mohole catalogue")
    return found
