"""Features by label: words, their beginnings and misspellings, and meaning. Nothing is fetched, nothing written.

For each word of the query the most like word of a label counts, by its rarity:

    share = sum_q idf(q) likeness(q, label) / sum_q idf(q)
    score = .8 share + .1 if the query stands in the label word for word + .1 share of the label's words that this is

A label that is the query scores 1. A label near in meaning scores .7 of its cosine, if that is more.

Why no SQLite FTS5, which answers exact words in a hundredth of the time, in less memory (benchmarks/search): it cuts Chinese
nowhere, and its trigrams need three letters where 大桥 has two; a label need not find itself first; and it does not say
which word stood for which. Most of what a query costs here are the cosines, which it would need too.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mohole.search.company import Company, company_columns
from mohole.search.hits import Hit, best, check_limit
from mohole.search.meaning import Embedder, Vectors
from mohole.search.spelling import EXACT, Spelling, spelling_columns
from mohole.search.words import WordTable, word_columns, words

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

_OF_WORDS, _OF_PHRASE, _OF_WHOLE = 0.8, 0.1, 0.1
_OF_MEANING = 0.7
_NOT_LETTER_BY_LETTER = 0.999
"""What a label scores that has the query's words in their order and nothing else, but other case, accents or stops."""
_MOST_WORDS = 64
"""Words of a query that are looked up; a longer one finds what they find."""


def label_columns(labels: Sequence[str]) -> dict[str, NDArray[Any]]:
    """All that a `LabelIndex` without an embedder of its own makes of labels, as arrays that can be kept in a file."""
    words = word_columns(labels)
    table = WordTable(words)
    return words | spelling_columns(table.vocabulary) | company_columns(table)


class LabelIndex:
    """Labels, made ready to be searched. A label's place in the sequence is its latent."""

    def __init__(
        self,
        labels: Sequence[str],
        *,
        embedder: Embedder | None = None,
        columns: Mapping[str, NDArray[Any]] | None = None,
    ) -> None:
        """Args:
        embedder: what knows the meaning of texts; None: only what the labels themselves show (see company.py).
        columns: as `label_columns` gives them of these very labels, in memory or mapped: nothing is then made
            here. None: made now, or with the first query that needs them.
        """
        self._labels = labels
        self._table = WordTable.of(labels) if columns is None else WordTable(columns)
        self._spelling = Spelling(self._table, columns)
        self._given = embedder
        self._columns = columns

    def search(self, query: str, limit: int) -> list[Hit]:
        """The labels nearest to the query, ties by latent; none for a query without a word.

        Raises:
            ConfigError: `limit` below 1.
        """
        check_limit(limit)
        asked = words(query)
        distinct = list(dict.fromkeys(asked))[:_MOST_WORDS]
        if not distinct or not len(self._labels):
            return []
        meant = [self._spelling.candidates(word) for word in distinct]
        scores = self._by_words(asked, meant, query)
        cosines = self._cosines(query)
        by_meaning = np.where(cosines >= self._embedder.least, _OF_MEANING * cosines, 0.0).astype(np.float32)
        is_nearer = by_meaning > scores
        return best(
            np.maximum(scores, by_meaning),
            limit,
            lambda latent: (
                f"meaning, cosine {cosines[latent]:.2f}" if is_nearer[latent] else self._why(latent, distinct, meant)
            ),
        )

    def _by_words(self, asked: list[str], meant: list[dict[int, tuple[float, str]]], query: str) -> Float32:
        """Scores of all labels by the words that they have."""
        n = len(self._labels)
        total = 0.0
        shares, matched = np.zeros(n), np.zeros(n)
        for candidates in meant:
            numbers = np.asarray(sorted(candidates), dtype=np.int64)
            likeness = np.asarray([candidates[number][0] for number in numbers.tolist()], dtype=np.float32)
            found, which = self._table.texts_with_any(numbers)
            best_here = np.zeros(n, dtype=np.float32)
            np.maximum.at(best_here, found, likeness[which])
            weight = float(np.log1p(n / max(int(np.count_nonzero(best_here)), 1)))
            shares += weight * best_here
            matched += best_here
            total += weight
        whole = np.minimum(matched / np.maximum(self._table.lengths, 1), 1.0)
        scores = _OF_WORDS * shares / total + _OF_WHOLE * whole * (shares > 0)
        phrase = [number for word in asked if (number := self._table.vocabulary.number(word)) is not None]
        if len(phrase) == len(asked):
            same = self._table.with_phrase(phrase)
            scores[same] += _OF_PHRASE
            for latent in same[self._table.lengths[same] == len(phrase)].tolist():
                scores[latent] = 1.0 if self._labels[latent].strip() == query.strip() else _NOT_LETTER_BY_LETTER
        return scores.astype(np.float32)

    def _why(self, latent: int, asked: list[str], meant: list[dict[int, tuple[float, str]]]) -> str:
        """Which words of the label stand for which of the query."""
        own = set(self._table.flat[self._table.starts[latent] : self._table.starts[latent + 1]].tolist())
        parts = []
        for word, candidates in zip(asked, meant, strict=True):
            here = sorted(own & candidates.keys(), key=lambda number: (-candidates[number][0], number))
            if not here:
                continue
            how, other = candidates[here[0]][1], self._table.vocabulary[here[0]]
            parts.append(f"“{other}”" if how == EXACT else f"“{word}” {how} “{other}”")
        return "label: " + ", ".join(parts)

    def _cosines(self, query: str) -> Float32:
        cosines = self._vectors.cosines(self._embedder.embed([query])[0])[self._unique_of_label]
        return np.where(self._table.lengths > 0, cosines, 0.0).astype(
            np.float32
        )  # a label without a word means nothing

    @cached_property
    def _embedder(self) -> Embedder:
        if self._given is not None:
            return self._given
        return Company.of(self._table) if self._columns is None else Company(self._table, self._columns)

    @cached_property
    def _distinct(self) -> tuple[list[str], Int64]:
        """Every label once, and for each label its place among them: a million labels have many that are equal."""
        places: dict[str, int] = {}
        which = np.asarray([places.setdefault(label, len(places)) for label in self._labels], dtype=np.int64)
        return list(places), which

    @property
    def _unique_of_label(self) -> Int64:
        return np.arange(len(self._labels)) if isinstance(self._embedder, Company) else self._distinct[1]

    @cached_property
    def _vectors(self) -> Vectors:
        embedder = self._embedder
        return embedder.of_table if isinstance(embedder, Company) else Vectors(embedder.embed(self._distinct[0]))
