"""Interventions as plain JSON values: one strict parser for what a person, a file or a request says, and the way back."""

import difflib
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Annotated, Any, get_args

from pydantic import Field, TypeAdapter, ValidationError

from mohole.act.interventions import Intervention, Source, When
from mohole.act.where import Where
from mohole.errors import ConfigError
from mohole.visible import visible

_INTERVENTIONS: tuple[Any, ...] = get_args(Intervention)
_SOURCES: tuple[Any, ...] = get_args(get_args(Source)[0])

_LIST = TypeAdapter[list[Intervention]](list[Annotated[Intervention, Field(discriminator="kind")]])
_KINDS = {kind.__dataclass_fields__["kind"].default: kind for kind in (*_INTERVENTIONS, *_SOURCES)}


def parse_interventions(values: Any) -> tuple[Intervention, ...]:
    """Plain JSON values, a list of tables each with its `kind`, as interventions.

    Raises:
        ConfigError: no list, an unknown key or kind, a value that cannot be meant; names each, at most three.
    """
    try:
        return tuple(_LIST.validate_python(values))
    except ValidationError as error:
        errors = error.errors(include_url=False)
        said = dict.fromkeys(_said(each) for each in errors[:3])
        more = f" (and {len(errors) - 3} more)" if len(errors) > 3 else ""
        raise ConfigError("; ".join(said) + more) from None
    except RecursionError:
        raise ConfigError("interventions: nested too deeply to be meant") from None


def as_json(interventions: Sequence[Intervention]) -> list[dict[str, Any]]:
    """What `parse_interventions` reads: what is at its default is left out, but for the kind."""
    return [_plain(each) for each in interventions]


def _plain(value: Any) -> Any:
    if not is_dataclass(value) or isinstance(value, type):
        return list(value) if isinstance(value, tuple) else value
    said = {each.name: getattr(value, each.name) for each in fields(value)}
    kept = [each.name for each in fields(value) if each.name == "kind" or said[each.name] != each.default]
    ordered = sorted(kept, key=lambda name: name != "kind")  # stable: the kind, then the rest as they are defined
    return {name: _plain(said[name]) for name in ordered}


def _said(error: Any) -> str:
    """One fault: where in what was given, the value, what would do."""
    loc = error["loc"]
    place = [part for i, part in enumerate(loc) if not _is_tag(loc, i)]
    key, value = ".".join(str(part) for part in ("interventions", *place)), error["input"]
    context = error.get("ctx", {})
    match error["type"]:
        case "unexpected_keyword_argument":
            names = _names_at(error["loc"][:-1])
            near = difflib.get_close_matches(str(place[-1]), names, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"
            return f"{visible(key)[:120]}: no such key; {hint}"
        case "missing" | "missing_argument":
            return f"{key}: needed, and not given"
        case "union_tag_not_found":
            return f"{key}: has no kind; one of {_tags(error['loc'])}"
        case "union_tag_invalid":
            given = str(context["tag"])
            near = difflib.get_close_matches(
                given, [tag.strip("' ") for tag in context["expected_tags"].split(",")], n=1
            )
            hint = f"did you mean {near[0]!r}?" if near else f"one of {context['expected_tags']}"
            return f"{key}.kind: {visible(repr(given))[:80]} is no kind; {hint}"
        case "value_error":
            return f"{key}: {context['error']}"
        case _:
            message = error["msg"][0].lower() + error["msg"][1:]
            return f"{key}: {visible(repr(value))[:80]}: {message}"


def _is_tag(loc: Sequence[int | str], index: int) -> bool:
    """A union's tag stands in the path behind a place in a list or the name of a source; who wrote the JSON wrote none there."""
    before = loc[index - 1] if index else ""
    return loc[index] in _KINDS and (isinstance(before, int) or before in ("of", "a", "b"))


def _tags(loc: Sequence[int | str]) -> str:
    is_source = bool(loc) and loc[-1] in ("of", "a", "b")
    kinds = _SOURCES if is_source else _INTERVENTIONS
    return ", ".join(kind.__dataclass_fields__["kind"].default for kind in kinds)


def _names_at(loc: Sequence[int | str]) -> list[str]:
    last = next((part for part in reversed(loc) if isinstance(part, str)), "")
    kind = {"where": Where, "when": When}.get(last) or _KINDS.get(last)
    return [] if kind is None else [each.name for each in fields(kind)]
