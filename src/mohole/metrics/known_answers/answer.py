"""A known answer: what a definition said, and what is true. And how a check is asked."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mohole.errors import MoholeError
from mohole.metrics.definitions import Definitions


@dataclass(frozen=True, slots=True)
class Answer:
    """One number that is known in advance. Undefined is NaN, in `found` as in `true`."""

    what: str
    """Of what it is the number, in words."""
    found: float
    true: float
    within: float = 1e-9
    """How far `found` may be from `true`: rounding, or the spread of a sample of known size."""

    @property
    def is_right(self) -> bool:
        if math.isnan(self.true) or math.isnan(self.found):
            return math.isnan(self.true) and math.isnan(self.found)
        return bool(self.found == self.true or abs(self.found - self.true) <= self.within)

    def __str__(self) -> str:
        return f"{self.what}: {_number(self.found)}, and {_number(self.true)} is true"


Check = Callable[[Definitions], Iterator[Answer]]
"""Asks definitions for numbers that are known. Its name is the check's; its docstring says in a sentence what must be true."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What came of a check."""

    name: str
    claim: str
    answers: tuple[Answer, ...]
    stopped: str
    """The error that ended it before its last answer; empty where none did."""

    @property
    def wrong(self) -> tuple[str, ...]:
        """What was not as it must be, a sentence each. Empty is good."""
        said = tuple(str(answer) for answer in self.answers if not answer.is_right)
        return (*said, f"stopped: {self.stopped}") if self.stopped else said


def ask(check: Check, definitions: Definitions) -> Asked:
    """Run one check to its end. A definition that refuses its input or divides by nothing stops it, and that is wrong too."""
    answers: list[Answer] = []
    stopped = ""
    try:
        answers.extend(check(definitions))
    except (ArithmeticError, LookupError, RuntimeError, ValueError, MoholeError) as error:  # torch raises RuntimeError
        stopped = f"{type(error).__name__}: {error}"
    return Asked(check.__name__, (check.__doc__ or "").strip().splitlines()[0], tuple(answers), stopped)


def refuses(what: str, measure: Callable[[], object]) -> Answer:
    """An answer that is right when `measure` refuses its input by an error of ours instead of giving a number."""
    try:
        measure()
    except (ValueError, MoholeError):
        return Answer(f"{what} is refused", 1.0, 1.0)
    return Answer(f"{what} is refused", 0.0, 1.0)


def _number(value: float) -> str:
    return "undefined" if math.isnan(value) else f"{value:.6g}"
