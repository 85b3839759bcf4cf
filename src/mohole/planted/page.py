"""A document being written: its text, its truth spans and the surprise of every choice made. Knows no grammar."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence
from itertools import accumulate
from math import log
from random import Random
from typing import Protocol, TypeVar, runtime_checkable

from mohole.corpus import Document, Span
from mohole.planted.world import CHANCE, Concept

FULL = 80  # an item is not begun after about so many tokens: the longest document then fits a context of 128
T = TypeVar("T")
_CLOSE = frozenset(" .,:;?!()。，：？！")
_OPEN = frozenset("\n'")


@runtime_checkable
class Dice(Protocol):
    """Chooses one of several outcomes by weight. A test replaces it by one that goes through all outcomes."""

    def roll(self, cumulative: Sequence[float]) -> int:
        """An index, with probability proportional to the steps of `cumulative` (rising, last value > 0)."""


class KeyedDice:
    """The dice of one document: a function of (seed, document) only. Uses `random()` alone, whose stream is stable."""

    def __init__(self, seed: int, document: int) -> None:
        self._random = Random((seed << 64) | document).random

    def roll(self, cumulative: Sequence[float]) -> int:
        return min(bisect(cumulative, self._random() * cumulative[-1]), len(cumulative) - 1)


_EVEN = [list(accumulate([1.0] * n)) for n in range(200)]


class Page:
    """Words are appended with the right spacing; choices add their surprise; spans record what is true where.

    `withheld` says which combinations may be used: False none of the withheld ones (training), True only those,
    None all of them (the natural world, on which the entropy floor is measured). `bridge` is that of Mix.
    """

    def __init__(self, dice: Dice, withheld: bool | None, bridge: float = 1.0) -> None:
        self.dice = dice
        self.withheld = withheld
        self.bridge = bridge
        self.nats = 0.0
        self.n_words = 0
        self.length = 0
        self.spans: list[Span] = []
        self.answers: list[tuple[str, int, int]] = []
        self.fixation: Concept | None = None
        self.last_being: Concept | None = None
        self._pieces: list[str] = []
        self._last = "\n"

    # choices ---------------------------------------------------------------------------------------------

    def roll(self, cumulative: Sequence[float]) -> int:
        index = self.dice.roll(cumulative)
        step = cumulative[index] - (cumulative[index - 1] if index else 0.0)
        self.nats -= log(step / cumulative[-1])
        return index

    def pick(self, options: Sequence[T]) -> T:
        """One of the options, all equally likely. A single option costs nothing."""
        return options[0] if len(options) == 1 else options[self.roll(_EVEN[len(options)])]

    def chance(self, name: str) -> bool:
        return self.roll((1.0 - CHANCE[name], 1.0)) == 1

    def goes_on(self, name: str) -> bool:
        """Another item? Never on a full page, which is seen in the text and so costs nothing."""
        return self.n_words < FULL and self.chance(name)

    # text ------------------------------------------------------------------------------------------------

    def say(self, text: str) -> tuple[int, int]:
        """Append a word or phrase, after a space where one belongs. Returns where it stands."""
        first = text[0]
        glued = self._last in _OPEN or first in _CLOSE or first == "\n" or (self._last > "\u2fff" and first > "\u2fff")
        if not glued:
            self._pieces.append(" ")
            self.length += 1
        start = self.length
        self._pieces.append(text)
        self.length += len(text)
        self._last = text[-1]
        self.n_words += len(text) if first > "\u2fff" or first.isdigit() else len(text.split()) + text.count(":")
        self.n_words += first == "\n"
        return start, self.length

    def mark(self, start: int, end: int, label: str, *, every: bool = False) -> None:
        self.spans.append(Span(start, end, label, every))

    def say_concept(self, concept: Concept, text: str, language: str | None) -> None:
        """Append a concept's word and mark it. A being that is named becomes the last one mentioned."""
        start, end = self.say(text)
        self.mark(start, end, concept.name)
        if language is not None:
            self.mark(start, end, f"word_language/{language}")

    def foresee(self, concept: Concept) -> None:
        """The next word is bound to be this concept: mark the last character written."""
        self.mark(max(0, self.length - 1), self.length, f"predicted/{concept.name}")

    def answered(self, task: str, start: int) -> None:
        """What was written since `start` is the one right continuation of the text before it."""
        self.answers.append((task, start, self.length))

    def document(self) -> Document:
        return Document("".join(self._pieces), tuple(self.spans))
