"""The verb chat: a run's model asked, original and steered side by side."""

import signal
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mohole.cli.interventions import OnModel, Said
from mohole.cli.options import tell
from mohole.cli.several import taking_options
from mohole.errors import ConfigError
from mohole.visible import visible_lines

if TYPE_CHECKING:
    from mohole.act import Plan
    from mohole.model import LanguageModel


@taking_options
def chat(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    said: Said,
    on: OnModel,
    variant: Annotated[str | None, typer.Option(metavar="NAME", help="A variant of the run.")] = None,
    prompt: Annotated[
        str | None, typer.Option(help="Ask this and end. Without it, every line of standard input is asked.")
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, max=4096, help="Tokens of an answer, at most.")] = 40,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 always takes the likeliest token.")] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="Both sides draw with the same numbers.")] = 0,
) -> None:
    """Ask a run's model, original and steered side by side. Each question stands alone.

    A model without a chat template is asked as `User: ...` and answers after `Assistant:`.
    """
    from mohole import act

    asked = said.interventions()
    if (variant is None) == (not asked):
        raise ConfigError(f"chat {run}: give interventions such as --clamp 1234=8x, or --variant NAME")
    directions = said.directions()
    is_person = prompt is None and sys.stdin.isatty()
    if is_person:
        tell(f"{run}: loading its model")
    loaded = on.load(run)
    if variant is None:
        sources = act.Sources.of_run(run, directions=directions)
        plan, objections = act.make_plan(loaded, asked, sources), sources.objections(asked)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", act.StrengthWarning)  # said below, as this program says things
            plan = act.plan_variant(run, variant, loaded)
        objections = act.objections(run, act.open_variant(run, variant))
    for objection in objections:
        tell(f"warning: {objection}")
    options = {"max_new_tokens": max_tokens, "temperature": temperature, "seed": seed}
    if is_person:
        tell("a question to a line, each answered by itself; Ctrl-D or Ctrl-C ends")
        signal.signal(
            signal.SIGINT, signal.default_int_handler
        )  # nothing is kept that somebody would have to be told of
    try:
        for question in _questions(prompt, is_person=is_person):
            if question.strip():
                _answer(loaded, plan, question, options)
    except KeyboardInterrupt:
        typer.echo()


def _questions(prompt: str | None, *, is_person: bool) -> Iterator[str]:
    if prompt is not None:
        yield prompt
        return
    while True:
        if is_person:
            typer.echo("you: ", nl=False)
        line = sys.stdin.readline()
        if not line:
            return
        yield line.rstrip("\n")


def _answer(model: "LanguageModel", plan: "Plan", question: str, options: dict[str, Any]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from mohole.act import NOTHING, Steered
    from mohole.model.chat import answer_of, chat_tokens

    asked = chat_tokens(model.tokenizer, [("user", question)])
    stops = [] if model.tokenizer.eos_id is None else [model.tokenizer.eos_id]
    sides = [Steered(model, [each]).generate(asked, stop_tokens=stops, **options) for each in (NOTHING, plan)]
    texts = [answer_of(model.tokenizer, side.tokens[0].tolist(), asked.shape[1]) for side in sides]
    stamp = sides[1].stamps[0]
    console = Console()
    table = Table(box=SIMPLE_HEAD, border_style="dim", width=min(console.width, 120), expand=True)
    for title in ("original", "steered"):
        table.add_column(title, ratio=1, overflow="fold")  # Chinese has no spaces to break at
    table.add_row(*(Text(visible_lines(text.strip())) for text in texts))
    console.print(table)
    moved = f"moved at {stamp.n_moved} of {stamp.n_tokens} tokens"
    console.print(Text(f" steered: hooks fired at {stamp.n_fired} of {stamp.n_tokens} tokens, rows {moved}", "dim"))
