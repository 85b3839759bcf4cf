"""The verb about rows whose true features are known: synthesize."""

from pathlib import Path
from typing import Annotated

import typer

from mohole.config import read_recipe


def synthesize(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A TOML recipe with [synthetic] and [train].")],
    override: Annotated[
        list[str],
        typer.Option("-o", "--override", metavar="KEY=VALUE", help="Change one value of the recipe; repeatable."),
    ] = [],  # noqa: B006
    replace: Annotated[
        bool, typer.Option("--replace", help="Make it again where it was made with other settings.")
    ] = False,
) -> None:
    """Make rows of known features, learn a dictionary from them, and score it against the truth. Writes RUN/synthetic."""
    settings = read_recipe(recipe, override)
    from mohole.job.synthetic import FOLDER, run_synthetic

    run_synthetic(settings, replace=replace, say=_say)
    from rich.console import Console

    from mohole.report import print_contents

    print_contents(Path(settings.run) / FOLDER / "scores", Console())


def _say(line: str) -> None:
    typer.echo(line, err=True)
