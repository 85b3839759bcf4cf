"""The verbs that look for features: search (by label, token or text) and xray (what fires at each token of a text)."""

import json
import sys
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mohole.cli.options import Download, tell
from mohole.errors import ArtifactError, ConfigError, ModelError
from mohole.visible import visible

if TYPE_CHECKING:
    from rich.console import Console

    from mohole.search.run import Found, SearchedRun
    from mohole.search.xray import XrayRows

By = Literal["label", "token", "text", "statistics"]
Meaning = Literal["labels", "minilm"]

_HEADS: dict[By, str] = {
    "label": "by label",
    "token": "by the words they fire on or raise",
    "text": "that fire on this text, by their share of their maximum",
    "statistics": "by their numbers",
}
_MOST_BYTES = 1 << 20
_LABEL_WIDTH = 60
_BESIDE_LABEL = 46
"""Columns that the rest of a line takes."""

Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]
HookpointName = Annotated[str | None, typer.Option(help="Only this hookpoint's dictionary, such as resid_post.1.")]
ModelFolder = Annotated[
    str | None, typer.Option(metavar="FOLDER", help="The run's language model, where it is not found by itself.")
]
Device = Annotated[str, typer.Option(help="Where the language model runs, such as cuda.")]
_OF = "By statistics: "
LeastDensity = Annotated[
    float | None, typer.Option(metavar="SHARE", help=f"{_OF}fires at this share of tokens or more.", min=0, max=1)
]
MostDensity = Annotated[float | None, typer.Option(metavar="SHARE", help=f"{_OF}or less.", min=0, max=1)]
LeastMaximum = Annotated[float | None, typer.Option(metavar="X", help=f"{_OF}its largest activation is this or more.")]
MostMaximum = Annotated[float | None, typer.Option(metavar="X", help=f"{_OF}or less.")]
LeastF1 = Annotated[
    float | None, typer.Option(metavar="F1", help=f"{_OF}its label's F1 is this or more.", min=0, max=1)
]
MostF1 = Annotated[float | None, typer.Option(metavar="F1", help=f"{_OF}or less.", min=0, max=1)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, one object, for programs.")]


def search(
    run: Run,
    query: Annotated[
        str | None,
        typer.Argument(
            metavar="QUERY",
            help="A word, a phrase, a text; - reads it from standard input. None with --by statistics.",
        ),
    ] = None,
    by: Annotated[
        Literal["label", "token", "text", "all", "statistics"],
        typer.Option(
            help="What is searched: labels, words that features fire on, the query run as a text, these three; or numbers."
        ),
    ] = "all",
    hookpoint: HookpointName = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Features of each kind, at most.")] = 10,
    sort: Annotated[
        Literal["density", "maximum", "f1"] | None,
        typer.Option(help=f"{_OF}which number comes first, the largest ones on top; density, unless told."),
    ] = None,
    ascending: Annotated[bool, typer.Option("--ascending", help=f"{_OF}the smallest on top.")] = False,
    least_density: LeastDensity = None,
    most_density: MostDensity = None,
    least_maximum: LeastMaximum = None,
    most_maximum: MostMaximum = None,
    least_f1: LeastF1 = None,
    most_f1: MostF1 = None,
    meaning: Annotated[
        Meaning,
        typer.Option(help="Who knows what labels mean: they themselves, or a model of English (extra `meaning`)."),
    ] = "labels",
    model: ModelFolder = None,
    device: Device = "cpu",
    allow_download: Download = False,
    as_json: AsJson = False,
) -> None:
    """Find features by label, by the words they fire on, by a text that makes them fire, or by their numbers."""
    from mohole.search.run import SearchedRun
    from mohole.search.statistics import Bounds

    bounds = Bounds(least_density, most_density, least_maximum, most_maximum, least_f1, most_f1)
    query = _asked(query, by, has_numbers=not bounds.is_any or sort is not None or ascending)

    opened = SearchedRun.open(run, hookpoint)
    answers: dict[By, list[Found]] = {}
    kinds: tuple[By, ...] = ("label", "token", "text") if by == "all" else (by,)
    for kind in kinds:
        try:
            if kind == "label":
                answers[kind] = opened.by_label(query, limit, _embedder(meaning))
            elif kind == "statistics":
                answers[kind] = opened.by_statistics(bounds, limit, sort=sort or "density", ascending=ascending)
            elif kind == "token":
                answers[kind] = opened.by_token(query, limit)
            else:
                loaded = opened.load_model(model, device=device, allow_download=allow_download)
                answers[kind] = opened.by_text(query, limit, loaded)
        except (ArtifactError, ModelError) as error:
            if by != "all":
                raise
            tell(f"not {_HEADS[kind]}: {visible(str(error))}")  # the other kinds may answer
    if as_json:
        found = [_hit_json(kind, each) for kind, several in answers.items() for each in several]
        typer.echo(json.dumps({"run": str(run), "query": query, "hits": found}))
        return
    from rich.console import Console

    _print_answers(answers, opened, query, Console())


def xray(
    run: Run,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="The text to look into; - reads it from standard input.")],
    hookpoint: HookpointName = None,
    top: Annotated[int, typer.Option(min=1, max=50, help="Features shown at each token.")] = 3,
    follow: Annotated[
        int | None, typer.Option(metavar="LATENT", min=0, help="Follow this latent along the whole text, too.")
    ] = None,
    model: ModelFolder = None,
    device: Device = "cpu",
    allow_download: Download = False,
    as_json: AsJson = False,
) -> None:
    """Look into a text: which features fire at each token, and how strongly; of each dictionary, unless one is named."""
    text = _given(text, "TEXT")
    from mohole.search.run import SearchedRun

    opened = SearchedRun.open(run, hookpoint)
    if follow is not None and len(opened.places) > 1:
        names = ", ".join(place.name for place in opened.places)
        raise ConfigError(f"{run}: has dictionaries at {names}; say whose latent {follow} is with --hookpoint")
    loaded = opened.load_model(model, device=device, allow_download=allow_download)
    for place in opened.places:
        one = SearchedRun(opened.run, [place])
        rows = one.xray(text, loaded, top=top, follow=follow)
        if as_json:
            typer.echo(json.dumps(_xray_json(one, rows, follow)))
            continue
        from rich.console import Console

        _print_xray(one, rows, follow, Console())


