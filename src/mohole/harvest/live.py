"""Rows for training straight from the model, with nothing stored: windows in random order, mixed within a bounded buffer.

Weaker mixing than the shuffled order, and stated: a buffer holds the rows of buffer_rows / context windows, drawn at random
from the whole corpus, so rows of one window meet within a buffer and nowhere else. The place in the stream is one integer
here too: the buffer that holds it is made again from the seed and the corpus alone.
"""

from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from mohole import keys
from mohole.corpus import Corpus
from mohole.errors import NumericsError, StageError
from mohole.harvest.slice import activations
from mohole.model import LanguageModel

Int64 = NDArray[np.int64]


class LiveStream:
    """The rows of training documents at one hookpoint. The same interface as `store.stream.Stream`."""

    def __init__(
        self,
        model: LanguageModel,
        corpus: Corpus,
        hookpoint: str,
        *,
        buffer_rows: int,
        batch_tokens: int,
        seed: int,
        epoch: int = 0,
    ) -> None:
        """Args:
            buffer_rows: rows held in memory, and mixed, at a time; a window more at most.

        Raises:
            HookpointError: the model has no such hookpoint. StageError: fewer than two training rows.
        """
        self.hookpoint, self.d_model = model.canonical(hookpoint), model.width(hookpoint)
        self._model, self._corpus, self._batch_tokens = model, corpus, batch_tokens
        self._seed, self._epoch = seed, epoch
        windows = corpus.windows
        training = np.flatnonzero(~corpus.held_out[corpus.document_of(windows.start)])
        order = keys.words(seed, keys.Use.LIVE_WINDOWS, windows.start[training], epoch)
        self._windows: Int64 = training[np.lexsort((training, order))]
        self._has_row = ~np.isin(corpus.tokens, list(model.special_ids))
        before = np.concatenate([[0], np.cumsum(self._has_row)])
        ends = windows.start + windows.length
        n_rows = (before[ends] - before[windows.start])[self._windows]
        self._firsts = self._cut(n_rows, buffer_rows)
        self.n_rows = int(n_rows.sum())
        """Rows of documents that are not held out."""
        if self.n_rows < 2:
            raise StageError(
                f"{corpus.path}: {self.n_rows} rows that are not held out, and training needs two at least"
            )
        self._filled: tuple[int, Float[Tensor, "row d"]] | None = None

    def _cut(self, n_rows: Int64, buffer_rows: int) -> Int64:
        """[buffer, 2]: the window and the rank of the row at which each buffer begins; the last line is the end."""
        ends = np.cumsum(n_rows)
        firsts, window, rank = [], 0, 0
        while window < len(n_rows):
            firsts.append((window, rank))
            window = max(int(np.searchsorted(ends, rank + buffer_rows, side="right")), window + 1)
            rank = int(ends[window - 1])
        return np.asarray([*firsts, (len(n_rows), rank)], dtype=np.int64)

    @cached_property
    def n_buffers(self) -> int:
        """How often the buffer is filled for one pass over the corpus."""
        return len(self._firsts) - 1

    def batch(self, step: int, n_rows: int, *, rank: int = 0, world: int = 1) -> Float[Tensor, "row d"]:
        """As `Stream.batch`."""
        if n_rows % world:
            raise ValueError(f"{n_rows} rows cannot be shared by {world} ranks")
        mine = n_rows // world
        return self.rows(step * n_rows + rank * mine, mine)

    def rows(self, first: int, n_rows: int) -> Float[Tensor, "row d"]:
        """As `Stream.rows`."""
        parts, done = [], 0
        while done < n_rows:
            rank = (first + done) % self.n_rows
            start, held = self._buffer_at(rank)
            part = held[rank - start : rank - start + n_rows - done]
            parts.append(part)
            done += len(part)
        return torch.cat(parts)

    def _buffer_at(self, rank: int) -> tuple[int, Float[Tensor, "row d"]]:
        number = int(np.searchsorted(self._firsts[:, 1], rank, side="right")) - 1
        start = int(self._firsts[number, 1])
        if self._filled is None or self._filled[0] != start:
            self._filled = None  # let go of it first: memory is for one
            self._filled = start, self._fill(number)
        return self._filled

    def _fill(self, number: int) -> Float[Tensor, "row d"]:
        windows = self._windows[self._firsts[number, 0] : self._firsts[number + 1, 0]]
        tokens: list[Int64] = []
        values: list[NDArray[np.float32]] = []
        for _, found, rows in activations(
            self._model,
            self._corpus,
            windows,
            [self.hookpoint],
            self._batch_tokens,
            has_row=lambda tokens: self._has_row[tokens],
        ):
            tokens.append(found)
            values.append(rows.numpy())
        all_tokens, all_rows = np.concatenate(tokens), np.concatenate(values)
        if not np.isfinite(all_rows).all():
            token = int(all_tokens[~np.isfinite(all_rows).all(axis=1)][0])
            raise NumericsError(f"{self.hookpoint}: NaN or infinity at token {token}; try model.dtype=float32")
        mixed = keys.words(self._seed, keys.Use.LIVE_ROWS, all_tokens, self._epoch)
        return torch.from_numpy(all_rows[np.lexsort((all_tokens, mixed))])
