"""Which order rows stand in: a 64-bit key for every row, computed from stable ids alone. No files.

The shuffled order is the order of random keys. Held-out documents have the top of the key range, so that validation is a
range of keys and training rows are the first ones of every store. Any other order is other keys for the same machinery.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mohole import keys

Int64 = NDArray[np.int64]
UInt64 = NDArray[np.uint64]
Bool = NDArray[np.bool_]

OrderKind = Literal["random", "text"]

_SPLIT_BITS = 16


@dataclass(frozen=True)
class Documents:
    """Where each document starts (and the last one ends), and which are held out."""

    starts: Int64
    held_out: Bool

    def of(self, tokens: Int64) -> Int64:
        """The document of each token."""
        return np.searchsorted(self.starts, tokens, side="right") - 1

    def held_out_share(self) -> float:
        """The share of all tokens that is in held-out documents."""
        lengths = np.diff(self.starts)
        return float(lengths[self.held_out].sum() / max(int(lengths.sum()), 1))


@dataclass(frozen=True)
class Order:
    """What decides a row's key."""

    kind: OrderKind
    """`random`: the shuffled order. `text`: the order of the corpus."""
    seed: int = 0
    epoch: int = 0
    """Another epoch is another random order of the same rows."""
    split: int = 1 << _SPLIT_BITS
    """Training rows have the keys below split / 2^16 of the range, held-out rows the others."""
    n_tokens: int = 0
    """`text` only: tokens of the corpus, so that their order fills the key range."""

    @classmethod
    def random(cls, documents: Documents, *, seed: int, epoch: int = 0) -> "Order":
        """The shuffled order of a corpus. Both parts of the key range are as long as their share of the tokens."""
        share = documents.held_out_share()
        split = round((1.0 - share) * (1 << _SPLIT_BITS))
        if documents.held_out.any():
            split = min(max(split, 1), (1 << _SPLIT_BITS) - 1)
        return cls("random", seed, epoch, split)

    @classmethod
    def text(cls, documents: Documents) -> "Order":
        """The order of the corpus."""
        return cls("text", n_tokens=int(documents.starts[-1]))

    @property
    def training_end(self) -> int:
        """Rows with keys below this are training rows (`random` only)."""
        return self.split << (64 - _SPLIT_BITS)

    def keys(self, tokens: Int64, documents: Documents) -> UInt64:
        """The key of each token's row."""
        if self.kind == "text":
            return tokens.astype(np.uint64) << np.uint64(64 - max(self.n_tokens - 1, 1).bit_length())
        document = documents.of(tokens)
        words = keys.row_keys(self.seed, document, tokens - documents.starts[document], epoch=self.epoch)
        held_out = documents.held_out[document]
        n_held_out_parts = (1 << _SPLIT_BITS) - self.split
        return np.where(
            held_out,
            np.uint64(self.training_end % (1 << 64)) + _part(words, n_held_out_parts),
            _part(words, self.split),
        )

    def as_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "seed": self.seed,
            "epoch": self.epoch,
            "split": self.split,
            "n_tokens": self.n_tokens,
        }

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> "Order":
        return cls(**facts)


def _part(words: UInt64, parts: int) -> UInt64:
    """floor(word x parts / 2^16): squeezes the whole range into the first `parts` 65536ths of it, order kept."""
    low = words & np.uint64((1 << _SPLIT_BITS) - 1)
    high = words >> np.uint64(_SPLIT_BITS)
    return high * np.uint64(parts) + ((low * np.uint64(parts)) >> np.uint64(_SPLIT_BITS))
