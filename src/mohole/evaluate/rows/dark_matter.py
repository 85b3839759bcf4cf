"""What a dictionary leaves unexplained: whose error it is, what hides in few rows, and latents that do a bias's work.

How much of the error a linear map would say is in linear_error.py. Source: Engels, Smith & Tegmark 2024 (arXiv 2410.14670),
"Decomposing the dark matter of sparse autoencoders".
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from mohole.corpus import Corpus, within_budget
from mohole.evaluate.results import DarkMatter, DenseLatent, ErrorClass
from mohole.evaluate.rows.choice import COUNTED, Rows, chunks, take
from mohole.evaluate.rows.linear_error import LinearError
from mohole.evaluate.rows.token_classes import CLASSES, classes_of
from mohole.evaluate.standin import StandIn, joined
from mohole.keys import Use
from mohole.metrics import DocumentSums, Firing, Masks, Measure, measured
from mohole.metrics.measure import Statistic, ratio
from mohole.progress import track
from mohole.store import Store

Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]

OUTLIERS = 0.001  # of the rows, those of largest norm
MOST_DENSE = 50  # latents listed
DENSE = 0.1

_SUMS = ("rows", "error", "spread")


def measure_dark_matter(
    store: Store, corpus: Corpus, rows: Rows, spliced: StandIn, firing: Firing, max_rows: int, *, seed: int
) -> tuple[tuple[Measure, ...], DarkMatter]:
    """Numbers for the list of measures, and what is told class by class and latent by latent.

    Args:
        rows: held-out rows, of which whole documents are taken until there are `max_rows`.
        firing: of the dictionary over all of `rows`.

    Raises:
        NumericsError: a row or its reconstruction is not finite.
    """
    chosen = _fewer(rows, max_rows, seed)
    norms = _norms(store, chosen, spliced)
    classes = classes_of(corpus, chosen.tokens)
    sums = DocumentSums([f"{what} {i}" for i in range(len(CLASSES)) for what in _SUMS])
    fits = LinearError(spliced, chosen, seed)
    with track(f"evaluate {spliced.name}: what is unexplained", len(chosen) + fits.n_judged, "rows") as tracker:
        for part in chunks(len(chosen), spliced.n_latents):
            documents = chosen.documents[part]
            read, target, output = _rebuilt(store, chosen, part, spliced)
            sums.add(documents, _by_class(classes[part], target, output, norms.mean), place=f"{spliced.name}: errors")
            fits.fit(part, read, target - output)
            tracker.advance(len(target))
        for part in chunks(len(chosen), spliced.n_latents) if fits.undefined == "" else ():
            if fits.judges(part):
                read, target, output = _rebuilt(store, chosen, part, spliced)
                tracker.advance(fits.judge(part, read, target - output, target, norms.mean))
    measures = (*fits.measures(seed), _outlier_variance(norms, chosen))
    return measures, DarkMatter(
        n_rows=len(chosen),
        classes=tuple(_class_results(sums, seed)),
        dense=tuple(_dense(spliced, firing, norms.mean)),
    )


def _fewer(rows: Rows, max_rows: int, seed: int) -> Rows:
    documents, counts = np.unique(rows.documents, return_counts=True)
    kept = np.isin(rows.documents, within_budget(documents, counts, max_rows, seed=seed, use=Use.DARK_MATTER_DOCUMENTS))
    return Rows(rows.tokens[kept], rows.documents[kept])


def _rebuilt(store: Store, rows: Rows, part: slice, spliced: StandIn) -> tuple[Tensor, Tensor, Tensor]:
    """(what is read, what is to be rebuilt, what it is rebuilt as), the columns of all hookpoints side by side."""
    stored = take(
        store, (*spliced.reads, *spliced.writes), rows.tokens[part], f"from row {part.start} of the chosen ones"
    )
    return (joined(stored, spliced.reads), *spliced.compared(stored))


@dataclass(frozen=True)
class _Norms:
    lengths: Float64
    """Of each row that is to be rebuilt."""
    cut: float
    """The largest length that is no outlier."""
    mean: Float[Tensor, " d"]
    outlier_square: float
    """Squared distance of the outliers from the mean row, all together."""
    square: float
    """The same of all rows."""


def _norms(store: Store, rows: Rows, spliced: StandIn) -> _Norms:
    """Each row's length, found before anything is encoded: who is an outlier is known only when all have been seen."""
    lengths, total = np.zeros(len(rows)), torch.zeros(spliced.width_out, dtype=torch.float64)
    n_outliers = int(np.ceil(OUTLIERS * len(rows)))
    for part in chunks(len(rows), 1024):
        target = _targets(store, rows.tokens[part], spliced)
        lengths[part] = target.norm(dim=1).numpy()
        total = total + target.sum(0)
    mean = total / len(rows)
    cut = float(np.sort(lengths)[-n_outliers - 1]) if len(rows) > n_outliers else float("inf")
    square = outlier_square = 0.0
    for part in chunks(len(rows), 1024):
        distance = (_targets(store, rows.tokens[part], spliced) - mean).square().sum(1).numpy()
        square += float(distance.sum())
        outlier_square += float(distance[lengths[part] > cut].sum())
    return _Norms(lengths, cut, mean, outlier_square, square)


