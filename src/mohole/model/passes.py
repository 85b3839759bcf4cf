"""What one forward pass runs: which tokens, of which texts, at which positions; and the cache that goes on from there."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor

from mohole.errors import ModelError
from mohole.model.hooks import Edit

Tokens = Int[Tensor, "batch position"]


@dataclass(frozen=True, slots=True)
class PassTokens:
    """The tokens of one pass. Texts may stand behind padding, so that they end together."""

    tokens: Tokens
    """Of this pass alone: what cached passes ran is not among them."""
    first: int
    """Column of the first of them, padding counted."""
    padding: tuple[int, ...]
    """Columns before each text."""
    n_prompt: tuple[int, ...]
    """Tokens of each text that were given and not written by the model, begin-of-text included."""
    begins: tuple[int, ...]
    """1 where the text begins with a begin-of-text token, else 0."""

    @property
    def positions(self) -> Int[Tensor, "batch position"]:
        """Of each token in its own text, counted from 0; below 0 for padding."""
        columns = torch.arange(self.first, self.first + self.tokens.shape[1], device=self.tokens.device)
        if not any(self.padding):
            return columns.expand(self.tokens.shape)
        return columns - torch.tensor(self.padding, device=self.tokens.device)[:, None]

    @property
    def n_text(self) -> tuple[int, ...]:
        """For each row, how many of this pass's tokens are text: neither padding nor begin-of-text."""
        if self.first > max(self.padding):  # behind everybody's first token, as most passes are
            return (self.tokens.shape[1],) * len(self.padding)
        last = self.first + self.tokens.shape[1]
        return tuple(
            max(0, last - max(self.first, padding + begin))
            for padding, begin in zip(self.padding, self.begins, strict=True)
        )


@runtime_checkable
class PassEdits(Protocol):
    """Edits that depend on which tokens a pass runs, such as those at responses only, or other ones for each row."""

    def of_pass(self, given: PassTokens) -> Sequence[Edit]:
        """The edits of one pass. The same number in each."""
        ...

    def keys(self, given: PassTokens) -> tuple[str, ...]:
        """For each row what is done to it, as a text; empty where nothing is. Cached passes may be continued under equal ones."""
        ...


@dataclass(frozen=True, slots=True)
class TextCache:
    """Keys and values of texts so far, with what they were made under. To be continued once: it is worked on in place."""

    tokens: Tokens
    """All columns so far."""
    padding: tuple[int, ...]
    n_prompt: tuple[int, ...]
    begins: tuple[int, ...]
    made_under: tuple[tuple[object, ...], ...]
    """For each row the edits that its passes ran under."""
    held: Any
    """transformers' own."""

    def select(self, rows: Sequence[int]) -> "TextCache":
        """Of these rows alone, in this order; one may be taken more than once. The cache they are taken from is used up."""
        which = torch.tensor(list(rows), dtype=torch.int64)
        self.held.batch_select_indices(which.to(self.tokens.device))
        return replace(
            self,
            tokens=self.tokens[which.to(self.tokens.device)],
            padding=tuple(self.padding[row] for row in rows),
            n_prompt=tuple(self.n_prompt[row] for row in rows),
            begins=tuple(self.begins[row] for row in rows),
            made_under=tuple(self.made_under[row] for row in rows),
        )

    def check(self, given: PassTokens, under: tuple[tuple[object, ...], ...]) -> None:
        """Raises: ModelError: made under other edits than these, of another batch, or continued before."""
        if len(under) != len(self.made_under):
            raise ModelError(
                f"cache: holds {len(self.made_under)} texts, and {len(under)} are to be continued; select the rows first"
            )
        for row, (before, now) in enumerate(zip(self.made_under, under, strict=True)):
            if before != now:
                raise ModelError(
                    f"cache: row {row} was made under {_described(before)} and would go on under {_described(now)}, which is "
                    "neither text; run its tokens again from the first"
                )
        n_held = int(self.held.get_seq_length())
        if n_held != self.tokens.shape[1]:
            raise ModelError(
                f"cache: holds {n_held} positions of a text of {self.tokens.shape[1]}; it has gone on since, so take the "
                "newest one"
            )


def edits_by_row(edits: Sequence[Edit | PassEdits], given: PassTokens) -> tuple[tuple[object, ...], ...]:
    """For each row all that is done to it in this pass."""
    found: list[tuple[object, ...]] = [()] * len(given.tokens)
    for each in edits:
        keys: Sequence[object] = [each] * len(found) if isinstance(each, Edit) else each.keys(given)
        found = [(*before, key) if key else before for before, key in zip(found, keys, strict=True)]
    return tuple(found)


def masks(given: PassTokens, *, positions: bool) -> dict[str, Tensor]:
    """What a module of transformers is told so that it does not see padding: nothing where there is none.

    Args:
        positions: does it take each token's position? (Some families count from the mask.)
    """
    if not any(given.padding):
        return {}
    columns = torch.arange(given.first + given.tokens.shape[1], device=given.tokens.device)
    seen = columns >= torch.tensor(given.padding, device=columns.device)[:, None]
    own = {"position_ids": given.positions.clamp(min=0)} if positions else {}
    return {"attention_mask": seen.long()} | own


def _described(edits: tuple[object, ...]) -> str:
    return f"other edits ({len(edits)})" if edits else "no edits"
