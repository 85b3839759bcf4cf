"""Rules into words: short, readable labels, with whole words where a token is only a piece of one. Finds nothing out."""

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from mohole.interpret.aspects import CLASS_SINGULAR, CLASSES
from mohole.interpret.rules import Rule
from mohole.interpret.text import Text, is_ideograph

Int64 = NDArray[np.int64]

_N_SHOWN = 5
_N_LOOKED_AT = 40  # places read to see how a key is usually written
_USUAL = 0.6  # share of those that must agree for one whole word to stand for a piece
_ENOUGH = 4  # places that must agree before neighbours are added to a word
_ALWAYS = 0.9  # ... and the share of them
_FURTHEST = 4  # words on either side
_OPEN = "…"  # a word that goes on in many ways
_LONGEST = 28  # characters of one quoted item
_WORDS_BEFORE = {"word": 0, "phrase": 1, "long_phrase": 2}
_BLANKS = {"": "space", "\n": "line break", "\n\n": "empty line", "\t": "tab"}
_LEAD = {
    "next": "next: ",
    "before": "right after ",
    "two_before": "two words after ",
    "ending": "words ending in ",
    "beginning": "words beginning with ",
    "in_word": "within ",
}


class Phrasing:
    """Wording for the rules of one text."""

    def __init__(self, text: Text, keys: dict[str, Int64]) -> None:
        """`keys` has the keys of every aspect at every place."""
        self._text = text
        self._keys = keys

    def describe(self, rule: Rule, fired: Int64) -> str:
        """The rule in plain words. `fired`: places at which the latent fires, whose spelling is shown."""
        what = self._what(rule, fired)
        if rule.context is None:
            return what
        trigger = quoted(self._spelling_of_word(rule.context.trigger))
        scope = "in the same sentence" if rule.context.scope == "sentence" else "later in the document"
        return f"after {trigger}, {scope}" if rule.aspect == "anything" else f"{what} after {trigger}, {scope}"

    def _what(self, rule: Rule, fired: Int64) -> str:
        n = len(rule.keys)
        match rule.aspect:
            case "anything":
                return "almost anywhere"
            case "position":
                return "start of document" if n == 1 else f"first {n} tokens of the document"
            case "class":
                return " and ".join(CLASSES[key] for key in rule.keys)
            case "class_before":
                return self._class_before(rule, fired)
            case _:
                return _LEAD.get(rule.aspect, "") + self._list(rule, fired)

    def _class_before(self, rule: Rule, fired: Int64) -> str:
        """`digit right after "+"`, one part for each class."""
        parts: dict[int, list[int]] = {}
        for key in rule.keys:
            place = self._places(rule.aspect, key, fired)[0]
            parts.setdefault(int(self._keys["class"][place]), []).append(key)
        described = [
            f"{CLASS_SINGULAR[name]} right after {self._list(Rule(rule.aspect, tuple(keys)), fired)}"
            for name, keys in parts.items()
        ]
        return "; ".join(described[:2]) + (" ..." if len(described) > 2 else "")

    def _list(self, rule: Rule, fired: Int64) -> str:
        shown: dict[str, None] = {}  # several keys may be spelled alike
        n_read = 0
        for key in rule.keys:
            if len(shown) == _N_SHOWN and len(rule.keys) - n_read > 1:
                break
            shown[quoted(self._spelling(rule.aspect, key, fired))] = None
            n_read += 1
        more = len(rule.keys) - n_read
        return ", ".join(shown) + (f" and {more} more" if more else "")

    def _places(self, aspect: str, key: int, fired: Int64) -> Int64:
        """Where the latent fires at this key; where the key stands at all, if it never does."""
        keys = self._keys[aspect]
        places = fired[keys[fired] == key][:_N_LOOKED_AT]
        return places if len(places) else np.flatnonzero(keys == key)[:_N_LOOKED_AT]

    def _spelling(self, aspect: str, key: int, fired: Int64) -> str:
        """A key as it is usually written where the latent fires."""
        places = self._places(aspect, key, fired).tolist()
        starts, ends = self._text.word_start, self._text.word_end
        match aspect:
            case "ending":
                return "-" + usual([self._text.raw(int(starts[p]), p + 1).strip()[-3:].lower() for p in places])
            case "beginning":
                return usual([self._text.raw(p, int(ends[p])).strip()[:3].lower() for p in places]) + "-"
            case "piece" | "token":
                return self._piece_spelling(places)
            case "next":
                return self._usual_stretch([(place + 1, int(ends[place + 1])) for place in places])
            case "in_word":
                return self._usual_stretch([(int(starts[place]), int(ends[place])) for place in places])
            case "before" | "two_before" | "class_before":
                firsts = [self._words_back(place, 2 if aspect == "two_before" else 1) for place in places]
                return self._usual_stretch([(first, int(ends[first])) for first in firsts])
            case _:
                n_before = _WORDS_BEFORE[aspect]
                return self._usual_stretch([(self._words_back(place, n_before), place + 1) for place in places])

    def _piece_spelling(self, places: list[int]) -> str:
        """The whole word if the piece usually stands in the same one, else the piece with dots where the word goes on."""
        text = self._text
        stretches = [(int(text.word_start[place]), place + 1) for place in places]
        count = Counter(text.raw(*stretch) for stretch in stretches).most_common(1)[0][1]
        if count >= _USUAL * len(places):
            return self._usual_stretch(stretches)
        place = places[0]
        return ("…" if int(text.word_start[place]) < place else "") + text.pieces[int(text.tokens[place])].strip()

    def _usual_stretch(self, stretches: list[tuple[int, int]]) -> str:
        """The usual text of these stretches, made whole: letters still to come in brackets, as in Bri(dge), and with the
        neighbours that always belong to it, as in Golden Gate (Bridge) or 勃兰(登堡门).
        """
        text = self._text
        common: str = usual([text.raw(*stretch) for stretch in stretches])
        alike = [stretch for stretch in stretches if text.raw(*stretch) == common]
        rest = self._rest([end for _, end in alike])
        left, right = "", rest
        if len(alike) >= _ENOUGH and rest != _OPEN:
            left = self._neighbours([start for start, _ in alike], common, step=-1)
            right += self._neighbours([int(text.word_end[end - 1]) for _, end in alike], common + rest, step=1)
        if rest == _OPEN:
            return common + _OPEN
        head = left + common
        gap = " " if right.startswith(" ") else ""
        return f"{head}{gap}({right.strip()})" if right.strip() else head

    def _rest(self, ends: list[int]) -> str:
        """The letters with which the word usually goes on; dots if it goes on in many ways."""
        rests = [self._text.raw(end, int(self._text.word_end[end - 1])) for end in ends]
        rest, count = Counter(rests).most_common(1)[0]
        return rest if count >= _USUAL * len(rests) else _OPEN

    def _neighbours(self, edges: list[int], word: str, *, step: int) -> str:
        """Up to `_FURTHEST` words that stand next to nearly all of these edges and belong to the same name or script."""
        found = ""
        for _ in range(_FURTHEST):
            words = [self._word_beside(edge, step) for edge in edges]
            texts = [self._text.raw(*span) if span else "" for span in words]
            bare, count = Counter(read.strip() for read in texts).most_common(1)[0]
            neighbour = usual([read for read in texts if read.strip() == bare])
            if count < _ALWAYS * len(texts) or not belongs(*((neighbour, word) if step < 0 else (word, neighbour))):
                break
            found = neighbour + found if step < 0 else found + neighbour
            word = neighbour
            edges = [span[step > 0] for span, read in zip(words, texts, strict=True) if span and read.strip() == bare]
        return found

    def _word_beside(self, edge: int, step: int) -> tuple[int, int] | None:
        """The word that ends (step -1) or begins (step 1) at an edge between two words of one document."""
        text = self._text
        if not 0 < edge < len(text) or text.document[edge] != text.document[edge - 1]:
            return None
        return (int(text.word_start[edge - 1]), edge) if step < 0 else (edge, int(text.word_end[edge]))

    def _words_back(self, place: int, n: int) -> int:
        """Where the n-th word before the word at `place` begins, without leaving the document."""
        text = self._text
        start = int(text.word_start[place])
        for _ in range(n):
            beside = self._word_beside(start, -1)
            start = beside[0] if beside else start
        return start

    def _spelling_of_word(self, key: int) -> str:
        places = np.flatnonzero(self._keys["word"] == key)
        complete = places[self._text.word_end[places] == places + 1][:_N_LOOKED_AT].tolist()
        return self._usual_stretch([(int(self._text.word_start[place]), place + 1) for place in complete])


