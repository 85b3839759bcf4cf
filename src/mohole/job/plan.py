"""Which artifacts a recipe gives, where they stand, and what each is made from. Reads manifests; runs nothing, needs no torch.

RUN/corpus  ->  RUN/activations (-> RUN/shuffled)  ->  RUN/<hookpoint>/dictionary  ->  .../evaluation
                                                                                   ->  .../catalogue  ->  .../labels
                                                                                   ->  RUN/steering  ->  RUN/report.html

Where something else than a sparse autoencoder is learned, one RUN/<kind>/dictionary is the last artifact.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, assert_never

from mohole import artifact
from mohole.artifact import Inputs
from mohole.config import DatasetCorpus, Given, PlantedCorpus, Recipe, TextCorpus
from mohole.config.train import CrosscoderOf, CrossLayerOf, Learns, Sae, TranscoderOf
from mohole.corpus.parts import PROGRESS
from mohole.corpus.sources import display_name, identity
from mohole.errors import ArtifactError, ConfigError, StageError
from mohole.model.hookpoints import parse_hookpoint
from mohole.model.source import find_model, fingerprint
from mohole.store.listing import COMMITS
from mohole.store.store import KINDS as STORE_KINDS
from mohole.store.store import Store
from mohole.store.verify import verify_bytes
from mohole.version import __version__

Verb = Literal["corpus", "harvest", "shuffle", "train", "convert", "evaluate", "catalogue", "label", "steer"]
VERBS: tuple[Verb, ...] = (
    "corpus",
    "harvest",
    "shuffle",
    "train",
    "convert",
    "evaluate",
    "catalogue",
    "label",
    "steer",
)

MODEL = "model"
"""The parent that is no artifact: the model's own files."""

SOURCE = "source"
"""Nor is this one: the files of a dictionary that is given."""

TEXT = "text"
"""The parent that is no artifact either: the text or dataset of a corpus of one's own."""

# Raised for a stage whose code has changed what it writes for the same settings, so that old artifacts are not taken for new.
_VERSIONS: dict[Verb, int] = dict.fromkeys(VERBS, 2) | {"train": 6, "convert": 3, "evaluate": 3}


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
            case _:
                return ()

    @property
    def resumes(self) -> bool:
        """Can it go on where a killed attempt left off? The others are short, and begin again."""
        return bool(self.worth)

    @property
    def name(self) -> str:
        return self.verb if self.hookpoint is None else f"{self.verb} {self.hookpoint}"


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
        return artifact.digest_of({"artifacts": shown, "report": _dump(self.recipe, "report"), "code": __version__})

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
            version=_VERSIONS[stage.verb],
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
        return True

    def check_parents(self, stage: Stage) -> None:
        """What a stage is made from must be there.

        Raises:
            ArtifactError: something is not; says which verb makes it.
        """
        for path in stage.parents.values():
            maker = next((each.verb for each in self.stages if each.out == path), None)
            if maker is not None and not path.exists():
                verb = "harvest" if maker == "corpus" else maker
                raise ArtifactError(
                    f"{path}: no artifact there; `mohole {verb} RECIPE` makes it, `mohole run RECIPE` all that is missing"
                )

    def check_model(self, stage: Stage) -> None:
        """A stage that runs the model must run the one whose tokens and activations it works on.

        Raises:
            StageError: the recipe's model is another one.
        """
        if not stage.needs_model or "corpus" not in stage.parents:
            return
        made_with = artifact.read_manifest(stage.parents["corpus"]).inputs.parents.get(MODEL)
        if made_with != self.model_digest:
            raise StageError(
                f"model.path: {self.recipe.model.path} is another model than that of {stage.parents['corpus']}; "
                "name that one, or -o run=FOLDER for this one"
            )

    def check_rows(self, stage: Stage) -> None:
        """A stage that reads rows must read those that the recipe asks for, wherever they were copied from.

        Raises:
            StageError: they are others; says which setting tells.
        """
        place = stage.parents.get("rows") or stage.parents.get("activations")
        if place is None:
            return
        facts, recipe = Store.open(place).facts, self.recipe
        order = facts.order
        there: dict[str, Any] = {"order": order.kind, "seed": order.seed, "shuffle.epoch": order.epoch}
        asked: dict[str, Any] = {"order": "random", "seed": recipe.seed, "shuffle.epoch": recipe.shuffle.epoch}
        for hookpoint, row_format in facts.formats.items():
            there[f"harvest.dtype of {hookpoint}"] = row_format.dtype
            asked[f"harvest.dtype of {hookpoint}"] = recipe.harvest.dtype
        corpus = rows_run(recipe) / "corpus"
        if facts.source and (corpus / artifact.MANIFEST).is_file():
            manifest = artifact.read_manifest(corpus)
            there |= {"the corpus": facts.source.get("corpus"), "the model": facts.source.get("model")}
            asked |= {"the corpus": manifest.digest, "the model": manifest.inputs.parents.get(MODEL)}
        for name, value in asked.items():
            if there[name] != value:
                raise StageError(
                    f"{place}: holds other rows than the recipe's ({name}: {there[name]!r} there, {value!r} asked for); "
                    "harvest again with --replace, or -o run=FOLDER"
                )

    def verify(self) -> None:
        """Compare every file of every artifact with its checksum.

        Raises:
            ArtifactError: one is missing or damaged, and which.
        """
        for stage in self.stages:
            artifact.open_artifact(stage.out)
            if stage.kind in STORE_KINDS:
                verify_bytes(Store.open(stage.out))

    def parents_are_made(self, stage: Stage) -> bool:
        """Is everything there that the stage is made from?"""
        return all((parent / artifact.MANIFEST).is_file() for parent in stage.parents.values())


