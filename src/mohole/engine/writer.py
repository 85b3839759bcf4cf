"""Tokens into text as they are written: no half characters, and nothing of a stop string. Knows no model."""

from collections.abc import Sequence
from dataclasses import replace

from mohole.byte_pieces import REPLACEMENT
from mohole.engine.ask import Written
from mohole.model import Tokenizer

_LONGEST_CHARACTER = 4
"""Bytes, so tokens at most. The first of so many that are not whole yet never becomes a character."""
_CONTEXT = 6
"""Tokens of the prompt that the first ones are decoded behind: some tokenizers drop the space at a text's beginning."""


class Writer:
    """One continuation's text. It is given every token, and gives back those whose text nothing can change any more."""

    def __init__(
        self, tokenizer: Tokenizer, prompt: Sequence[int], stop: Sequence[str] = (), *, skips_space: bool = False
    ) -> None:
        """Args: skips_space: leave out the spaces that the text begins with."""
        self._tokenizer, self._stop, self._skips_space = tokenizer, tuple(stop), skips_space
        before = [token for token in prompt[-_CONTEXT:] if token not in tokenizer.special_ids]
        while _text(tokenizer, before).startswith(REPLACEMENT):
            before = before[1:]  # cut within a character: bytes that follow would be broken, too
        self._ids, self._done = before, _text(tokenizer, before)
        self._n_done = len(before)
        self._broken: list[Written] = []
        """Tokens of a character that is not whole."""
        self._held: list[Written] = []
        """Tokens whose text may yet turn out to be part of a stop string. One that comes true lies within them: what is let go
        ends with no beginning of one."""
        self.has_stopped = False
        """A stop string came true. The text ends before it."""

    def add(self, written: Written) -> list[Written]:
        """One token more; its text is found here. What is settled now, in order."""
        self._broken.append(written)
        if written.token not in self._tokenizer.special_ids:  # those are no text
            self._ids.append(written.token)
        new = self._new
        if new.endswith(REPLACEMENT) and len(self._broken) == _LONGEST_CHARACTER:
            self._give_up()
            new = self._new
        if not new.endswith(REPLACEMENT):
            self._settle(new)
        return self._let_go()

    def end(self) -> list[Written]:
        """What was held back, when nothing more comes."""
        if self.has_stopped:
            return []
        found = []
        if self._broken:
            self._settle(self._new)
            found = self._let_go()
        if not self.has_stopped:
            found, self._held = [*found, *self._held], []
        return found

    @property
    def _new(self) -> str:
        """The text of what is not settled yet."""
        return _text(self._tokenizer, self._ids)[len(self._done) :]

    def _give_up(self) -> None:
        """The first of the broken ones leaves as it is; those behind it may be a character yet."""
        first = self._broken.pop(0)
        n = self._n_done + (first.token not in self._tokenizer.special_ids)
        self._hold(first, _text(self._tokenizer, self._ids[:n])[len(self._done) :])
        self._ids, self._n_done, self._done = self._ids[n:], 0, ""

    def _settle(self, new: str) -> None:
        """The text that a whole character has completed is its last token's."""
        self._held += self._broken[:-1]
        self._hold(self._broken[-1], new)
        self._broken = []
        self._ids = self._ids[self._n_done :] or self._ids
        self._n_done, self._done = len(self._ids), _text(self._tokenizer, self._ids)

    def _hold(self, written: Written, text: str) -> None:
        if self._skips_space:
            text = text.lstrip()
            self._skips_space = not text
        self._held.append(replace(written, text=text))

    def _let_go(self) -> list[Written]:
        text = "".join(each.text for each in self._held)
        places = [place for place in (text.find(stop) for stop in self._stop) if place >= 0]
        self.has_stopped = bool(places)
        last = min(places) if places else len(text) - _longest_beginning(text, self._stop)
        found, at = [], 0
        for each in self._held:
            behind = at + len(each.text)
            if behind > last or (self.has_stopped and at >= last):
                break
            found.append(each)
            at = behind
        if self.has_stopped and at < last:
            cut = self._held[len(found)]
            found.append(replace(cut, text=cut.text[: last - at]))
        self._held = self._held[len(found) :]
        return found


def _text(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    return tokenizer.decode(ids) if ids else ""


def _longest_beginning(text: str, stops: Sequence[str]) -> int:
    """How many of the last letters may be the beginning of one of these.

    >>> _longest_beginning("what a st", ["stop", "a stone"]), _longest_beginning("abc", ["x"])
    (4, 0)
    """
    longest = 0
    for stop in stops:
        for n in range(min(len(stop) - 1, len(text)), longest, -1):
            if text.endswith(stop[:n]):
                longest = n
                break
    return longest
