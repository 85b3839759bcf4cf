"""Texts as words that can be compared: case, accents and dressing gone, Chinese and kana cut by the character. No search."""

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]

_ACCENTS = range(0x300, 0x370)
_ALONE = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # kana, Chinese characters
_DRESSING = re.escape("“”„‚‘’'\"«»()[]…,.:;-_–—·")
"""What labels put around the words they are about."""


def _marks() -> str:
    """Signs that belong to the letter before them, in scripts that write vowels so. For a class of a regular expression."""
    return "".join(chr(code) for code in range(0x370, 0x1E00) if unicodedata.category(chr(code))[0] == "M")


_WORD = re.compile(rf"[{_ALONE}]|(?:[^\W_{_ALONE}][{_marks()}]*)+|[^\w\s{_DRESSING}{_marks()}]")
_SIGN = re.compile(r"\S")


def fold(text: str) -> str:
    """`text` as it is compared: compatibility forms, case and accents do not matter.

    >>> fold("ÎLE Straße ﬁn ①"), fold("Йод") == fold("йод")
    ('ile strasse fin 1', True)
    """
    if text.isascii():
        return text.lower()
    bare = "".join(letter for letter in unicodedata.normalize("NFKD", text) if ord(letter) not in _ACCENTS)
    return unicodedata.normalize("NFKC", bare.casefold())


def words(text: str) -> list[str]:
    """The words of a text, in order. A sign such as + or 😀 is one; quotes, brackets and stops only where there is nothing else.

    >>> words("Golden-Gate “Brücke”"), words("金门 bridge"), words("“,”")
    (['golden', 'gate', 'brucke'], ['金', '门', 'bridge'], ['“', ',', '”'])
    """
    folded = fold(text)
    return _WORD.findall(folded) or _SIGN.findall(folded)


class WordTable:
    """Many texts as numbers of words, one after the other, and for each word the texts that have it."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.n_texts = len(texts)
        numbers: dict[str, int] = {}
        flat: list[int] = []
        starts = np.zeros(len(texts) + 1, dtype=np.int64)
        cut = lru_cache(maxsize=1 << 12)(words)  # a million labels have many that are equal
        for i, text in enumerate(texts):
            flat += [numbers.setdefault(word, len(numbers)) for word in cut(text)]
            starts[i + 1] = len(flat)
        self.numbers = numbers
        self.vocabulary = list(numbers)
        self.flat: Int32 = np.asarray(flat, dtype=np.int32)
        """Word numbers, all texts one after the other."""
        self.starts = starts
        self.lengths: Int64 = np.diff(starts)
        """Words of each text."""
        self.text_of_place: Int32 = np.repeat(np.arange(len(texts), dtype=np.int32), self.lengths)
        order = np.argsort(self.flat, kind="stable")
        self._postings: Int32 = self.text_of_place[order]
        self._posting_starts = np.searchsorted(self.flat[order], np.arange(len(numbers) + 1))
        self.sorted_words: list[str] = sorted(numbers)

    def counts(self, chosen: Int64) -> Int64:
        """How often each of these words stands in the texts."""
        return self._posting_starts[chosen + 1] - self._posting_starts[chosen]

    def texts_with_any(self, chosen: Int64) -> tuple[Int32, Int64]:
        """Texts that have one of these words, and the place of that word in `chosen`."""
        counts = self.counts(chosen)
        which = np.repeat(np.arange(len(chosen)), counts)
        within = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
        return self._postings[self._posting_starts[chosen][which] + within], which

    def with_phrase(self, phrase: Sequence[int]) -> Int32:
        """Texts in which these words stand one after the other, each once."""
        n = len(phrase)
        if n == 0 or n > len(self.flat):
            return np.zeros(0, dtype=np.int32)
        rarest = min(range(n), key=lambda i: int(self.counts(np.asarray([phrase[i]]))[0]))
        places = np.flatnonzero(self.flat == phrase[rarest]) - rarest
        places = places[(places >= 0) & (places + n <= len(self.flat))]
        for offset, word in enumerate(phrase):
            places = places[self.flat[places + offset] == word]
        places = places[self.text_of_place[places] == self.text_of_place[places + n - 1]]
        return np.unique(self.text_of_place[places])