def hookpoints_of(recipe: Recipe) -> tuple[str, ...]:
    """The recipe's hookpoints in mohole's words, each once.

    Raises:
        HookpointError: a name that no model has. ConfigError: the same place named twice.
    """
    names = [_canonical(name, recipe) for name in recipe.harvest.hookpoints]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError(f"harvest.hookpoints: {twice[0]} is named twice; name each place once")
    return tuple(names)


def _canonical(name: str, recipe: Recipe) -> str:
    return str(parse_hookpoint(name, model=recipe.model.path))


def given_at(recipe: Recipe, hookpoint: str | None) -> Given:
    """The dictionary that the recipe gives for a hookpoint."""
    return next(given for given in recipe.dictionary if _canonical(given.hookpoint, recipe) == hookpoint)


def rows_run(recipe: Recipe) -> Path:
    """The folder of the run whose corpus and rows are used: mostly the recipe's own."""
    return Path(recipe.run if recipe.rows_of is None else recipe.rows_of)


def learned(recipe: Recipe) -> Learns:
    """What the recipe learns, with hookpoints in mohole's words.

    Raises:
        HookpointError: a name that no model has. ConfigError: one that is not harvested.
    """
    learns, harvested = recipe.train.learns, hookpoints_of(recipe)

    def known(name: str) -> str:
        canonical = _canonical(name, recipe)
        if canonical not in harvested:
            raise ConfigError(
                f"train.learns: {canonical} is not harvested; add it to harvest.hookpoints, which has {', '.join(harvested)}"
            )
        return canonical

    if recipe.train.live_rows and not isinstance(learns, Sae):
        raise ConfigError(f"train.live_rows: a {learns.kind} reads rows from a store; set live_rows = 0")
    match learns:
        case Sae():
            return learns
        case TranscoderOf(reads=reads, writes=writes):
            return learns.model_copy(update={"reads": known(reads), "writes": known(writes)})
        case CrosscoderOf(hookpoints=several):
            return learns.model_copy(update={"hookpoints": tuple(map(known, several))})
        case CrossLayerOf(reads=layers, writes=targets):
            return learns.model_copy(update={"reads": tuple(map(known, layers)), "writes": tuple(map(known, targets))})
        case _:
            assert_never(learns)


def asks_the_model(recipe: Recipe) -> bool:
    """Does its training look at what the model loses, as it goes on?"""
    return recipe.train.evaluate_every > 0 and isinstance(recipe.train.learns, Sae)


