"""What a model may be run over: tokens of its vocabulary, no longer than its context, with every text's beginning known."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from mohole.errors import ModelError
from mohole.model.passes import PassTokens, TextCache

Tokens = Int[Tensor, "batch position"]


@dataclass(frozen=True, slots=True)
class Intake:
    """What one model takes. Everything it is to be run over passes here."""

    model: str
    """Its name, for messages."""
    vocab_size: int
    context: int | None
    """Positions the model was made for; None if it states none."""
    bos_id: int | None

    def whole(
        self,
        tokens: Tokens,
        device: torch.device,
        *,
        n_prompt: Sequence[int] | None = None,
        padding: Sequence[int] | None = None,
    ) -> PassTokens:
        """Texts from their first tokens on; of each, `padding` columns are none of it and `n_prompt` tokens were given.

        Raises:
            ModelError: tokens that it does not take; not one number for each text; a text that is all padding.
        """
        self.check(tokens)
        ids = tokens.to(device).long()
        n, length = tokens.shape
        before = tuple(padding) if padding else (0,) * n
        own = tuple(n_prompt) if n_prompt is not None else tuple(length - each for each in before)
        for what, numbers in (("padding", before), ("n_prompt", own)):
            if len(numbers) != n or not all(0 <= each <= length for each in numbers):
                raise ModelError(
                    f"{self.model}: {what} {list(numbers)[:8]}: one number from 0 to {length} for each of {n} texts"
                )
        if max(before) == length:
            raise ModelError(f"{self.model}: padding {length}: nothing of that text is left")
        return PassTokens(ids, 0, before, own, self._begin(ids, before))

    def further(self, tokens: Tokens, device: torch.device, cache: TextCache) -> PassTokens:
        """What follows on the cached texts.

        Raises:
            ModelError: tokens that it does not take, or too many after those that are cached.
        """
        self.check(tokens)
        self.check_length(cache.tokens.shape[1] + tokens.shape[1], "what is cached and what is to follow")
        return PassTokens(tokens.to(device).long(), cache.tokens.shape[1], cache.padding, cache.n_prompt, cache.begins)

    def check(self, tokens: Tensor) -> None:
        """Raises: ModelError: no integers [batch, position], none of them, too many, or some outside the vocabulary."""
        if tokens.ndim != 2 or tokens.is_floating_point() or tokens.numel() == 0:
            raise ModelError(
                f"{self.model}: tokens must be integers of shape [batch, position], at least one; "
                f"got {tokens.dtype} {tuple(tokens.shape)}"
            )
        self.check_length(tokens.shape[1], "tokens")
        low, high = int(tokens.min()), int(tokens.max())
        if low < 0 or high >= self.vocab_size:
            raise ModelError(
                f"{self.model}: token {low if low < 0 else high} is outside its vocabulary (0-{self.vocab_size - 1}); "
                "was the text tokenized for another model?"
            )

    def check_length(self, n_positions: int, what: str) -> None:
        """Raises: ModelError: `what` (named in the message) takes more positions than the context has."""
        if self.context is not None and n_positions > self.context:
            raise ModelError(
                f"{self.model}: {what} take {n_positions} positions, its context has {self.context}; shorten them"
            )

    def _begin(self, ids: Tensor, padding: tuple[int, ...]) -> tuple[int, ...]:
        """1 for each text that begins with a begin-of-text token, else 0."""
        if self.bos_id is None:
            return (0,) * len(ids)
        column = torch.tensor(padding, device=ids.device)
        first: list[int] = ids.gather(1, column[:, None])[:, 0].tolist()
        return tuple(int(token == self.bos_id) for token in first)


def stated_context(text_config: Any) -> int | None:
    """The number of positions that a model's config gives it; None if it gives none."""
    for key in ("max_position_embeddings", "max_seq_len", "seq_length"):
        value = getattr(text_config, key, None)
        if isinstance(value, int) and value > 0:
            return value
    return None
