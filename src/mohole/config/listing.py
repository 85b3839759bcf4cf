"""Every setting of a recipe as a list for people: key, default, meaning."""

import json
from collections.abc import Iterator
from typing import Any, get_args, get_origin

from pydantic.fields import FieldInfo

from mohole.config.recipe import Recipe
from mohole.config.tables import Table


def settings() -> dict[str, list[tuple[str, str, str]]]:
    """Every table of a recipe with its keys: (key, default as TOML, meaning). Nested tables as dotted keys."""
    tables: dict[str, list[tuple[str, str, str]]] = {"run, seed": []}
    for name, field in Recipe.model_fields.items():
        kinds = [kind for kind in _members(field.annotation) if issubclass(kind, Table)]
        if not kinds:
            tables["run, seed"].append((name, _as_toml(field), _sentence(field)))
        for kind in kinds:
            tag = kind.model_fields.get("kind")
            title = f"{name}, kind = {_as_toml(tag)}" if tag and len(kinds) > 1 else name
            title = f"[{name}]" if get_origin(field.annotation) is tuple else title  # one of several, as TOML writes it
            tables[title] = list(_keys(kind, ""))
    return tables


def _keys(kind: type[Table], prefix: str) -> Iterator[tuple[str, str, str]]:
    for name, field in kind.model_fields.items():
        inner = [member for member in _members(field.annotation) if issubclass(member, Table)]
        if inner:
            if not field.is_required() and field.default is None:
                yield f"{prefix}{name}", "none", _sentence(field)
            if len(inner) > 1:
                kinds = " | ".join(str(kind.model_fields["kind"].default) for kind in inner)
                default = "none" if field.default is None else json.dumps(field.default.kind)
                yield f"{prefix}{name}.kind", default, f"{kinds}. {_sentence(field)}"
            kinds_of: dict[tuple[str, str, str], list[str]] = {}
            for each in inner:
                for row in _keys(each, f"{prefix}{name}."):
                    kinds_of.setdefault(row, []).append(
                        str(each.model_fields["kind"].default) if len(inner) > 1 else ""
                    )
            for (key, default, meaning), kinds_with in kinds_of.items():
                of = "" if len(kinds_with) == len(inner) else f"{', '.join(kinds_with)}: "
                yield key, default, of + meaning
        elif name != "kind":
            yield f"{prefix}{name}", _as_toml(field), _sentence(field)


def _members(annotation: Any) -> list[type]:
    if isinstance(annotation, type):
        return [annotation]
    return [member for part in get_args(annotation) for member in _members(part)]


def _as_toml(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = list(field.default) if isinstance(field.default, tuple) else field.default
    return "none" if value is None else json.dumps(value)


def _sentence(field: FieldInfo) -> str:
    return " ".join((field.description or "").split())