def _targets(store: Store, tokens: Int64, spliced: StandIn) -> Float[Tensor, "row d"]:
    stored = take(store, spliced.writes, tokens, "of the chosen ones")
    return joined(stored, spliced.writes).double()


def _by_class(classes: Int64, target: Tensor, output: Tensor, mean: Tensor) -> Float64:
    values = np.zeros((len(classes), len(CLASSES), len(_SUMS)))
    error = (target.double() - output.double()).square().sum(1).numpy()
    spread = (target.double() - mean).square().sum(1).numpy()
    values[np.arange(len(classes)), classes] = np.stack([np.ones(len(classes)), error, spread], 1)
    return values.reshape(len(classes), -1)


def _class_results(sums: DocumentSums, seed: int) -> Iterator[ErrorClass]:
    total = sum(sums.column(f"error {i}") for i in range(len(CLASSES)))
    n_rows = sum(sums.total(f"rows {i}") for i in range(len(CLASSES)))
    for i, name in enumerate(CLASSES):
        n = int(sums.total(f"rows {i}"))
        if n == 0:
            continue
        error, spread = sums.column(f"error {i}"), sums.column(f"spread {i}")

        def share(weights: Float64, error: Float64 = error) -> Float64:
            return ratio(weights @ error, weights @ total)

        def fvu(weights: Float64, error: Float64 = error, spread: Float64 = spread) -> Float64:
            return ratio(weights @ error, weights @ spread)

        yield ErrorClass(
            name=name,
            n=n,
            share_of_rows=n / n_rows,
            share_of_error=_measure(share, sums, seed, "share_of_error", "share of squared error", n,
                                    "its squared error as a share of that of all rows", "there is no error"),
            fvu=_measure(fvu, sums, seed, "fvu", "share of variance", n,
                         "its squared error over its squared distance from the mean row of all", "its rows are the mean row"),
        )  # fmt: skip


def _measure(
    statistic: Statistic, sums: DocumentSums, seed: int, name: str, unit: str, n: int, definition: str, undefined: str
) -> Measure:
    return measured(
        statistic,
        sums.documents,
        seed=seed,
        name=name,
        unit=unit,
        n=n,
        n_of="rows",
        masks=Masks(counted=COUNTED),
        definition=definition,
        undefined=undefined,
    )


def _outlier_variance(norms: _Norms, rows: Rows) -> Measure:
    masks, n_outliers = Masks(counted=COUNTED), int((norms.lengths > norms.cut).sum())
    return Measure(
        name="outlier_variance",
        value=norms.outlier_square / norms.square if norms.square > 0 else None,
        unit="share of variance",
        low=None,
        high=None,
        n=len(rows),
        n_of="rows",
        n_documents=len(np.unique(rows.documents)),
        masks=masks,
        baseline="",
        definition=f"squared distance from the mean row of the {n_outliers} rows of largest norm, as a share of that of all rows",
        undefined="" if norms.square > 0 else "the counted rows have no variance",
    )


def _dense(spliced: StandIn, firing: Firing, mean: Tensor) -> Iterator[DenseLatent]:
    """The densest latents above DENSE, and how far each decoder row points along the mean row."""
    density = firing.counts / max(1, firing.n_rows)
    dense = np.flatnonzero(density > DENSE)
    for latent in dense[np.argsort(-density[dense], kind="stable")][:MOST_DENSE].tolist():
        direction = spliced.direction(latent).double().cpu()
        length = float(direction.norm() * mean.norm())
        cosine = float(direction @ mean) / length if length > 0 else None
        yield DenseLatent(latent=latent, density=float(density[latent]), mean_cosine=cosine)