def _asked(query: str | None, by: str, *, has_numbers: bool) -> str:
    """The query; of a search by statistics there is none.

    Raises:
        ConfigError: it is missing, or there where it would do nothing, or bounds are.
    """
    if by == "statistics":
        if query is not None:
            raise ConfigError(f"QUERY {query!r}: not with --by statistics, which asks for numbers; leave it out")
        return ""
    if query is None:
        raise ConfigError("QUERY: missing; give a word, a phrase or a text, or ask --by statistics")
    if has_numbers:
        raise ConfigError(f"--by {by}: takes no bounds and no --sort; these go with --by statistics")
    return _given(query, "QUERY")


def _given(text: str, name: str) -> str:
    """The argument, or standard input for `-`.

    Raises:
        ConfigError: empty, too long, or no UTF-8.
    """
    if text == "-":
        data = sys.stdin.buffer.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise ConfigError(f"{name} -: more than {_MOST_BYTES >> 20} MiB on standard input; give a part of it")
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ConfigError(f"{name} -: standard input is not UTF-8 text (byte {error.start})") from None
    if not text:
        raise ConfigError(f"{name}: empty; give a word, or - for standard input")
    return text


def _embedder(meaning: Meaning) -> Any:
    if meaning == "labels":
        return None
    from mohole.search.minilm import MiniLM

    return MiniLM.open()


def _hit_json(kind: By, found: "Found") -> dict[str, Any]:
    place, hit = found
    label = place.label(hit.latent)
    return {
        "by": kind,
        "hookpoint": place.name,
        "latent": hit.latent,
        "score": None if isnan(hit.score) else hit.score,
        "why": hit.why,
        "label": None if label is None else label.text,
    }


