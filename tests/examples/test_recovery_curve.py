"""More dimensions read more rows; pursuit needs a few k ln(n / k) of them, one product needs more, the more so for larger k."""

from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest
import torch
from sklearn.linear_model import OrthogonalMatchingPursuit

DIMENSIONS = [6, 12, 24, 48, 96, 128]


@pytest.fixture(scope="module")
def curves(example: Callable[[str], ModuleType]) -> ModuleType:
    return example("recovery_curve")


@pytest.fixture(scope="module")
def by_k(curves: ModuleType) -> dict[int, dict[str, list[float]]]:
    return {k: curves.curve(128, k, DIMENSIONS, n_rows=150) for k in (2, 6)}


def test_curves_rise_from_nothing_to_everything(by_k: dict[int, dict[str, list[float]]]) -> None:
    for found in by_k.values():
        for shares in found.values():
            assert (np.diff(shares) > -0.06).all()
        assert found["omp"][0] < 0.2
        assert found["omp"][-1] == 1.0


def test_pursuit_needs_about_as_many_dimensions_as_theory_says(
    curves: ModuleType, by_k: dict[int, dict[str, list[float]]]
) -> None:
    needed = {k: curves.crossing(DIMENSIONS, found["omp"]) for k, found in by_k.items()}
    for k, dimensions in needed.items():
        assert 0.8 < dimensions / curves.theory(128, k) < 2.5
    assert needed[6] > needed[2]


def test_one_product_needs_more_than_pursuit_and_worse_for_more_features(
    curves: ModuleType, by_k: dict[int, dict[str, list[float]]]
) -> None:
    assert all(e <= o + 0.03 for found in by_k.values() for e, o in zip(found["encoder"], found["omp"], strict=True))
    few, many = (curves.crossing(DIMENSIONS, by_k[2][name]) for name in ("omp", "encoder"))
    assert many > few
    assert by_k[6]["encoder"][3] < by_k[6]["omp"][3] - 0.3


def test_orthogonal_directions_are_read_by_one_product(curves: ModuleType) -> None:
    _, active, _ = curves.problem(32, 32, 4, 50, seed=0)
    rows = torch.zeros(50, 32).scatter_(1, active, 1.0)
    assert curves.support_found(curves.encoded(torch.eye(32), rows, 4), active) == 1.0
    assert curves.support_found(curves.pursued(torch.eye(32), rows, 4), active) == 1.0


def test_pursuit_is_scikit_learns(curves: ModuleType) -> None:
    directions, _, rows = curves.problem(40, 16, 4, 20, seed=1)
    found = curves.pursued(directions, rows, 4)
    for row, mine in zip(rows, found, strict=True):
        known = OrthogonalMatchingPursuit(n_nonzero_coefs=4, fit_intercept=False).fit(directions.T.numpy(), row.numpy())
        assert np.flatnonzero(known.coef_).tolist() == mine.tolist()


def test_a_crossing_is_found_between_points(curves: ModuleType) -> None:
    assert curves.crossing([10, 20, 30], [0.0, 0.4, 0.6]) == pytest.approx(25.0)
    assert curves.crossing([10, 20], [0.7, 0.8]) == 10.0
    assert curves.crossing([10, 20], [0.1, 0.2]) is None
