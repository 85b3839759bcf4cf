"""What is wrong with a recipe, in one line: the key, the value, the nearest valid one."""

import difflib
import json
import types
from collections.abc import Sequence
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import ValidationError

from mohole.config.recipe import Recipe
from mohole.config.tables import Table

_MOST_SAID = 3


def one_line(error: ValidationError, tables: dict[str, Any]) -> str:
    """What is wrong with these tables: keys as the user wrote them, at most three faults, each with what would do."""
    errors = error.errors(include_url=False)
    said = dict.fromkeys(_said(each, tables) for each in errors[:_MOST_SAID])
    more = f" (and {len(errors) - _MOST_SAID} more)" if len(errors) > _MOST_SAID else ""
    return "; ".join(said) + more


def _said(error: Any, tables: dict[str, Any]) -> str:
    # A tagged union puts the tag into the path ("corpus", "text", "path"); the user never wrote it there.
    place = tuple(part for i, part in enumerate(error["loc"]) if not _is_tag(error["loc"], i, tables))
    return _explain(".".join(str(part) for part in place), place, error)


def _is_tag(loc: tuple[int | str, ...], index: int, tables: dict[str, Any]) -> bool:
    value: Any = tables
    for part in loc[:index]:
        if isinstance(value, dict) and part in value:
            value = value[part]
    if not isinstance(value, dict) or loc[index] in value:
        return False
    # Some unions have a default kind, which need not be written; the last part of a path is always a key.
    return value.get("kind", loc[index] if index < len(loc) - 1 else None) == loc[index]


def _explain(key: str, place: tuple[int | str, ...], error: Any) -> str:
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    match kind:
        case "extra_forbidden":
            table, names = _fields_of(error["loc"][:-1])
            near = difflib.get_close_matches(str(place[-1]), names, n=1, cutoff=0.5)
            prefix = "".join(f"{part}." for part in place[:-1])
            hint = f"did you mean {prefix}{near[0]}?" if near else f"it has {', '.join(names)}"
            return f"{key}: no such key in {table}; {hint}"
        case "missing":
            return f"{key}: needed, and not given"
        case "greater_than_equal":
            return f"{key}: {value!r} is too small; the smallest is {context['ge']}"
        case "less_than_equal":
            return f"{key}: {value!r} is too large; the largest is {context['le']}"
        case "greater_than":
            return f"{key}: {value!r} is too small; it must be more than {context['gt']}"
        case "less_than":
            return f"{key}: {value!r} is too large; it must be less than {context['lt']}"
        case "literal_error" | "union_tag_invalid":
            allowed = context.get("expected") or context.get("expected_tags", "")
            given = context.get("tag", value)
            names = [name.strip("' ") for name in allowed.replace(" or ", ", ").split(",")]
            near = difflib.get_close_matches(str(given), names, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]!r}?" if near else f"one of {allowed}"
            return f"{key}: {given!r} is not one of the choices; {hint}"
        case "tuple_type" | "model_type" | "model_attributes_type":
            return f"{key}: {value!r}: {_wanted(kind, place, value)}"
        case "value_error":
            text = str(context["error"])
            return f"{key}.{text}" if key else text
        case _:
            return f"{key}: {value!r}: {error['msg'][0].lower()}{error['msg'][1:]}"


def _wanted(kind: str, place: Sequence[int | str], value: Any) -> str:
    """A list or a table, where something else is given, as one would write it."""
    if kind == "tuple_type":
        example = f"; did you mean {json.dumps([value])}?" if isinstance(value, str | int | float) else ""
        return f"a list is needed{example}"
    names = [str(table.model_fields["kind"].default) for table in tables_at(place) if "kind" in table.model_fields]
    if near := difflib.get_close_matches(str(value), names, n=1, cutoff=0.4):
        return f"a table is needed; did you mean {{ kind = {json.dumps(near[0])} }}?"
    return "a table is needed" + (f" with a kind, one of {', '.join(names)}" if names else "")


def _fields_of(place: Sequence[int | str]) -> tuple[str, list[str]]:
    """Name and keys of the table at `place`; of all its kinds where the place does not say which."""
    tables = tables_at(place)
    names = sorted({name for table in tables for name in table.model_fields})
    return " or ".join(table.__name__ for table in tables), names


def tables_at(place: Sequence[int | str]) -> list[type[Table]]:
    """The table at `place`, in which the tag of a union's kind may be a part; all its kinds where none is."""
    tables: list[type[Table]] = [Recipe]
    for part in place:
        tagged = [
            table for table in tables if "kind" in table.model_fields and table.model_fields["kind"].default == part
        ]
        if tagged and len(tables) > 1:
            tables = tagged
            continue
        annotations = [table.model_fields[str(part)].annotation for table in tables if str(part) in table.model_fields]
        tables = [table for annotation in annotations for table in _tables_in(annotation)]
    return tables


def _tables_in(annotation: Any) -> list[type[Table]]:
    if isinstance(annotation, type) and issubclass(annotation, Table):
        return [annotation]
    if get_origin(annotation) in (Union, types.UnionType, Annotated):
        return [table for argument in get_args(annotation) for table in _tables_in(argument)]
    return []
