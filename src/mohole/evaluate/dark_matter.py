"""What a dictionary leaves unexplained: whose error it is, how much of it a linear map would say, and what hides in few rows.

Half of the documents fit the linear map, the others judge it. Source: Engels, Smith & Tegmark 2024 (arXiv 2410.14670),
"Decomposing the dark matter of sparse autoencoders": most of the error's norm and about half of the error are linear in x.
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
from mohole.evaluate.row_measures import COUNTED
from mohole.evaluate.rows import Rows, chunks, take
from mohole.evaluate.standin import StandIn
from mohole.evaluate.token_classes import CLASSES, classes_of
from mohole.keys import Use, uniform
from mohole.metrics import DocumentSums, Firing, Masks, Measure, measured
from mohole.metrics.linear import LinearFit
from mohole.metrics.measure import Statistic, ratio
from mohole.progress import track
from mohole.store import Store

Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]

OUTLIERS = 0.001  # of the rows, those of largest norm
WIDEST = 4096  # columns that a linear map is fitted to: its sums of products take 8 x 4096^2 bytes
MOST_DENSE = 50  # latents listed
DENSE = 0.1

_SUMS = ("rows", "error", "spread")
_FIT_SUMS = ("rows", "residual", "error_about_mean", "norm_residual", "norm_about_mean", "spread")


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
    fits = _Fits(spliced, chosen, seed)
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
    outputs, _ = spliced.rebuild(stored)
    return (
        torch.cat([stored[name] for name in spliced.reads], 1),
        torch.cat([stored[name] for name in spliced.writes], 1),
        torch.cat([outputs[name].cpu() for name in spliced.writes], 1),
    )


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
    return torch.cat([stored[name] for name in spliced.writes], 1).double()


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


class _Fits:
    """The error, and its squared length, as linear functions of what is read."""

    def __init__(self, spliced: StandIn, rows: Rows, seed: int) -> None:
        n_in, n_out = spliced.width_in, spliced.width_out
        is_judge = uniform(seed, Use.DARK_MATTER_DOCUMENTS, rows.documents, 1) < 0.5
        self._is_judge, self._documents = torch.from_numpy(is_judge), rows.documents
        self.n_judged = int(is_judge.sum())
        n_fitted = len(rows) - self.n_judged
        self.undefined = ""
        if max(n_in, n_out) > WIDEST:
            self.undefined = f"rows are {max(n_in, n_out)} wide, and a map is fitted up to {WIDEST}"
        elif n_fitted < 2 * n_in or self.n_judged == 0:
            self.undefined = f"{n_fitted} rows to fit on, where {2 * n_in} are needed, and {self.n_judged} to judge by"
        else:
            self._fit = LinearFit(n_in, n_out + 1)
        self._sums = DocumentSums(_FIT_SUMS)

    def fit(self, part: slice, read: Tensor, error: Tensor) -> None:
        if self.undefined == "":
            kept = ~self._is_judge[part]
            self._fit.add(read[kept], _with_square(error[kept]))

    def judges(self, part: slice) -> bool:
        return bool(self._is_judge[part].any())

    def judge(self, part: slice, read: Tensor, error: Tensor, target: Tensor, mean: Tensor) -> int:
        """The number of rows that were judged by."""
        kept = self._is_judge[part]
        truth, baseline = _with_square(error[kept]), self._fit.mean_target
        left, about_mean = truth - self._fit.predict(read[kept]), truth - baseline
        columns = [
            torch.ones(len(truth), dtype=torch.float64),
            left[:, :-1].square().sum(1),
            about_mean[:, :-1].square().sum(1),
            left[:, -1].square(),
            about_mean[:, -1].square(),
            (target[kept].double() - mean).square().sum(1),
        ]
        self._sums.add(self._documents[part][kept.numpy()], torch.stack(columns, 1).numpy(), place="errors, predicted")
        return len(truth)

    def measures(self, seed: int) -> Iterator[Measure]:
        sums = self._sums

        def r2(residual: str, about_mean: str) -> Statistic:
            return lambda weights: 1.0 - ratio(weights @ sums.column(residual), weights @ sums.column(about_mean))

        def left(weights: Float64) -> Float64:
            return ratio(weights @ sums.column("residual"), weights @ sums.column("spread"))

        def nothing(weights: Float64) -> Float64:
            return np.full(len(weights), np.nan)

        judged = "fitted on half of the documents, judged on the others"
        for name, statistic, unit, baseline, definition in (
            ("error_norm_r2", r2("norm_residual", "norm_about_mean"), "R^2", "the mean squared length",
             f"how much of the error's squared length a linear function of the activation predicts; {judged}"),
            ("error_r2", r2("residual", "error_about_mean"), "R^2", "the mean error",
             f"how much of the error vector a linear map of the activation predicts; {judged}"),
            ("fvu_nonlinear", left, "share of variance", "the mean row over all counted rows",
             f"FVU that is left when that linear map is added to the reconstruction; {judged}"),
        ):  # fmt: skip
            yield measured(
                nothing if self.undefined else statistic,
                sums.documents,
                seed=seed,
                name=name,
                unit=unit,
                n=self.n_judged,
                n_of="rows",
                masks=Masks(counted=COUNTED),
                baseline=baseline,
                definition=definition,
                undefined=self.undefined or "there is no error to predict",
            )


def _with_square(error: Tensor) -> Tensor:
    exact = error.double()
    return torch.cat([exact, exact.square().sum(1, keepdim=True)], 1)


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
