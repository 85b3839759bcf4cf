"""A bug that a library shipped, or one as easily made, alive in a copy of our definition: the checks prove that they see it."""

from dataclasses import dataclass, replace
from typing import Any

from mohole.metrics.definitions import OURS, Definitions


@dataclass(frozen=True, slots=True)
class Mutant:
    """Definitions with one of them wrong."""

    name: str
    bug: str
    """What is wrong, in a sentence."""
    seen_in: str
    """A repository and thread, or how such a bug comes about."""
    definitions: Definitions


def mutant(definition: str, wrong: Any) -> Mutant:
    """The definition of this name replaced by a wrong one, whose docstring is the bug in a sentence and `Seen in: ...`."""
    bug, _, seen_in = (line.strip() for line in wrong.__doc__.strip().splitlines())
    return Mutant(
        wrong.__name__.strip("_"),
        bug,
        seen_in.removeprefix("Seen in: ").rstrip("."),
        replace(OURS, **{definition: wrong}),
    )
