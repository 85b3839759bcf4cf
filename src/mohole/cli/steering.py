"""The verbs that act on a run's model: steer (the recipe's demonstration, or a run's named variants) and chat."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mohole.cli.options import Download, Overrides, Replace, tell
from mohole.config import read_recipe
from mohole.errors import ConfigError
from mohole.visible import visible, visible_lines

if TYPE_CHECKING:
    from mohole.act import Direction, Intervention, Plan
    from mohole.model import LanguageModel

Action = Literal["save", "list", "show", "remove"]

Clamps = Annotated[
    list[str],
    typer.Option(
        "--clamp",
        metavar="LATENT=STRENGTH",
        help="Hold a latent: 1234=8x is 8 times its maximum, 1234=2.5 a value, resid_post.1:1234=8x one of a certain "
        "dictionary; repeatable.",
    ),
]
Scales = Annotated[
    list[str], typer.Option("--scale", metavar="LATENT=FACTOR", help="Multiply a latent's activation; repeatable.")
]
Ablations = Annotated[list[str], typer.Option("--ablate", metavar="LATENT", help="Take a latent away; repeatable.")]
Additions = Annotated[
    list[str],
    typer.Option(
        "--add",
        metavar="NAME=FACTOR",
        help="Add a direction of --direction, so many times; NAME@HOOKPOINT for one of several.",
    ),
]
Files = Annotated[
    list[Path],
    typer.Option(
        "--direction",
        metavar="FILE",
        help="Directions to add: .safetensors, .gguf or .pt; by the name in it, else the file's.",
    ),
]
JsonFile = Annotated[
    Path | None,
    typer.Option("--json", metavar="FILE", help="Interventions of any kind, as docs/steering.md lists them."),
]
Part = Annotated[
    Literal["all", "prompt", "response"], typer.Option("--where", help="At which tokens; for all but those of --json.")
]
HookpointName = Annotated[
    str | None, typer.Option(help="The dictionary of latents that do not say, such as resid_post.1.")
]
ModelFolder = Annotated[
    str | None, typer.Option(metavar="FOLDER", help="The run's language model, where it is not found by itself.")
]
Device = Annotated[str, typer.Option(help="Where the language model runs, such as cuda.")]


def steer(
    path: Annotated[Path, typer.Argument(metavar="RECIPE|RUN", help="A recipe to carry out, or a run with variants.")],
    action: Annotated[
        Action | None, typer.Argument(metavar="[ACTION]", help="Of a run's variants: save, list, show or remove.")
    ] = None,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="The variant's name.")] = None,
    clamp: Clamps = [],  # noqa: B006
    scale: Scales = [],  # noqa: B006
    ablate: Ablations = [],  # noqa: B006
    add: Additions = [],  # noqa: B006
    direction: Files = [],  # noqa: B006
    from_json: JsonFile = None,
    where: Part = "all",
    hookpoint: HookpointName = None,
    model: ModelFolder = None,
    device: Device = "cpu",
    allow_download: Download = False,
    override: Overrides = [],  # noqa: B006
    replace: Replace = False,
) -> None:
    """Continue a prompt with and without a latent clamped, as a RECIPE says; or keep named variants of a RUN's model.

    `mohole steer RUN save golden-gate --clamp 1234=8x --where response` keeps one; then list, show NAME, remove NAME.
    """
    said = (*clamp, *scale, *ablate, *add, *direction, from_json)
    if path.suffix == ".toml" or not path.is_dir():
        if action is not None and path.suffix != ".toml":
            raise ConfigError(f"{path}: no such folder; variants are of a run: mohole steer RUN save NAME --clamp ...")
        if action is not None or any(said):
            raise ConfigError(f"steer {path}: a recipe says itself what is clamped; variants are of a run's folder")
        _demonstrate(path, override, replace)
        return
    name = _named(path, action, name, has_interventions=any(said))
    from mohole import act

    match action:
        case "show":
            _show(path, name)
        case "remove":
            act.remove_variant(path, name)
            tell(f"{path}: {name} is removed")
        case "save":
            asked = _asked(clamp, scale, ablate, add, from_json, where, hookpoint)
            directions = _directions(direction)
            loaded = _model(path, model, device, allow_download)
            act.save_variant(path, name, asked, loaded, directions=directions, replace_it=replace)
            tell(f"{path}: {name} is kept; mohole chat {path} --variant {name}")
        case _:
            _list(path)


def _named(run: Path, action: Action | None, name: str | None, *, has_interventions: bool) -> str:
    """The variant's name, which every action but list needs."""
    if action is None:
        raise ConfigError(f"steer {run}: a run; add save NAME, list, show NAME or remove NAME")
    if action != "save" and has_interventions:
        raise ConfigError(f"steer {run} {action}: takes no interventions; save does")
    if action == "list" and name is not None:
        raise ConfigError(f"steer {run} list {name}: list takes no name; show does")
    if action != "list" and name is None:
        raise ConfigError(f"steer {run} {action}: of which variant? add its NAME")
    return name or ""


