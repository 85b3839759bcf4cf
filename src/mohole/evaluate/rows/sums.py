"""What sums over held-out rows say, each number with its unit, masks, baseline and definition. Filled in measure.py."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from mohole.dictionary import SparseCodes
from mohole.evaluate.rows.choice import CENTRE, COUNTED
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
)
from mohole.metrics.measure import Reading

Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]

_LONGEST = 1000
"""One row of so many is apart in `fvu_trimmed`."""
_NO_VARIANCE = "the counted rows have no variance"
_of_rows = partial(Reading, undefined=_NO_VARIANCE)


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
        for documents, n, readings in (
            (whole.documents, whole.n_rows, _rebuilt(whole)),
            (self.centred.documents, whole.n_rows, _centred(self.centred)),
            *([(rest.documents, rest.n_rows, _trimmed(rest, self.rebuilt.n_longest))] if rest.has_rows else []),
            (self.sizes.documents, whole.n_rows, _sizes(self.sizes)),
            (places.documents, whole.n_rows, _places(places)),
        ):
            yield from (_measured(each, documents, n, seed) for each in readings)
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
    readings = (replace(each, name=each.name + of) for each in _rebuilt(sums))
    return (_measured(each, sums.documents, sums.n_rows, seed) for each in readings)


def _measured(reading: Reading, documents: Int64, n: int, seed: int) -> Measure:
    return reading.of(documents, seed=seed, n=n, n_of="rows", masks=Masks(counted=COUNTED))


def _rebuilt(sums: Reconstruction) -> tuple[Reading, ...]:
    return (
        _of_rows("fvu", sums.fvu, "share of variance", CENTRE, "sum |x - x^|^2 / sum |x - mean(x)|^2; 0 is perfect"),
        _of_rows("r2_uncentred", sums.r2_uncentred, "share of length^2", "zero",
            "1 - sum |x - x^|^2 / sum |x|^2; flattered by the mean"),
        _of_rows("mse", sums.mse, "squared model units", "", "mean over rows of |x - x^|^2, summed over dimensions"),
        _of_rows("mse_per_dimension", sums.mse_per_dimension, "squared model units per dimension", "",
            "mse / number of dimensions"),
        _of_rows("cosine", sums.cosine, "cosine", "", "mean over rows of cos(x, x^), uncentred"),
        _of_rows("length_ratio", sums.length_ratio, "ratio", "", "mean over rows of |x^| / |x|; below 1 is shrinkage"),
        _of_rows("relative_bias", sums.relative_bias, "ratio", "",
            "sum |x^|^2 / sum x.x^; 1 is unbiased, below 1 is shrinkage"),
    )  # fmt: skip


def _centred(sums: CentredRows) -> tuple[Reading, ...]:
    return (
        _of_rows("cosine_centred", sums.cosine, "cosine", CENTRE, "mean over rows of cos(x - mean(x), x^ - mean(x))"),
        _of_rows("fvu_by_dimension", sums.fvu_by_dimension, "share of variance", CENTRE,
            "mean over dimensions d of sum (x_d - x^_d)^2 / sum (x_d - mean(x)_d)^2; depends on the basis"),
        _of_rows("fvu_by_row_legacy", sums.fvu_by_row_legacy, "share of variance", CENTRE,
            "mean over rows of |x - x^|^2 / |x - mean(x)|^2; only to compare with published 1 - explained variance"),
    )  # fmt: skip


def _trimmed(sums: Reconstruction, n_longest: int) -> tuple[Reading, ...]:
    definition = f"fvu without the {n_longest} rows of largest norm, a thousandth of all"
    return (_of_rows("fvu_trimmed", sums.fvu, "share of variance", "the mean row over the rows left", definition),)


def _sizes(sums: DocumentSums) -> tuple[Reading, ...]:
    return (
        _of_rows("l0", sums.mean_of("active", "rows"), "latents per row", "",
            "mean over rows of the number of latents that are not zero"),
        _of_rows("l1", sums.mean_of("l1", "rows"), "units of the latents", "",
            "mean over rows of sum |f_j|; depends on each latent's unit"),
        _of_rows("l1_by_length", sums.mean_of("l1_by_length", "rows"), "model units", "",
            "mean over rows of sum |f_j| * |d_j|; the same whatever the latents' units are"),
    )  # fmt: skip


def _places(sums: DocumentSums) -> tuple[Reading, ...]:
    unit = "firings per document and latent"
    definition = "firings for each pair of a document and a latent that fires in it; 1 is once a document"
    return (Reading("firing_consistency", sums.mean_of("firings", "latents"), unit, "", definition, "no latent fired"),)
