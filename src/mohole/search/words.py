"""Texts as words that can be compared: case, accents and dressing gone, Chinese and kana cut by the character. No search."""

import bisect
import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any, overload

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


class WordList(Sequence[str]):
    """Words in order (of code points, which is that of their UTF-8), as one run of bytes: only those asked for become a str."""

    def __init__(self, columns: Mapping[str, NDArray[Any]], name: str) -> None:
        """Of `NAME_bytes` and `NAME_starts`, as `listed` gives them."""
        self._starts: Int64 = columns[f"{name}_starts"]
        self._bytes = columns[f"{name}_bytes"].data

    def __len__(self) -> int:
        return len(self._starts) - 1

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> list[str]: ...
    def __getitem__(self, at: int | slice) -> str | list[str]:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        if not 0 <= at < len(self):
            raise IndexError(at)
        low, high = self._starts[at : at + 2].tolist()
        return str(self._bytes[low:high], "utf-8", "surrogatepass")

    def number(self, word: str) -> int | None:
        """Where a word stands; None: it is not here."""
        place = bisect.bisect_left(self, word)
        return place if place < len(self) and self[place] == word else None


def listed(texts: Sequence[str], name: str) -> dict[str, NDArray[Any]]:
    """The columns of texts, one after the other."""
    encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    starts = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
    return {f"{name}_bytes": np.frombuffer(b"".join(encoded), dtype=np.uint8), f"{name}_starts": starts}


def word_columns(texts: Sequence[str]) -> dict[str, NDArray[Any]]:
    """What `WordTable` reads: texts as numbers of words, and for each word the texts that have it."""
    numbers: dict[str, int] = {}
    flat: list[int] = []
    starts = np.zeros(len(texts) + 1, dtype=np.int64)
    cut = lru_cache(maxsize=1 << 12)(words)  # a million labels have many that are equal
    for i, text in enumerate(texts):
        flat += [numbers.setdefault(word, len(numbers)) for word in cut(text)]
        starts[i + 1] = len(flat)
    vocabulary = sorted(numbers)
    place = np.empty(len(vocabulary), dtype=np.int32)
    place[[numbers[word] for word in vocabulary]] = np.arange(len(vocabulary))
    placed = place[np.asarray(flat, dtype=np.int64)]
    text_of_place = np.repeat(np.arange(len(texts), dtype=np.int32), np.diff(starts))
    order = np.argsort(placed, kind="stable")
    return listed(vocabulary, "word") | {
        "flat": placed,
        "text_starts": starts,
        "text_of_place": text_of_place,
        "postings": text_of_place[order],
        "posting_starts": np.searchsorted(placed[order], np.arange(len(vocabulary) + 1)),
    }


class WordTable:
    """Many texts as numbers of words, one after the other, and for each word the texts that have it."""

    def __init__(self, columns: Mapping[str, NDArray[Any]]) -> None:
        """Args:
        columns: as `word_columns` gives them, in memory or mapped.
        """
        self.vocabulary = WordList(columns, "word")
        """In order. A word's number is its place."""
        self.flat: Int32 = columns["flat"]
        """Word numbers, all texts one after the other."""
        self.starts: Int64 = columns["text_starts"]
        self.n_texts = len(self.starts) - 1
        self.text_of_place: Int32 = columns["text_of_place"]
        self._postings: Int32 = columns["postings"]
        self._posting_starts: Int64 = columns["posting_starts"]

    @classmethod
    def of(cls, texts: Sequence[str]) -> "WordTable":
        """Of these texts."""
        return cls(word_columns(texts))

    @cached_property
    def lengths(self) -> Int64:
        """Words of each text."""
        return np.diff(self.starts)

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
