"""Held-out text in batches for the model: which positions are replaced, which predictions are scored. No activations.

Windows run alone, padded on the right, as in harvest. BOS and special tokens are never replaced; a prediction is scored
where both its source and its target are text, so every scored prediction has a replaced source.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Int
from numpy.typing import NDArray
from torch import Tensor

from mohole.config import Evaluate
from mohole.corpus import Corpus, batches, keyed_order
from mohole.errors import StageError
from mohole.keys import Use
from mohole.metrics import Masks, scored_pairs
from mohole.model import LanguageModel

Int64 = NDArray[np.int64]

REPLACED = "every token of the text; not BOS, not padding, not special tokens; the same in ablations"
SCORED = "pairs (token, next token) inside a window, both of them text; not BOS, not padding"
_LOGITS = 1 << 25  # logits held at once per pass: 128 MB in float32


def masks_at(hookpoints: Sequence[str]) -> Masks:
    """What is replaced at these hookpoints, and what is scored."""
    return Masks(replaced=f"at {', '.join(hookpoints)}: {REPLACED}", scored=SCORED)


@dataclass(frozen=True)
class Passage:
    """Some windows as one batch for the model."""

    tokens: Int[Tensor, "batch position"]
    is_text: Bool[Tensor, "batch position"]
    """Positions to be replaced."""
    scored: Bool[Tensor, "batch position_less_one"]
    documents: Int64
    """The document of each scored pair."""
    replaced_tokens: Int64
    """The global index of each token to be replaced, in the order of `is_text`'s positions."""
    replaced_documents: Int64
    n_tokens: int

    @cached_property
    def targets(self) -> Int[Tensor, " pair"]:
        """The token that each scored pair predicts."""
        return self.tokens[:, 1:][self.scored]

    @cached_property
    def positions(self) -> Int64:
        """The place in its window of each token to be replaced."""
        return np.asarray(self.is_text.nonzero()[:, 1].numpy())


def choose_windows(corpus: Corpus, max_documents: int, max_tokens: int, seed: int) -> Int64:
    """Windows (by number) of held-out documents in keyed order, until there are enough documents or tokens."""
    held_out = np.flatnonzero(corpus.held_out)
    ordered = held_out[keyed_order(held_out, seed=seed, use=Use.MEASURED_DOCUMENTS)][:max_documents]
    document = corpus.document_of(corpus.windows.start)
    first, last = np.searchsorted(document, ordered), np.searchsorted(document, ordered, side="right")
    numbers = np.concatenate([np.zeros(0, np.int64), *(np.arange(a, b) for a, b in zip(first, last, strict=True))])
    n_chosen = max(1, int((np.cumsum(corpus.windows.length[numbers]) <= max_tokens).sum()))
    return numbers[:n_chosen]


def held_out_passages(model: LanguageModel, corpus: Corpus, settings: Evaluate, seed: int) -> tuple[list[Passage], int]:
    """The text on which dictionaries are measured in the model; and its tokens, with those that are never replaced.

    Raises:
        StageError: no pair of tokens in the held-out documents.
    """
    chosen = choose_windows(corpus, settings.max_documents, settings.max_tokens, seed)
    found = require_pairs(list(passages(model, corpus, chosen, settings.batch_tokens)))
    return found, int(corpus.windows.length[chosen].sum())


def passages(model: LanguageModel, corpus: Corpus, chosen: Int64, batch_tokens: int) -> Iterator[Passage]:
    """These windows (by number) in batches of like length; those without a pair to score are left out."""
    for batch, tokens, is_text in text_batches(model, corpus, chosen, room_for_logits(model, batch_tokens)):
        is_text &= scored_pairs(is_text).any(1)[:, None]
        scored = scored_pairs(is_text)
        if not bool(scored.any()):
            continue
        row, position = (places.numpy() for places in is_text.nonzero(as_tuple=True))
        starts = corpus.windows.start[batch]
        yield Passage(
            tokens=tokens,
            is_text=is_text,
            scored=scored,
            documents=corpus.document_of(starts)[scored.nonzero()[:, 0].numpy()],
            replaced_tokens=starts[row] + position - int(corpus.has_bos),
            replaced_documents=corpus.document_of(starts)[row],
            n_tokens=int(corpus.windows.length[batch].sum()),
        )


def text_batches(
    model: LanguageModel, corpus: Corpus, chosen: Int64, batch_tokens: int
) -> Iterator[tuple[Int64, Int[Tensor, "batch position"], Bool[Tensor, "batch position"]]]:
    """Windows (by number) in batches of like length: which windows, their tokens as the model takes them, and which are text."""
    first = int(corpus.has_bos)
    for batch in batches(corpus.windows, max(corpus.context, batch_tokens), chosen):
        tokens = torch.from_numpy(corpus.window_tokens(batch, model.bos_id if first else None))
        yield batch, tokens, text_mask(tokens, corpus.windows.length[batch], first, model.special_ids)


def room_for_logits(model: LanguageModel, batch_tokens: int) -> int:
    """As many tokens in a batch as asked for, and as their logits leave room for."""
    return min(batch_tokens, _LOGITS // model.vocab_size)


def require_pairs(found: list[Passage]) -> list[Passage]:
    """Raises: StageError: nothing would be scored."""
    if not found:
        raise StageError("evaluate: held-out documents hold no two tokens in a row; give longer text")
    return found


def text_mask(
    tokens: Tensor, lengths: Int64, first: int, special_ids: frozenset[int]
) -> Bool[Tensor, "batch position"]:
    """Which positions of a padded batch are text: after BOS, before padding, and no special token."""
    position = torch.arange(tokens.shape[1])[None]
    inside = (position >= first) & (position < first + torch.from_numpy(lengths)[:, None])
    return inside & ~torch.isin(tokens, torch.tensor(sorted(special_ids), dtype=tokens.dtype))
