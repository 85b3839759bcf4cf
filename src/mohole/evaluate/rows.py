"""Which rows are looked at, and how well a dictionary rebuilds them: FVU and its kin, L0, dead latents, densities."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from mohole.corpus import Corpus, within_budget
from mohole.dictionary import SparseCodes
from mohole.errors import StageError
from mohole.evaluate.standin import StandIn
from mohole.keys import Use
from mohole.metrics import (
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
    firing: Firing


def take(store: Store, hookpoints: Sequence[str], tokens: Int64, place: str) -> dict[str, Float[Tensor, "row d"]]:
    """Stored rows of these tokens at each hookpoint.

    Raises:
        NumericsError: one is not finite.
    """
    rows = {name: torch.from_numpy(store.take(name, tokens)) for name in dict.fromkeys(hookpoints)}
    for name, values in rows.items():
        require_finite(values, f"{name}: stored rows, {place},")
    return rows


def measure_rows(store: Store, rows: Rows, spliced: StandIn, *, seed: int) -> RowQuality:
    """Encode and decode the rows once, and measure.

    Raises:
        NumericsError: a row or its reconstruction is not finite.
    """
    several = spliced.writes if len(spliced.writes) > 1 else ()
    whole, parts = Reconstruction(), {name: Reconstruction() for name in several}
    firing, active = Firing(spliced.n_latents), DocumentSums(("rows", "active"))
    with track(f"evaluate {spliced.name}: rows", len(rows), "rows") as tracker:
        for part in chunks(len(rows), spliced.n_latents):
            documents, where = rows.documents[part], f"from row {part.start} of the held-out ones"
            stored = take(store, (*spliced.reads, *spliced.writes), rows.tokens[part], where)
            outputs, codes = spliced.rebuild(stored)
            outputs = {name: output.cpu() for name, output in outputs.items()}
            whole.add(*_columns(stored, outputs), documents, place=f"{', '.join(spliced.writes)}: reconstruction")
            for name, own in parts.items():
                own.add(stored[name], outputs[name], documents, place=f"{name}: reconstruction")
            firing.add(codes.latents.cpu(), codes.values.cpu(), codes.n_rows)
            active.add(documents, _active(codes))
            tracker.advance(len(documents))
    named = [measure for name, own in parts.items() for measure in _rebuilt_measures(own, seed, f"/{name}")]
    return RowQuality((*_rebuilt_measures(whole, seed), *named, *_firing_measures(firing, active, seed)), firing)


def _columns(stored: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """What is rebuilt and what it is rebuilt as, all hookpoints' columns side by side."""
    if len(outputs) == 1:
        ((name, output),) = outputs.items()
        return stored[name], output
    return torch.cat([stored[name] for name in outputs], 1), torch.cat(list(outputs.values()), 1)


def _active(codes: SparseCodes) -> Float64:
    fired = torch.bincount(codes.rows[codes.values != 0], minlength=codes.n_rows).cpu()
    return np.stack([np.ones(codes.n_rows), fired.numpy().astype(np.float64)], axis=1)


def _rebuilt_measures(sums: Reconstruction, seed: int, of: str = "") -> Iterator[Measure]:
    """Args:
    of: behind each name, where it is of one hookpoint of several.
    """
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
            name=name + of,
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
