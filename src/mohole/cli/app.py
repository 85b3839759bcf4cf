"""The verbs of `mohole`, and how an error becomes one line."""

import errno
import io
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from mohole import __version__
from mohole.cli import (
    chat,
    checks,
    curves,
    dictionaries,
    evaluations,
    features,
    publishing,
    search,
    serving,
    steering,
    stores,
    sweep,
    synthetic,
)
from mohole.cli.options import Overrides, RecipePath, Replace, tell
from mohole.config import Recipe, read_recipe
from mohole.errors import ConfigError, MoholeError
from mohole.visible import visible

app = typer.Typer(
    name="mohole",
    help="Drill through a neural network's activations into sparse, nameable, steerable features.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> bool:
    if wanted:
        typer.echo(f"mohole {__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", is_eager=True, callback=_print_version)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Options before a verb. Both act elsewhere: one when it is read, the other when something fails."""


@app.command()
def run(recipe: RecipePath, override: Overrides = [], replace: Replace = False) -> None:  # noqa: B006
    """Make everything a recipe asks for that is not there yet, and show what was found."""
    from mohole import job

    settings = read_recipe(recipe, override)
    made = job.run(settings, replace=replace, say=tell)
    if settings.train.learns.kind != "sae":
        typer.echo(
            f"{settings.run}: {', '.join(made) or 'nothing to do'}; pages and labels are for sparse autoencoders so far"
        )
        return
    page, made_from = Path(settings.run) / "report.html", job.plan(settings).digest()
    from mohole import report

    if not made:
        job.plan(settings).verify()
    if not made and report.is_current(page, made_from):
        typer.echo(
            f"{settings.run}: everything is there already, undamaged; nothing to do. Report: {page}; "
            f"in the terminal: mohole show {settings.run}"
        )
        return
    from rich.console import Console

    findings = report.read_findings(settings.run, model=settings.model.path, max_features=settings.report.max_features)
    report.write_page(page, findings, made_from)
    report.print_findings(findings, Console())
    typer.echo(f"\nreport: {page}")


def _stage_command(verb: Any, summary: str) -> Callable[..., None]:
    def command(recipe: RecipePath, override: Overrides = [], replace: Replace = False) -> None:  # noqa: B006
        from mohole import job

        settings: Recipe = read_recipe(recipe, override)
        if verb == "train" and settings.train.dictionary:  # there is one way to learn several
            sweep.learn_members(settings, replace=replace)
            return
        if not job.run_verb(settings, verb, replace=replace, say=tell):
            typer.echo(f"{verb}: there already, made from the same settings; nothing to do")

    command.__doc__ = summary
    return command


_STAGES = {
    "train": r"Learn a dictionary for each hookpoint; where the recipe lists \[\[train.dictionary]], all of them, as sweep does.",
    "label": "Name the latents by rule, and score every name on documents the rule has not seen.",
}


def _spread_command(verb: Any, summary: str) -> Callable[..., None]:
    """Of a stage whose tasks can be spread over workers."""

    def command(
        recipe: RecipePath,
        override: Overrides = [],  # noqa: B006
        replace: Replace = False,
        executor: stores.ExecutorName = None,
        address: stores.Address = None,
    ) -> None:
        from mohole import job

        extra = [f"machine.executor={executor}"] if executor else []
        extra += [f"machine.address={address}"] if address else []
        if not job.run_verb(read_recipe(recipe, [*override, *extra]), verb, replace=replace, say=tell):
            typer.echo(f"{verb}: there already, made from the same settings; nothing to do")

    command.__doc__ = summary
    return command


app.command("harvest")(
    _spread_command(
        "harvest",
        "Tokenize the corpus and collect the model's activations at the recipe's hookpoints, sorted for the shuffle.",
    )
)
app.command()(stores.shuffle)
app.command("catalogue")(_spread_command("catalogue", "Collect what each latent fires on. A killed one goes on."))
for _verb, _summary in _STAGES.items():
    app.command(_verb)(_stage_command(_verb, _summary))
for _store_verb in (stores.plan, stores.verify, stores.export):
    app.command()(_store_verb)
for _dictionary_verb in (dictionaries.convert, dictionaries.push):
    app.command()(_dictionary_verb)
for _sweep_verb in (sweep.sweep, sweep.scaling):
    app.command()(_sweep_verb)
app.command()(curves.plot)
app.command("check-metrics")(checks.check_metrics)
app.command()(evaluations.evaluate)
app.command("compare-dictionaries")(evaluations.compare_dictionaries)
app.command()(synthetic.synthesize)
app.command()(steering.steer)
app.command()(chat.chat)
app.command()(serving.serve)
app.command()(publishing.publish)
app.command()(search.search)
app.command()(search.xray)
app.command()(features.effect)
app.command()(features.matches)


@app.command()
def show(
    what: Annotated[
        str,
        typer.Argument(
            metavar="PATH", help="An artifact, a run folder, recipes, or the word `hookpoints` or `settings`."
        ),
    ],
    which: Annotated[
        str | None,
        typer.Argument(
            metavar="WHICH",
            help="Of a catalogue: a latent's number. Of `hookpoints`: a model's folder or hub id. Of `settings`: a table.",
        ),
    ] = None,
) -> None:
    """Show what an artifact or a run holds.

    `mohole show runs/demo/resid_post.1/catalogue 417` shows a feature, `mohole show hookpoints MODEL` a model's hookpoints,
    `mohole show settings train` what a recipe may say.
    """
    from mohole.cli import show as showing

    match what:
        case "hookpoints":
            showing.show_hookpoints(which or "planted")
        case "settings":
            showing.show_settings(which)
        case _ if which is None or which.isdecimal():
            showing.show_path(Path(what), None if which is None else int(which))
        case _:
            raise ConfigError(f"show {what} {which}: the second word is a latent's number, and goes with a catalogue")


@app.command()
def plant(
    out: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where to write the new model.")],
    seed: Annotated[int, typer.Option(help="The seed of weights and text.", min=0)] = 0,
) -> None:
    """Train the built-in model again from a seed, and certify it. Takes 40 to 60 minutes of one core."""
    from mohole import planted

    planted.plant(out, seed=seed)


def command_names() -> set[str]:
    """Every verb of `mohole`."""
    return {str(command.name or getattr(command.callback, "__name__", "")) for command in app.registered_commands}


class _Interrupted(BaseException):
    """Ctrl-C or a request to stop. Not KeyboardInterrupt: the command line library turns that one into a silent exit."""

    def __init__(self, signum: int) -> None:
        self.signum = signum


def main() -> None:
    """Run the command line; a foreseen failure becomes one line on standard error and a non-zero exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a letter shows a mark in its place
    handlers = {number: signal.signal(number, _interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        app()
    except MoholeError as error:
        _fail(str(error), error)
    except OSError as error:
        _fail(_explain(error), error)
    except MemoryError as error:
        _fail("memory ran out; give smaller values (train.n_latents, train.batch_rows, *.batch_tokens)", error)
    except RuntimeError as error:
        if "can't allocate memory" not in str(error) and "out of memory" not in str(error):
            raise
        _fail(
            f"memory ran out: {str(error).splitlines()[0]}; give smaller values (train.n_latents, train.batch_rows)",
            error,
        )
    except _Interrupted as error:
        message = "interrupted; what was finished is kept, and the same command goes on from there"
        _fail(message, error, status=128 + error.signum)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _interrupt(signum: int, frame: object) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one must not break the clean-up after the first
    raise _Interrupted(signum)


def _fail(message: str, error: BaseException, *, status: int = 1) -> None:
    if "--debug" in sys.argv:
        raise error
    sys.stderr.write(f"error: {visible(' '.join(message.split()))}\n")
    raise SystemExit(status)


def _explain(error: OSError) -> str:
    place = error.filename or "what was being written"
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT | errno.EFBIG:
            return f"{place}: the disk is full; nothing half-written was kept; free space, or name another place"
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return f"{place}: no permission ({os.strerror(error.errno)}); change it, or name another place"
        case errno.EPIPE:
            return "the reader of this output went away"
        case errno.ENOENT:
            return f"{place}: no such file or folder; check the spelling, or make the folder that it is to lie in"
        case errno.EEXIST | errno.ENOTDIR:
            return f"{place}: a file, where a folder is needed; name another place"
        case _:
            return f"{place}: {error.strerror or error}"
