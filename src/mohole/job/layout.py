"""From a recipe to its plan: which artifacts it gives, in which folders, made from which settings and parents.

RUN/corpus  ->  RUN/activations (-> RUN/shuffled)  ->  RUN/<hookpoint>/dictionary  ->  .../evaluation
                                                                                   ->  .../catalogue  ->  .../labels
                                                                                   ->  RUN/steering  ->  RUN/report.html

Where something else than a sparse autoencoder is learned, one RUN/<kind>/dictionary is the last artifact.
"""

from pathlib import Path
from typing import Any

from mohole.config import DatasetCorpus, PlantedCorpus, Recipe, TextCorpus
from mohole.config.train import Learns, Sae
from mohole.corpus.sources import display_name
from mohole.errors import ConfigError
from mohole.job.asked import asks_the_model, hookpoints_of, learned, rows_run
from mohole.job.plan import Plan
from mohole.job.stage import Stage
from mohole.model.hookpoints import parse_hookpoint


def plan(recipe: Recipe) -> Plan:
    """Lay out every stage of a recipe."""
    run, hookpoints = Path(recipe.run), hookpoints_of(recipe)
    corpus, rows = rows_run(recipe) / "corpus", rows_run(recipe) / "activations"
    stages = _stages_of_rows(recipe, corpus, rows) if recipe.rows_of is None else []
    if recipe.shuffle.stored:
        stages.append(Stage("shuffle", "shuffled", run / "shuffled", None, {}, {"activations": rows}))
        rows = run / "shuffled"
    learns = learned(recipe)
    if not isinstance(learns, Sae):  # it is measured; no catalogue reads it yet
        stages += _stages_of_kind(recipe, learns, run / learns.kind, corpus, rows)
        return Plan(recipe, tuple(stages))
    for hookpoint in hookpoints:
        stages += _stages_of_hookpoint(recipe, hookpoint, run / hookpoint, corpus, rows)
    first = run / _steered_hookpoint(recipe, hookpoints)
    parents = {"corpus": corpus} | {name: first / name for name in ("dictionary", "catalogue", "labels")}
    stages.append(Stage("steer", "steering", run / "steering", None, _dump(recipe, "steer"), parents, True))
    return Plan(recipe, tuple(stages))


def _stages_of_rows(recipe: Recipe, corpus: Path, activations: Path) -> list[Stage]:
    model = recipe.model.model_dump(mode="json", include={"dtype", "device"})
    config = _harvest_config(recipe) | {"model": model}
    return [
        Stage("corpus", "corpus", corpus, None, _corpus_config(recipe), {}, needs_model=True),
        Stage("harvest", "activations", activations, None, config, {"corpus": corpus}, needs_model=True),
    ]


def _stages_of_kind(recipe: Recipe, learns: Learns, folder: Path, corpus: Path, rows: Path) -> list[Stage]:
    """Of a dictionary of several hookpoints."""
    config = _dump(recipe, "train")
    config["train"]["learns"] = learns.model_dump(mode="json")
    dictionary = folder / "dictionary"
    sources = {"dictionary": dictionary, "rows": rows, "corpus": corpus}
    learned_here = Stage("train", "dictionary", dictionary, None, config, {"rows": rows})
    converted = Stage("convert", "dictionary", dictionary, None, {"learns": learns.model_dump(mode="json")}, {})
    return [
        converted if recipe.dictionary else learned_here,
        Stage("evaluate", "evaluation", folder / "evaluation", None, _dump(recipe, "evaluate"), sources, True),
    ]


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
