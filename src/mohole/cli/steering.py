"""The verb steer: a recipe's demonstration, a run's named variants, and sweeps of strengths."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mohole.cli.doses import Sweeping, sweep
from mohole.cli.interventions import OnModel, Said
from mohole.cli.options import Overrides, Replace, tell
from mohole.cli.several import taking_options
from mohole.config import read_recipe
from mohole.errors import ConfigError
from mohole.visible import visible

if TYPE_CHECKING:
    from mohole.act import Intervention, UsableRange

Action = Literal["save", "list", "show", "remove", "sweep"]


@taking_options
def steer(
    path: Annotated[Path, typer.Argument(metavar="RECIPE|RUN", help="A recipe to carry out, or a run with variants.")],
    said: Said,
    on: OnModel,
    how: Sweeping,
    action: Annotated[
        Action | None,
        typer.Argument(metavar="[ACTION]", help="Of a run: save, list, show or remove a variant; sweep strengths."),
    ] = None,
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="The variant's name; of sweep, or a latent: resid_post.1/1234."),
    ] = None,
    override: Overrides = [],  # noqa: B006
    replace: Replace = False,
) -> None:
    """Continue a prompt with and without a latent clamped, as a RECIPE says; or keep named variants of a RUN's model.

    `mohole steer RUN save golden-gate --clamp 1234=8x --where response` keeps one; then list, show NAME, remove NAME.
    `mohole steer RUN sweep 1234` tries strengths of a latent, a variant or what the options say: what it does, what it costs,
    and the range that is of use, as a table, and as a page in RUN/doses.
    """
    if path.suffix == ".toml" or not path.is_dir():
        if action is not None and path.suffix != ".toml":
            raise ConfigError(f"{path}: no such folder; variants are of a run: mohole steer RUN save NAME --clamp ...")
        if action is not None or said.is_anything:
            raise ConfigError(f"steer {path}: a recipe says itself what is clamped; variants are of a run's folder")
        _demonstrate(path, override, replace)
        return
    if action != "sweep" and how != Sweeping():
        raise ConfigError(f"steer {path} {action or ''}: an option of sweep is given; mohole steer {path} sweep LATENT")
    if action == "sweep":
        sweep(path, name, said, on, how, replace_it=replace)
        return
    name = _named(path, action, name, has_interventions=said.is_anything)
    from mohole import act

    match action:
        case "show":
            _show(path, name)
        case "remove":
            act.remove_variant(path, name)
            tell(f"{path}: {name} is removed")
        case "save":
            asked, directions = said.interventions(), said.directions()
            kept = act.save_variant(path, name, asked, on.load(path), directions=directions, replace_it=replace)
            tell(f"{path}: {name} is kept; mohole chat {path} --variant {name}")
            for objection in act.objections(path, kept):
                tell(f"warning: {objection}")
        case _:
            _list(path)


def _named(run: Path, action: Action | None, name: str | None, *, has_interventions: bool) -> str:
    """The variant's name, which every action but list needs."""
    if action is None:
        raise ConfigError(f"steer {run}: a run; add save NAME, list, show NAME, remove NAME or sweep LATENT")
    if action != "save" and has_interventions:
        raise ConfigError(f"steer {run} {action}: takes no interventions; save does")
    if action == "list" and name is not None:
        raise ConfigError(f"steer {run} list {name}: list takes no name; show does")
    if action != "list" and name is None:
        raise ConfigError(f"steer {run} {action}: of which variant? add its NAME")
    return name or ""


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
            variant = act.open_variant(run, name)
            lines = "; ".join(_line(each) for each in variant.interventions)
            typer.echo(f"{name}: {lines}{_usable(variant.usable)}")
        except ArtifactError as error:
            typer.echo(f"{name}: not usable, {visible(str(error))}")


def _show(run: Path, name: str) -> None:
    from mohole import act

    variant = act.open_variant(run, name)
    typer.echo(_readable(act.as_json(variant.interventions)))
    for place, digest in variant.needs.items():
        tell(f"{place}: {digest}")
    if variant.usable is not None:
        tell(f"swept{_usable(variant.usable)}. The rule: {variant.usable.rule}")


def _readable(interventions: list[Any]) -> str:
    """As JSON that --json takes; a vector's numbers stand side by side: each on a line of its own, they hide everything else."""
    text = json.dumps(interventions, indent=1, ensure_ascii=False)
    return re.sub(r"\[\n[-+.\deE,\s]+\]", lambda numbers: " ".join(numbers[0].split()), text)


def _usable(found: "UsableRange | None") -> str:
    if found is None:
        return ""
    if found.low is None or found.high is None:
        return "; usable at no strength that was tried"
    return f"; usable from {found.low:g} to {found.high:g} {found.unit}"


def _source(of: dict[str, Any]) -> str:
    what = of.get("name") or (
        f"latent {of['latent']}" if "latent" in of else f"a vector of {len(of['values'])} numbers"
    )
    return f"{what} at {of['hookpoint']}" if of.get("hookpoint") else str(what)


def _line(each: "Intervention") -> str:
    """One intervention in a few words: what, of what, how much, where."""
    from mohole import act

    (raw,) = act.as_json([each])
    of = {key: raw.pop(key) for key in ("of", "a", "b") if key in raw}
    named = [_source(one) for one in of.values()]
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
