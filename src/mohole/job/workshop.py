"""Each stage of the job as one call: open what it is made from, fill its folder. The only place where stages are wired up."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from mohole import artifact
from mohole.artifact import Inputs
from mohole.catalogue.layout import TOKENS_PER_PART
from mohole.config import DatasetCorpus, Machine, PlantedCorpus, Recipe, TextCorpus, Train, n_bytes
from mohole.config.train import Sae
from mohole.corpus import Corpus, Document, Task, build_corpus, read_documents
from mohole.dictionary.files import open_dictionary
from mohole.errors import ConfigError, StageError
from mohole.execute import Cores
from mohole.job.asked import asks_the_model, given_at, learned, rows_run
from mohole.job.rows import fill_shuffled, harvest_executor
from mohole.job.stage import Stage
from mohole.job.steering import steer
from mohole.model import LanguageModel
from mohole.model.shared import shared_model
from mohole.model.source import name_of
from mohole.sinks import open_sink
from mohole.storage import Storage, lease, open_storage
from mohole.store import Store
from mohole.store.seal import claim, publish

if TYPE_CHECKING:
    from mohole.evaluate.in_model.held_out import HeldOutLoss
    from mohole.store.stream import RowStream

_WORLD = 1 << 40
"""Added to the seed of planted text, so that no job ever reads a document that the built-in model was trained on."""


class Workshop:
    """What the stages of one process share: the model is loaded once, and only if a stage needs it."""

    def __init__(self, recipe: Recipe, cores: Cores | None = None) -> None:
        """Args:
        cores: what this process shares with others that make stages; None: it is alone.
        """
        self.recipe = recipe
        self.cores = cores or Cores(1, 1)
        self.run = Path(recipe.run)

    @cached_property
    def model(self) -> LanguageModel:
        model = shared_model(self.recipe.model)
        for hookpoint in self.recipe.harvest.hookpoints:
            model.canonical(hookpoint)  # one that is not there is an error now, not after the corpus has been tokenized
        return model

    @cached_property
    def corpus(self) -> Corpus:
        return Corpus.open(rows_run(self.recipe) / "corpus")

    @cached_property
    def rows(self) -> Store:
        if self.recipe.shuffle.stored:
            return Store.open(self.run / "shuffled")
        return Store.open(rows_run(self.recipe) / "activations")

    def make(self, stage: Stage, out: Path, inputs: Inputs) -> str:
        """Fill `out` with what `stage` is to hold. Stages are imported here: the others' cost is not paid.

        Returns:
            What else there is to say of it, in a line for people; mostly nothing.
        """
        recipe, seed = self.recipe, self.recipe.seed
        match stage.verb:
            case "corpus":
                self._make_corpus(out)
            case "harvest":
                self._harvest(out, inputs)
            case "shuffle":
                store = Store.open(rows_run(recipe) / "activations")
                fill_shuffled(store, open_storage(out), recipe.machine, levels=recipe.shuffle.levels)
            case "train":
                return self._train(stage, out)
            case "convert":
                return self._convert(stage, out)
            case "evaluate":
                from mohole.evaluate import evaluate

                measured = open_dictionary(stage.parents["dictionary"])
                # of the text that is there: with rows of another run, the recipe's own is not what is measured on
                text = artifact.read_manifest(stage.parents["corpus"]).inputs.config["corpus"]
                tasks = planted_tasks() if text["kind"] == "planted" else ()
                evaluate(out, self.model, measured, self.corpus, self.rows, recipe.evaluate, seed=seed, tasks=tasks)
            case "catalogue":
                self._catalogue(stage, out, inputs)
            case "label":
                from mohole.catalogue import Catalogue
                from mohole.interpret import label

                label(out, Catalogue.open(stage.parents["catalogue"]), self.corpus, recipe.label, seed=seed)
            case "steer":
                steer(out, self.model, self.corpus, recipe, stage.parents)
            case _:
                assert_never(stage.verb)
        return ""

    def _harvest(self, out: Path, inputs: Inputs) -> None:
        from mohole.corpus.slices import slices
        from mohole.harvest import harvest

        recipe = self.recipe
        n_slices = len(slices(self.corpus, recipe.harvest.shard_tokens))
        place = None if recipe.harvest.place is None else open_storage(recipe.harvest.place)
        with _held(place, inputs), harvest_executor(recipe.machine, n_slices, self.corpus.n_tokens) as executor:
            harvest(
                out,
                self.model,
                self.corpus,
                recipe.harvest,
                executor,
                model_settings=recipe.model,
                seed=recipe.seed,
                epoch=recipe.shuffle.epoch,
            )
            if place is not None:
                publish(out, place, inputs)

    def _catalogue(self, stage: Stage, out: Path, inputs: Inputs) -> None:
        from mohole.catalogue import OnDisk, build

        recipe = self.recipe
        sources = OnDisk(
            recipe.model,
            str(stage.parents["dictionary"].resolve()),
            inputs.parents["dictionary"],
            str(stage.parents["corpus"].resolve()),
            inputs.parents["corpus"],
            self.rows.url,
            inputs.parents["rows"],
        )
        machine = recipe.machine if self.cores.processes == 1 else Machine(executor="inline")
        n_tokens = min(recipe.catalogue.max_tokens, self.corpus.n_tokens)
        with harvest_executor(machine, -(-n_tokens // TOKENS_PER_PART), n_tokens) as executor:
            build(out, sources, recipe.catalogue, seed=recipe.seed, executor=executor)

    def _convert(self, stage: Stage, out: Path) -> str:
        """Raises: StageError: it has another width than the model's rows there, so it is of another model or place."""
        from mohole.dictionary.formats.export import fill, remembered
        from mohole.dictionary.formats.load import import_dictionary
        from mohole.dictionary.places import places_of, put, widths_of

        given = given_at(self.recipe, stage.hookpoint)
        imported = import_dictionary(given.path, allow_download=given.allow_download)
        placed = put(imported.dictionary, learned(self.recipe), stage.hookpoint, given.path)
        found, (reads, writes) = replace(imported, dictionary=placed), places_of(placed)
        for name, width in zip((*reads, *writes), widths_of(placed), strict=True):
            if self.rows.d_model(name) != width:
                raise StageError(
                    f"{given.path}: has rows of {width} numbers at {name}, where those of {name_of(self.recipe.model.path)} have "
                    f"{self.rows.d_model(name)}; name the model and the place that it was learned on"
                )
        fill(found, out, {"model": name_of(self.recipe.model.path)} | remembered(Path(given.path)))
        return "; ".join((found.format, *found.notes))

    def _train(self, stage: Stage, out: Path) -> str:
        from mohole.train import train
        from mohole.train.loop import RECORD_FILE

        recipe, settings = self.recipe, self.settings
        streams, in_model = self.streams(stage), self.in_model(stage)
        with ExitStack() as open_ones:
            sinks = []
            for kind in recipe.machine.watch:
                folder, goes_on = self.run / kind / stage.out.parent.name, (out / RECORD_FILE).exists()
                sinks.append(open_sink(kind, folder, config=settings.model_dump(mode="json"), goes_on=goes_on))
                open_ones.callback(sinks[-1].close)
            name = name_of(recipe.model.path)
            return train(out, streams, settings, seed=recipe.seed, sinks=sinks, in_model=in_model, model=name)

    @property
    def settings(self) -> Train:
        """How dictionaries are learned, its hookpoints in mohole's words."""
        return self.recipe.train.model_copy(update={"learns": learned(self.recipe)})

    def streams(self, stage: Stage) -> "dict[str, RowStream]":
        """What a training reads, for each hookpoint that it needs."""
        learns = learned(self.recipe)
        needs = (_hookpoint(stage),) if isinstance(learns, Sae) else learns.needs()
        return {hookpoint: self._stream(hookpoint, len(needs)) for hookpoint in needs}

    def in_model(self, stage: Stage) -> "HeldOutLoss | None":
        """What a training asks about the model as it goes on; None where it asks nothing."""
        recipe = self.recipe
        if not asks_the_model(recipe):
            return None
        from mohole.evaluate.in_model.held_out import HeldOutLoss

        return HeldOutLoss(
            self.model,
            self.corpus,
            _hookpoint(stage),
            max_tokens=recipe.train.evaluate_tokens,
            batch_tokens=recipe.evaluate.batch_tokens,
            seed=recipe.seed,
        )

    def _stream(self, hookpoint: str, n_streams: int) -> "RowStream":
        """The store's, or the model's own. Several streams share the memory."""
        recipe = self.recipe
        if not recipe.train.live_rows:
            from mohole.store.stream import Stream

            return Stream(self.rows, hookpoint, memory_bytes=n_bytes(recipe.machine.memory) // n_streams)
        from mohole.harvest import LiveStream

        return LiveStream(
            self.model,
            self.corpus,
            hookpoint,
            buffer_rows=recipe.train.live_rows,
            batch_tokens=recipe.harvest.batch_tokens,
            seed=recipe.seed,
            epoch=recipe.shuffle.epoch,
        )

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


def _documents(
    settings: PlantedCorpus | TextCorpus | DatasetCorpus, seed: int
) -> tuple[Iterator[Document], int | None, int | None]:
    """The documents, how many there are where that is known, and the number of tokens after which to stop."""
    match settings:
        case PlantedCorpus(n_documents=n_documents):
            from mohole.planted.stream import documents

            return documents(seed + _WORLD, n_documents, held_out=None), n_documents, None
        case TextCorpus() | DatasetCorpus():
            return read_documents(settings), None, settings.max_tokens
        case _:
            assert_never(settings)


@contextmanager
def _held(place: Storage | None, inputs: Inputs) -> Iterator[None]:
    """A place outside the run's folder is ours while we fill it, and for these inputs only."""
    if place is None:
        yield
        return
    with lease(place):
        claim(place, inputs)
        yield


def planted_tasks() -> Sequence[Task]:
    """What the built-in model must still be able to do when its activations are replaced."""
    from mohole.planted.prompts import tasks

    return [Task(task.name, tuple(task.prompts), tuple(task.answers)) for task in tasks()]


def _hookpoint(stage: Stage) -> str:
    assert stage.hookpoint is not None
    return stage.hookpoint
