"""What kind of token a row is of, from its text alone: classes that every tokenizer gives. Each token is in exactly one.

In this order, the first that fits: the first token of a window; one of the rarest tokens, which together are 1 % of the text;
a part of a character; white space; a number; punctuation; the first piece of a word; a later piece.
"""

import numpy as np
from numpy.typing import NDArray

from mohole.byte_pieces import is_broken
from mohole.corpus import Corpus

Int64 = NDArray[np.int64]
Bool = NDArray[np.bool_]

CLASSES = (
    "first", "rare", "part of a character", "white space", "number", "punctuation", "word start", "word continued",
)  # fmt: skip
RARE_SHARE = 0.01


def classes_of(corpus: Corpus, tokens: Int64) -> Int64:
    """The class, as a place in CLASSES, of each token (by global index)."""
    own = corpus.tokens[tokens]
    before = corpus.tokens[np.maximum(tokens - 1, 0)]
    is_first = np.isin(tokens, corpus.windows.start)
    by_text, ends_in_letter = _by_text(corpus.pieces)
    found = by_text[own]
    word = CLASSES.index("word start")
    is_continued = (found == word) & ~_starts_with_space(corpus.pieces)[own] & ends_in_letter[before]
    found = np.where(is_continued, word + 1, found)
    found = np.where(_rare(corpus)[own], CLASSES.index("rare"), found)
    return np.where(is_first, CLASSES.index("first"), found)


def _by_text(pieces: tuple[str, ...]) -> tuple[Int64, Bool]:
    """Of each vocabulary entry: its class, all words taken for first pieces; and does its last character belong to a word?"""
    kinds = np.array([CLASSES.index(_kind(piece)) for piece in pieces], dtype=np.int64)
    return kinds, np.array([bool(piece) and piece[-1].isalpha() for piece in pieces])


def _kind(piece: str) -> str:
    text = piece.strip()
    if is_broken(text):
        return "part of a character"
    if not text:
        return "white space"
    if any(letter.isalpha() for letter in text):
        return "word start"
    return "number" if any(letter.isnumeric() for letter in text) else "punctuation"


def _starts_with_space(pieces: tuple[str, ...]) -> Bool:
    return np.array([piece[:1].isspace() for piece in pieces])


def _rare(corpus: Corpus) -> Bool:
    """The vocabulary's rarest entries that together make RARE_SHARE of the text, and no more."""
    counts = np.bincount(corpus.tokens, minlength=len(corpus.pieces))
    order = np.argsort(counts, kind="stable")
    is_rare = np.zeros(len(counts), dtype=np.bool_)
    is_rare[order] = np.cumsum(counts[order]) <= RARE_SHARE * counts.sum()
    return is_rare
