"""Which tokens of a text an intervention acts at: prompt or response, a window of positions, classes of tokens. No models."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, ClassVar, Literal, get_args

import torch
from jaxtyping import Bool, Int
from pydantic import ConfigDict, Field
from torch import Tensor

from mohole.errors import ConfigError
from mohole.model import PassTokens, Tokenizer

Part = Literal["all", "prompt", "response"]
TokenClass = Literal["special", "space", "newline", "number", "punctuation", "word"]
CLASSES: tuple[TokenClass, ...] = get_args(TokenClass)

_Place = Annotated[int, Field(strict=True)]
_LARGEST = (1 << 31) - 1  # what a tensor of positions holds, with room for sums


@dataclass(frozen=True, slots=True)
class Where:
    """All that is said must hold. A begin-of-text token is left alone unless `bos` asks for it: no dictionary has seen its row.

    Raises:
        ConfigError: a window without a token in it, or counted from the end of what has no end yet.
    """

    part: Part = "all"
    """`response`: tokens that the model wrote. Its first one is chosen from the row of the last prompt token, which is prompt."""
    start: _Place = 0
    """First position, counted from 0 in the part, begin-of-text not counted. Negative: from the end of the prompt."""
    stop: _Place | None = None
    """Position behind the last one, counted as `start` is. None: to the end."""
    classes: tuple[TokenClass, ...] = ()
    """Of what kind the token is. Empty: any."""
    tokens: tuple[Annotated[int, Field(strict=True, ge=0)], ...] = ()
    """Which token it is, by id. Empty: any."""
    bos: Annotated[bool, Field(strict=True)] = False
    """Also the begin-of-text token, whatever else is said."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    def __post_init__(self) -> None:
        ends = [end for end in (self.start, self.stop) if end is not None]
        if out := [number for number in (*ends, *self.tokens) if abs(number) > _LARGEST]:
            raise ConfigError(
                f"where: {str(out[0])[:24]} is beyond every text and vocabulary; {_LARGEST} is the largest"
            )
        if self.part != "prompt" and min(ends) < 0:
            raise ConfigError(
                f"where.start, where.stop: {min(ends)} counts from the end of the prompt; it goes with part = 'prompt'"
            )
        is_counted_alike = self.stop is not None and (self.start < 0) == (self.stop < 0)
        if self.stop is not None and (self.stop == 0 or (is_counted_alike and self.stop <= self.start)):
            raise ConfigError(f"where: no position is in [{self.start}, {self.stop})")
        if unknown := set(self.classes) - set(CLASSES):
            raise ConfigError(
                f"where.classes: {sorted(unknown)[0]!r} is no class of tokens; there are {', '.join(CLASSES)}"
            )

    @property
    def needs_prompt(self) -> bool:
        """Does it depend on where the prompt ends?"""
        return self.part != "all"

    def __str__(self) -> str:
        window = (
            "" if (self.start, self.stop) == (0, None) else f" [{self.start}, {'' if self.stop is None else self.stop})"
        )
        kinds = f" of {', '.join(self.classes)}" if self.classes else ""
        listed = f" among {len(self.tokens)} tokens" if self.tokens else ""
        return f"{self.part}{window}{kinds}{listed}" + (" and begin-of-text" if self.bos else "")


EVERYWHERE = Where()
WHOLE_TEXT = Where(bos=True)


class TokenClasses:
    """The class of every token of a vocabulary, worked out when it is first asked for."""

    def __init__(self, tokenizer: Callable[[], Tokenizer], vocab_size: int) -> None:
        self._tokenizer, self._vocab_size = tokenizer, vocab_size

    @cached_property
    def table(self) -> Int[Tensor, " vocab"]:
        """Places in CLASSES."""
        tokenizer = self._tokenizer()
        special = tokenizer.special_ids
        return torch.tensor(
            [
                CLASSES.index("special" if token in special else class_of(tokenizer.piece(token)))
                for token in range(self._vocab_size)
            ]
        )


def class_of(piece: str) -> TokenClass:
    """
    >>> class_of(" Gate"), class_of("42"), class_of(" "), class_of("\\n\\n"), class_of("?!"), class_of("门")
    ('word', 'number', 'space', 'newline', 'punctuation', 'word')
    """
    text = piece.strip()
    if not text:
        return "newline" if "\n" in piece else "space"
    if any(letter.isalpha() for letter in text):
        return "word"
    return "number" if any(letter.isnumeric() for letter in text) else "punctuation"


def mask(where: Where, given: PassTokens, classes: TokenClasses) -> Bool[Tensor, "batch position"]:
    """Which of this pass's tokens it holds for. Never a padding."""
    device = given.tokens.device
    begins = torch.tensor(given.begins, device=device)[:, None]
    n_prompt = torch.tensor(given.n_prompt, device=device)[:, None] - begins
    place = given.positions - begins  # of the text without its begin-of-text token
    found = place >= 0
    match where.part:
        case "prompt":
            found &= place < n_prompt
        case "response":
            place = place - n_prompt
            found &= place >= 0
        case "all":
            pass
    if where.start != 0:
        found &= place >= (where.start if where.start > 0 else n_prompt + where.start)
    if where.stop is not None:
        found &= place < (where.stop if where.stop > 0 else n_prompt + where.stop)
    if where.tokens:
        found &= torch.isin(given.tokens, torch.tensor(where.tokens, device=device))
    if where.classes:
        wanted = torch.tensor([name in where.classes for name in CLASSES], device=device)
        found &= wanted[classes.table.to(device)[given.tokens]]
    if where.bos:
        found |= (given.positions == 0) & (begins > 0)
    return found
