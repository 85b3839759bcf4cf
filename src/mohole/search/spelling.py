"""Words of a vocabulary that a word may have been meant to be: it begins one, stands inside one, or is one misspelt."""

import bisect
from collections.abc import Iterator
from functools import cached_property

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

    def __init__(self, table: WordTable) -> None:
        self._table = table

    def candidates(self, word: str) -> dict[int, tuple[float, str]]:
        """Numbers of words that `word` may stand for, each with its likeness (1 is the word itself) and how it is like it.

        Other spellings are looked for only where nothing is that word or begins with it.
        """
        found: dict[int, tuple[float, str]] = {}
        for number, length in self._beginning_with(word):
            found[number] = (0.5 + 0.4 * len(word) / length, BEGINS)
        if word in self._table.numbers:
            found[self._table.numbers[word]] = (1.0, EXACT)
        if not found and _LEAST_INSIDE <= len(word) <= _LONGEST:
            found |= {number: (0.3 + 0.3 * len(word) / length, INSIDE) for number, length in self._around(word)}
            found |= {number: (0.8 * likeness, MISSPELT) for number, likeness in self._misspelt(word)}
        return found

    def _beginning_with(self, word: str) -> Iterator[tuple[int, int]]:
        if len(word) < _LEAST_BEGINNING:
            return
        listed = self._table.sorted_words
        first = bisect.bisect_left(listed, word)
        for other in listed[first : first + _MOST]:
            if not other.startswith(word):
                return
            yield self._table.numbers[other], len(other)

    def _around(self, word: str) -> Iterator[tuple[int, int]]:
        needed = {word[i : i + 3] for i in range(len(word) - 2)}
        n_shared = self._shared(needed)
        for number in np.flatnonzero(n_shared == len(needed)):
            other = self._table.vocabulary[number]
            if word in other:
                yield int(number), len(other)

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
        known = [self._trigram_numbers[trigram] for trigram in sorted(trigrams) if trigram in self._trigram_numbers]
        starts = self._trigram_starts
        parts = [self._trigram_words[starts[number] : starts[number + 1]] for number in known]
        joined = np.concatenate(parts) if parts else np.zeros(0, dtype=np.int32)
        return np.bincount(joined, minlength=len(self._table.vocabulary))

    @cached_property
    def _index(self) -> tuple[dict[str, int], NDArray[np.int32], Int64, Int64]:
        """Of each trigram its number and the words that have it; of each word its letters. Made when first needed."""
        numbers: dict[str, int] = {}
        flat: list[int] = []
        counts = np.zeros(len(self._table.vocabulary), dtype=np.int64)
        lengths = np.asarray([len(word) for word in self._table.vocabulary], dtype=np.int64)
        for i, word in enumerate(self._table.vocabulary):
            own = [numbers.setdefault(trigram, len(numbers)) for trigram in _trigrams(word[:_LONGEST])]
            flat += own
            counts[i] = len(own)
        trigrams = np.asarray(flat, dtype=np.int32)
        order = np.argsort(trigrams, kind="stable")
        words = np.repeat(np.arange(len(counts), dtype=np.int32), counts)[order]
        return numbers, words, np.searchsorted(trigrams[order], np.arange(len(numbers) + 1)), lengths

    @property
    def _trigram_numbers(self) -> dict[str, int]:
        return self._index[0]

    @property
    def _trigram_words(self) -> NDArray[np.int32]:
        return self._index[1]

    @property
    def _trigram_starts(self) -> Int64:
        return self._index[2]

    @property
    def _lengths(self) -> Int64:
        return self._index[3]


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
