"""The verb about rows whose true features are known: synthesize."""

from pathlib import Path
from typing import Annotated

import typer

from mohole.cli.options import Overrides, Replace, tell
from mohole.config import read_recipe


def synthesize(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A TOML recipe with [synthetic] and [train].")],
    override: Overrides = [],  # noqa: B006
    replace: Replace = False,
) -> None:
    """Make rows of known features, learn a dictionary from them, and score it against the truth. Writes RUN/synthetic."""
    settings = read_recipe(recipe, override)
    from mohole.job.synthetic import FOLDER, run_synthetic

    run_synthetic(settings, replace=replace, say=tell)
    from rich.console import Console

    from mohole.report import print_contents

    print_contents(Path(settings.run) / FOLDER / "scores", Console())
