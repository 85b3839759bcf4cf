"""Arguments that several verbs take, with their one wording."""

from pathlib import Path
from typing import Annotated

import typer

RecipePath = Annotated[Path, typer.Argument(metavar="RECIPE", help="A TOML recipe; recipes/ has some.")]
Overrides = Annotated[
    list[str], typer.Option("-o", "--override", metavar="KEY=VALUE", help="Change one value of the recipe; repeatable.")
]
Replace = Annotated[bool, typer.Option("--replace", help="Make artifacts again that were made with other settings.")]
Download = Annotated[bool, typer.Option("--allow-download", help="Fetch from the hub what is not in its local cache.")]


def tell(line: str) -> None:
    """Progress of a job goes to standard error: standard output holds findings."""
    typer.echo(line, err=True)
