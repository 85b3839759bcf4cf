"""Sweeps of a recipe: in the place of each training of its plan, many dictionaries from one pass over the rows."""

from collections.abc import Mapping
from dataclasses import replace as changed
from pathlib import Path

from mohole import artifact
from mohole.artifact import Inputs
from mohole.config import Recipe, Train, members
from mohole.config.sweep import check_members
from mohole.errors import StageError
from mohole.execute import share_cores
from mohole.job.layout import plan
from mohole.job.make import Say, logged, print_line, run_verb
from mohole.job.needs import check_model, check_rows
from mohole.job.plan import Plan
from mohole.job.stage import Stage, Verb
from mohole.model.source import name_of

FOLDER = "sweep"
_WORTH = ("*/checkpoints/*.json", "*/result.json")
"""Patterns of the files from which a killed sweep is gone on with: checkpoints of its members, and members that are finished."""


def places(recipe: Recipe) -> list[Path]:
    """Where the sweeps of a recipe stand: RUN/sweep/HOOKPOINT for each RUN/HOOKPOINT/dictionary."""
    return [_place(stage, recipe) for stage in _trainings(plan(recipe))]


def run_sweep(recipe: Recipe, *, replace: bool = False, say: Say = print_line) -> list[str]:
    """Make the sweeps of `recipe` that are missing, and the corpus and rows they are made from. Returns the names of the sweeps
    that were made.

    Args:
        replace, say: as `mohole.job.run`.

    Raises:
        ConfigError: no members, or members that do not read the same batches.
        StageError: a sweep stands there that was made from something else, and `replace` is false.
    """
    chosen = members(recipe)
    check_members(chosen)
    for verb in _verbs_before(recipe):
        run_verb(recipe, verb, replace=replace, say=say)
    whole = plan(recipe)
    return [
        f"sweep {_place(stage, recipe).name}"
        for stage in _trainings(whole)
        if _make(whole, stage, chosen, replace, say)
    ]


def _verbs_before(recipe: Recipe) -> tuple[Verb, ...]:
    """Stages of whose rows a training is made."""
    if recipe.train.live_rows:
        return ("corpus",)
    return ("harvest", "shuffle") if recipe.shuffle.stored else ("harvest",)


def _trainings(whole: Plan) -> list[Stage]:
    return [stage for stage in whole.stages if stage.verb == "train"]


def _place(stage: Stage, recipe: Recipe) -> Path:
    return Path(recipe.run) / FOLDER / stage.out.parent.name


def _make(whole: Plan, stage: Stage, chosen: Mapping[str, Train], replace: bool, say: Say) -> bool:
    """The sweep in the place of one training of the plan. Returns whether there was anything to do."""
    recipe = whole.recipe
    out = _place(stage, recipe)
    check_model(whole, stage)
    inputs = _inputs(whole, stage, chosen)
    artifact.mend(out)
    if artifact.is_finished(out, inputs):
        return False
    if (out / artifact.MANIFEST).is_file() and not replace:
        raise StageError(
            f"{out}: made with other settings ({artifact.difference(out, inputs)}); --replace makes it again, "
            "-o run=FOLDER keeps both"
        )
    check_rows(whole.recipe, stage)
    with logged(recipe, f"sweep {out.name}", say) as notes:
        with artifact.create(out, inputs, replace=replace, resume=True, worth=_WORTH) as draft:
            _fill(draft, recipe, stage, chosen)
        notes += [f"{len(chosen)} members", str(out / "frontier.html")]
    return True


def _inputs(whole: Plan, stage: Stage, chosen: Mapping[str, Train]) -> Inputs:
    """As of the one training, with the members in the place of its settings."""
    inputs = whole.inputs(stage)
    others = {key: value for key, value in inputs.config.items() if key != "train"}
    tables = {name: settings.model_dump(mode="json") for name, settings in chosen.items()}
    return changed(inputs, kind="sweep", config=others | {"members": tables})


def _fill(draft: Path, recipe: Recipe, stage: Stage, chosen: Mapping[str, Train]) -> None:
    import torch

    from mohole.job.workshop import Workshop
    from mohole.train.sweep import sweep

    torch.set_num_threads(share_cores(1, processes=recipe.machine.processes, threads=recipe.machine.threads).threads)
    workshop = Workshop(recipe)
    learns = workshop.settings.learns
    own = {name: settings.model_copy(update={"learns": learns}) for name, settings in chosen.items()}
    name = name_of(recipe.model.path)
    sweep(draft, workshop.streams(stage), own, seed=recipe.seed, in_model=workshop.in_model(stage), model=name)
