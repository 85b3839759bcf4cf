"""How much do a few latents say about a label? k-sparse probing, its control, and the linear probe it is held against.

Codes are scipy's CSR arrays [item, latent]. Everything that is chosen (latents, weights) is chosen on selection documents
and scored on others; items of one document are never on both sides.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mohole.keys import Use, uniform
from mohole.metrics.codes import CodeMatrix
from mohole.metrics.documents import DocumentSums
from mohole.metrics.measure import Statistic, ratio

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
Bools = NDArray[np.bool_]

_MAX_ITERATIONS = 1000


@dataclass(frozen=True, slots=True)
class LinearProbe:
    """Log-odds of a label, linear in an item's columns: `values @ direction + bias`. In the units of the values."""

    direction: Float64
    bias: float

    def log_odds(self, values: NDArray[np.floating]) -> Float64:
        return np.asarray(values @ self.direction + self.bias, dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Items:
    """Items with a yes/no label: their columns, and the documents they come from."""

    codes: CodeMatrix
    positive: Bools
    documents: Int64


@dataclass(frozen=True, slots=True)
class Probed:
    """A k-sparse probe and its decisions about the items it is scored on."""

    latents: Int64
    """Those it reads, the most telling first."""
    decided: Bools


def fit_probe(values: NDArray[np.floating], positive: Bools) -> LinearProbe:
    """Logistic regression on standardised columns, both classes weighing the same. L2, scikit-learn's solver and C = 1.

    It stops where its own loss is at its minimum. Stopping where the test accuracy is best, as SAEBench's probe training
    does, makes the test documents part of the training.

    Raises:
        ValueError: one of the classes is empty.
    """
    from sklearn.linear_model import LogisticRegression  # here: it takes a second to import

    if not positive.any() or positive.all():
        raise ValueError(f"probe: {int(positive.sum())} positives of {len(positive)}; both classes are needed")
    mean, spread = values.mean(axis=0, dtype=np.float64), values.std(axis=0, dtype=np.float64)
    scale = np.where(spread > 0, spread, 1.0)
    model = LogisticRegression(C=1.0, tol=1e-4, max_iter=_MAX_ITERATIONS, class_weight="balanced")
    model.fit((values - mean) / scale, positive)
    direction = model.coef_[0].astype(np.float64) / scale
    return LinearProbe(direction, float(model.intercept_[0] - mean @ direction))


def class_gap(codes: CodeMatrix, positive: Bools) -> Float64:
    """For each latent, (mean over positives - mean over negatives) / standard deviation; 0 for a latent that is constant.

    The deviation is that within the two classes, each counting half. Without it (SAEBench ranks by the bare difference) a
    latent counts more when its decoder row is made shorter and its values longer, which changes nothing in the dictionary.
    """
    means, squares = zip(*(_moments(codes, side) for side in (positive, ~positive)), strict=True)
    spread = np.sqrt(np.maximum(sum(squares) / 2 - sum(mean**2 for mean in means) / 2, 0.0))
    gap = means[0] - means[1]
    # A latent without spread that differs is a perfect detector: it gets the rank of one, not a division by zero.
    least = 1e-6 * np.maximum(np.abs(means[0]), np.abs(means[1]))
    return np.asarray(np.divide(gap, np.maximum(spread, least), out=np.zeros_like(gap), where=gap != 0))


def _moments(codes: CodeMatrix, mine: Bools) -> tuple[Float64, Float64]:
    side = codes[np.flatnonzero(mine)].astype(np.float64)
    return np.asarray(side.mean(axis=0)).ravel(), np.asarray(side.multiply(side).mean(axis=0)).ravel()


def sparse_probe(selection: Items, scoring: Items, k: int) -> Probed:
    """A probe that reads the k latents with the largest |class gap|, chosen and fitted on selection documents.

    Read `balanced_accuracy` of its decisions beside those of a probe of all neurons, of the best neurons and of a random
    dictionary; chance is 0.5. Source: Gurnee et al. 2023 (arXiv 2305.01610); SAEBench (arXiv 2503.09532), section 3.

    Raises:
        ValueError: a document is on both sides, or a class is empty where the probe is fitted.
    """
    shared = np.intersect1d(selection.documents, scoring.documents)
    if len(shared):
        raise ValueError(
            f"sparse probe: {len(shared)} documents are both chosen and scored on, the first is {shared[0]}"
        )
    gap = np.abs(class_gap(selection.codes, selection.positive))
    latents = np.argsort(-gap, kind="stable")[:k]
    probe = fit_probe(selection.codes[:, latents].toarray(), selection.positive)
    return Probed(latents, probe.log_odds(scoring.codes[:, latents].toarray()) > 0)


def decision_sums(decided: Bools, positive: Bools, documents: Int64) -> DocumentSums:
    """Yes/no decisions by document: positives, those found, negatives, those rejected."""
    sums = DocumentSums(("positives", "found", "negatives", "rejected"))
    columns = (positive, positive & decided, ~positive, ~positive & ~decided)
    sums.add(documents, np.stack(columns, axis=1).astype(np.float64), place="decisions")
    return sums


def balanced_accuracy(sums: DocumentSums) -> Statistic:
    """Mean of the two classes' shares right: 0.5 for chance and for a constant answer, however rare the label is.

    NaN where a class is empty. Plain accuracy would give .9 to "never" for a label of one item in ten.
    """
    found, rejected = sums.mean_of("found", "positives"), sums.mean_of("rejected", "negatives")
    return lambda weights: (found(weights) + rejected(weights)) / 2


def control_labels(types: Int64, share: float, seed: int) -> Bools:
    """A label that means nothing: each type of item (each word) is drawn positive with this chance, by key.

    A probe that does as well on it has learned the words, not the label. Source: Hewitt & Liang 2019 (arXiv 1909.03368).
    """
    return uniform(seed, Use.CONTROL_LABEL, types) < share


def selectivity(task: Float64, control: Float64) -> Float64:
    """Accuracy on the label - accuracy on control labels by type: 0 for a probe that only tells items' types apart.

    Both by the same probe on the same items and splits. NaN where one of them is undefined.
    """
    return np.asarray(task - control)


def probe_splits(f1: Float64, least_jump: float = 0.03) -> int:
    """How many latents beyond the first a label is split over, from F1 of probes of 1, 2, 3, ... latents. 0: it is one latent.

    The probe grows while one more latent adds at least `least_jump` of F1, and stops at the first that does not. F1 must
    come from documents on which neither latents nor weights were chosen: in-sample, every latent adds a little.
    Source: Chanin et al. 2024 (arXiv 2409.14507), section 4.
    """
    jumps = np.diff(f1) >= least_jump
    return int(np.argmin(np.append(jumps, False)))


def f1_of(sums: DocumentSums) -> Statistic:
    """F1 of decisions: 2 found / (positives + called positive)."""
    found, positives = sums.column("found"), sums.column("positives")
    called = found + sums.column("negatives") - sums.column("rejected")
    return lambda weights: ratio(2 * weights @ found, weights @ (positives + called))