def _print_answers(answers: "dict[By, list[Found]]", opened: "SearchedRun", query: str, console: "Console") -> None:
    from rich.text import Text

    from mohole.report.terminal import WIDEST, plain_table

    width = min(console.width, WIDEST)
    first = None
    for kind, found in answers.items():
        if not found:
            continue
        first = first or found[0]
        table = plain_table(f"Features {_HEADS[kind]}")
        table.add_column("score", justify="right", no_wrap=True)
        table.add_column("feature", no_wrap=True)
        table.add_column("label", ratio=3)
        table.add_column("why", ratio=2, style="dim")
        for place, hit in found:
            label = place.label(hit.latent)
            name = "" if label is None else _short(label.text)
            score = f"{hit.score:.3g}" if kind == "statistics" else f"{hit.score:.2f}"
            table.add_row(score, f"{place.name}/{hit.latent}", Text(name), Text(visible(hit.why)))
        console.print(table, width=width)
    if first is None:
        if "statistics" in answers:
            console.print("no living feature is within these bounds; widen them")
            return
        wider = "try another word" if len(answers) != 1 else "try another word, or --by all"
        console.print(Text(f"nothing found by {' or '.join(answers) or 'anything'} for “{_short(query)}”; {wider}"))
        return
    folder = first.place.folder / "catalogue"
    hint = visible(f"one of them: mohole show {folder} {first.hit.latent}")
    console.print(Text(hint, "dim"), soft_wrap=True)  # on one line, to be copied


def _short(text: str, width: int = _LABEL_WIDTH) -> str:
    from rich.text import Text

    shown = Text(visible(text))
    shown.truncate(width, overflow="ellipsis")  # Chinese characters take two columns
    return shown.plain


def _xray_json(opened: "SearchedRun", rows: "XrayRows", follow: int | None) -> dict[str, Any]:
    place = opened.places[0]
    maxima = place.catalogue.maximum if place.has_catalogue else None

    def feature(latent: int, activation: float) -> dict[str, Any]:
        label, most = place.label(latent), None if maxima is None else float(maxima[latent])
        return {
            "latent": latent,
            "activation": activation,
            "of_maximum": activation / most if most else None,
            "label": None if label is None else label.text,
        }

    tokens = [
        {"token": piece, "features": [feature(*each) for each in zip(latents, values, strict=True)]}
        for piece, latents, values in zip(rows.tokens, rows.latents, rows.activations, strict=True)
    ]
    return {
        "run": str(opened.run),
        "hookpoint": place.reads[0],
        "tokens": tokens,
        "follow": follow,
        "along": None if rows.along is None else list(rows.along),
    }


def _print_xray(opened: "SearchedRun", rows: "XrayRows", follow: int | None, console: "Console") -> None:
    from rich.text import Text

    from mohole.report.terminal import WIDEST, needs_marks, passage, plain_table

    place, width = opened.places[0], min(console.width, WIDEST)
    maxima = place.catalogue.maximum if place.has_catalogue else None
    table = plain_table(f"What fires at {place.reads[0]}, strongest first")
    table.add_column("token", no_wrap=True, style="bold")
    if rows.along is not None:
        table.add_column(str(follow), justify="right", no_wrap=True)
    table.add_column("latent: label, activation" + (" (share of its maximum)" if maxima is not None else ""), ratio=1)
    for i, piece in enumerate(rows.tokens):
        shown = Text()
        for latent, value in zip(rows.latents[i], rows.activations[i], strict=True):
            label = place.label(latent)
            of_maximum = f" ({value / maxima[latent]:.0%})" if maxima is not None and maxima[latent] > 0 else ""
            if shown:
                shown.append("\n")
            shown.append(f"{latent}", "cyan")
            shown.append(f" {'' if label is None else _short(label.text, max(20, width - _BESIDE_LABEL))} ")
            shown.append(f"{value:.3g}{of_maximum}", "dim")
        if not rows.latents[i]:
            shown.append("nothing", "dim")
        along = [] if rows.along is None else [f"{rows.along[i]:.3g}" if rows.along[i] else ""]
        table.add_row(Text(_piece(piece)), *along, shown)
    console.print(table, width=width)
    if rows.along is None or follow is None:
        return
    largest = float(maxima[follow]) if maxima is not None and maxima[follow] > 0 else max(rows.along)
    label = place.label(follow)
    console.print()
    console.print(Text(f"{place.name}/{follow}  {'' if label is None else visible(label.text)}", "bold"), width=width)
    shares = [value / largest if largest else 0.0 for value in rows.along]
    console.print(passage(rows.tokens, shares, marks=needs_marks(console)), width=width)


def _piece(piece: str) -> str:
    """A token as it is told from its neighbours: a space in front is seen."""
    shown = visible(piece)
    return f"␣{shown[1:]}" if shown.startswith(" ") else shown
