"""The verbs that measure dictionaries: evaluate (of a recipe, or any dictionary by itself) and compare-dictionaries."""

from pathlib import Path
from typing import Annotated, Any

import typer

from mohole.cli.options import Download, Overrides, Replace, tell
from mohole.config import Recipe, from_tables, read_recipe
from mohole.errors import ConfigError
from mohole.visible import visible

Page = Annotated[Path | None, typer.Option("--page", metavar="FILE", help="Where the page goes.")]


def evaluate(
    what: Annotated[
        str, typer.Argument(metavar="RECIPE|DICTIONARY", help="A .toml recipe; or a dictionary of any library.")
    ],
    model: Annotated[
        str | None,
        typer.Option(help="Of a dictionary: its language model, a folder or hub id; of --store, that of the run."),
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Measure on the text and rows of this run, which was made by a recipe."),
    ] = None,
    text: Annotated[
        Path | None, typer.Option(help="With --model: measure on this text (a file or folder); rows are made first.")
    ] = None,
    hookpoint: Annotated[
        str | None, typer.Option(help="Where the dictionary belongs, if its files do not say.")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Where artifacts and page go.")] = None,
    override: Overrides = [],  # noqa: B006
    replace: Replace = False,
    allow_download: Download = False,
) -> None:
    """Measure dictionaries on held-out documents, in the model, and against the text's truth: JSON, a page, a table."""
    from rich.console import Console

    from mohole import job
    from mohole.report.comparison import comparison_text, write_comparison
    from mohole.report.evaluated import find_evaluations

    if what.endswith(".toml"):
        if given := [
            name for name, value in (("--model", model), ("--store", store), ("--text", text)) if value is not None
        ]:
            raise ConfigError(
                f"{given[0]}: goes with a dictionary; a recipe says it in its own tables (-o model.path=...)"
            )
        settings = read_recipe(what, override)
        made = job.run_verb(settings, "evaluate", replace=replace, say=tell)
    else:
        settings = _alone(what, model, store, text, hookpoint, out, override, allow_download)
        made = job.run_until(settings, "evaluate", replace=replace, say=tell)
    if not made:
        typer.echo("evaluate: there already, made from the same settings; nothing to do")
    found = find_evaluations([stage.out for stage in job.plan(settings).stages if stage.verb == "evaluate"])
    page = Path(settings.run) / "evaluation.html"
    write_comparison(page, found)
    Console().print(comparison_text(found))
    typer.echo(f"page: {page}")


def compare_dictionaries(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="PATH PATH...", help="Evaluations, dictionaries that were evaluated, or runs."),
    ],
    page: Page = None,
    json: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Also write every number, difference and growth as JSON."),
    ] = None,
) -> None:
    """Evaluated dictionaries side by side: paired differences from the first, growth with size, and the frontier as a page."""
    from rich.console import Console

    from mohole.report.comparison import comparison_text, write_comparison, write_json_of
    from mohole.report.evaluated import find_evaluations
    from mohole.report.place import check_place

    place = page or Path("comparison.html")
    check_place(place, "--page", (".html", ".htm"))  # before any work, not after the table
    if json is not None:
        check_place(json, "--json", (".json",))
    found = find_evaluations(paths)
    if len(found) < 2:
        raise ConfigError(f"{paths[0]}: one evaluation; name another dictionary to compare it with")
    Console().print(comparison_text(found))
    write_comparison(place, found)
    if json is not None:
        write_json_of(json, found)
    typer.echo(f"page: {place}")


def _alone(
    what: str,
    model: str | None,
    store: Path | None,
    text: Path | None,
    hookpoint: str | None,
    out: Path | None,
    overrides: list[str],
    allow_download: bool,
) -> Recipe:
    """The recipe that measures one dictionary that is there already.

    Raises:
        ConfigError: nothing to measure on, or no hookpoint.
    """
    from mohole.corpus.files import find_files
    from mohole.dictionary.files import FACTS_FILE, trained_with
    from mohole.dictionary.formats.imported import UNNAMED
    from mohole.dictionary.formats.load import import_dictionary
    from mohole.dictionary.places import as_learned, places_of

    if text is not None and model is not None:
        find_files(str(text), setting="--text")  # before any work, and by the name that the user gave it
    found = import_dictionary(what, hookpoint=hookpoint, allow_download=allow_download).dictionary
    learns = as_learned(found)
    reads, writes = places_of(found)
    if UNNAMED in (*reads, *writes):
        how = (
            "--hookpoint resid_post.6"
            if learns.kind == "sae"
            else "a recipe with [[dictionary]] says it: learns = {...}"
        )
        raise ConfigError(f"{what}: its files do not say where it belongs; {how}")
    place = {"hookpoint": reads[0]} if learns.kind == "sae" else {"learns": learns.model_dump(mode="json")}
    tables: dict[str, Any] = {
        "run": str(out or Path("evaluations") / Path(what).name),
        "dictionary": [{"path": what, "allow_download": allow_download} | place],
    }
    if model is None and store is not None:
        trained = (trained_with(facts.parent) for facts in sorted(store.glob(f"*/dictionary/{FACTS_FILE}")))
        model = next((name for name in trained if name is not None), None)
        if model is not None:
            tell(f"{store}: its dictionaries were trained on {visible(model)}; --model names another place of it")
    if model is not None:
        tables["model"] = {"path": model, "allow_download": allow_download}
    if (store is None) == (text is None) and (store is not None or model not in (None, "planted")):
        raise ConfigError(f"{what}: give one of --store RUN and --text FILE, to say what it is measured on")
    if text is not None and model is None:
        raise ConfigError(f"{what}: --text: goes with --model FOLDER, the language model whose rows on it are measured")
    if store is not None:
        tables["rows_of"] = str(store)
    elif text is not None:
        # Nobody knows what it was trained on: half of the documents choose what has to be chosen, half are measured on.
        tables |= {"corpus": {"kind": "text", "path": str(text)}, "windows": {"held_out": 0.5}}
    return from_tables(tables, overrides)
