"""Detectors' scores against scikit-learn and against counting every pair and every threshold."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, f1_score, precision_score, recall_score, roc_auc_score

from mohole.metrics import auroc, auroc_by_document, best_cut, confusion

Cases = st.lists(
    st.tuples(st.sampled_from([0.0, 0.0, 0.5, 1.0, 1.5, 2.0]), st.booleans()), min_size=2, max_size=30
).filter(lambda items: len({positive for _, positive in items}) == 2)


def arrays(items: list[tuple[float, bool]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([score for score, _ in items]), np.array([positive for _, positive in items])


@given(Cases)
def test_auroc_is_the_share_of_pairs_in_the_right_order(items: list[tuple[float, bool]]) -> None:
    scores, positive = arrays(items)
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[positive] for b in scores[~positive]]
    assert auroc(scores, positive) == pytest.approx(np.mean(pairs), abs=1e-12)
    assert auroc(scores, positive) == pytest.approx(roc_auc_score(positive, scores), abs=1e-12)
    assert auroc(-scores, positive) == pytest.approx(1 - auroc(scores, positive), abs=1e-12)
    assert auroc(3 * scores + 1, positive) == pytest.approx(auroc(scores, positive), abs=1e-12)


@given(Cases)
def test_counts_agree_with_scikit_learn(items: list[tuple[float, bool]]) -> None:
    scores, positive = arrays(items)
    decided = scores > 0.7
    counts = confusion(decided, positive)
    assert counts.f1 == pytest.approx(f1_score(positive, decided, zero_division=0))
    assert counts.precision == pytest.approx(precision_score(positive, decided, zero_division=0))
    assert counts.recall == pytest.approx(recall_score(positive, decided))
    assert counts.balanced_accuracy == pytest.approx(balanced_accuracy_score(positive, decided))


@given(Cases)
def test_no_threshold_is_better_than_the_best_cut(items: list[tuple[float, bool]]) -> None:
    scores, positive = arrays(items)
    cut = best_cut(scores, positive)
    reached = confusion(scores > cut.threshold, positive).f1
    every = [confusion(scores > threshold, positive).f1 for threshold in [-1.0, *scores]]
    assert reached == pytest.approx(cut.f1, abs=1e-12)
    assert reached == pytest.approx(max(every), abs=1e-12)


def test_a_cut_just_above_silence_means_that_it_fires() -> None:
    assert best_cut(np.array([0.0, 0.0, 0.2, 3.0]), np.array([False, False, True, True])).threshold == 0.0


def test_a_cut_survives_the_last_bit_of_rounding() -> None:
    scores, positive = np.array([1.0, 2.0, 3.0]), np.array([False, True, True])
    assert best_cut(scores, positive).threshold == 1.5
    for moved in (np.nextafter(scores, 9), np.nextafter(scores, -9)):
        assert confusion(moved > best_cut(scores, positive).threshold, positive).f1 == 1.0


def test_always_yes_and_always_no_have_a_balanced_accuracy_of_a_half() -> None:
    positive = np.array([True] * 9 + [False])
    assert confusion(np.ones(10, dtype=bool), positive).balanced_accuracy == 0.5
    assert confusion(np.zeros(10, dtype=bool), positive).balanced_accuracy == 0.5


def test_one_class_alone_has_no_auroc() -> None:
    with pytest.raises(ValueError, match="2 positives of 2"):
        auroc(np.array([1.0, 2.0]), np.array([True, True]))


def test_the_interval_covers_the_truth_where_documents_are_clustered() -> None:
    """Tokens of a document share a shift, as they do in text. Treating tokens as independent covers far less often."""
    rng = np.random.default_rng(0)
    documents = np.repeat(np.arange(40), 10)
    covered, naive_covered = 0, 0
    for _ in range(200):
        positive = np.repeat(rng.random(40) < 0.5, 10)
        scores = 1.0 * positive + np.repeat(rng.normal(size=40), 10) + 0.3 * rng.normal(size=400)
        truth = 0.7510  # P(N(1, s) > N(0, s)) with s^2 = 1.09: Phi(1 / sqrt(2.18))
        area, naive = (
            auroc_by_document(scores, positive, documents),
            auroc_by_document(scores, positive, np.arange(400)),
        )
        covered += area.low <= truth <= area.high
        naive_covered += naive.low <= truth <= naive.high
    assert 0.89 <= covered / 200 <= 0.99
    assert naive_covered / 200 < 0.6


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0, 2.0]), st.booleans()), min_size=1, max_size=30))
def test_zeros_that_are_left_out_and_only_counted_give_the_same_cut(rows: list[tuple[float, bool]]) -> None:
    """Unless the best rule is to let everything through, which a sparse column cannot say."""
    scores, positive = np.array([score for score, _ in rows]), np.array([hit for _, hit in rows])
    fired = scores > 0
    if not fired.any() or not positive.any():
        return
    whole = best_cut(scores, positive)
    sparse = best_cut(scores[fired], positive[fired], silent_positives=int(positive[~fired].sum()))
    if whole.threshold >= 0:
        assert sparse.f1 == pytest.approx(whole.f1)
        assert ((scores[fired] > sparse.threshold) == (scores[fired] > whole.threshold)).all()
    else:
        assert sparse.f1 <= whole.f1
