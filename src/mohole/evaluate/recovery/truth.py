"""The corpus's truth as rows, and what each label is contrasted with. Knows labels' names only as family/member.

Against all tokens a concept is easy: a random dictionary reaches AUROC 0.96-0.98, because a word is one or two pieces. So a
label is held against its own family (fox against other animals); what has no family, against the same kind of document.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mohole.config import Evaluate
from mohole.corpus import Corpus
from mohole.evaluate.rows.choice import Rows, choose_rows
from mohole.keys import Use, words
from mohole.store import Store

Int64 = NDArray[np.int64]
Bools = NDArray[np.bool_]

LANGUAGE_FAMILY = "word_language"
KIND_FAMILY = "kind"

_MOST = 0.5
_NEARLY_ALL = 0.8
_LEAST_KIND_SHARE = 0.05
_CONTRAST_ROWS = 8_000


@dataclass(frozen=True)
class Contrast:
    """The tokens that decide about a label: its positives, and others that it must be told from."""

    kind: Literal["family", "kind", "all"]
    name: tuple[str, ...]
    """The family, or the kinds of document. Labels with equal contrasts share their ranks."""

    def text(self, label: str) -> str:
        """The negatives, in words."""
        match self.kind:
            case "family":
                return f"tokens with another label of {self.name[0]}/ and not {label}"
            case "kind":
                return f"tokens of {', '.join(self.name)} without {label}"
            case "all":
                return f"all tokens without {label}"


class Marks:
    """Which rows carry which label, on one side of the split."""

    def __init__(self, corpus: Corpus, rows: Rows) -> None:
        self.rows = rows
        self._of: dict[str, Int64] = {}
        for label in corpus.labels:
            tokens = corpus.truth(label)
            place = np.searchsorted(rows.tokens, tokens)
            here = place < len(rows)
            here[here] = rows.tokens[place[here]] == tokens[here]
            self._of[label] = place[here]
        self._families: dict[str, Int64] = {}

    def of(self, label: str) -> Int64:
        """Rows with the label, ascending."""
        return self._of[label]

    def mask(self, label: str) -> Bools:
        """For each row: does it carry the label?"""
        mask = np.zeros(len(self.rows), dtype=np.bool_)
        mask[self._of[label]] = True
        return mask

    def union(self, labels: list[str]) -> Int64:
        """Rows with any of these labels, ascending."""
        mask = np.zeros(len(self.rows), dtype=np.bool_)
        for label in labels:
            mask[self._of[label]] = True
        return np.flatnonzero(mask)

    def contrast_rows(self, contrast: Contrast) -> Int64:
        """All rows of a contrast, positives included."""
        match contrast.kind:
            case "family":
                return self._family(contrast.name[0])
            case "kind":
                return self.union(list(contrast.name))
            case "all":
                return np.arange(len(self.rows))

    def _family(self, name: str) -> Int64:
        """Rows with any label of a family. Kept: every label of the family asks for them."""
        if name not in self._families:
            self._families[name] = self.union([label for label in self._of if family_of(label) == name])
        return self._families[name]


@dataclass(frozen=True)
class Truth:
    """Labels with their families and contrasts. What is contrasted with what is decided on both sides of the split together."""

    labels: list[str]
    selection: Marks
    scoring: Marks
    min_positives: int

    @cached_property
    def families(self) -> dict[str, list[str]]:
        """Each family's labels, those that occur."""
        result: dict[str, list[str]] = {}
        for label in self.labels:
            if len(self.selection.of(label)) + len(self.scoring.of(label)):
                result.setdefault(family_of(label), []).append(label)
        return result

    def contrast(self, label: str) -> Contrast:
        """The family where it offers alternatives, else the kinds of document that the label occurs in, else all tokens."""
        family = family_of(label)
        if family in self._alternatives and self._has_negatives(label, Contrast("family", (family,))):
            return Contrast("family", (family,))
        kinds = self._kinds(label)
        if kinds and self._has_negatives(label, Contrast("kind", kinds)):
            return Contrast("kind", kinds)
        return Contrast("all", ())

    @cached_property
    def word_families(self) -> tuple[str, ...]:
        """Families whose labels are words: nearly all of their tokens also say which language the word is of.

        A family that only ever stands on another's words (a statement's truth, marked at its object) is none.
        """
        languages = self.selection.union(self.families.get(LANGUAGE_FAMILY, []))
        rows = {family: self.selection.union(labels) for family, labels in self.families.items()}
        spoken = {
            family: mine
            for family, mine in rows.items()
            if family != LANGUAGE_FAMILY and len(np.intersect1d(mine, languages)) > _NEARLY_ALL * len(mine)
        }
        return tuple(family for family, mine in spoken.items() if not self._is_borrowed(family, mine, spoken))

    def _is_borrowed(self, family: str, mine: Int64, spoken: dict[str, Int64]) -> bool:
        others = np.concatenate(
            [np.zeros(0, dtype=np.int64), *(rows for name, rows in spoken.items() if name != family)]
        )
        return len(np.intersect1d(mine, others)) > _NEARLY_ALL * len(mine)

    @cached_property
    def _alternatives(self) -> set[str]:
        """Families of two or more labels that exclude each other. Nested ones (`trigger_seen` holds `leak`) do not."""
        return {
            family
            for family, labels in self.families.items()
            if len(labels) > 1 and not any(self._is_nested(label, labels) for label in labels)
        }

    def _is_nested(self, label: str, family: list[str]) -> bool:
        mine = self.scoring.of(label)
        others = self.scoring.union([other for other in family if other != label])
        return len(mine) > 0 and len(np.intersect1d(mine, others)) > _MOST * len(mine)

    def _kinds(self, label: str) -> tuple[str, ...]:
        if family_of(label) == KIND_FAMILY:
            return ()
        mine = self.scoring.of(label)
        shares = {kind: len(np.intersect1d(mine, self.scoring.of(kind))) for kind in self.families.get(KIND_FAMILY, [])}
        return tuple(kind for kind, n in shares.items() if n > 0 and n >= _LEAST_KIND_SHARE * len(mine))

    def _has_negatives(self, label: str, contrast: Contrast) -> bool:
        return all(
            len(np.setdiff1d(side.contrast_rows(contrast), side.of(label))) >= self.min_positives
            for side in (self.selection, self.scoring)
        )


def read_truth(corpus: Corpus, store: Store, rows: Rows, settings: Evaluate, *, seed: int) -> Truth:
    """The corpus's truth at rows of training documents, to choose on, and at these held-out ones, to score on.

    Raises:
        StageError: no rows of training documents.
    """
    chosen = choose_rows(corpus, store, held_out=False, max_rows=settings.selection_rows, seed=seed)
    return Truth(list(corpus.labels), Marks(corpus, chosen), Marks(corpus, rows), settings.min_positives)


def thinned(rows: Int64, tokens: Int64, seed: int) -> Int64:
    """A contrast to choose on: all of its rows, or a uniform keyed sample of the largest ones, so that ranks stay cheap."""
    if len(rows) <= _CONTRAST_ROWS:
        return rows
    order = np.argsort(words(seed, Use.CONTRAST_ROWS, tokens[rows]), kind="stable")
    return np.sort(rows[order[:_CONTRAST_ROWS]])


def family_of(label: str) -> str:
    """`animal` of `animal/fox`; `predicted` of `predicted/animal/fox`."""
    return label.partition("/")[0]
