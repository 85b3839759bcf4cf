"""Wrong ways to score a detector, or to say how sure a number is."""

from dataclasses import replace
from typing import Any

import numpy as np

from mohole.metrics.binary import Area, BestCut, Confusion
from mohole.metrics.definitions import OURS, Array
from mohole.metrics.mutants.mutant import Mutant, mutant


def _ties_by_order(scores: Array, positive: Any) -> float:
    """Equal scores are ranked by their place.

    Seen in: ranks of argsort.
    """
    if positive.all():
        raise ValueError("no negative")
    ranks = np.argsort(np.argsort(scores, kind="stable"), kind="stable") + 1
    n = int(positive.sum())
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * (len(scores) - n)))


def _never_below_half(scores: Array, positive: Any) -> float:
    """Turned round where it is below one half.

    Seen in: max(auc, 1 - auc).
    """
    return max(OURS.auroc(scores, positive), 1 - OURS.auroc(scores, positive))


def _tokens_are_independent(scores: Array, positive: Any, documents: Any) -> Area:
    """Tokens of one document counted as independent.

    Seen in: intervals over tokens.
    """
    return OURS.auroc_by_document(scores, positive, np.arange(len(scores)))


class _PlainAccuracy(Confusion):
    @property
    def balanced_accuracy(self) -> float:
        right = self.true_positive + self.true_negative
        return right / (right + self.false_positive + self.false_negative)


def _plain_accuracy(decided: Any, positive: Any) -> Confusion:
    """Accuracy over unequal classes is called balanced.

    Seen in: SAEBench autointerp: 'None' scores .714.
    """
    counted = OURS.confusion(decided, positive)
    return _PlainAccuracy(counted.true_positive, counted.false_positive, counted.false_negative, counted.true_negative)


def _swapped(decided: Any, positive: Any) -> Confusion:
    """Decisions and truth are exchanged: precision for recall.

    Seen in: the order of arguments.
    """
    return OURS.confusion(positive, decided)


def _silent_forgotten(scores: Array, positive: Any, *, silent_positives: int = 0) -> BestCut:
    """Positives on which a latent is silent are not missed.

    Seen in: F1 over active tokens only.
    """
    return OURS.best_cut(scores, positive)


def _cut_at_the_score(scores: Array, positive: Any, *, silent_positives: int = 0) -> BestCut:
    """The threshold is a score, and `>` shuts that score out.

    Seen in: thresholds of a ranked list.
    """
    best = OURS.best_cut(scores, positive, silent_positives=silent_positives)
    return replace(best, threshold=float(scores[scores > best.threshold].min()))


def _one_of_each(seed: int, documents: Any) -> Array:
    """Replicates that hardly differ.

    Seen in: resampling with the wrong weights.
    """
    return 1 + 0.05 * (OURS.document_weights(seed, documents) - 1)


def _standard_deviations(replicated: Array) -> tuple[float | None, float | None]:
    """One standard deviation either way is called 95 %.

    Seen in: error bars.
    """
    return float(replicated.mean() - replicated.std()), float(replicated.mean() + replicated.std())


def _wald(successes: int, n: int) -> tuple[float, float]:
    """The interval of a share is a third as wide.

    Seen in: a standard error divided once too often.
    """
    share = successes / n
    half = 1.96 * (share * (1 - share) / n) ** 0.5 / 3
    return share - half, share + half


MUTANTS: tuple[Mutant, ...] = (
    mutant("auroc", _ties_by_order),
    mutant("auroc", _never_below_half),
    mutant("auroc_by_document", _tokens_are_independent),
    mutant("confusion", _plain_accuracy),
    mutant("confusion", _swapped),
    mutant("best_cut", _silent_forgotten),
    mutant("best_cut", _cut_at_the_score),
    mutant("document_weights", _one_of_each),
    mutant("interval", _standard_deviations),
    mutant("wilson", _wald),
)
