"""The options that say what is done to a model, and on which, with what they mean. Of the verbs steer and chat."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mohole.cli.options import Download
from mohole.errors import ConfigError
from mohole.visible import visible

if TYPE_CHECKING:
    from mohole.act import Direction, Intervention
    from mohole.model import LanguageModel


@dataclass(frozen=True)
class Said:
    """Interventions, as options say them."""

    clamp: Annotated[
        list[str],
        typer.Option(
            "--clamp",
            metavar="LATENT=STRENGTH",
            help="Hold a latent: 1234=8x is 8 times its maximum, 1234=2.5 a value, resid_post.1/1234=8x one of a certain "
            "dictionary; repeatable.",
        ),
    ] = field(default_factory=list)
    scale: Annotated[
        list[str], typer.Option("--scale", metavar="LATENT=FACTOR", help="Multiply a latent's activation; repeatable.")
    ] = field(default_factory=list)
    ablate: Annotated[list[str], typer.Option("--ablate", metavar="LATENT", help="Take a latent away; repeatable.")] = (
        field(default_factory=list)
    )
    add: Annotated[
        list[str],
        typer.Option(
            "--add",
            metavar="NAME=FACTOR",
            help="Add a direction of --direction, so many times; NAME@HOOKPOINT for one of several.",
        ),
    ] = field(default_factory=list)
    direction: Annotated[
        list[Path],
        typer.Option(
            "--direction",
            metavar="FILE",
            help="Directions to add: .safetensors, .gguf or .pt; by the name in it, else the file's.",
        ),
    ] = field(default_factory=list)
    from_json: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Interventions of any kind, as docs/steering.md lists them."),
    ] = None
    where: Annotated[
        Literal["all", "prompt", "response"],
        typer.Option("--where", help="At which tokens; for all but those of --json."),
    ] = "all"
    hookpoint: Annotated[
        str | None, typer.Option(help="The dictionary of latents that do not say, such as resid_post.1.")
    ] = None

    @property
    def is_anything(self) -> bool:
        """Is an intervention among them, or a file of directions for one?"""
        return any((*self.clamp, *self.scale, *self.ablate, *self.add, *self.direction, self.from_json))

    def interventions(self) -> "list[Intervention]":
        """Clamps, scales, ablations, additions, then what the file lists.

        Raises:
            ConfigError: an option that cannot be meant.
        """
        from mohole.act import Ablate, Add, Clamp, Named, Scale, Where

        where = Where(self.where)
        found: list[Intervention] = []
        for text in self.clamp:
            at, latent, strength = numbered("--clamp", text, self.hookpoint)
            is_times = strength.endswith("x")
            value = _number("--clamp", text, strength.removesuffix("x"))
            times, raw = (value, None) if is_times else (None, value)
            found.append(Clamp(latent, times, raw, at, where))
        for text in self.scale:
            at, latent, factor = numbered("--scale", text, self.hookpoint)
            found.append(Scale(latent, _number("--scale", text, factor.removesuffix("x")), at, where))
        for text in self.ablate:
            at, latent, _ = numbered("--ablate", f"{text}=0", self.hookpoint)
            found.append(Ablate(latent, at, where))
        for text in self.add:
            name, equals, factor = text.rpartition("=")
            if not equals or not name:
                raise ConfigError(
                    f"--add {text}: NAME=FACTOR is needed, such as --add calm=2, with --direction calm.gguf"
                )
            own, _, at_place = name.partition("@")
            found.append(Add(Named(own, at_place or None), value=_number("--add", text, factor), where=where))
        return [*found, *(_listed(self.from_json) if self.from_json else ())]

    def directions(self) -> "tuple[Direction, ...]":
        """Of the files of directions."""
        from mohole.act import read_directions

        return tuple(each for file in self.direction for each in read_directions(file))


@dataclass(frozen=True)
class OnModel:
    """The model that a run is of, as options say where it is."""

    model: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="The run's language model, where it is not found by itself.")
    ] = None
    device: Annotated[str, typer.Option(help="Where the language model runs, such as cuda.")] = "cpu"
    allow_download: Download = False

    def load(self, run: Path) -> "LanguageModel":
        """Errors as `SearchedRun.load_model`."""
        from mohole.search.run import SearchedRun

        return SearchedRun.open(run).load_model(self.model, device=self.device, allow_download=self.allow_download)


def numbered(option: str, text: str, hookpoint: str | None) -> tuple[str | None, int, str]:
    """(dictionary, latent, strength) of `resid_post.1/1234=8x`, or with a colon."""
    of, equals, strength = text.partition("=")
    place, _, number = of.replace("/", ":").rpartition(":")
    if not equals or not number.isascii() or not number.isdecimal() or len(number) > 12:
        raise ConfigError(
            f"{option} {visible(text)[:80]}: LATENT=STRENGTH is needed, such as 1234=8x or resid_post.1/1234=8x"
        )
    return place or hookpoint, int(number), strength


def _listed(file: Path) -> "Sequence[Intervention]":
    from mohole.act import parse_interventions

    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"--json {file}: no such file") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"--json {file}: not JSON ({error})") from None
    return parse_interventions(raw)


def _number(option: str, text: str, number: str) -> float:
    try:
        return float(number)
    except ValueError:
        raise ConfigError(
            f"{option} {visible(text)[:80]}: {visible(number)[:40]!r} is no strength; 8x, or a number such as 2.5"
        ) from None
