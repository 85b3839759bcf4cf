"""Latched contexts: everything after a trigger word, to the end of the document or of the sentence."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mohole.interpret.text import EXPLAIN, N_POOLS, Text

Int64 = NDArray[np.int64]
Bool = NDArray[np.bool_]

Scope = Literal["document", "sentence"]
SCOPES: tuple[Scope, ...] = ("document", "sentence")
_CACHED_TRIGGERS = 256


@dataclass(frozen=True)
class Context:
    """Holds after the first `trigger` in a document (or sentence), up to its end; not at the trigger itself."""

    scope: Scope
    trigger: int
    """A key of the aspect "word", at the place where the word is complete."""


@dataclass(frozen=True)
class Inside:
    """Where a context holds."""

    mask: Bool
    """At each place of the text."""
    by_pool: tuple[Int64, ...]
    """The places of each pool, ascending."""


class Contexts:
    """Every possible trigger of one scope, with the places after it."""

    def __init__(self, text: Text, words: Int64, scope: Scope) -> None:
        segment = text.document if scope == "document" else text.sentence
        n_words = int(words.max()) + 1
        complete = np.flatnonzero(text.word_end == np.arange(len(text)) + 1)
        pairs, first = np.unique(segment[complete] * n_words + words[complete], return_index=True)
        self._pool = text.pool
        self._segment_of_place = segment
        self._segment_ends = np.searchsorted(segment, np.arange(int(segment[-1]) + 1), side="right")
        self._words, self._segments = pairs % n_words, pairs // n_words  # by segment
        self._segment_starts = np.searchsorted(self._segments, np.arange(int(segment[-1]) + 2))
        by_word = np.argsort(self._words, kind="stable")
        self._by_word_segments = self._segments[by_word]
        self._by_word_first = complete[first][by_word]
        self._word_starts = np.searchsorted(self._words[by_word], np.arange(n_words + 1))
        explain = text.pool[np.maximum(self._segment_ends - 1, 0)] == EXPLAIN
        self._n_segments_with = np.bincount(self._words[explain[self._segments]], minlength=n_words)
        self.inside = lru_cache(maxsize=_CACHED_TRIGGERS)(self._inside)

    def _inside(self, trigger: int) -> Inside:
        """Places after the trigger's first occurrence in a segment."""
        here = slice(self._word_starts[trigger], self._word_starts[trigger + 1])
        starts, ends = self._by_word_first[here] + 1, self._segment_ends[self._by_word_segments[here]]
        lengths = ends - starts
        offsets = np.cumsum(lengths) - lengths
        places = np.arange(lengths.sum()) + np.repeat(starts - offsets, lengths)
        mask = np.zeros(len(self._pool), dtype=np.bool_)
        mask[places] = True
        return Inside(mask, tuple(np.flatnonzero(mask & (self._pool == pool)) for pool in range(N_POOLS)))

    def candidates(self, fired: Int64, n: int) -> list[int]:
        """The n words that tell best in which segments the latent fires, by F1 over segments; ties to the lower key."""
        segments = np.unique(self._segment_of_place[fired])
        starts, ends = self._segment_starts[segments], self._segment_starts[segments + 1]
        lengths = ends - starts
        offsets = np.cumsum(lengths) - lengths
        words = self._words[np.arange(lengths.sum()) + np.repeat(starts - offsets, lengths)]
        both = np.bincount(words, minlength=len(self._n_segments_with))
        often = np.flatnonzero(both >= 2)
        f1 = 2 * both[often] / (len(segments) + np.maximum(self._n_segments_with[often], 1))
        best: list[int] = often[np.argsort(-f1, kind="stable")[:n]].tolist()
        return best
