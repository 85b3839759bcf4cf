"""`mohole publish`: a run as a folder for any static host."""

from pathlib import Path
from typing import Annotated

import typer

from mohole.progress import quantity


def publish(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write; not there yet.")],
    also: Annotated[
        list[Path],
        typer.Option(
            metavar="RUN", help="Another run for the same folder, such as the one whose rows RUN used; repeatable."
        ),
    ] = [],  # noqa: B006
    context: Annotated[
        int | None,
        typer.Option(
            metavar="TOKENS",
            help="Text published on either side of an example's token; as a rule, all that the catalogue keeps.",
            min=0,
        ),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Publish again where another publication is.")] = False,
) -> None:
    """Write a folder that any static host with range requests can serve: the web app, the features, their examples' texts.

    The corpus and the model stay here: only the stretches of text that examples show are published. So are labels by hand;
    notes and lists are not. The run page names settings, which may hold names of files.
    """
    from mohole.publish import publish as write
    from mohole.publish.layout import MOST_BYTES_PER_FEATURE

    made = write([run, *also], out, context_tokens=context, replace=replace)
    if not made.is_new:
        typer.echo(f"{out}: there already, whole, published from the same runs and settings; nothing to do")
    else:
        texts = (
            "the texts of examples"
            if made.context_tokens is None
            else f"{made.context_tokens} tokens of text on either side"
        )
        typer.echo(
            f"{out}: {made.n_features:,} features of {', '.join(made.runs)} with {texts}, "
            f"{made.bytes_per_feature:,.0f} bytes each (aim {MOST_BYTES_PER_FEATURE:,}); "
            f"{quantity(made.n_bytes)}B, and {quantity(made.app_bytes)}B of app"
        )
    typer.echo(
        f"look at it: mohole serve {out}\nthen put it on a host that answers range requests: nginx, Caddy, S3, GitHub Pages"
    )
