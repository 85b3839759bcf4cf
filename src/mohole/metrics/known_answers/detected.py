"""What must be true of scores of yes/no detectors, and of intervals."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from mohole.keys import Use, uniform
from mohole.metrics.definitions import Definitions
from mohole.metrics.known_answers.answer import Answer, Check, refuses

Float64 = NDArray[np.float64]
Bools = NDArray[np.bool_]


def _pairs_won(scores: Float64, positive: Bools) -> float:
    """AUROC by its meaning: every positive against every negative, ties half."""
    difference = scores[positive][:, None] - scores[~positive][None, :]
    return float(((difference > 0) + 0.5 * (difference == 0)).mean())


def auroc_is_the_share_of_pairs_won(d: Definitions) -> Iterator[Answer]:
    """The same as going through all pairs, with and without ties; half where every score is the same."""
    draw = uniform(0, Use.BOOTSTRAP, np.arange(120), np.zeros(120, dtype=np.int64))
    positive = np.arange(120) % 3 == 0
    for name, scores in (("no ties", draw + 0.2 * positive), ("ties", np.floor(4 * draw + positive))):
        yield Answer(f"AUROC, {name}", d.auroc(scores, positive), _pairs_won(scores, positive))
        area = d.auroc_by_document(scores, positive, np.arange(120))
        yield Answer(f"AUROC by document, {name}", area.value, _pairs_won(scores, positive))
    same = np.zeros(120)
    yield Answer("AUROC of equal scores", d.auroc(same, positive), 0.5)
    yield Answer("AUROC of a perfect ranking", d.auroc(positive.astype(float), positive), 1.0)
    yield Answer("AUROC of a ranking upside down", d.auroc(-positive.astype(float), positive), 0.0)
    yield refuses("AUROC without a negative", lambda: d.auroc(same, np.ones(120, dtype=np.bool_)))


def a_detector_without_knowledge_scores_half(d: Definitions) -> Iterator[Answer]:
    """Always yes and always no have balanced accuracy one half, however rare the positives; a perfect one has 1."""
    for n_positive in (1, 500, 999):
        positive = np.arange(1000) < n_positive
        for name, decided in (("yes", np.ones(1000, np.bool_)), ("no", np.zeros(1000, np.bool_))):
            found = d.confusion(decided, positive).balanced_accuracy
            yield Answer(f"balanced accuracy of always {name}, {n_positive} positives", found, 0.5)
        yield Answer(f"balanced accuracy of the truth, {n_positive} positives", d.confusion(positive, positive).f1, 1.0)


def f1_is_between_precision_and_recall(d: Definitions) -> Iterator[Answer]:
    """Of 10 positives 6 found and 2 called wrongly: precision 3/4, recall 3/5, F1 2/3. Nothing found scores 0."""
    positive, decided = np.zeros(100, np.bool_), np.zeros(100, np.bool_)
    positive[:10] = True
    decided[4:12] = True
    found = d.confusion(decided, positive)
    yield Answer("precision", found.precision, 0.75)
    yield Answer("recall", found.recall, 0.6)
    yield Answer("F1", found.f1, 2 / 3)
    yield Answer("F1 of a detector that never fires", d.confusion(np.zeros(100, np.bool_), positive).f1, 0.0)


def the_best_cut_is_the_best_of_all(d: Definitions) -> Iterator[Answer]:
    """No other threshold has a higher F1; positives that are silent count as missed."""
    draw = uniform(1, Use.BOOTSTRAP, np.arange(60), np.zeros(60, dtype=np.int64))
    scores, positive = (
        np.round(draw, 1),
        draw + 0.5 * uniform(2, Use.BOOTSTRAP, np.arange(60), np.zeros(60, np.int64)) > 0.8,
    )
    cuts = np.unique(scores) - 0.05
    true = max(2 * (positive & (scores > cut)).sum() / (positive.sum() + (scores > cut).sum()) for cut in cuts)
    best = d.best_cut(scores, positive)
    yield Answer("F1 of the best cut", best.f1, float(true))
    yield Answer("F1 at the best cut's threshold", d.confusion(scores > best.threshold, positive).f1, float(true))
    three_silent = d.best_cut(np.array([1.0, 1.0]), np.array([True, True]), silent_positives=3)
    yield Answer("F1 where three of five positives are silent", three_silent.f1, 4 / 7)


def intervals_cover_what_they_say(d: Definitions) -> Iterator[Answer]:
    """95 % intervals of a mean over documents hold the truth in 90 to 99 of 100 samples, also where documents' tokens agree.

    Tokens of a document are equal here: counting them as independent makes intervals ten times too narrow.
    """
    n_samples, n_documents, n_tokens = 100, 60, 100
    covered_mean = covered_share = covered_area = 0
    for sample in range(n_samples):
        draw = uniform(sample, Use.CONTRAST_ROWS, np.arange(n_documents), np.zeros(n_documents, dtype=np.int64))
        weights = d.document_weights(sample, np.arange(n_documents))
        total = weights @ np.full(n_documents, float(n_tokens))
        low, high = d.interval(weights @ (draw * n_tokens) / total)
        covered_mean += low is not None and high is not None and low <= 0.5 <= high
        low, high = d.wilson(int((draw < 0.1).sum()), n_documents)
        covered_share += low <= 0.1 <= high
        positive = np.arange(n_documents) < n_documents // 2
        area = d.auroc_by_document(draw.repeat(10), positive.repeat(10), np.arange(n_documents).repeat(10))
        covered_area += area.low <= 0.5 <= area.high
    yield Answer("samples of 100 whose interval holds the mean", float(covered_mean), 94.5, 4.5)
    yield Answer("samples of 100 whose interval holds the share", float(covered_share), 94.5, 4.5)
    yield Answer("samples of 100 whose interval holds the AUROC", float(covered_area), 94.5, 4.5)


CHECKS: tuple[Check, ...] = (
    auroc_is_the_share_of_pairs_won, a_detector_without_knowledge_scores_half, f1_is_between_precision_and_recall,
    the_best_cut_is_the_best_of_all, intervals_cover_what_they_say,
)  # fmt: skip
