"""The verb `plot`: pictures of what trainings recorded, finished or under way."""

from pathlib import Path
from typing import Annotated

import typer


def plot(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="PATH...", help="Runs, sweeps, dictionaries or record.jsonl files; all in one picture."),
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="An .html or .svg file; training.html beside the first PATH.")
    ] = None,
) -> None:
    """Draw everything that trainings recorded: loss and its terms, FVU, L0, dead latents, CE recovered, norms, densities.

    A training that is under way is drawn as far as it has come. The page is one file that needs no network.
    """
    from mohole.report.curves import read_trainings, write_curves
    from mohole.report.place import place_of_plots

    trainings = read_trainings(paths)
    place = out or place_of_plots(paths[0])
    n_plots = write_curves(place, f"Training, {', '.join(path.resolve().name for path in paths)}", trainings)
    typer.echo(f"{n_plots} pictures of {len(trainings)} training{'s'[: len(trainings) > 1]}: {place}")
