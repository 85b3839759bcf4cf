"""What must be true of FVU and its kin: known answers, what may not matter, what may not be looked at."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import r2_score

from mohole.errors import NumericsError
from mohole.metrics import Reconstruction, fvu

ONE = np.ones((1, 1))


def rows(n: int = 400, d: int = 6, seed: int = 0) -> torch.Tensor:
    noise = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return noise * torch.tensor([1.0, 2.0, 0.5, 3.0, 1.0, 0.1], dtype=torch.float64) + 7.0


def sums_of(target: torch.Tensor, output: torch.Tensor, documents: np.ndarray | None = None) -> Reconstruction:
    sums = Reconstruction()
    sums.add(target, output, np.zeros(len(target), dtype=np.int64) if documents is None else documents)
    return sums


def spread(target: torch.Tensor) -> float:
    """Summed variance over dimensions: the trace of the covariance."""
    return float(target.var(0, correction=0).sum())


def test_a_perfect_copy_scores_zero_and_the_mean_scores_one() -> None:
    target = rows()
    assert fvu(target, target) == 0.0
    assert fvu(target, target.mean(0).expand_as(target)) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_the_mean_scores_one_at_any_scale(scale: float) -> None:
    target = rows() * scale
    assert fvu(target, target.mean(0).expand_as(target)) == pytest.approx(1.0, abs=1e-10)


def test_shrinking_towards_the_mean_by_alpha_leaves_one_minus_alpha_squared() -> None:
    target = rows()
    output = 0.7 * target + 0.3 * target.mean(0)
    assert fvu(target, output) == pytest.approx(0.3**2, abs=1e-12)


def test_a_constant_offset_is_an_error_and_costs_its_squared_length() -> None:
    target = rows()
    offset = torch.full((6,), 5.0, dtype=torch.float64)
    assert fvu(target, target + offset) == pytest.approx(150.0 / spread(target), rel=1e-10)


def test_noise_of_known_size_scores_that_size() -> None:
    target = rows(100_000)
    noise = 0.1 * torch.randn(target.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert fvu(target, target + noise) == pytest.approx(6 * 0.01 / spread(target), rel=0.02)


def test_worse_than_the_mean_is_more_than_one() -> None:
    target = rows()
    assert fvu(target, -target) > 1.0


def test_agrees_with_scikit_learn() -> None:
    target = rows()
    output = target + 0.3 * torch.randn(target.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    expected = 1.0 - r2_score(target.numpy(), output.numpy(), multioutput="variance_weighted")
    assert fvu(target, output) == pytest.approx(expected, rel=1e-10)


def test_scale_shift_and_rotation_do_not_matter() -> None:
    target = rows()
    output = target + 0.2 * rows(seed=3)
    rotation = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(4), dtype=torch.float64))[0]
    expected = float(fvu(target, output))
    for change in (lambda x: 30 * x, lambda x: x + 100.0, lambda x: x @ rotation, lambda x: 5 * (x @ rotation) - 3):
        assert fvu(change(target), change(output)) == pytest.approx(expected, rel=1e-9)


@settings(max_examples=25)
@given(st.lists(st.integers(0, 120), max_size=6), st.randoms(use_true_random=False))
def test_batches_and_order_do_not_matter(cuts: list[int], random: object) -> None:
    target = rows(120)
    output = target + 0.2 * rows(120, seed=5)
    documents = np.arange(120) // 7
    whole = sums_of(target, output, documents)
    order = torch.randperm(120, generator=torch.Generator().manual_seed(len(cuts)))
    pieces = Reconstruction()
    for start, stop in zip([0, *sorted(cuts)], [*sorted(cuts), 120], strict=True):
        part = order[start:stop]
        other = Reconstruction()
        other.add(target[part], output[part], documents[part.numpy()])
        pieces.merge(other)
    weights = np.abs(np.random.default_rng(0).normal(size=(3, 18)))
    assert np.array_equal(pieces.documents, whole.documents)
    for name in ("fvu", "r2_uncentred", "mse", "cosine", "relative_bias"):
        assert getattr(pieces, name)(weights) == pytest.approx(getattr(whole, name)(weights), rel=1e-9)


def test_document_weights_are_the_same_as_repeating_documents() -> None:
    target = rows(30)
    output = target + rows(30, seed=6) - 7
    documents = np.repeat([3, 8, 9], 10)
    weighted = sums_of(target, output, documents).fvu(np.array([[2.0, 0.0, 1.0]]))[0]
    repeated = torch.tensor([*range(10), *range(10), *range(20, 30)])
    assert weighted == pytest.approx(float(fvu(target[repeated], output[repeated])), rel=1e-10)


def test_a_mean_a_million_times_the_spread_costs_no_digits_that_matter() -> None:
    target = rows()
    output = target + 0.2 * rows(seed=3)
    assert fvu(target + 1e6, output + 1e6) == pytest.approx(float(fvu(target, output)), rel=1e-6)


def test_rows_not_counted_are_never_looked_at() -> None:
    target = rows(50)
    output = target + 0.1 * rows(50, seed=7)
    poisoned_target, poisoned_output = (
        torch.cat([target, torch.full((3, 6), 1e6)]),
        torch.cat([output, torch.full((3, 6), torch.nan)]),
    )
    sums = Reconstruction()
    sums.add(poisoned_target, poisoned_output, np.zeros(53, dtype=np.int64), torch.arange(53) < 50)
    assert sums.n_rows == 50
    assert sums.fvu(ONE)[0] == pytest.approx(float(fvu(target, output)), rel=1e-12)


def test_a_nan_in_a_counted_row_stops_with_its_place() -> None:
    target = rows(5)
    target[3, 2] = torch.nan
    with pytest.raises(NumericsError, match=r"resid_post\.1: target: NaN or infinity in row 3 of 5"):
        Reconstruction().add(target, target, np.zeros(5, dtype=np.int64), place="resid_post.1")


def test_shrinkage_is_the_relative_bias() -> None:
    target = rows()
    assert sums_of(target, 0.8 * target).relative_bias(ONE)[0] == pytest.approx(0.8)
    assert sums_of(target, target).relative_bias(ONE)[0] == pytest.approx(1.0)


def test_uncentred_r2_error_and_cosine_have_known_answers() -> None:
    target = torch.tensor([[3.0, 4.0], [0.0, 2.0]])
    output = torch.tensor([[3.0, 0.0], [0.0, 0.0]])
    sums = sums_of(target, output)
    assert sums.mse(ONE)[0] == pytest.approx((16 + 4) / 2)
    assert sums.r2_uncentred(ONE)[0] == pytest.approx(1 - 20 / 29)
    assert sums.cosine(ONE)[0] == pytest.approx((9 / 15 + 0) / 2)


def test_variance_of_equal_rows_is_undefined() -> None:
    with pytest.raises(ValueError, match="2 rows without variance"):
        fvu(torch.ones(2, 3), torch.zeros(2, 3))
    assert np.isnan(sums_of(torch.ones(2, 3), torch.zeros(2, 3)).fvu(ONE)[0])
