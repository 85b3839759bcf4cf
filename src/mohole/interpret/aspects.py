"""Aspects: each gives every place of a text one key (its word, the word before, its kind ...). A rule is a set of such keys.

Keys are whole numbers from 0; -1 means that the aspect says nothing about this place.
"""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mohole.byte_pieces import is_broken
from mohole.interpret.text import N_POOLS, Text, fold, is_ideograph

Int64 = NDArray[np.int64]

POSITIONS = 16  # the aspect "position" tells the first so many places apart
CLASSES = (
    "digits", "Chinese characters", "words in capitals", "capitalised words", "lower-case words", "later pieces of words",
    "punctuation", "line breaks", "spaces", "broken characters",
)  # fmt: skip
CLASS_SINGULAR = (
    "digit", "Chinese character", "word in capitals", "capitalised word", "lower-case word", "later piece of a word",
    "punctuation mark", "line break", "space", "broken character",
)  # fmt: skip


@dataclass(frozen=True)
class Aspect:
    """One way of looking at places."""

    name: str
    keys: Int64
    cost: float
    """F1 that a rule of this aspect must gain over one of a plainer one."""
    max_items: int
    """Keys in a rule at most."""
    counts: Int64
    """Places [pool, key] of each pool that have the key."""


def make_aspects(text: Text) -> dict[str, Aspect]:
    """Every aspect of the text, plainest first."""
    so_far, whole, words = _word_keys(text)
    before = _shifted(text, whole)
    two_before = np.where(before >= 0, before[np.maximum(text.word_start - 1, 0)], -1)
    following = _following(text, whole)
    first = text.word_start == np.arange(
        len(text)
    )  # a later piece of a word does not stand right after the word before
    classes = _classes(text)
    word_parts = _endings(text, whole, words)
    columns: list[tuple[str, Int64, float, int]] = [
        ("word", so_far, 0.0, 48),
        ("piece", _interned(fold(piece) for piece in text.pieces)[text.tokens], 0.01, 48),
        ("token", text.tokens.astype(np.int64), 0.02, 48),
        ("in_word", whole, 0.02, 24),
        ("class", classes, 0.0, 2),
        ("ending", word_parts[0], 0.03, 6),
        ("beginning", word_parts[1], 0.03, 6),
        ("phrase", _paired(before, so_far), 0.02, 24),
        ("long_phrase", _paired(two_before, _paired(before, so_far)), 0.03, 24),
        ("before", np.where(first, before, -1), 0.02, 24),
        ("two_before", np.where(first, two_before, -1), 0.04, 12),
        ("class_before", _paired(np.where(first, before, -1), classes), 0.03, 24),
        ("next", following, 0.03, 24),
        ("position", np.where(text.position < POSITIONS, text.position, -1), 0.0, POSITIONS),
        ("anything", np.zeros(len(text), dtype=np.int64), 0.0, 1),
    ]
    return {
        name: Aspect(name, keys, cost, max_items, pool_counts(keys, text.pool, int(keys.max()) + 1))
        for name, keys, cost, max_items in columns
    }


def pool_counts(keys: Int64, pool: Int64, n_keys: int) -> Int64:
    """How many places of each pool have each key: [pool, n_keys]."""
    known = (keys >= 0) & (pool >= 0)
    return np.bincount(pool[known] * n_keys + keys[known], minlength=N_POOLS * n_keys).reshape(N_POOLS, n_keys)


def _word_keys(text: Text) -> tuple[Int64, Int64, list[str]]:
    """The word up to and including each place, and the whole word around it, numbered alike; and the words, folded."""
    pieces, tokens = text.pieces, text.tokens.tolist()
    of_raw: dict[str, int] = {}
    numbers: dict[str, int] = {}
    so_far: list[int] = []
    read = ""
    for place, start in enumerate(text.word_start.tolist()):
        read = pieces[tokens[place]] if place == start else read + pieces[tokens[place]]
        if read not in of_raw:
            of_raw[read] = numbers.setdefault(fold(read), len(numbers))
        so_far.append(of_raw[read])
    keys = np.asarray(so_far, dtype=np.int64)
    return keys, keys[text.word_end - 1], list(numbers)


def _shifted(text: Text, whole: Int64) -> Int64:
    """The whole word before the word that holds each place; -1 for a document's first word."""
    place = text.word_start - 1
    inside = (place >= 0) & (text.document[np.maximum(place, 0)] == text.document)
    return np.where(inside, whole[np.maximum(place, 0)], -1)


def _following(text: Text, whole: Int64) -> Int64:
    """The word that begins right after each place; what is inside a word has none, nor has a document's end."""
    keys = np.full(len(text), -1, dtype=np.int64)
    begins = (text.word_start[1:] == np.arange(1, len(text))) & (text.document[1:] == text.document[:-1])
    keys[:-1] = np.where(begins, whole[1:], -1)
    return keys


def _classes(text: Text) -> Int64:
    of_piece = np.asarray([piece_class(piece) for piece in text.pieces], dtype=np.int64)[text.tokens]
    later = (text.word_start != np.arange(len(text))) & (of_piece > 1) & (of_piece < 6)
    return np.where(later, CLASSES.index("later pieces of words"), of_piece)


def piece_class(piece: str) -> int:
    """Index into CLASSES of a piece seen alone, as if it began a word."""
    bare = piece.strip()
    match bare:
        case "":
            return CLASSES.index("line breaks" if "\n" in piece else "spaces")
        case _ if is_broken(bare):
            return CLASSES.index("broken characters")
        case _ if bare.isdigit():
            return CLASSES.index("digits")
        case _ if is_ideograph(bare[0]):
            return CLASSES.index("Chinese characters")
        case _ if not any(character.isalpha() for character in bare):
            return CLASSES.index("punctuation")
        case _ if len(bare) > 1 and bare.isupper():
            return CLASSES.index("words in capitals")
        case _ if bare[0].isupper():
            return CLASSES.index("capitalised words")
        case _:
            return CLASSES.index("lower-case words")


def _endings(text: Text, whole: Int64, words: list[str]) -> tuple[Int64, Int64]:
    """Last three letters of words of four letters and more, at their last place; first three, at their first."""
    long = [word if len(word) >= 4 and word.isalpha() else "" for word in words]
    last, first = _interned(word[-3:] for word in long), _interned(word[:3] for word in long)
    known = np.asarray([bool(word) for word in long], dtype=np.bool_)[whole]
    places = np.arange(len(text))
    at_end, at_start = known & (text.word_end == places + 1), known & (text.word_start == places)
    return np.where(at_end, last[whole], -1), np.where(at_start, first[whole], -1)


def _interned(items: Iterable[Hashable]) -> Int64:
    numbers: dict[Hashable, int] = {}
    return np.asarray([numbers.setdefault(item, len(numbers)) for item in items], dtype=np.int64)


def _paired(first: Int64, second: Int64) -> Int64:
    """One key for each pair of keys that occurs."""
    known = (first >= 0) & (second >= 0)
    keys = np.full(len(first), -1, dtype=np.int64)
    if known.any():
        keys[known] = np.unique(first[known] * (int(second.max()) + 1) + second[known], return_inverse=True)[1]
    return keys
