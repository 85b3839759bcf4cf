"""What a stage needs before it runs: its parents, the model that they were made with, the rows that the recipe asks for."""

from collections.abc import Sequence
from typing import Any

from mohole import artifact
from mohole.config import Recipe
from mohole.errors import ArtifactError, StageError
from mohole.job.asked import rows_run
from mohole.job.plan import MODEL, Plan
from mohole.job.stage import Stage
from mohole.store.store import Store


def check_parents(plan: Plan, stage: Stage) -> None:
    """What a stage is made from must be there.

    Raises:
        ArtifactError: something is not; says which verb makes it.
    """
    for path in stage.parents.values():
        maker = next((each.verb for each in plan.stages if each.out == path), None)
        if maker is not None and not path.exists():
            verb = "harvest" if maker == "corpus" else maker
            raise ArtifactError(
                f"{path}: no artifact there; `mohole {verb} RECIPE` makes it, `mohole run RECIPE` all that is missing"
            )


def check_given(plan: Plan, stages: Sequence[Stage]) -> None:
    """What the stages are made from and no stage of the recipe makes must be there: the rows of another run.

    Raises:
        ArtifactError: something is not; which setting names it.
    """
    made = {stage.out for stage in plan.stages}
    for path in (path for stage in stages for path in stage.parents.values()):
        if path not in made and not (path / artifact.MANIFEST).is_file():
            raise ArtifactError(
                f"{path}: no artifact there; --store (rows_of in a recipe) names the folder of a run, "
                "and `mohole harvest RECIPE` makes its rows"
            )


def check_model(plan: Plan, stage: Stage) -> None:
    """A stage that runs the model must run the one whose tokens and activations it works on.

    Raises:
        StageError: the recipe's model is another one.
    """
    if not stage.needs_model or "corpus" not in stage.parents:
        return
    made_with = artifact.read_manifest(stage.parents["corpus"]).inputs.parents.get(MODEL)
    if made_with != plan.model_digest:
        raise StageError(
            f"model.path: {plan.recipe.model.path} is another model than that of {stage.parents['corpus']}; "
            "name that one (-o model.path=..., or --model of a dictionary), or -o run=FOLDER for this one"
        )


def check_rows(recipe: Recipe, stage: Stage) -> None:
    """A stage that reads rows must read those that the recipe asks for, wherever they were copied from.

    Raises:
        StageError: they are others; says which setting tells.
    """
    place = stage.parents.get("rows") or stage.parents.get("activations")
    if place is None:
        return
    facts = Store.open(place).facts
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