def plan(recipe: Recipe) -> Plan:
    """Lay out every stage of a recipe."""
    run, hookpoints = Path(recipe.run), hookpoints_of(recipe)
    corpus, activations = rows_run(recipe) / "corpus", rows_run(recipe) / "activations"
    model = recipe.model.model_dump(mode="json", include={"dtype", "device"})
    stages = (
        []
        if recipe.rows_of is not None
        else [
            Stage("corpus", "corpus", corpus, None, _corpus_config(recipe), {}, needs_model=True),
            Stage(
                "harvest",
                "activations",
                activations,
                None,
                _harvest_config(recipe) | {"model": model},
                {"corpus": corpus},
                needs_model=True,
            ),
        ]
    )
    rows = activations
    if recipe.shuffle.stored:
        rows = run / "shuffled"
        stages.append(Stage("shuffle", "shuffled", rows, None, {}, {"activations": activations}))
    learns = learned(recipe)
    if not isinstance(learns, Sae):  # it is measured; no catalogue reads it yet
        config = _dump(recipe, "train")
        config["train"]["learns"] = learns.model_dump(mode="json")
        dictionary = run / learns.kind / "dictionary"
        stages.append(Stage("train", "dictionary", dictionary, None, config, {"rows": rows}))
        sources = {"dictionary": dictionary, "rows": rows, "corpus": corpus}
        out = run / learns.kind / "evaluation"
        stages.append(Stage("evaluate", "evaluation", out, None, _dump(recipe, "evaluate"), sources, True))
        return Plan(recipe, tuple(stages))
    for hookpoint in hookpoints:
        stages += _stages_of_hookpoint(recipe, hookpoint, run / hookpoint, corpus, rows)
    first = _steered_hookpoint(recipe, hookpoints)
    steering_parents = {name: run / first / name for name in ("dictionary", "catalogue", "labels")}
    stages.append(
        Stage(
            "steer",
            "steering",
            run / "steering",
            None,
            _dump(recipe, "steer"),
            {"corpus": corpus} | steering_parents,
            True,
        )
    )
    return Plan(recipe, tuple(stages))


def _stages_of_hookpoint(recipe: Recipe, hookpoint: str, folder: Path, corpus: Path, rows: Path) -> list[Stage]:
    dictionary, catalogue = folder / "dictionary", folder / "catalogue"
    place = {"hookpoint": hookpoint}
    live = recipe.train.live_rows > 0
    train_parents, train_config = ({"corpus": corpus}, _live_config(recipe)) if live else ({"rows": rows}, {})
    if asks_the_model(recipe):
        train_parents["corpus"] = corpus
    sources = {"dictionary": dictionary, "rows": rows, "corpus": corpus}
    train = Stage(
        "train",
        "dictionary",
        dictionary,
        hookpoint,
        _dump(recipe, "train") | place | train_config,
        train_parents,
        needs_model=live or asks_the_model(recipe),
    )
    return [
        Stage("convert", "dictionary", dictionary, hookpoint, place, {}) if recipe.dictionary else train,
        Stage("evaluate", "evaluation", folder / "evaluation", hookpoint, _dump(recipe, "evaluate"), sources, True),
        Stage("catalogue", "catalogue", catalogue, hookpoint, _dump(recipe, "catalogue"), sources, True),
        Stage(
            "label",
            "labels",
            folder / "labels",
            hookpoint,
            _dump(recipe, "label"),
            {"catalogue": catalogue, "corpus": corpus},
        ),
    ]


def _steered_hookpoint(recipe: Recipe, hookpoints: tuple[str, ...]) -> str:
    clamp = recipe.steer.clamp
    if clamp is None:
        return hookpoints[0]
    name = str(parse_hookpoint(clamp.hookpoint, model=recipe.model.path))
    if name not in hookpoints:
        raise ConfigError(
            f"steer.clamp.hookpoint: {name} is not harvested; add it to harvest.hookpoints, which has {', '.join(hookpoints)}, "
            "or steer with a latent of one of those"
        )
    return name


def _corpus_config(recipe: Recipe) -> dict[str, Any]:
    """Of a text only its name: the bytes count (they are a parent), not the folder they lie in on this machine."""
    config = _dump(recipe, "corpus", "windows")
    match recipe.corpus:
        case TextCorpus():
            config["corpus"]["path"] = display_name(recipe.corpus)
        case DatasetCorpus():
            config["corpus"]["name"] = display_name(recipe.corpus)
            del config["corpus"]["allow_download"]
        case PlantedCorpus():
            pass
    return config


def _harvest_config(recipe: Recipe) -> dict[str, Any]:
    """Not where the rows are put: that changes nothing about them. The epoch is a part: rows are sorted as they are made."""
    config = _dump(recipe, "harvest")
    del config["harvest"]["place"]
    return config | {"epoch": recipe.shuffle.epoch}


def _live_config(recipe: Recipe) -> dict[str, Any]:
    """What decides the rows of a training that runs the model itself."""
    model = recipe.model.model_dump(mode="json", include={"dtype", "device"})
    return {"model": model, "epoch": recipe.shuffle.epoch, "batch_tokens": recipe.harvest.batch_tokens}


def _dump(recipe: Recipe, *tables: str) -> dict[str, Any]:
    return recipe.model_dump(mode="json", include=set(tables))
