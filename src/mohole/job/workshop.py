"""Each stage of the job as one call: open what it is made from, fill its folder. The only place where stages are wired up."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import assert_never

from mohole.config import PlantedCorpus, Recipe, TextCorpus
from mohole.corpus import Corpus, Document, Task, build_corpus, read_documents
from mohole.dictionary import SparseAutoencoder
from mohole.errors import ConfigError
from mohole.job.plan import Stage
from mohole.job.steering import steer
from mohole.model import LanguageModel, load_model
from mohole.store import Store, shuffle

_WORLD = 1 << 40
"""Added to the seed of planted text, so that no job ever reads a document that the built-in model was trained on."""


class Workshop:
    """What the stages of one process share: the model is loaded once, and only if a stage needs it."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.run = Path(recipe.run)

    @cached_property
    def model(self) -> LanguageModel:
        settings = self.recipe.model
        model = load_model(
            settings.path,
            revision=settings.revision,
            dtype=settings.dtype,
            device=settings.device,
            allow_download=settings.allow_download,
        )
        for hookpoint in self.recipe.harvest.hookpoints:
            model.canonical(hookpoint)  # one that is not there is an error now, not after the corpus has been tokenized
        return model

    @cached_property
    def corpus(self) -> Corpus:
        return Corpus.open(self.run / "corpus")

    @cached_property
    def shuffled(self) -> Store:
        return Store.open(self.run / "shuffled")

    def make(self, stage: Stage, out: Path) -> None:
        """Fill `out` with what `stage` is to hold. Stages are imported here: the others' cost is not paid."""
        recipe, seed = self.recipe, self.recipe.seed
        match stage.verb:
            case "corpus":
                self._make_corpus(out)
            case "harvest":
                from mohole.harvest import harvest

                harvest(out, self.model, self.corpus, recipe.harvest)
            case "shuffle":
                store = Store.open(self.run / "activations")
                document, position = self.corpus.document_of(store.tokens), self.corpus.position_of(store.tokens)
                shuffle(out, store, document, position, seed=seed, epoch=recipe.shuffle.epoch)
            case "train":
                from mohole.train import train

                train(out, self.shuffled, _hookpoint(stage), recipe.train, seed=seed)
            case "evaluate":
                from mohole.evaluate import evaluate

                dictionary = SparseAutoencoder.open(stage.parents["dictionary"])
                tasks = planted_tasks() if isinstance(recipe.corpus, PlantedCorpus) else ()
                evaluate(
                    out, self.model, dictionary, self.corpus, self.shuffled, recipe.evaluate, seed=seed, tasks=tasks
                )
            case "catalogue":
                from mohole.catalogue import build

                dictionary = SparseAutoencoder.open(stage.parents["dictionary"])
                build(out, self.model, dictionary, self.corpus, self.shuffled, recipe.catalogue, seed=seed)
            case "label":
                from mohole.catalogue import Catalogue
                from mohole.interpret import label

                label(out, Catalogue.open(stage.parents["catalogue"]), self.corpus, recipe.label, seed=seed)
            case "steer":
                steer(out, self.model, self.corpus, recipe, stage.parents)
            case _:
                assert_never(stage.verb)

    def _make_corpus(self, out: Path) -> None:
        settings, windows = self.recipe.corpus, self.recipe.windows
        model = self.model
        if model.context is not None and windows.context > model.context:
            raise ConfigError(
                f"windows.context: {windows.context} is more than {model.name} can read at once; the most is {model.context}"
            )
        documents, total, max_tokens = _documents(settings, self.recipe.seed)
        build_corpus(
            out,
            documents,
            model.tokenizer,
            context=windows.context,
            has_bos=model.bos_id is not None,
            held_out=windows.held_out,
            seed=self.recipe.seed,
            max_tokens=max_tokens,
            total=total,
        )


def _documents(settings: PlantedCorpus | TextCorpus, seed: int) -> tuple[Iterator[Document], int | None, int | None]:
    """The documents, how many there are where that is known, and the number of tokens after which to stop."""
    match settings:
        case PlantedCorpus(n_documents=n_documents):
            from mohole.planted.stream import documents

            return documents(seed + _WORLD, n_documents, held_out=None), n_documents, None
        case TextCorpus(path=path, separator=separator, max_tokens=max_tokens):
            return read_documents(path, separator), None, max_tokens


def planted_tasks() -> Sequence[Task]:
    """What the built-in model must still be able to do when its activations are replaced."""
    from mohole.planted.prompts import tasks

    return [Task(task.name, tuple(task.prompts), tuple(task.answers)) for task in tasks()]


def _hookpoint(stage: Stage) -> str:
    assert stage.hookpoint is not None
    return stage.hookpoint