def belongs(left: str, right: str) -> bool:
    """Are two words side by side likely parts of one name? Chinese characters without a space are, and capitalised words.

    >>> belongs(" Golden", " Gate"), belongs("大", "桥"), belongs(" The", " dog")
    (True, True, False)
    """
    first, second = left.strip(), right.strip()
    if not first or not second:
        return False
    if is_ideograph(first[-1]) and is_ideograph(second[0]):
        return right == second
    return first.isalpha() and first[0].isupper() and second.isalpha() and second[0].isupper()


def usual(spellings: list[str]) -> str:
    """The most frequent; among equally frequent ones the first met."""
    ((spelling, _),) = Counter(spellings).most_common(1)
    return spelling


def quoted(spelling: str) -> str:
    r"""In quotation marks, without the space before a word; blank and unprintable characters by name or number.

    >>> quoted(" bridge"), quoted("\n\n"), quoted("?\nTom"), quoted("a\x07<b>")
    ('“bridge”', 'empty line', '“?↵Tom”', '“a\\x07<b>”')
    """
    bare = spelling.strip(" ")
    if bare in _BLANKS:
        return _BLANKS[bare]
    if len(bare) > _LONGEST:
        bare = f"{bare[: _LONGEST - 10]}…{bare[-9:]}"
    shown = (character if character.isprintable() else repr(character)[1:-1] for character in bare.replace("\n", "↵"))
    return f"“{''.join(shown)}”".replace("\ufffd", "⬚")  # the square: a part of a character