def chat(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    clamp: Clamps = [],  # noqa: B006
    scale: Scales = [],  # noqa: B006
    ablate: Ablations = [],  # noqa: B006
    add: Additions = [],  # noqa: B006
    direction: Files = [],  # noqa: B006
    from_json: JsonFile = None,
    where: Part = "all",
    hookpoint: HookpointName = None,
    variant: Annotated[str | None, typer.Option(metavar="NAME", help="A variant of the run.")] = None,
    prompt: Annotated[
        str | None, typer.Option(help="Ask this and end. Without it, every line of standard input is asked.")
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, max=4096, help="Tokens of an answer, at most.")] = 40,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 always takes the likeliest token.")] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="Both sides draw with the same numbers.")] = 0,
    model: ModelFolder = None,
    device: Device = "cpu",
    allow_download: Download = False,
) -> None:
    """Ask a run's model, original and steered side by side. Each question stands alone.

    A model without a chat template is asked as `User: ...` and answers after `Assistant:`.
    """
    from mohole import act

    asked = _asked(clamp, scale, ablate, add, from_json, where, hookpoint)
    if (variant is None) == (not asked):
        raise ConfigError(f"chat {run}: give interventions such as --clamp 1234=8x, or --variant NAME")
    directions = _directions(direction)
    loaded = _model(run, model, device, allow_download)
    if variant is None:
        plan = act.make_plan(loaded, asked, act.Sources.of_run(run, directions=directions))
    else:
        plan = act.plan_variant(run, variant, loaded)
    options = {"max_new_tokens": max_tokens, "temperature": temperature, "seed": seed}
    for question in _questions(prompt):
        if question.strip():
            _answer(loaded, plan, question, options)


def _questions(prompt: str | None) -> Any:
    if prompt is not None:
        yield prompt
        return
    is_person = sys.stdin.isatty()
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
        table.add_column(title, ratio=1)
    table.add_row(*(Text(visible_lines(text.strip())) for text in texts))
    console.print(table)
    moved = f"moved at {stamp.n_moved} of {stamp.n_tokens} tokens"
    console.print(Text(f" steered: hooks fired at {stamp.n_fired} of {stamp.n_tokens} tokens, rows {moved}", "dim"))


def _demonstrate(recipe: Path, override: Sequence[str], replace_it: bool) -> None:
    from mohole import job

    settings = read_recipe(recipe, override)
    if not job.run_verb(settings, "steer", replace=replace_it, say=tell):
        typer.echo("steer: there already, made from the same settings; nothing to do")
    from rich.console import Console

    from mohole.report import print_contents

    print_contents(Path(settings.run) / "steering", Console())


def _list(run: Path) -> None:
    from mohole import act
    from mohole.errors import ArtifactError

    names = act.variant_names(run)
    if not names:
        typer.echo(f"{run}: no variant yet; mohole steer {run} save NAME --clamp LATENT=8x keeps one")
    for name in names:
        try:
            lines = "; ".join(_line(each) for each in act.open_variant(run, name).interventions)
            typer.echo(f"{name}: {lines}")
        except ArtifactError as error:
            typer.echo(f"{name}: not usable, {visible(str(error))}")


