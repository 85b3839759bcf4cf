"""The verbs about one feature: effect (what taking it away changes at an example) and matches (what other dictionaries have)."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mohole.cli.options import Download
from mohole.cli.search import AsJson, Device, HookpointName, ModelFolder, Run
from mohole.errors import ConfigError
from mohole.visible import visible

if TYPE_CHECKING:
    from mohole.act import AblationEffect, LogitChange
    from mohole.search.run import Place, SearchedRun

Latent = Annotated[int, typer.Argument(metavar="LATENT", min=0, help="The feature's number.")]

_LEAST_NATS = 0.005
_SHOWN_LOGITS = 6


def effect(
    run: Run,
    latent: Latent,
    hookpoint: HookpointName = None,
    example: Annotated[int, typer.Option(min=1, help="Which of its strongest examples, from 1.")] = 1,
    token: Annotated[
        int | None,
        typer.Option(min=0, help="Another place: the token's number in the corpus, as the app's links have it."),
    ] = None,
    model: ModelFolder = None,
    device: Device = "cpu",
    allow_download: Download = False,
    as_json: AsJson = False,
) -> None:
    """Take a feature away around one of its examples: what the predictions there lose, and what would be said instead."""
    from mohole.act import ablation_effect

    opened = _opened(run, hookpoint)
    place = _with(opened.places[0], latent)
    if token is None:
        top = place.catalogue.feature(latent).top
        if example > len(top):
            raise ConfigError(f"--example {example}: latent {latent} at {place.name} has {len(top)}; or name a --token")
        token = top[example - 1].token
    loaded = opened.load_model(model, device=device, allow_download=allow_download)
    found = ablation_effect(loaded, place.dictionary, opened.corpus, latent, token)
    if as_json:
        typer.echo(json.dumps({"run": str(run)} | asdict(found)))
        return
    _print_effect(found)


def matches(
    run: Run,
    latent: Latent,
    others: Annotated[
        list[Path] | None, typer.Argument(metavar="OTHER", help="More runs to look in; the run itself always is.")
    ] = None,
    hookpoint: HookpointName = None,
    limit: Annotated[int, typer.Option(min=1, max=100, help="Latents of each dictionary.")] = 3,
    as_json: AsJson = False,
) -> None:
    """Find a feature in other dictionaries: at the run's other hookpoints, and in other runs."""
    from mohole.catalogue import matches as find
    from mohole.dictionary.files import open_directions
    from mohole.search.run import SearchedRun

    own = _with(_opened(run, hookpoint).places[0], latent)
    directions = open_directions(own.folder / "dictionary")
    places = [place for each in (run, *(others or [])) for place in SearchedRun.open(each).places]
    lines = []
    for place in places:
        if place.folder.resolve() == own.folder.resolve() or not place.has_catalogue:
            continue
        theirs = open_directions(place.folder / "dictionary")
        if theirs.shape[1] != directions.shape[1]:
            continue
        found = find(own.catalogue, directions, latent, place.catalogue, theirs, n=limit)
        lines += [
            {
                "run": str(place.folder.parent),
                "hookpoint": place.name,
                "latent": match.latent,
                "cosine": match.cosine,
                "chance": found.chance,
                "correlation": match.correlation,
                "label": None if (label := place.label(match.latent)) is None else label.text,
            }
            for match in found.matches
        ]
    if as_json:
        typer.echo(json.dumps({"run": str(run), "hookpoint": own.name, "latent": latent, "matches": lines}))
        return
    _print_matches(own, latent, lines)


def _opened(run: Path, hookpoint: str | None) -> "SearchedRun":
    """Of one place.

    Raises:
        ConfigError: several, and none is named.
    """
    from mohole.search.run import SearchedRun

    opened = SearchedRun.open(run, hookpoint)
    if len(opened.places) > 1:
        names = ", ".join(place.name for place in opened.places)
        raise ConfigError(f"{run}: has dictionaries at {names}; say which with --hookpoint")
    return opened


def _with(place: "Place", latent: int) -> "Place":
    n_latents = place.catalogue.n_latents
    if latent >= n_latents:
        raise ConfigError(f"latent {latent}: the dictionary at {place.name} has latents 0 to {n_latents - 1}")
    return place


def _print_effect(found: "AblationEffect") -> None:
    from rich.console import Console
    from rich.text import Text

    from mohole.report.terminal import WIDEST, plain_table

    console = Console()
    width = min(console.width, WIDEST)
    at = found.token - found.start
    changes = [change for change in found.loss_change if change is not None]
    random = [change for change in found.loss_change_random if change is not None]
    said = (
        f"Without latent {found.latent} of {found.hookpoint}, {len(changes)} tokens of document {found.document} cost "
        f"{sum(changes):+.3f} nats; after a random push as far, {sum(random):+.3f}."
    )
    console.print(Text(visible(said)), width=width)
    table = plain_table(f"Tokens whose loss changes by {_LEAST_NATS} nats and more, or where it fires")
    table.add_column("token", style="bold")
    for head in ("activation", "loss, nats", "change"):
        table.add_column(head, justify="right", no_wrap=True)
    for i, (piece, value, loss, change) in enumerate(
        zip(found.tokens, found.activations, found.loss, found.loss_change, strict=True)
    ):
        if value > 0 or abs(change or 0) >= _LEAST_NATS:
            name = Text(visible(piece) + ("  <" if i == at else ""))
            table.add_row(
                name,
                f"{value:.3g}" if value else "",
                "" if loss is None else f"{loss:.3f}",
                "" if change is None else f"{change:+.3f}",
            )
    console.print(table, width=width)
    after = plain_table(f"After “{visible(found.tokens[at])}” it raises and lowers")
    for head in ("next token", "logit", "without, with it"):
        after.add_column(head, justify="left" if head == "next token" else "right", no_wrap=True)
    for change_of in (*found.promoted[:_SHOWN_LOGITS], *found.suppressed[:_SHOWN_LOGITS]):
        after.add_row(*_logit_cells(change_of))
    console.print(after, width=width)


def _logit_cells(change: "LogitChange") -> tuple[str, str, str]:
    from rich.markup import escape

    odds = f"{change.probability_without:.2g}, {change.probability:.2g}"
    return escape(visible(change.token)), f"{change.logit:+.2f}", odds


def _print_matches(own: "Place", latent: int, lines: Sequence[Mapping[str, object]]) -> None:
    from rich.console import Console
    from rich.text import Text

    from mohole.report.terminal import WIDEST, plain_table

    console = Console()
    if not lines:
        console.print(Text(f"no other dictionary of this width; name a run beside {own.folder.parent}"))
        return
    table = plain_table(f"Nearest to latent {latent} of {own.name}, by direction")
    table.add_column("feature", no_wrap=True)
    for head in ("cosine", "chance", "correlation"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("label", ratio=1)
    for line in lines:
        same = Path(str(line["run"])).resolve() == own.folder.parent.resolve()
        name = f"{line['hookpoint']}/{line['latent']}"
        table.add_row(
            Text(visible(name if same else f"{line['run']}/{name}")),
            f"{line['cosine']:.2f}",
            f"{line['chance']:.2f}",
            "–" if line["correlation"] is None else f"{line['correlation']:.2f}",
            Text(visible(str(line["label"] or ""))),
        )
    console.print(table, width=min(console.width, WIDEST))
