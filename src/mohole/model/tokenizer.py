"""Text to tokens and back, for one model. Adds no special tokens: whoever builds a sequence puts BOS there knowingly."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor


@runtime_checkable
class FastTokenizer(Protocol):
    """What is used of transformers' PreTrainedTokenizerFast."""

    all_special_ids: list[int]
    bos_token_id: int | None
    eos_token_id: int | None
    backend_tokenizer: Any  # tokenizers.Tokenizer

    def __len__(self) -> int: ...

    def decode(self, token_ids: Any, **options: Any) -> str: ...


class Tokenizer:
    """A model's tokenizer. `hf` is transformers' own."""

    def __init__(self, hf: FastTokenizer) -> None:
        self.hf = hf
        self.bos_id = hf.bos_token_id
        self.eos_id = hf.eos_token_id
        self.special_ids = frozenset(hf.all_special_ids)

    def __len__(self) -> int:
        """Number of tokens, added ones included. The model's vocabulary may be padded beyond it."""
        return len(self.hf)

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, without BOS."""
        return self.encode_with_offsets(text)[0]

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Token ids and, for each, the characters [start, end) of `text` that it covers."""
        encoding = self.hf.backend_tokenizer.encode(text, add_special_tokens=False)
        return encoding.ids, encoding.offsets

    def decode(self, tokens: Sequence[int] | Int[Tensor, " position"]) -> str:
        """The text of `tokens`, special tokens shown, spaces as the model wrote them."""
        ids = tokens.tolist() if isinstance(tokens, Tensor) else list(tokens)
        return self.hf.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    def piece(self, token: int) -> str:
        """One token as a person reads it, with the space that some tokenizers drop from the start of a text.

        A token that is part of a character reads as the replacement character; one unknown to the tokenizer as <id>.
        """
        if token >= len(self):
            return f"<{token}>"
        anchor, anchor_text = self._anchor
        text = self.decode([anchor, token])
        return text[len(anchor_text) :] if text.startswith(anchor_text) else self.decode([token])

    def prompt(self, text: str) -> Int[Tensor, "1 position"]:
        """`text` as a batch of one sequence, with BOS in front where the tokenizer has one."""
        bos = [] if self.bos_id is None else [self.bos_id]
        return torch.tensor([bos + self.encode(text)], dtype=torch.int64)

    @cached_property
    def _anchor(self) -> tuple[int, str]:
        """An ordinary token and its text, to put before another so that the other keeps its leading space."""
        token = self.encode("a")[-1]
        return token, self.decode([token])
