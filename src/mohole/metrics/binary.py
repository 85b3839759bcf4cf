"""Scores of a yes/no detector: F1 and its parts, AUROC with ties, the best cut. One column at a time; slow and obvious.

A cut is a strict rule, `score > threshold`, compared in float64. So threshold 0 on an activation means "fires".
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mohole.metrics.bootstrap import DEVIATIONS

Scores = NDArray[np.floating]
Bools = NDArray[np.bool_]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Confusion:
    """Counts of a decision against the truth. Ratios with nothing to count are 0, so a detector that never fires scores 0."""

    true_positive: int
    false_positive: int
    false_negative: int
    true_negative: int

    @property
    def precision(self) -> float:
        return _share(self.true_positive, self.true_positive + self.false_positive)

    @property
    def recall(self) -> float:
        return _share(self.true_positive, self.true_positive + self.false_negative)

    @property
    def f1(self) -> float:
        return _share(2 * self.true_positive, 2 * self.true_positive + self.false_positive + self.false_negative)

    @property
    def balanced_accuracy(self) -> float:
        """Mean of the two classes' shares right: 0.5 for always-yes, always-no and coin flips."""
        specificity = _share(self.true_negative, self.true_negative + self.false_positive)
        return (self.recall + specificity) / 2


@dataclass(frozen=True, slots=True)
class BestCut:
    """The threshold with the highest F1 on the data it was chosen on, and that (optimistic) F1."""

    threshold: float
    f1: float


def confusion(decided: Bools, positive: Bools) -> Confusion:
    """Count decisions against the truth."""
    return Confusion(
        int((decided & positive).sum()),
        int((decided & ~positive).sum()),
        int((~decided & positive).sum()),
        int((~decided & ~positive).sum()),
    )


def auroc(scores: Scores, positive: Bools) -> float:
    """Probability that a random positive scores above a random negative, ties counting half (Mann-Whitney). Exact.

    Raises:
        ValueError: one of the classes is empty.
    """
    return float(_wins(scores, positive)[positive].mean())


@dataclass(frozen=True, slots=True)
class Area:
    """An AUROC with its 95 % interval."""

    value: float
    low: float
    high: float


def auroc_by_document(scores: Scores, positive: Bools, documents: Int64) -> Area:
    """`auroc`, with an interval that takes the items of a document as dependent.

    The variance is the infinitesimal jackknife over documents: each document's summed influence, squared and added up
    (Obuchowski 1997 for clustered data). It costs one sort, where 400 replicates would cost 400 passes.
    """
    wins = _wins(scores, positive)
    area = float(wins[positive].mean())
    influence = (wins - area) / np.where(positive, positive.sum(), (~positive).sum())
    by_document = np.bincount(np.unique(documents, return_inverse=True)[1], weights=influence)
    half = DEVIATIONS * float(np.sqrt((by_document**2).sum()))
    return Area(area, max(0.0, area - half), min(1.0, area + half))


def _wins(scores: Scores, positive: Bools) -> Float64:
    """For each item, the share of the other class that it is on the right side of, ties counting half."""
    if not positive.any() or positive.all():
        raise ValueError(f"auroc: {int(positive.sum())} positives of {len(positive)}; both classes are needed")
    shares = np.empty(len(scores))
    for mine, sign in ((positive, 1), (~positive, -1)):
        others = np.sort(sign * scores[~mine])
        below = np.searchsorted(others, sign * scores[mine], side="left")
        not_above = np.searchsorted(others, sign * scores[mine], side="right")
        shares[mine] = (below + not_above) / (2 * len(others))
    return shares


def best_cut(scores: Scores, positive: Bools, *, silent_positives: int = 0) -> BestCut:
    """The rule `score > threshold` with the highest F1; of equal ones the strictest. Midway between neighbouring scores.

    Args:
        silent_positives: positives that are not among `scores` and that no rule may let through: for a sparse column, whose
            zeros need not be given.

    Raises:
        ValueError: there is no positive.
    """
    if not positive.any() and not (silent_positives and len(scores)):
        raise ValueError("best_cut: no positive to find")
    scores = scores.astype(np.float64)
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    n_right = np.cumsum(positive[order])[ends]
    f1 = 2 * n_right / (ends + 1 + positive.sum() + silent_positives)
    best = int(np.argmax(f1))
    return BestCut(cut_below(scores[order], int(ends[best]) + 1), float(f1[best]))


def cut_below(descending: Scores, count: int) -> float:
    """A threshold that lets exactly the first `count` of these descending scores through (the next is lower).

    Midway to the next score, because a threshold equal to a score would flip with the last bit of rounding; but exactly
    0 when the next score is 0, so that a latent that may fire at any strength has the rule "fires".
    """
    lowest = float(descending[count - 1])
    if count == len(descending):
        return lowest - max(1.0, abs(lowest))  # clearly below: next to 0 it would be 0 in single precision
    following = float(descending[count])
    return 0.0 if following == 0.0 else (lowest + following) / 2


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
