"""What the labeller may look at: tokens, pieces, document boundaries. Nothing else of a corpus gets past this file."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mohole import keys
from mohole.byte_pieces import joined
from mohole.corpus import Corpus, first_twins, within_budget

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Bool = NDArray[np.bool_]

EXPLAIN, SELECT, TEST = 0, 1, 2
POOL_NAMES = ("explain", "select", "test")
N_POOLS = len(POOL_NAMES)
_POOL_ENDS = (0.4, 0.65)  # shares of documents: .40 to propose rules, .25 to choose one, .35 to score it

_SENTENCE_ENDS = frozenset(".!?。！？")


@dataclass(frozen=True)
class View:
    """A corpus without its truth. The labeller is given this, so no planted answer can reach it."""

    tokens: Int32
    document_starts: Int64
    pieces: Sequence[str]

    @staticmethod
    def of(corpus: Corpus) -> "View":
        return View(corpus.tokens, corpus.document_starts, corpus.pieces)


@dataclass(frozen=True)
class Text:
    """Some whole documents, one after the other; a *place* is an index into them. Every array has one entry per place."""

    tokens: Int32
    pieces: Sequence[str]
    document: Int64
    """Which of the chosen documents, from 0."""
    position: Int64
    """Place within the document, from 0."""
    sentence: Int64
    """Which sentence, from 0; a sentence never leaves its document, and a line break ends it."""
    pool: Int64
    """EXPLAIN, SELECT or TEST: one for all places of a document. -1 where the token has no row and so is not scored."""
    word_start: Int64
    """Place at which the word that holds this place begins. A mark or a Chinese character is a word of its own."""
    word_end: Int64
    """One past the place at which it ends."""

    def __len__(self) -> int:
        return len(self.tokens)

    def raw(self, start: int, end: int) -> str:
        return joined(self.pieces[token] for token in self.tokens[start:end])


def read_text(view: View, row_tokens: Int64, max_tokens: int, *, seed: int) -> tuple[Text, Int64]:
    """Whole documents within a budget, in disjoint pools; and each row's place in them, -1 for rows left out.

    Documents with the same text share a pool: a copy of what was studied must not count as unseen.

    Args:
        row_tokens: global indices of the tokens that have rows, ascending.
    """
    first = np.searchsorted(row_tokens, view.document_starts)
    there = np.flatnonzero(np.diff(first))
    chosen = within_budget(there, np.diff(first)[there], max_tokens, seed=seed, use=keys.Use.LABEL_DOCUMENTS)
    starts, ends = view.document_starts[chosen], view.document_starts[chosen + 1]
    lengths = ends - starts
    local_starts = np.cumsum(lengths) - lengths
    document = np.repeat(np.arange(len(chosen)), lengths)
    position = np.arange(lengths.sum()) - local_starts[document]
    place_tokens = starts[document] + position
    rows = np.searchsorted(row_tokens, place_tokens)
    scored = row_tokens[np.minimum(rows, len(row_tokens) - 1)] == place_tokens
    place_of_row = np.full(len(row_tokens), -1, dtype=np.int64)
    place_of_row[rows[scored]] = np.flatnonzero(scored)

    twins = first_twins(view.tokens, view.document_starts)[chosen]
    pool = np.searchsorted(_POOL_ENDS, keys.uniform(seed, keys.Use.LABEL_POOL, twins), side="right")
    tokens = view.tokens[place_tokens]
    word_start, word_end = _words(tokens, document, view.pieces)
    return Text(
        tokens,
        view.pieces,
        document,
        position,
        _sentences(tokens, document, view.pieces),
        np.where(scored, pool[document], -1),
        word_start,
        word_end,
    ), place_of_row


def _words(tokens: Int32, document: Int64, pieces: Sequence[str]) -> tuple[Int64, Int64]:
    """A place goes on with the word before it where both sides of the seam are letters or digits, Chinese ones apart."""
    begins_inside = np.asarray([bool(piece) and joins(piece[0]) for piece in pieces], dtype=np.bool_)
    ends_inside = np.asarray([bool(piece) and joins(piece[-1]) for piece in pieces], dtype=np.bool_)
    starts = np.ones(len(tokens), dtype=np.bool_)
    starts[1:] = ~(begins_inside[tokens[1:]] & ends_inside[tokens[:-1]]) | (document[1:] != document[:-1])
    places = np.flatnonzero(starts)
    ends = np.append(places[1:], len(tokens))
    word = np.cumsum(starts) - 1
    return places[word], ends[word]


def _sentences(tokens: Int32, document: Int64, pieces: Sequence[str]) -> Int64:
    ends = np.asarray([ends_sentence(piece) for piece in pieces], dtype=np.bool_)
    starts = np.zeros(len(tokens), dtype=np.int64)
    starts[1:] = ends[tokens[:-1]] | (document[1:] != document[:-1])
    return np.cumsum(starts)


def ends_sentence(piece: str) -> bool:
    return "\n" in piece or bool(_SENTENCE_ENDS.intersection(piece.strip()[-1:]))


def joins(character: str) -> bool:
    """Is it a part of words that run over several pieces?"""
    return (character.isalnum() or character in "_'’") and not is_ideograph(character)


def is_ideograph(character: str) -> bool:
    """Chinese characters, kana and Hangul: scripts read without spaces between words, or piece by piece."""
    return unicodedata.name(character, "").startswith(("CJK", "HIRAGANA", "KATAKANA", "HANGUL"))


def fold(text: str) -> str:
    """Case and the spaces around do not matter, except in what is nothing but space."""
    return text.strip().casefold() or text
