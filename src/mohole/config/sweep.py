"""Which dictionaries a sweep learns: a grid of four settings, and tables of one's own. Values only: nothing is trained here."""

import re
from collections.abc import Iterator, Mapping
from itertools import product
from typing import Annotated, Any

from pydantic import Field, model_validator

from mohole.config.tables import Count, NotNegative, Table
from mohole.config.train import Train
from mohole.errors import ConfigError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
_TAKEN = {"draft-of"}
"""The mark of an artifact that is not finished yet, which lies beside the members' folders."""
_SHARED = ("learns", "batch_rows", "steps", "live_rows", "evaluate_tokens")


class Sweep(Table):
    """Many dictionaries from one pass over the rows: every combination of these lists. An empty list: the value of [train]."""

    n_latents: tuple[Annotated[int, Field(strict=True, ge=1, le=2**31)], ...] = ()
    """Latents of the dictionaries."""
    k: tuple[Count, ...] = ()
    """Active latents per row, of topk and batchtopk."""
    lr: tuple[Annotated[float, Field(strict=True, gt=0.0, le=1e30)], ...] = ()
    """Adam's learning rates."""
    sparsity_weight: tuple[NotNegative, ...] = ()
    """Weights of the penalty, of relu, jumprelu and gated."""

    @model_validator(mode="after")
    def _distinct(self) -> "Sweep":
        lists: dict[str, tuple[float, ...]] = {
            "n_latents": self.n_latents, "k": self.k, "lr": self.lr, "sparsity_weight": self.sparsity_weight,
        }  # fmt: skip
        for name, values in lists.items():
            if twice := [value for value in values if values.count(value) > 1]:
                raise ValueError(f"{name}: {twice[0]} is listed twice")
        return self


def member_tables(train: Train, sweep: Sweep) -> dict[str, dict[str, Any]]:
    """The whole [train] table of every member, by name: those of the grid, then those of [[train.dictionary]]. Not yet checked.

    A member of the grid is named by what is listed, such as `n4096-k32-lr0.005`. In a table of one's own, a key that is itself a
    table (`nonlinearity`) is taken over key by key where the kind stays, and replaced where it changes.

    Raises:
        ValueError: no members, a name that is none or is there twice, a list that the nonlinearity has no use for.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, table in (*_of_grid(train, sweep), *_of_their_own(train)):
        if name in found:
            raise ValueError(f"train.dictionary: {name!r} is there twice; give each member a name of its own")
        found[name] = table
    return found


def check_members(members: Mapping[str, Train]) -> None:
    """Members read the same batches of the same rows.

    Raises:
        ConfigError: there are none, or one would need other batches; says which and why.
    """
    if not members:
        raise ConfigError(
            "sweep: no members; list sweep.n_latents, k, lr or sparsity_weight, or write [[train.dictionary]]"
        )
    first, expected = next(iter(members.items()))
    for name, settings in members.items():
        for key in _SHARED:
            own, others = getattr(settings, key), getattr(expected, key)
            if own != others:
                raise ConfigError(
                    f"sweep: {name} has train.{key} {own!r}, and {first} {others!r}; members read the same batches and are "
                    "measured on the same text, so give them the same, or sweep twice"
                )


def _of_grid(train: Train, sweep: Sweep) -> Iterator[tuple[str, dict[str, Any]]]:
    lists = {"n": sweep.n_latents, "k": sweep.k, "lr": sweep.lr, "w": sweep.sparsity_weight}
    listed = {key: values for key, values in lists.items() if values}
    if not listed:
        return
    for values in product(*listed.values()):
        picked = dict(zip(listed, values, strict=True))
        yield "-".join(f"{key}{value}" for key, value in picked.items()), _with(train, picked)


def _with(train: Train, picked: Mapping[str, Any]) -> dict[str, Any]:
    table = train.model_dump()
    for key, value in picked.items():
        match key:
            case "n":
                table["n_latents"] = value
            case "lr":
                table["lr"] = value
            case "k" if "k" in table["nonlinearity"]:
                table["nonlinearity"]["k"] = value
            case "w" if (penalty := train.penalty()) is not None:
                table["sparsity"] = penalty.model_dump() | {"weight": value}
            case _:
                listed, other = ("k", "sparsity_weight") if key == "k" else ("sparsity_weight", "k")
                raise ValueError(
                    f"sweep.{listed}: {train.nonlinearity.kind} has no {listed}; list sweep.{other} instead"
                )
    return table


def _of_their_own(train: Train) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, given in enumerate(train.dictionary or ()):
        name = given.get("name")
        if not isinstance(name, str) or not _NAME.fullmatch(name) or name in _TAKEN:
            raise ValueError(
                f"train.dictionary.{number}.name: {name!r} is no name for a member; use up to 100 letters, digits, - and _"
            )
        if "dictionary" in given:
            raise ValueError(
                f"train.dictionary.{number}.dictionary: a member has no members; write [[train.dictionary]]"
            )
        changes = {key: value for key, value in given.items() if key != "name"}
        yield name, _merged(train.model_dump(), changes)


def _merged(table: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(table)
    for key, value in changes.items():
        before = table.get(key)
        keeps = (
            isinstance(value, dict)
            and isinstance(before, dict)
            and value.get("kind", before.get("kind")) == before.get("kind")
        )
        merged[key] = before | value if keeps else value
    return merged
