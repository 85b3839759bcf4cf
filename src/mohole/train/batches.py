"""Which rows a training sees, in what order: the store's, without held-out documents, and from the start again at its end."""

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from mohole import keys
from mohole.errors import NumericsError, StageError
from mohole.store import Store


class Batches:
    """The training rows of one hookpoint."""

    def __init__(self, store: Store, hookpoint: str) -> None:
        if store.manifest.kind != "shuffled":
            raise StageError(
                f"{store.path}: its rows are in the order of the text; train on what `mohole shuffle` makes of them"
            )
        self._store, self._hookpoint = store, hookpoint
        self.d_model = store.d_model(hookpoint)
        self._places: NDArray[np.int64] = np.flatnonzero(~store.held_out)
        if len(self._places) < 2:
            raise StageError(
                f"{store.path}: {len(self._places)} rows that are not held out, and training needs two at least; "
                "give more text, or a smaller windows.held_out"
            )

    @property
    def n_rows(self) -> int:
        """Rows that are not held out."""
        return len(self._places)

    def batch(self, step: int, n_rows: int) -> Float[Tensor, "row d"]:
        """The rows of a step, in the model's units.

        Raises:
            NumericsError: a value that is not finite.
        """
        return self._take(self._places[np.arange(step * n_rows, (step + 1) * n_rows) % self.n_rows], f"step {step}")

    def sample(self, n_rows: int, *, seed: int) -> Float[Tensor, "row d"]:
        """The same rows for every order of the store: those whose tokens have the smallest keys."""
        order = keys.words(seed, keys.Use.SCALE_ROWS, self._store.tokens[self._places])
        return self._take(self._places[np.argsort(order, kind="stable")[:n_rows]], "the sample before step 0")

    def _take(self, places: NDArray[np.int64], when: str) -> Float[Tensor, "row d"]:
        rows = self._store.take(self._hookpoint, places)
        finite = torch.isfinite(rows).all(1)
        if not finite.all():
            place = int(places[int(finite.int().argmin())])
            raise NumericsError(
                f"{self._hookpoint}: not a finite number in row {place} of {self._store.path} (token "
                f"{self._store.tokens[place]}), met at {when}; the model overflows there: harvest with model.dtype and "
                "harvest.dtype float32, or leave that document out"
            )
        return rows
