"""The action `steer RUN sweep`: strengths tried, effect against cost, and the range that is of use."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mohole.cli.interventions import OnModel, Said, numbered
from mohole.cli.options import tell
from mohole.errors import ConfigError

if TYPE_CHECKING:
    from mohole.job.doses import Subject

_PANEL = "Options of sweep"


@dataclass(frozen=True)
class Sweeping:
    """How strengths are swept, as options say it."""

    strengths: Annotated[
        str | None,
        typer.Option(
            metavar="X,X,...", rich_help_panel=_PANEL, help="Multiples to try, such as 0.5,1,2; 0.25 to 8 without it."
        ),
    ] = None
    prompt: Annotated[
        list[str],
        typer.Option(rich_help_panel=_PANEL, help="Continue this; repeatable. Without it, the run's own prompts."),
    ] = field(default_factory=list)
    word: Annotated[
        list[str],
        typer.Option(
            rich_help_panel=_PANEL,
            help="A word of the concept, whose share of the text is then the effect; repeatable. Without it, the share of "
            "tokens at which the latent is active when the unsteered model reads the text.",
        ),
    ] = field(default_factory=list)
    samples: Annotated[int, typer.Option(min=1, rich_help_panel=_PANEL, help="Texts for each prompt and strength.")] = 2
    max_tokens: Annotated[int, typer.Option(min=1, max=4096, rich_help_panel=_PANEL, help="Tokens of a text.")] = 24
    temperature: Annotated[float, typer.Option(min=0.0, rich_help_panel=_PANEL, help="0: the likeliest token.")] = 1.0
    seed: Annotated[int, typer.Option(min=0, rich_help_panel=_PANEL, help="Every strength draws with it.")] = 0
    max_perplexity: Annotated[
        float, typer.Option(rich_help_panel=_PANEL, help="Bound: times the unsteered text's perplexity.")
    ] = 3.0
    max_repeated: Annotated[
        float, typer.Option(rich_help_panel=_PANEL, help="Bound: more repeated 3-grams, share of all.")
    ] = 0.2
    max_kl: Annotated[
        float, typer.Option(rich_help_panel=_PANEL, help="Bound: nats per token that predictions on other text move.")
    ] = 0.5
    max_lost: Annotated[
        float,
        typer.Option(rich_help_panel=_PANEL, help="Bound: right answers to other tasks that are lost, share of all."),
    ] = 0.25


def sweep(run: Path, of: str | None, said: Said, on: OnModel, how: Sweeping, *, replace_it: bool) -> None:
    """Sweep a latent, a variant, or what the options say, and print what came of it."""
    from rich.console import Console

    from mohole.act import Bounds
    from mohole.job.doses import PAGE_FILE, Asked, sweep_strengths
    from mohole.report.dose import dose_text
    from mohole.report.terminal import WIDEST

    bounds = Bounds(how.max_perplexity, how.max_repeated, how.max_kl, how.max_lost)
    more = {} if how.strengths is None else {"strengths": _strengths(how.strengths)}
    asked = Asked(
        prompts=tuple(how.prompt),
        words=tuple(how.word),
        n_samples=how.samples,
        max_new_tokens=how.max_tokens,
        temperature=how.temperature,
        seed=how.seed,
        bounds=bounds,
        **more,
    )
    subject = _subject(run, of, said)
    out, dose, made = sweep_strengths(run, subject, on.load(run), asked, replace_it=replace_it)
    console = Console()
    console.print(dose_text(dose), width=min(console.width, WIDEST))
    tell(f"{out / PAGE_FILE}: {'the picture of it' if made else 'there already, made from the same settings'}")
    if subject.variant is not None:
        tell(f"{run}: the range is kept with the variant {subject.variant}")


def _subject(run: Path, of: str | None, said: Said) -> "Subject":
    from mohole.act import Clamp, Where
    from mohole.job.doses import asked_subject, latent_subject, variant_subject

    if of is None:
        return asked_subject(run, said.interventions(), said.directions())
    if said.is_anything:
        raise ConfigError(f"steer {run} sweep {of}: sweeps {of} alone; leave it out to sweep what the options say")
    if of.replace("/", ":").rpartition(":")[2].isdecimal():
        at, latent, _ = numbered("sweep", f"{of}=1x", said.hookpoint)
        return latent_subject(run, Clamp(latent, 1.0, hookpoint=at, where=Where(said.where)))
    if said.where != "all" or said.hookpoint is not None:
        raise ConfigError(
            f"steer {run} sweep {of}: a variant says itself where it acts; leave --where and --hookpoint out"
        )
    return variant_subject(run, of)


def _strengths(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"--strengths {text[:80]}: numbers with commas between them, such as 0.5,1,2") from None
