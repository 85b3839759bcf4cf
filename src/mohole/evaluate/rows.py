"""Which rows are looked at, and their way through a dictionary into sums. What the sums say is in row_measures.py."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mohole.corpus import Corpus, within_budget
from mohole.dictionary import Dictionary
from mohole.errors import StageError
from mohole.evaluate.row_measures import RowSums
from mohole.keys import Use
from mohole.metrics import DensityHistogram, MeanRow, Measure, require_finite, row_norms
from mohole.progress import track
from mohole.store import Store

Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]

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


@dataclass(frozen=True)
class RowQuality:
    """What the held-out rows say."""

    measures: tuple[Measure, ...]
    density: DensityHistogram
    mean: Float64
    """The mean row, for mean ablation."""


def measure_rows(store: Store, rows: Rows, dictionary: Dictionary, *, seed: int) -> RowQuality:
    """Read the rows for their mean, then encode and decode them once, and measure.

    Raises:
        NumericsError: a row or its reconstruction is not finite.
    """
    hookpoint = dictionary.hookpoint
    mean = mean_row(store, rows, hookpoint)
    norms = row_norms(dictionary.directions(torch.arange(dictionary.n_latents)))
    sums = RowSums(mean, len(rows), norms)
    with track(f"evaluate {hookpoint}: rows", len(rows), "rows") as tracker:
        for part in chunks(len(rows), dictionary.n_latents):
            target = torch.from_numpy(store.take(hookpoint, rows.tokens[part]))
            require_finite(target, f"{hookpoint}: stored rows, from row {part.start} of the held-out ones,")
            codes = dictionary.encode(target)
            output = dictionary.decode(codes)
            sums.add(target, output, codes, rows.documents[part], place=f"{hookpoint}: reconstruction")
            tracker.advance(len(target))
    return RowQuality(tuple(sums.measures(seed)), sums.firing.histogram(), mean)


def mean_row(store: Store, rows: Rows, hookpoint: str) -> Float64:
    """The mean of the stored rows. A pass of its own: what is divided by a distance from it cannot be mended afterwards."""
    mean = MeanRow(store.d_model(hookpoint))
    for start in range(0, len(rows), _READ_ROWS):
        mean.add(torch.from_numpy(store.take(hookpoint, rows.tokens[start : start + _READ_ROWS])))
    return mean.value
