"""Which rows are looked at, and reading them from the store. What becomes of them is elsewhere."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from mohole.corpus import Corpus, within_budget
from mohole.errors import StageError
from mohole.keys import Use
from mohole.metrics import MeanRow, require_finite
from mohole.store import Store

Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]

COUNTED = "rows of held-out documents: every token of the text that is no special token; no BOS, no padding"
"""Whatever is counted here and in the other rooms."""
CENTRE = "the mean row over all counted rows"
"""What variance is measured from."""

_READ_ROWS = 1 << 14  # rows read at once where nothing is encoded
_CHUNK_ELEMENTS = 1 << 22  # rows x latents of pre-activations held at once: 16 MB, which stays in most caches' reach


@dataclass(frozen=True)
class Rows:
    """Rows of a store, in the order of the corpus."""

    tokens: Int64
    """The global token index of each row, ascending."""
    documents: Int64
    """The document of each row."""

    def __len__(self) -> int:
        return len(self.tokens)


def choose_rows(corpus: Corpus, store: Store, *, held_out: bool, max_rows: int, seed: int) -> Rows:
    """Rows of held-out (or of training) documents: whole documents in keyed order, until there are `max_rows`.

    Raises:
        StageError: there are none.
    """
    side = store.tokens[store.held_out == held_out]
    if len(side) == 0:
        name = "held-out" if held_out else "training"
        raise StageError(f"{store.url}: no rows of {name} documents; give more text, or set windows.held_out")
    documents = corpus.document_of(side)
    unique, counts = np.unique(documents, return_counts=True)
    kept = np.isin(documents, within_budget(unique, counts, max_rows, seed=seed, use=Use.MEASURED_DOCUMENTS))
    return Rows(side[kept], documents[kept])


def chunks(n_rows: int, n_latents: int) -> Iterator[slice]:
    """Slices of rows small enough to encode at once."""
    step = max(16, _CHUNK_ELEMENTS // n_latents)
    return (slice(start, min(start + step, n_rows)) for start in range(0, n_rows, step))


def take(store: Store, hookpoints: Sequence[str], tokens: Int64, place: str) -> dict[str, Float[Tensor, "row d"]]:
    """Stored rows of these tokens at each hookpoint.

    Raises:
        NumericsError: one is not finite.
    """
    rows = {name: torch.from_numpy(store.take(name, tokens)) for name in dict.fromkeys(hookpoints)}
    for name, values in rows.items():
        require_finite(values, f"{name}: stored rows, {place},")
    return rows


def mean_row(store: Store, rows: Rows, hookpoint: str) -> Float64:
    """The mean of the stored rows. A pass of its own: what is divided by a distance from it cannot be mended afterwards.

    Raises:
        NumericsError: a row is not finite.
    """
    mean = MeanRow(store.d_model(hookpoint))
    for start in range(0, len(rows), _READ_ROWS):
        where = f"from row {start} of the held-out ones"
        mean.add(take(store, (hookpoint,), rows.tokens[start : start + _READ_ROWS], where)[hookpoint])
    return mean.value
