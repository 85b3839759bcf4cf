"""The verbs about many dictionaries: sweep and scaling. Each makes or reads tables of sweeps, and prints them."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from mohole import artifact
from mohole.cli.options import Overrides, Replace, tell
from mohole.config import Recipe, read_recipe
from mohole.errors import ArtifactError, ConfigError

FOLDER = "sweep"


def sweep(
    recipe: Annotated[
        Path, typer.Argument(metavar="RECIPE", help=r"A TOML recipe with \[sweep] or \[\[train.dictionary]].")
    ],
    override: Overrides = [],  # noqa: B006
    replace: Replace = False,
) -> None:
    """Train many dictionaries from one pass over the rows: widths, sparsities, learning rates. Writes RUN/sweep/HOOKPOINT."""
    learn_members(read_recipe(recipe, override), replace=replace)


def learn_members(settings: Recipe, *, replace: bool) -> None:
    """Make the sweeps of a recipe and show their tables."""
    from mohole import job
    from mohole.job.sweep import places

    if not job.run_sweep(settings, replace=replace, say=tell):
        typer.echo("sweep: there already, made from the same settings; nothing to do")
    from rich.console import Console

    from mohole.report import print_contents

    for place in places(settings):
        print_contents(place, Console())


def scaling(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Runs with sweeps in them, or sweeps.")],
    target: Annotated[
        list[float], typer.Option("--target", help="An FVU: what reaching it takes, by each law; repeatable.")
    ] = [],  # noqa: B006
    flops: Annotated[
        list[float],
        typer.Option("--flops", help="A budget: the latents and rows that make the most of it; repeatable."),
    ] = [],  # noqa: B006
    k: Annotated[int | None, typer.Option(min=1, help="Active latents, which a sparsity law is asked for.")] = None,
    page: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where the plots go; scaling.html in the first run's folder.")
    ] = None,
) -> None:
    """Fit how FVU falls with latents, sparsity and rows to the tables of sweeps, and say what a target takes or a budget buys."""
    from rich.console import Console

    from mohole.report.place import check_place
    from mohole.report.scaling import PAGES, read_study, scaling_text, write_scaling

    if wrong := [value for value in target if not 0 < value < 1]:
        raise ConfigError(f"--target {wrong[0]:g}: an FVU lies between 0 and 1")
    if wrong := [value for value in flops if not 0 < value < math.inf]:
        raise ConfigError(f"--flops {wrong[0]:g}: not a number of operations above zero")
    first = runs[0].parent if (runs[0] / artifact.MANIFEST).is_file() else runs[0]
    out = page or first / "scaling.html"
    check_place(out, "--page", PAGES)  # before the fits, which take a while
    study = read_study(_tables(runs), target, k, flops)
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
