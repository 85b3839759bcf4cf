"""What sums over held-out rows say, each number with its unit, masks, baseline and definition. Filled in measure.py."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from mohole.dictionary import SparseCodes
from mohole.evaluate.rows.choice import COUNTED
from mohole.metrics import (
    CentredRows,
    DocumentFiring,
    DocumentSums,
    Firing,
    LongestApart,
    Masks,
    Measure,
    Reconstruction,
    l1_by_row,
    measured,
)
from mohole.metrics.measure import Statistic

Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]

_LONGEST = 1000
"""One row of so many is apart in `fvu_trimmed`."""


@dataclass(frozen=True)
class Row:
    """How one number is read."""

    name: str
    statistic: Statistic
    unit: str
    baseline: str
    definition: str


class RowSums:
    """All sums over the rows that a dictionary rebuilds. Their mean and their number are known before the first is added."""

    def __init__(self, mean: Float64, n_rows: int, norms: Float[Tensor, " latent"]) -> None:
        self.rebuilt = LongestApart(-(-n_rows // _LONGEST))
        self.centred = CentredRows(mean)
        self.firing, self.by_document = Firing(len(norms)), DocumentFiring(len(norms))
        self.sizes = DocumentSums(("rows", "active", "l1", "l1_by_length"))
        self._norms = norms

    def add(
        self,
        target: Tensor,
        output: Tensor,
        codes: SparseCodes,
        documents: Int64,
        *,
        scales: Float[Tensor, " row"] | None = None,
        place: str,
    ) -> None:
        """Add rows, their reconstruction and codes, and the document of each.

        Args:
            scales: model units in one unit of a row's codes. None: 1.
        """
        self.rebuilt.add(target, output, documents, place=place)
        self.centred.add(target, output, documents, place=place)
        self.firing.add(codes.latents, codes.values, codes.n_rows)
        self.by_document.add(codes, documents)
        active = torch.bincount(codes.rows[codes.values != 0], minlength=codes.n_rows).numpy()
        by_length = l1_by_row(codes, self._norms)
        by_length = by_length if scales is None else by_length * scales.double().numpy()
        columns = (np.ones(codes.n_rows), active, l1_by_row(codes), by_length)
        self.sizes.add(documents, np.stack(columns, axis=1), place=place)

    def measures(self, seed: int) -> Iterator[Measure]:
        """Every number. Intervals are over documents."""
        whole, rest, places = self.rebuilt.whole, self.rebuilt.rest, self.by_document.by_document()
        for documents, n, rows in (
            (whole.documents, whole.n_rows, _rebuilt(whole)),
            (self.centred.documents, whole.n_rows, _centred(self.centred)),
            *([(rest.documents, rest.n_rows, _trimmed(rest, self.rebuilt.n_longest))] if rest.has_rows else []),
            (self.sizes.documents, whole.n_rows, _sizes(self.sizes)),
            (places.documents, whole.n_rows, _places(places)),
        ):
            yield from (_measured(row, documents, n, seed) for row in rows)
        yield from self._counts()

    def _counts(self) -> Iterator[Measure]:
        n = self.firing.n_rows
        for name, value, definition in (
            ("dead", self.firing.n_dead,
             f"latents that fired in none of {n} rows; one of density p is missed with chance (1 - p)^{n}"),
            ("dense", self.firing.n_denser_than(0.1), f"latents that fired in more than a tenth of {n} rows"),
        ):  # fmt: skip
            yield Measure(
                name=name,
                value=float(value),
                unit="latents",
                low=None,
                high=None,
                n=n,
                n_of="rows",
                n_documents=len(self.sizes.documents),
                masks=Masks(counted=COUNTED),
                baseline="",
                definition=definition,
            )


def rebuilt_measures(sums: Reconstruction, seed: int, of: str) -> Iterator[Measure]:
    """The numbers of one hookpoint of several; `of` goes behind each name."""
    return (_measured(row, sums.documents, sums.n_rows, seed, of) for row in _rebuilt(sums))


def _measured(row: Row, documents: Int64, n: int, seed: int, of: str = "") -> Measure:
    return measured(
        row.statistic,
        documents,
        seed=seed,
        name=row.name + of,
        unit=row.unit,
        n=n,
        n_of="rows",
        masks=Masks(counted=COUNTED),
        baseline=row.baseline,
        definition=row.definition,
        undefined="no latent fired" if row.name == "firing_consistency" else "the counted rows have no variance",
    )


def _rebuilt(sums: Reconstruction) -> tuple[Row, ...]:
    centre = "the mean row over all counted rows"
    return (
        Row("fvu", sums.fvu, "share of variance", centre, "sum |x - x^|^2 / sum |x - mean(x)|^2; 0 is perfect"),
        Row("r2_uncentred", sums.r2_uncentred, "share of length^2", "zero",
            "1 - sum |x - x^|^2 / sum |x|^2; flattered by the mean"),
        Row("mse", sums.mse, "squared model units", "", "mean over rows of |x - x^|^2, summed over dimensions"),
        Row("mse_per_dimension", sums.mse_per_dimension, "squared model units per dimension", "",
            "mse / number of dimensions"),
        Row("cosine", sums.cosine, "cosine", "", "mean over rows of cos(x, x^), uncentred"),
        Row("length_ratio", sums.length_ratio, "ratio", "", "mean over rows of |x^| / |x|; below 1 is shrinkage"),
        Row("relative_bias", sums.relative_bias, "ratio", "",
            "sum |x^|^2 / sum x.x^; 1 is unbiased, below 1 is shrinkage"),
    )  # fmt: skip


def _centred(sums: CentredRows) -> tuple[Row, ...]:
    centre = "the mean row over all counted rows"
    return (
        Row("cosine_centred", sums.cosine, "cosine", centre, "mean over rows of cos(x - mean(x), x^ - mean(x))"),
        Row("fvu_by_dimension", sums.fvu_by_dimension, "share of variance", centre,
            "mean over dimensions d of sum (x_d - x^_d)^2 / sum (x_d - mean(x)_d)^2; depends on the basis"),
        Row("fvu_by_row_legacy", sums.fvu_by_row_legacy, "share of variance", centre,
            "mean over rows of |x - x^|^2 / |x - mean(x)|^2; only to compare with published 1 - explained variance"),
    )  # fmt: skip


def _trimmed(sums: Reconstruction, n_longest: int) -> tuple[Row, ...]:
    definition = f"fvu without the {n_longest} rows of largest norm, a thousandth of all"
    return (Row("fvu_trimmed", sums.fvu, "share of variance", "the mean row over the rows left", definition),)


def _sizes(sums: DocumentSums) -> tuple[Row, ...]:
    return (
        Row("l0", sums.mean_of("active", "rows"), "latents per row", "",
            "mean over rows of the number of latents that are not zero"),
        Row("l1", sums.mean_of("l1", "rows"), "units of the latents", "",
            "mean over rows of sum |f_j|; depends on each latent's unit"),
        Row("l1_by_length", sums.mean_of("l1_by_length", "rows"), "model units", "",
            "mean over rows of sum |f_j| * |d_j|; the same whatever the latents' units are"),
    )  # fmt: skip


def _places(sums: DocumentSums) -> tuple[Row, ...]:
    definition = "firings for each pair of a document and a latent that fires in it; 1 is once a document"
    return (
        Row(
            "firing_consistency", sums.mean_of("firings", "latents"), "firings per document and latent", "", definition
        ),
    )
