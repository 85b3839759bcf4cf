"""The verbs about many dictionaries: sweep and scaling. Each makes or reads tables of sweeps, and prints them."""

import time
from collections.abc import Sequence
from dataclasses import replace as changed
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mohole import artifact
from mohole.config import Recipe, Train, members, read_recipe
from mohole.config.sweep import check_members
from mohole.errors import ArtifactError, ConfigError, StageError

if TYPE_CHECKING:
    from mohole.job.plan import Plan, Stage

FOLDER = "sweep"


def sweep(
    recipe: Annotated[
        Path, typer.Argument(metavar="RECIPE", help="A TOML recipe with [sweep] or [[train.dictionary]].")
    ],
    override: Annotated[
        list[str],
        typer.Option("-o", "--override", metavar="KEY=VALUE", help="Change one value of the recipe; repeatable."),
    ] = [],  # noqa: B006
    replace: Annotated[
        bool, typer.Option("--replace", help="Make it again where it was made with other settings.")
    ] = False,
) -> None:
    """Train many dictionaries from one pass over the rows: widths, sparsities, learning rates. Writes RUN/sweep/HOOKPOINT."""
    settings = read_recipe(recipe, override)
    chosen = members(settings)
    check_members(chosen)
    from mohole import job

    for verb in _verbs_before(settings):
        job.run_verb(settings, verb, replace=replace, say=_say)
    whole = job.plan(settings)
    stages = [stage for stage in whole.stages if stage.verb == "train"]
    made = [_make(whole, stage, chosen, replace) for stage in stages]
    if not any(made):
        typer.echo("sweep: there already, made from the same settings; nothing to do")
    from rich.console import Console

    from mohole.report import print_contents

    for stage in stages:
        print_contents(_place(settings, stage), Console())


def _say(line: str) -> None:
    typer.echo(line, err=True)


def _verbs_before(recipe: Recipe) -> tuple[Any, ...]:
    """Stages of whose rows a training is made."""
    if recipe.train.live_rows:
        return ("corpus",)
    return ("harvest", "shuffle") if recipe.shuffle.stored else ("harvest",)


def _place(recipe: Recipe, stage: "Stage") -> Path:
    """RUN/sweep/HOOKPOINT for RUN/HOOKPOINT/dictionary."""
    return Path(recipe.run) / FOLDER / stage.out.parent.name


def _make(whole: "Plan", stage: "Stage", chosen: dict[str, Train], replace: bool) -> bool:
    """The sweep in the place of one training of the plan. Returns whether there was anything to do."""
    recipe = whole.recipe
    out = _place(recipe, stage)
    whole.check_model(stage)
    inputs = _inputs(whole, stage, chosen)
    if artifact.is_finished(out, inputs):
        return False
    if (out / artifact.MANIFEST).is_file() and not replace:
        raise StageError(
            f"{out}: made with other settings ({artifact.difference(out, inputs)}); --replace makes it again, "
            "-o run=FOLDER keeps both"
        )
    whole.check_rows(stage)
    start = time.monotonic()
    with artifact.create(out, inputs, replace=replace, resume=True) as draft:
        _fill(draft, recipe, stage, chosen)
    _say(f"sweep {out.name}: {len(chosen)} members done in {time.monotonic() - start:.1f} s; {out / 'frontier.html'}")
    return True


def _inputs(whole: "Plan", stage: "Stage", chosen: dict[str, Train]) -> artifact.Inputs:
    """As of the one training, with the members in the place of its settings."""
    inputs = whole.inputs(stage)
    others = {key: value for key, value in inputs.config.items() if key != "train"}
    tables = {name: settings.model_dump(mode="json") for name, settings in chosen.items()}
    return changed(inputs, kind="sweep", config=others | {"members": tables})


def _fill(draft: Path, recipe: Recipe, stage: "Stage", chosen: dict[str, Train]) -> None:
    import torch

    from mohole.config.train import Sae
    from mohole.execute import share_cores
    from mohole.job.plan import learned
    from mohole.job.workshop import Workshop
    from mohole.train.sweep import sweep as train_all

    torch.set_num_threads(share_cores(1, processes=recipe.machine.processes, threads=recipe.machine.threads).threads)
    workshop, learns = Workshop(recipe), learned(recipe)
    chosen = {name: settings.model_copy(update={"learns": learns}) for name, settings in chosen.items()}
    names: Sequence[str] = (str(stage.hookpoint),) if isinstance(learns, Sae) else learns.needs()
    streams = {name: workshop._stream(name, len(names)) for name in names}
    train_all(draft, streams, chosen, seed=recipe.seed)


def scaling(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Runs with sweeps in them, or sweeps.")],
    target: Annotated[
        list[float], typer.Option("--target", help="An FVU: what reaching it takes, by each law; repeatable.")
    ] = [],  # noqa: B006
    k: Annotated[int | None, typer.Option(min=1, help="Active latents, which a sparsity law is asked for.")] = None,
    page: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where the plots go; scaling.html in the first run's folder.")
    ] = None,
) -> None:
    """Fit how FVU falls with latents, sparsity and rows to the tables of sweeps, and say what a target takes."""
    from rich.console import Console

    from mohole.report.scaling import read_study, scaling_text, write_scaling

    if wrong := [value for value in target if not 0 < value < 1]:
        raise ConfigError(f"--target {wrong[0]:g}: an FVU lies between 0 and 1")
    study = read_study(_tables(runs), target, k)
    first = runs[0].parent if (runs[0] / artifact.MANIFEST).is_file() else runs[0]
    out = page or first / "scaling.html"
    write_scaling(out, study)
    Console().print(scaling_text(study))
    typer.echo(f"\nplots: {out}")


def _tables(runs: Sequence[Path]) -> list[Path]:
    """The sweeps in these runs, each undamaged."""
    found: list[Path] = []
    for run in runs:
        is_one = (run / artifact.MANIFEST).is_file()
        sweeps = [run] if is_one else sorted(path.parent for path in (run / FOLDER).glob(f"*/{artifact.MANIFEST}"))
        if not sweeps:
            raise ArtifactError(f"{run}: no sweep in it; `mohole sweep RECIPE` makes one")
        found += [path for path in sweeps if path not in found]
    for path in found:
        artifact.open_artifact(path, kind="sweep")
    return found
