"""Words of a vocabulary that a word may have been meant to be: it begins one, stands inside one, or is one misspelt."""

import bisect
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mohole.search.words import WordTable

Int64 = NDArray[np.int64]

EXACT, BEGINS, INSIDE, MISSPELT = "word", "beginning of", "part of", "spelt like"

_MOST = 4096
"""Words that one beginning may stand for: `e` begins a tenth of everything, and means none of it."""
_LEAST_BEGINNING, _LEAST_INSIDE, _LEAST_MISSPELT = 2, 3, 4
_LONG = 8
"""Letters from which on two may be wrong."""
_LOST = 4
"""Trigrams that one wrong letter can take from a word: four, where two changed places."""
_COMPARED = 2000
"""Words compared letter by letter at most, those with most trigrams in common first."""
_LONGEST = 64
"""Letters of a word that are compared."""


class Spelling:
    """The vocabulary of a word table, searched by what a word looks like."""

    def __init__(self, table: WordTable, columns: Mapping[str, NDArray[Any]] | None = None) -> None:
        """Args:
        columns: as `spelling_columns` gives them of the table's vocabulary; None: made when first needed.
        """
        self._table = table
        self._given = columns

    def candidates(self, word: str) -> dict[int, tuple[float, str]]:
        """Numbers of words that `word` may stand for, each with its likeness (1 is the word itself) and how it is like it.

        Other spellings are looked for only where nothing is that word or begins with it.
        """
        found: dict[int, tuple[float, str]] = {}
        for number, length in self._beginning_with(word):
            found[number] = (0.5 + 0.4 * len(word) / length, BEGINS)
        if (own := self._table.vocabulary.number(word)) is not None:
            found[own] = (1.0, EXACT)
        if not found and _LEAST_INSIDE <= len(word) <= _LONGEST:
            found |= {number: (0.3 + 0.3 * len(word) / length, INSIDE) for number, length in self._around(word)}
            found |= {number: (0.8 * likeness, MISSPELT) for number, likeness in self._misspelt(word)}
        return found

    def _beginning_with(self, word: str) -> Iterator[tuple[int, int]]:
        if len(word) < _LEAST_BEGINNING:
            return
        listed = self._table.vocabulary
        first = bisect.bisect_left(listed, word)
        for number in range(first, min(first + _MOST, len(listed))):
            if not (other := listed[number]).startswith(word):
                return
            yield number, len(other)

    def _around(self, word: str) -> Iterator[tuple[int, int]]:
        needed = {word[i : i + 3] for i in range(len(word) - 2)}
        n_shared = self._shared(needed)
        for number in np.flatnonzero(n_shared == len(needed)).tolist():
            other = self._table.vocabulary[number]
            if word in other:
                yield number, len(other)

    def _misspelt(self, word: str) -> Iterator[tuple[int, float]]:
        if len(word) < _LEAST_MISSPELT:
            return
        own = _trigrams(word)
        most = 1 if len(word) < _LONG else 2
        n_shared, lengths = self._shared(own), self._lengths
        least = max(1, len(own) - _LOST * most)
        near = np.flatnonzero((n_shared >= least) & (abs(lengths - len(word)) <= most) & (lengths >= _LEAST_MISSPELT))
        order = np.lexsort((near, abs(lengths[near] - len(word)), -n_shared[near]))
        for number in near[order][:_COMPARED].tolist():
            other = self._table.vocabulary[number]
            wrong = edits(word, other)
            if wrong <= most:
                yield number, 1 - wrong / max(len(word), len(other))

    def _shared(self, trigrams: set[str]) -> Int64:
        """How many of these trigrams each word of the vocabulary has."""
        codes, starts, having = self._index["trigrams"], self._index["trigram_starts"], self._index["trigram_words"]
        wanted = np.array(sorted(map(_code, trigrams)), dtype=np.uint64)
        places = np.searchsorted(codes, wanted)
        known = [
            place
            for place, code in zip(places.tolist(), wanted.tolist(), strict=True)
            if codes[place : place + 1].tolist() == [code]
        ]
        parts = [having[starts[place] : starts[place + 1]] for place in known]
        joined = np.concatenate(parts) if parts else np.zeros(0, dtype=np.int32)
        return np.bincount(joined, minlength=len(self._table.vocabulary))

    @cached_property
    def _index(self) -> Mapping[str, NDArray[Any]]:
        return spelling_columns(self._table.vocabulary) if self._given is None else self._given

    @property
    def _lengths(self) -> NDArray[np.int32]:
        return self._index["word_lengths"]


def spelling_columns(vocabulary: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Of each trigram, in order, the words that have it; of each word its letters."""
    lengths, counts, flat = [], [], []
    for word in vocabulary:
        own = [_code(trigram) for trigram in _trigrams(word[:_LONGEST])]
        lengths.append(len(word))
        counts.append(len(own))
        flat += own
    trigrams, which = np.unique(np.array(flat, dtype=np.uint64), return_inverse=True)
    order = np.argsort(which, kind="stable")
    words = np.repeat(np.arange(len(counts), dtype=np.int32), counts)[order]
    starts = np.searchsorted(which[order], np.arange(len(trigrams) + 1))
    return {
        "trigrams": trigrams,
        "trigram_starts": starts,
        "trigram_words": words,
        "word_lengths": np.array(lengths, dtype=np.int32),
    }


def _code(trigram: str) -> int:
    """Three letters as one number: a code point has 21 bits."""
    first, second, third = map(ord, trigram)
    return first << 42 | second << 21 | third


def _trigrams(word: str) -> set[str]:
    """With two marks in front and one behind, so that beginnings count."""
    framed = f"\x02\x02{word}\x03"
    return {framed[i : i + 3] for i in range(len(framed) - 2)}


def edits(a: str, b: str) -> int:
    """Letters to put in, leave out, change or swap with their neighbour to make one word of the other.

    >>> edits("brigde", "bridge"), edits("bridge", "bridges"), edits("a", "b")
    (1, 1, 1)
    """
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, letter in enumerate(a, start=1):
        before, last, row = row, before, [i]
        for j, other in enumerate(b, start=1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != other))
            if i > 1 and j > 1 and letter == b[j - 2] and a[i - 2] == other:
                cost = min(cost, last[j - 2] + 1)
            row.append(cost)
    return row[-1]
