"""The stages of a recipe together: what each is made from as things stand now, and which are finished.

Reads manifests; runs nothing, needs no torch. What a recipe's stages are is said in layout.py.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mohole import artifact
from mohole.artifact import Inputs
from mohole.catalogue.verify import check_sizes as check_catalogue_sizes
from mohole.catalogue.verify import verify_bytes as verify_catalogue
from mohole.config import PlantedCorpus, Recipe
from mohole.corpus.sources import identity
from mohole.job.asked import given_at
from mohole.job.stage import Stage
from mohole.model.source import find_model, fingerprint
from mohole.store.store import KINDS as STORE_KINDS
from mohole.store.store import Store
from mohole.store.verify import verify_bytes
from mohole.version import __version__

MODEL = "model"
"""The parent that is no artifact: the model's own files."""

SOURCE = "source"
"""Nor is this one: the files of a dictionary that is given."""

TEXT = "text"
"""The parent that is no artifact either: the text or dataset of a corpus of one's own."""


@dataclass(frozen=True)
class Plan:
    """Every stage of a recipe, each after the ones it is made from."""

    recipe: Recipe
    stages: tuple[Stage, ...]

    @cached_property
    def model_digest(self) -> str:
        """Checksum of the model's files."""
        model = self.recipe.model
        return fingerprint(find_model(model.path, model.revision, model.allow_download)[1])

    @cached_property
    def text_digest(self) -> str:
        """Checksum of what the text is, wherever it lies: a changed text is another corpus."""
        assert not isinstance(self.recipe.corpus, PlantedCorpus)
        return artifact.digest_of(identity(self.recipe.corpus))

    def digest(self) -> str:
        """Checksum of everything the report shows: every artifact, and the report's own settings.

        Raises:
            ArtifactError: an artifact has not been made yet.
        """
        shown = {stage.name: artifact.read_manifest(stage.out).digest for stage in self.stages}
        report = self.recipe.model_dump(mode="json", include={"report"})
        return artifact.digest_of({"artifacts": shown, "report": report, "code": __version__})

    def inputs(self, stage: Stage) -> Inputs:
        """What `stage` is made from, as things stand now.

        Raises:
            ArtifactError: a parent has not been made yet.
        """
        parents = {name: artifact.read_manifest(path).digest for name, path in stage.parents.items()}
        if stage.needs_model:
            parents[MODEL] = self.model_digest
        if stage.verb == "corpus" and not isinstance(self.recipe.corpus, PlantedCorpus):
            parents[TEXT] = self.text_digest
        if stage.verb == "convert":
            path = Path(given_at(self.recipe, stage.hookpoint).path)
            parents[SOURCE] = (
                artifact.tree_digest(path) if path.exists() else artifact.digest_of(str(path))
            )  # on the hub
        return Inputs(
            kind=stage.kind,
            config=stage.config,
            seed=self.recipe.seed,
            parents=parents,
            version=stage.version,
        )

    def is_finished(self, stage: Stage) -> bool:
        """Is there a whole artifact of this stage, made from what its parents hold now?

        Raises:
            ArtifactError: it is there, and a file of it is missing or has another size.
        """
        if not self.parents_are_made(stage) or not artifact.is_finished(stage.out, self.inputs(stage)):
            return False
        if stage.kind in STORE_KINDS:
            Store.open(stage.out).check_sizes()
        elif stage.kind == "catalogue":
            check_catalogue_sizes(stage.out)
        return True

    def parents_are_made(self, stage: Stage) -> bool:
        """Is everything there that the stage is made from?"""
        return all((parent / artifact.MANIFEST).is_file() for parent in stage.parents.values())

    def verify(self) -> None:
        """Compare every file of every artifact with its checksum.

        Raises:
            ArtifactError: one is missing or damaged, and which.
        """
        for stage in self.stages:
            artifact.open_artifact(stage.out)
            if stage.kind in STORE_KINDS:
                verify_bytes(Store.open(stage.out))
            elif stage.kind == "catalogue":
                verify_catalogue(stage.out)
