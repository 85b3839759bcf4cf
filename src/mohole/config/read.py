"""Recipes from TOML files and plain tables, with overrides."""

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mohole.config.explain import one_line, tables_at
from mohole.config.recipe import Recipe
from mohole.config.sweep import check_members, member_tables
from mohole.config.train import Train
from mohole.errors import ConfigError


def read_recipe(path: Path | str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a TOML recipe and apply overrides such as `train.nonlinearity.k=32`.

    Raises:
        ConfigError: the file is missing or no TOML, or a key or value cannot be meant.
    """
    path = Path(path)
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such recipe; the ones that come with mohole are in recipes/") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: a folder, not a recipe; name a .toml file, or use `mohole show {path}`") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start}); a recipe is a TOML file") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None
    return from_tables(tables, overrides)


def from_tables(tables: dict[str, Any], overrides: Sequence[str] = ()) -> Recipe:
    """Plain tables with overrides such as `train.nonlinearity.k=32`, checked.

    Raises:
        ConfigError: a key or value cannot be meant.
    """
    for override in overrides:
        _leave_kind(tables, override)
    for override in overrides:
        _apply(tables, override)
    return parse(tables)


def parse(tables: dict[str, Any]) -> Recipe:
    """Check plain tables against the schema."""
    try:
        recipe = Recipe.model_validate(tables)
    except ValidationError as error:
        raise ConfigError(one_line(error, tables)) from None
    if members(recipe):
        check_members(members(recipe))
    return _at_given_places(recipe)


def _at_given_places(recipe: Recipe) -> Recipe:
    """Dictionaries that are given say where rows are needed; nobody should have to say it twice."""
    places = tuple(name for given in recipe.dictionary for name in given.needs())
    other = next((given.learns for given in recipe.dictionary if given.learns is not None), None)
    if other is not None and len(recipe.dictionary) > 1:
        raise ConfigError(
            f"dictionary: a {other.kind} is given, which is the only one of its run; give each a run of its own"
        )
    named = recipe.harvest.hookpoints
    if not places or places == named:
        return recipe
    if "hookpoints" in recipe.harvest.model_fields_set:
        raise ConfigError(
            f"harvest.hookpoints: {', '.join(named)}, and the dictionaries that are given are of {', '.join(places)}; "
            "leave it out"
        )
    harvest = recipe.harvest.model_copy(update={"hookpoints": places})
    return recipe.model_copy(update={"harvest": harvest})


def members(recipe: Recipe) -> dict[str, Train]:
    """The dictionaries of a sweep, by name: every combination of the lists in [sweep], then the [[train.dictionary]] tables.

    Raises:
        ConfigError: a setting of a member that cannot be meant; names the member and the key.
    """
    found = {}
    try:
        tables = member_tables(recipe.train, recipe.sweep)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    for name, table in tables.items():
        whole = {"run": recipe.run, "train": table}
        try:
            found[name] = Recipe.model_validate(whole).train
        except ValidationError as error:
            raise ConfigError(f"sweep, {name}: {one_line(error, whole)}") from None
    return found


def _apply(tables: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"-o {override}: expected key=value, such as -o train.steps=300")
    *parents, last = key.strip().split(".")
    for parent in parents:
        tables = tables.setdefault(parent, {})
        if not isinstance(tables, dict):
            raise ConfigError(f"-o {override}: {parent} is a value, not a table")
    tables[last] = _toml_value(text.strip())


def _leave_kind(tables: dict[str, Any], override: str) -> None:
    """`-o corpus.kind=dataset`: what the file says of the kind that is left, and the new one has no key for, goes with it.

    Before anything is overridden: other overrides are meant for the new kind, and a key that is none stays an error.
    """
    key, _, text = override.partition("=")
    *place, last = key.strip().split(".")
    table: Any = tables
    for part in place:
        table = table.get(part) if isinstance(table, dict) else None
    if last != "kind" or not isinstance(table, dict):
        return
    kinds = {each.model_fields["kind"].default: each for each in tables_at(place) if "kind" in each.model_fields}
    before, after = (kinds.get(str(kind)) for kind in (table.get("kind"), _toml_value(text.strip())))
    if before is not None and after is not None:
        for name in before.model_fields.keys() - after.model_fields.keys():
            table.pop(name, None)


def _toml_value(text: str) -> Any:
    """A TOML value; what is not one is a plain string, so that paths and names need no quotes in a shell."""
    try:
        read = tomllib.loads(f"value = {text}")
    except (tomllib.TOMLDecodeError, RecursionError):
        return text
    return read["value"] if len(read) == 1 else text  # a second line is not a second setting
