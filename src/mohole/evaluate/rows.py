"""Which rows are looked at, and how well a dictionary rebuilds them: FVU and its kin, L0, dead latents, densities."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mohole.corpus import Corpus, within_budget
from mohole.dictionary import Dictionary, SparseCodes
from mohole.errors import StageError
from mohole.keys import Use
from mohole.metrics import (
    DensityHistogram,
    DocumentSums,
    Firing,
    Masks,
    Measure,
    Reconstruction,
    measured,
    require_finite,
)
from mohole.progress import track
from mohole.store import Store

Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]

COUNTED = "rows of held-out documents: every token of the text that is no special token; no BOS, no padding"
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
    """Encode and decode the rows once, and measure.

    Raises:
        NumericsError: a row or its reconstruction is not finite.
    """
    hookpoint = dictionary.hookpoint
    rebuilt, firing, active = Reconstruction(), Firing(dictionary.n_latents), DocumentSums(("rows", "active"))
    with track(f"evaluate {hookpoint}: rows", len(rows), "rows") as tracker:
        for part in chunks(len(rows), dictionary.n_latents):
            target = torch.from_numpy(store.take(hookpoint, rows.tokens[part]))
            require_finite(target, f"{hookpoint}: stored rows, from row {part.start} of the held-out ones,")
            codes = dictionary.encode(target)
            rebuilt.add(target, dictionary.decode(codes), rows.documents[part], place=f"{hookpoint}: reconstruction")
            firing.add(codes.latents, codes.values, codes.n_rows)
            active.add(rows.documents[part], _active(codes))
            tracker.advance(len(target))
    return RowQuality(
        (*_rebuilt_measures(rebuilt, seed), *_firing_measures(firing, active, seed)), firing.histogram(), rebuilt.mean
    )


def _active(codes: SparseCodes) -> Float64:
    fired = torch.bincount(codes.rows[codes.values != 0], minlength=codes.n_rows)
    return np.stack([np.ones(codes.n_rows), fired.numpy().astype(np.float64)], axis=1)


def _rebuilt_measures(sums: Reconstruction, seed: int) -> Iterator[Measure]:
    centre = "the mean row over all counted rows"
    for name, statistic, unit, baseline, definition in (
        ("fvu", sums.fvu, "share of variance", centre, "sum |x - x^|^2 / sum |x - mean(x)|^2; 0 is perfect"),
        ("r2_uncentred", sums.r2_uncentred, "share of length^2", "zero", "1 - sum |x - x^|^2 / sum |x|^2; flattered by the mean"),
        ("mse", sums.mse, "squared model units", "", "mean over rows of |x - x^|^2, summed over dimensions"),
        ("cosine", sums.cosine, "cosine", "", "mean over rows of cos(x, x^), uncentred"),
        ("relative_bias", sums.relative_bias, "ratio", "", "sum |x^|^2 / sum x.x^; 1 is unbiased, below 1 is shrinkage"),
    ):  # fmt: skip
        yield measured(
            statistic,
            sums.documents,
            seed=seed,
            name=name,
            unit=unit,
            n=sums.n_rows,
            n_of="rows",
            masks=Masks(counted=COUNTED),
            baseline=baseline,
            definition=definition,
            undefined="the counted rows have no variance",
        )


def _firing_measures(firing: Firing, active: DocumentSums, seed: int) -> Iterator[Measure]:
    masks, n = Masks(counted=COUNTED), firing.n_rows
    yield measured(
        active.mean_of("active", "rows"),
        active.documents,
        seed=seed,
        name="l0",
        unit="latents per row",
        n=n,
        n_of="rows",
        masks=masks,
        definition="mean over rows of the number of latents that are not zero",
    )
    for name, value, definition in (
        ("dead", firing.n_dead, f"latents that fired in none of {n} rows; one of density p is missed with chance (1 - p)^{n}"),
        ("dense", firing.n_denser_than(0.1), f"latents that fired in more than a tenth of {n} rows"),
    ):  # fmt: skip
        yield Measure(
            name=name,
            value=float(value),
            unit="latents",
            low=None,
            high=None,
            n=n,
            n_of="rows",
            n_documents=len(active.documents),
            masks=masks,
            baseline="",
            definition=definition,
        )
