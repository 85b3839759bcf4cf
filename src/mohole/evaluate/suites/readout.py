"""What the model makes of an edited activation: rows at its last layer, with an edit at each token of some windows."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int
from numpy.typing import NDArray
from torch import Tensor

from mohole.corpus import Corpus
from mohole.evaluate.in_model.edits import replacing
from mohole.evaluate.in_model.passages import text_batches
from mohole.keys import Use, words
from mohole.model import LanguageModel

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]
RowEdit = Callable[[Float32, Int64], NDArray[np.floating]]
"""Rows [row, d] and their global tokens to the rows that take their place."""


@dataclass(frozen=True)
class _Batch:
    tokens: Int[Tensor, "batch position"]
    is_text: Bool[Tensor, "batch position"]
    of: Int64
    """The global token of each position that is text."""


class ReadOut:
    """Some windows of a corpus, and the model's rows at its last layer for each of their tokens."""

    def __init__(
        self, model: LanguageModel, corpus: Corpus, hookpoint: str, windows: Int64, *, batch_tokens: int
    ) -> None:
        self._model, self._hookpoint = model, hookpoint
        self._starts = corpus.windows.start
        self.read_at = f"resid_post.{model.n_layers - 1}"
        self._batches = list(_batches(model, corpus, windows, batch_tokens))
        of = np.concatenate([np.zeros(0, np.int64), *(batch.of for batch in self._batches)])
        self._order = np.argsort(of, kind="stable")
        self.tokens: Int64 = of[self._order]
        """Global indices of the tokens that are read, ascending."""

    def rows(self, tokens: Int64, edit: RowEdit | None = None) -> Float32:
        """The last layer's rows of these tokens, with the rows at the hookpoint edited at every token; None: untouched."""
        found = []
        for batch in self._batches:
            edits = [] if edit is None else [replacing(self._hookpoint, batch.is_text, on_tensors(edit, batch.of))]
            read = self._model.read(batch.tokens, [self.read_at], edits)[self.read_at]
            found.append(read.float().cpu()[batch.is_text].numpy())
        every = np.concatenate(found)[self._order]
        return np.asarray(every[np.searchsorted(self.tokens, tokens)])

    def window_of(self, tokens: Int64) -> Int64:
        """The window that each token is in, by number."""
        return np.searchsorted(self._starts, tokens, side="right") - 1


def some_windows(corpus: Corpus, tokens: Int64, n_windows: int, seed: int) -> Int64:
    """Windows (by number) that hold any of these tokens: those of documents in keyed order, until there are enough."""
    holding = np.unique(np.searchsorted(corpus.windows.start, tokens, side="right") - 1)
    keys = words(seed, Use.MEASURED_DOCUMENTS, corpus.document_of(corpus.windows.start[holding]))
    return np.sort(holding[np.lexsort((holding, keys))[:n_windows]])


def _batches(model: LanguageModel, corpus: Corpus, chosen: Int64, batch_tokens: int) -> list[_Batch]:
    found = []
    for batch, tokens, is_text in text_batches(model, corpus, chosen, batch_tokens):
        row, position = (places.numpy() for places in is_text.nonzero(as_tuple=True))
        of = corpus.windows.start[batch][row] + position - int(corpus.has_bos)
        found.append(_Batch(tokens, is_text, of))
    return found


def on_tensors(edit: RowEdit, of: Int64) -> Callable[[Tensor], Tensor]:
    """The edit as `replacing` takes it, for the tokens `of` in the order of their rows."""
    return lambda rows: torch.from_numpy(np.asarray(edit(rows.float().cpu().numpy(), of))).to(rows)
