"""The verbs about dictionaries of any library: convert and push. Each reads its arguments and calls one function."""

import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Literal

import typer

from mohole.artifact import MANIFEST
from mohole.cli.options import Download
from mohole.errors import ConfigError
from mohole.visible import visible

Library = Literal["mohole", "saelens", "sparsify", "dictionary-learning", "circuit-tracer"]
_HUB_ID = re.compile(r"[\w.-]*\w(/[\w.-]*\w)?")
To = Annotated[Library, typer.Option("--to", help="Whose files are written.")]


def convert(
    places: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE... TARGET",
            help="A dictionary of any library (folder, file or hub id) and a new folder; for circuit-tracer one of each layer.",
        ),
    ],
    to: To = "mohole",
    hookpoint: Annotated[
        str | None, typer.Option(help="Where it belongs, such as resid_post.6, where its files do not say.")
    ] = None,
    allow_download: Download = False,
) -> None:
    """Write a dictionary of any library as one of another; it is kept only if it computes the same when it is read again."""
    if len(places) < 2:
        raise ConfigError("convert: a source and a target are needed: mohole convert SOURCE TARGET --to saelens")
    from mohole.dictionary.formats.export import convert as convert_all

    *sources, target = places
    found = convert_all(sources, Path(target), to, hookpoint=hookpoint, allow_download=allow_download)
    for source, item in zip(sources, found, strict=True):
        typer.echo(f"{visible(source)}: {item.format}")
        for note in item.notes:
            typer.echo(f"note: {visible(note)}")
    typer.echo(f"{visible(target)}: {to}")


def push(
    dictionary: Annotated[str, typer.Argument(metavar="DICTIONARY", help="A dictionary of any library.")],
    repository: Annotated[str, typer.Argument(metavar="USER/NAME", help="A repository on the Hugging Face hub.")],
    to: To = "mohole",
    evaluation: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="An evaluation artifact, whose measures go into the model card; else the one beside a trained dictionary.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="ID", help="The language model it is of, as on the hub; else the one that its training recorded."
        ),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Where the files are put and kept; of --dry-run, beside the dictionary."),
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Of a repository that is made now.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write the folder and stop; nothing is uploaded.")] = False,
) -> None:
    """Put a dictionary on the Hugging Face hub, with a model card that says what it is, how it was made and how well it does."""
    from mohole.dictionary.formats.hub import prepare, upload

    name = f"{repository.rpartition('/')[2]}-{to}"
    with TemporaryDirectory() as passing:
        beside = Path(dictionary).absolute().parent if Path(dictionary).exists() else Path.cwd()
        if (beside / MANIFEST).exists():  # of a sweep: nothing is put among its files
            beside = beside.parent
        ready = folder or (beside if dry_run else Path(passing)) / name
        if model is not None and (Path(model).is_dir() or not _HUB_ID.fullmatch(model)):
            raise ConfigError(f"--model {visible(model)}: no name on the hub; give user/name, or leave it out")
        notes = prepare(dictionary, repository, ready, to, evaluation=evaluation, model=model)
        for note in notes:
            typer.echo(visible(f"note: {note}"), err=True)
        if dry_run:
            typer.echo(
                f"{ready}: ready to be uploaded to {visible(repository)}; nothing was. README.md is its model card"
            )
            return
        from huggingface_hub import HfApi

        upload(ready, repository, HfApi(), private=private)
    typer.echo(f"https://huggingface.co/{visible(repository)}")
