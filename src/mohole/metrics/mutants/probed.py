"""Wrong ways to probe."""

from typing import Any

import numpy as np

from mohole.metrics.definitions import OURS, Array
from mohole.metrics.documents import DocumentSums
from mohole.metrics.measure import Statistic, ratio
from mohole.metrics.mutants.mutant import Mutant, mutant
from mohole.metrics.sparse_probe import Items, LinearProbe, Probed


def _bare_difference(codes: Any, positive: Any) -> Array:
    """Latents are ranked by a difference of means in their own units.

    Seen in: SAEBench sparse probing, get_top_k_mean_diff_mask.
    """
    means = [np.asarray(codes[np.flatnonzero(side)].mean(axis=0)).ravel() for side in (positive, ~positive)]
    return np.asarray(means[0] - means[1])


def _never_signed(codes: Any, positive: Any) -> Array:
    """The sign of a gap is lost: what is silent on a label is taken for the label.

    Seen in: absolute differences kept as scores.
    """
    return np.abs(OURS.class_gap(codes, positive))


def _stopped_where_the_test_is_best(selection: Items, scoring: Items, k: int) -> Probed:
    """The probe that is best on the test documents is the one reported.

    Seen in: SAEBench probe_training.train_probe_gpu, best_test_accuracy.
    """
    tried = [OURS.sparse_probe(selection, scoring, more) for more in range(k, k + 6)]
    return max(tried, key=lambda each: float((each.decided == scoring.positive).mean()))


def _chosen_on_the_test(selection: Items, scoring: Items, k: int) -> Probed:
    """Latents are chosen on the documents that the probe is scored on.

    Seen in: selecting features before splitting.
    """
    best = np.argsort(-np.abs(OURS.class_gap(scoring.codes, scoring.positive)), kind="stable")[:k]
    probe = OURS.fit_probe(selection.codes[:, best].toarray(), selection.positive)
    return Probed(best, probe.log_odds(scoring.codes[:, best].toarray()) > 0)


def _documents_on_both_sides(selection: Items, scoring: Items, k: int) -> Probed:
    """Tokens of one document are on both sides of the split.

    Seen in: train_test_split over tokens.
    """
    return OURS.sparse_probe(selection, Items(scoring.codes, scoring.positive, scoring.documents + (1 << 40)), k)


def _first_latents(selection: Items, scoring: Items, k: int) -> Probed:
    """The probe reads the k latents with the smallest gap.

    Seen in: argsort without a minus.
    """
    worst = np.argsort(np.abs(OURS.class_gap(selection.codes, selection.positive)), kind="stable")[:k]
    probe = OURS.fit_probe(selection.codes[:, worst].toarray(), selection.positive)
    return Probed(worst, probe.log_odds(scoring.codes[:, worst].toarray()) > 0)


def _not_standardised(values: Any, positive: Any) -> LinearProbe:
    """Columns enter in their own units, so that the penalty falls on the short ones.

    Seen in: a penalty on columns of unequal size.
    """
    from sklearn.linear_model import LogisticRegression

    if positive.all():
        raise ValueError("one class")
    model = LogisticRegression(C=1.0, max_iter=1000).fit(values, positive)
    return LinearProbe(model.coef_[0], float(model.intercept_[0]))


def _without_an_intercept(values: Any, positive: Any) -> LinearProbe:
    """The intercept is forgotten when the probe is taken out of its standardised units.

    Seen in: probe weights folded by hand.
    """
    return LinearProbe(OURS.fit_probe(values, positive).direction, 1.0)


def _accuracy_of_all(sums: DocumentSums) -> Statistic:
    """Accuracy over all items is called balanced.

    Seen in: scores on labels of unequal size.
    """
    right = sums.column("found") + sums.column("rejected")
    items = sums.column("positives") + sums.column("negatives")
    return lambda weights: ratio(weights @ right, weights @ items)


def _of_what_there_is(sums: DocumentSums) -> Statistic:
    """Where a class is empty, the other's share stands for both.

    Seen in: nanmean over classes.
    """
    found, rejected = sums.mean_of("found", "positives"), sums.mean_of("rejected", "negatives")
    return lambda weights: np.nanmean([found(weights), rejected(weights)], axis=0)


def _no_control(task: Array, control: Array) -> Array:
    """Accuracy above chance is called selectivity: a probe that knows the words has all of it.

    Seen in: probes published without a control task.
    """
    return task - 0.5


def _share_of_the_task(task: Array, control: Array) -> Array:
    """A ratio of accuracies instead of their difference.

    Seen in: normalised selectivity.
    """
    return 1 - control / task


def _every_jump_counts(f1: Array, least_jump: float = 0.03) -> int:
    """A jump after the probe should have stopped still counts.

    Seen in: counting jumps instead of growing.
    """
    return int((np.diff(f1) >= least_jump).sum())


def _counts_the_first(f1: Array, least_jump: float = 0.03) -> int:
    """A label that is one latent is said to be split.

    Seen in: the number of main latents taken for the number of splits.
    """
    return OURS.probe_splits(f1, least_jump) + 1


MUTANTS: tuple[Mutant, ...] = (
    mutant("class_gap", _bare_difference),
    mutant("class_gap", _never_signed),
    mutant("sparse_probe", _stopped_where_the_test_is_best),
    mutant("sparse_probe", _chosen_on_the_test),
    mutant("sparse_probe", _documents_on_both_sides),
    mutant("sparse_probe", _first_latents),
    mutant("fit_probe", _not_standardised),
    mutant("fit_probe", _without_an_intercept),
    mutant("balanced_accuracy", _accuracy_of_all),
    mutant("balanced_accuracy", _of_what_there_is),
    mutant("selectivity", _no_control),
    mutant("selectivity", _share_of_the_task),
    mutant("probe_splits", _every_jump_counts),
    mutant("probe_splits", _counts_the_first),
)
