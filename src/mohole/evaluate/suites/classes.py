"""Tokens sorted into classes that exclude each other: a family's labels, or the families of words."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mohole.evaluate.recovery.truth import LANGUAGE_FAMILY, Marks, Truth
from mohole.keys import Use, words

Int64 = NDArray[np.int64]

WORD = "word"
"""The group whose classes are the families of words: is this word an animal, a food, a city?"""


@dataclass(frozen=True)
class Classed:
    """Tokens of one side of the split that have exactly one class of a group."""

    tokens: Int64
    """Global indices, ascending."""
    classes: Int64
    documents: Int64

    def __len__(self) -> int:
        return len(self.tokens)

    def among(self, tokens: Int64) -> "Classed":
        """Those that are among these tokens (ascending)."""
        return self.take(np.flatnonzero(np.isin(self.tokens, tokens)))

    def take(self, places: Int64) -> "Classed":
        """Some of them."""
        return Classed(self.tokens[places], self.classes[places], self.documents[places])


@dataclass(frozen=True)
class Group:
    """Classes that exclude each other."""

    name: str
    classes: tuple[str, ...]
    selection: Classed
    scoring: Classed


def groups(truth: Truth) -> list[Group]:
    """Every family of labels that exclude each other, and the families of words as classes of their own."""
    sorted_out = {
        family: {label: [label] for label in labels}
        for family, labels in truth.families.items()
        if any(truth.contrast(label).kind == "family" for label in labels)
    }
    if len(truth.word_families) > 1:
        sorted_out[WORD] = {family: truth.families[family] for family in truth.word_families}
    found = (_group(name, classes, truth) for name, classes in sorted_out.items())
    return [group for group in found if len(group.classes) > 1]


def group_named(found: list[Group], name: str) -> Group | None:
    return next((group for group in found if group.name == name), None)


def attributes(found: list[Group]) -> tuple[Group, Group] | None:
    """Two groups whose classes the same tokens carry: what a word is, and its language. Else the two that meet most often."""
    word, language = group_named(found, WORD), group_named(found, LANGUAGE_FAMILY)
    if word and language:
        return word, language
    pairs = [(a, b) for i, a in enumerate(found) for b in found[i + 1 :]]
    best = max(pairs, key=lambda pair: _n_shared(*pair), default=None)
    return best if best and _n_shared(*best) else None


def both(first: Classed, second: Classed) -> tuple[Classed, Classed]:
    """The tokens that are in both, with their classes of either."""
    return first.among(second.tokens), second.among(first.tokens)


def thinned(items: Classed, most: int, n_classes: int, seed: int) -> Classed:
    """At most `most` tokens, as many of each class: a keyed sample, so the same for any order."""
    keys = words(seed, Use.PROBED_ITEMS, items.tokens)
    order = np.lexsort((keys, items.classes))
    first = np.searchsorted(items.classes[order], np.arange(n_classes))
    place = np.arange(len(order)) - first[items.classes[order]]
    return items.take(np.sort(order[place < max(1, most // n_classes)]))


def _group(name: str, classes: dict[str, list[str]], truth: Truth) -> Group:
    """Classes with too few tokens on either side are left out, before tokens are counted as having one or several."""
    kept = [
        each
        for each, labels in classes.items()
        if min(len(side.union(labels)) for side in (truth.selection, truth.scoring)) >= truth.min_positives
    ]
    members = [classes[each] for each in kept]
    return Group(name, tuple(kept), _classed(members, truth.selection), _classed(members, truth.scoring))


def _classed(members: list[list[str]], marks: Marks) -> Classed:
    n_classes = np.zeros(len(marks.rows), dtype=np.int64)
    of = np.zeros(len(marks.rows), dtype=np.int64)
    for number, labels in enumerate(members):
        rows = marks.union(labels)
        n_classes[rows] += 1
        of[rows] = number
    one = np.flatnonzero(n_classes == 1)
    return Classed(marks.rows.tokens[one], of[one], marks.rows.documents[one])


def _n_shared(first: Group, second: Group) -> int:
    return len(np.intersect1d(first.scoring.tokens, second.scoring.tokens))
