"""The fast search for the best column finds what trying every column and threshold by definition finds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mohole.evaluate.recovery.ranking import DenseRanking, SparseColumns, SparseRanking
from mohole.metrics import auroc, best_cut, confusion


def sparse(dense: np.ndarray) -> SparseColumns:
    rows, columns = dense.nonzero()
    starts = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(dense)))])
    return SparseColumns(starts, columns, dense[rows, columns].astype(np.float32), dense.shape[1])


def case(seed: int, n: int, n_columns: int, n_values: int) -> tuple[np.ndarray, np.ndarray]:
    """A matrix with many ties and zeros, and which rows are positive (some, not all)."""
    random = np.random.default_rng(seed)
    dense = random.integers(0, n_values, size=(n, n_columns)) * (random.random((n, n_columns)) < 0.5) / 2
    positive = random.random(n) < 0.4
    positive[0], positive[-1] = True, False
    return dense, positive


Cases = st.builds(case, st.integers(0, 10_000), st.integers(2, 25), st.integers(1, 6), st.integers(2, 6))


@settings(max_examples=60)
@given(Cases)
def test_sparse_columns(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    dense, positive = drawn
    ranking, places = SparseRanking(sparse(dense)), np.flatnonzero(positive)
    areas = [auroc(column, positive) for column in dense.T]
    assert ranking.auroc(places) == pytest.approx(areas, abs=1e-12)
    assert ranking.best_auroc(places).score == pytest.approx(max(areas), abs=1e-12)
    # A cut below zero would call every row positive; a latent must fire to detect.
    above_zero = [
        max((confusion(column >= value, positive).f1 for value in column[column > 0]), default=0.0)
        for column in dense.T
    ]
    best = ranking.best_f1(places)
    assert best.score == pytest.approx(max(above_zero), abs=1e-12)
    assert above_zero[best.column] == pytest.approx(best.score, abs=1e-12)
    fires = [confusion(column > 0, positive).f1 for column in dense.T]
    assert ranking.best_firing_f1(places).score == pytest.approx(max(fires), abs=1e-12)


@settings(max_examples=60)
@given(Cases)
def test_dense_columns_high_or_low(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    dense, positive = drawn
    dense = dense - 1.0
    ranking, places = DenseRanking(dense.astype(np.float32)), np.flatnonzero(positive)
    areas = [max(auroc(column, positive), auroc(-column, positive)) for column in dense.T]
    best = ranking.best_auroc(places)
    assert best.score == pytest.approx(max(areas), abs=1e-12)
    assert auroc(best.sign * dense[:, best.column], positive) == pytest.approx(best.score, abs=1e-12)
    cuts = [max(best_cut(column, positive).f1, best_cut(-column, positive).f1) for column in dense.T]
    best = ranking.best_f1(places)
    assert best.score == pytest.approx(max(cuts), abs=1e-12)
    assert best_cut(best.sign * dense[:, best.column], positive).f1 == pytest.approx(best.score, abs=1e-12)


@given(Cases)
def test_columns_and_rows_are_read_back(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    dense, positive = drawn
    columns, rows = sparse(dense), np.flatnonzero(positive)
    taken = columns.take(rows)
    assert np.array_equal(columns.fired(rows), (dense[rows] != 0).sum(0))
    for column in range(dense.shape[1]):
        assert np.array_equal(columns.column(column, rows), dense[rows, column])
        assert np.array_equal(taken.column(column, np.arange(len(rows))), dense[rows, column])


def test_rows_in_which_nothing_fires_score_zero() -> None:
    best = SparseRanking(sparse(np.array([[0.0], [1.0]]))).best_f1(np.array([0]))
    assert best.score == 0.0
