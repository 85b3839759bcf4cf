"""Text to tokens and back, for one model. Adds no special tokens: whoever builds a sequence puts BOS there knowingly."""

import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor

from mohole.byte_pieces import REPLACEMENT, shown_bytes

_FALLBACK = re.compile("<0x[0-9A-Fa-f]{2}>")


def _letters_of_bytes() -> dict[str, int]:
    """The letters that stand for bytes in vocabularies of bytes (GPT-2's `bytes_to_unicode`): themselves, or from 256 on."""
    own = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in own]
    return {chr(byte): byte for byte in own} | {chr(256 + i): byte for i, byte in enumerate(rest)}


_BYTE_OF = _letters_of_bytes()


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

    def decode_behind(self, before: Sequence[int], tokens: Sequence[int]) -> str:
        """What tokens add to the text of those before them, of which a begin-of-text is none: decoded with them, for some
        tokenizers drop the space at a text's beginning."""
        text = list(before[1:] if len(before) and before[0] == self.bos_id else before)
        start, whole = self.decode(text), self.decode([*text, *tokens])
        return whole.removeprefix(start) if whole.startswith(start) else self.decode(tokens)

    def piece(self, token: int) -> str:
        """One token as a person reads it, with the space that some tokenizers drop from the start of a text.

        What of a token is no whole character reads as its bytes, <0xE2>; a token unknown to the tokenizer as <id>.
        """
        if token >= len(self):
            return f"<{token}>"
        anchor, anchor_text = self._anchor
        text = self.decode([anchor, token])
        alone = text[len(anchor_text) :] if text.startswith(anchor_text) else self.decode([token])
        return alone if REPLACEMENT not in alone else self._bytes_of(token, alone)

    def _bytes_of(self, token: int, text: str) -> str:
        """Of a token whose text has a replacement character: its bytes, where the vocabulary is one of bytes."""
        entry = str(self.hf.backend_tokenizer.id_to_token(token))
        if _FALLBACK.fullmatch(entry):  # SentencePiece's own way of writing them
            return entry.upper().replace("X", "x")
        if all(letter in _BYTE_OF for letter in entry):
            return shown_bytes(bytes(_BYTE_OF[letter] for letter in entry))
        return text  # an entry that really is the replacement character

    def prompt(self, text: str) -> Int[Tensor, "1 position"]:
        """`text` as a batch of one sequence, with BOS in front where the tokenizer has one."""
        bos = [] if self.bos_id is None else [self.bos_id]
        return torch.tensor([bos + self.encode(text)], dtype=torch.int64)

    @cached_property
    def _anchor(self) -> tuple[int, str]:
        """An ordinary token and its text, to put before another so that the other keeps its leading space."""
        token = self.encode("a")[-1]
        return token, self.decode([token])
