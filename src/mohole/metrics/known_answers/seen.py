"""All checks asked of our definitions, and whether they would see each historical bug."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from mohole.metrics.definitions import OURS, Definitions
from mohole.metrics.known_answers.answer import Asked, Check, ask
from mohole.metrics.mutants.mutant import Mutant


@dataclass(frozen=True, slots=True)
class Caught:
    """A mutant, and the first check that saw it."""

    mutant: Mutant
    check: str
    """The name of that check; empty where the mutant survived all of them."""
    wrong: str
    """What that check saw, in a sentence."""


class _Watched(Definitions):
    """Our definitions, and the names of those that were asked for."""

    read: set[str]

    def __init__(self) -> None:
        super().__init__()
        object.__setattr__(self, "read", set())

    def __getattribute__(self, name: str) -> Any:
        if name in Definitions.__dataclass_fields__:
            self.read.add(name)
        return super().__getattribute__(name)


def asked(checks: Iterable[Check]) -> Iterator[Asked]:
    """Every check asked of our own definitions."""
    return (ask(check, OURS) for check in checks)


def caught(mutants: Iterable[Mutant], checks: Sequence[Check]) -> Iterator[Caught]:
    """Each mutant held against the checks until one sees it. A check that never reads what is wrong in it is not asked."""
    reads = {check: _read_by(check) for check in checks}
    for mutant in mutants:
        wrong = changed(mutant.definitions)
        able = [check for check in checks if reads[check] & wrong]
        with np.errstate(all="ignore"):  # a mutant may divide by nothing; ours may not
            seen = next((each for each in (ask(check, mutant.definitions) for check in able) if each.wrong), None)
        yield Caught(mutant, seen.name, seen.wrong[0]) if seen else Caught(mutant, "", "")


def changed(definitions: Definitions) -> set[str]:
    """The names of definitions that are not ours."""
    names = (field.name for field in fields(Definitions))
    return {name for name in names if getattr(definitions, name) is not getattr(OURS, name)}


def _read_by(check: Check) -> set[str]:
    watched = _Watched()
    ask(check, watched)
    return watched.read