def _show(run: Path, name: str) -> None:
    from mohole import act

    variant = act.open_variant(run, name)
    typer.echo(json.dumps(act.as_json(variant.interventions), indent=1, ensure_ascii=False))
    for place, digest in variant.needs.items():
        tell(f"{place}: {digest}")


def _line(each: "Intervention") -> str:
    """One intervention in a few words: what, of what, how much, where."""
    from mohole import act

    (raw,) = act.as_json([each])
    of = {key: raw.pop(key) for key in ("of", "a", "b") if key in raw}
    named = [str(one.get("name") or one.get("latent", "a vector")) for one in of.values()]
    named += [f"latent {raw.pop('latent')}"] if "latent" in raw else []
    at = raw.pop("hookpoint", None)
    kind, raw_when = raw.pop("kind"), raw.pop("when", None)
    raw.pop("where", None)
    numbers = " ".join(
        f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}" for key, value in raw.items()
    )
    where = "" if each.where == type(each).__dataclass_fields__["where"].default else f", {each.where}"
    when = "" if raw_when is None else ", conditional"
    return (
        " ".join(part for part in (kind, " and ".join(named), f"at {at}" if at else "", numbers) if part) + where + when
    )


def _model(run: Path, source: str | None, device: str, allow_download: bool) -> "LanguageModel":
    from mohole.search.run import SearchedRun

    return SearchedRun.open(run).load_model(source, device=device, allow_download=allow_download)


def _directions(files: Sequence[Path]) -> "tuple[Direction, ...]":
    from mohole.act import read_directions

    return tuple(each for file in files for each in read_directions(file))


def _asked(
    clamps: Sequence[str],
    scales: Sequence[str],
    ablations: Sequence[str],
    additions: Sequence[str],
    from_json: Path | None,
    part: Literal["all", "prompt", "response"],
    hookpoint: str | None,
) -> "list[Intervention]":
    """What the options ask for: clamps, scales, ablations, additions, then what the file lists."""
    from mohole.act import Ablate, Add, Clamp, Named, Scale, Where

    where = Where(part)
    found: list[Intervention] = []
    for text in clamps:
        at, latent, strength = _numbered("--clamp", text, hookpoint)
        is_times = strength.endswith("x")
        value = _number("--clamp", text, strength.removesuffix("x"))
        times, raw = (value, None) if is_times else (None, value)
        found.append(Clamp(latent, times, raw, at, where))
    for text in scales:
        at, latent, factor = _numbered("--scale", text, hookpoint)
        found.append(Scale(latent, _number("--scale", text, factor.removesuffix("x")), at, where))
    for text in ablations:
        at, latent, _ = _numbered("--ablate", f"{text}=0", hookpoint)
        found.append(Ablate(latent, at, where))
    for text in additions:
        name, equals, factor = text.rpartition("=")
        if not equals or not name:
            raise ConfigError(f"--add {text}: NAME=FACTOR is needed, such as --add calm=2, with --direction calm.gguf")
        own, _, at_place = name.partition("@")
        found.append(Add(Named(own, at_place or None), value=_number("--add", text, factor), where=where))
    return [*found, *(_listed(from_json) if from_json else ())]


def _listed(file: Path) -> "tuple[Intervention, ...]":
    from mohole.act import parse_interventions

    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"--json {file}: no such file") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"--json {file}: not JSON ({error})") from None
    return parse_interventions(raw)


def _numbered(option: str, text: str, hookpoint: str | None) -> tuple[str | None, int, str]:
    """(dictionary, latent, strength) of `resid_post.1:1234=8x`."""
    place, _, rest = text.rpartition(":")
    number, equals, strength = rest.partition("=")
    if not equals or not number.isascii() or not number.isdecimal() or len(number) > 12:
        raise ConfigError(
            f"{option} {visible(text)[:80]}: LATENT=STRENGTH is needed, such as 1234=8x or resid_post.1:1234=8x"
        )
    return place or hookpoint, int(number), strength


def _number(option: str, text: str, number: str) -> float:
    try:
        return float(number)
    except ValueError:
        raise ConfigError(
            f"{option} {visible(text)[:80]}: {visible(number)[:40]!r} is no strength; 8x, or a number such as 2.5"
        ) from None
