"""A recipe on the built-in model that is harvested in a second or two, in many slices."""

import json
from pathlib import Path
from typing import Any

from mohole.config import Recipe, parse

N_SLICES = 8


def tables(run: Path | str, **changes: Any) -> dict[str, Any]:
    """The recipe as plain tables; a table in `changes` is laid over that of the same name."""
    recipe: dict[str, Any] = {
        "run": str(run),
        "machine": {"processes": 1, "threads": 1, "executor": "inline"},
        "corpus": {"kind": "planted", "n_documents": 60},
        "harvest": {"hookpoints": ["resid_post.0"], "shard_tokens": 700},
        "train": {"n_latents": 32, "steps": 5, "batch_rows": 64, "nonlinearity": {"kind": "topk", "k": 4}},
    }
    for name, value in changes.items():
        recipe[name] = {**recipe.get(name, {}), **value} if isinstance(value, dict) else value
    return recipe


def recipe(run: Path | str, **changes: Any) -> Recipe:
    return parse(tables(run, **changes))


def write_recipe(path: Path, run: Path | str, **changes: Any) -> Path:
    """As a file for the command line. Its values are plain enough for JSON's words to be TOML's."""
    whole = tables(run, **changes)
    plain = {name: value for name, value in whole.items() if not isinstance(value, dict)}
    lines = [f"{name} = {json.dumps(value)}" for name, value in plain.items()]
    for name, table in whole.items():
        if isinstance(table, dict):
            lines += [f"[{name}]", *(f"{key} = {_toml(value)}" for key, value in table.items())]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + " }"
    return json.dumps(value)
