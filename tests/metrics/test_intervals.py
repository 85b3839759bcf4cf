"""Sums by document and their resampling: pooled, keyed by document, wider than resampling tokens, honest at 0 and 1."""

import numpy as np
import pytest

from mohole.errors import NumericsError
from mohole.metrics import DocumentSums, Masks, Measure, document_weights, interval, measured, wilson


def test_weights_are_poisson_with_mean_and_variance_one() -> None:
    weights = document_weights(1, np.arange(500))
    assert weights.shape == (400, 500)
    assert weights.mean() == pytest.approx(1.0, abs=0.01)
    assert weights.var() == pytest.approx(1.0, abs=0.02)
    assert abs(np.corrcoef(weights[:, 0], weights[:, 1])[0, 1]) < 0.2


def test_a_documents_weight_does_not_depend_on_the_others() -> None:
    some, all_of_them = np.array([5, 11, 400]), np.arange(500)
    assert np.array_equal(document_weights(7, some), document_weights(7, all_of_them)[:, some])
    assert not np.array_equal(document_weights(8, some), document_weights(7, some))


def measure_of(documents: np.ndarray, values: np.ndarray) -> Measure:
    sums = DocumentSums(("n", "value"))
    sums.add(documents, np.stack([np.ones(len(values)), values], axis=1))
    return measured(
        sums.mean_of("value", "n"), sums.documents, seed=0, name="value", unit="unit", n=len(values), n_of="items",
        masks=Masks(counted="all"), definition="mean",
    )  # fmt: skip


def test_the_mean_is_pooled_over_items_not_averaged_over_documents() -> None:
    result = measure_of(np.array([1, 1, 1, 2]), np.array([0.0, 0.0, 0.0, 4.0]))
    assert result.value == 1.0
    assert result.n == 4
    assert result.n_documents == 2


def test_the_interval_has_the_width_of_the_standard_error() -> None:
    values = np.random.default_rng(0).normal(size=1000)
    result = measure_of(np.arange(1000), values)
    assert result.low is not None
    assert result.high is not None
    assert result.high - result.low == pytest.approx(2 * 1.96 / np.sqrt(1000), rel=0.1)
    assert result.low < values.mean() < result.high


def test_tokens_that_repeat_within_a_document_narrow_nothing() -> None:
    values = np.random.default_rng(0).normal(size=100)
    once = measure_of(np.arange(100), values)
    tenfold = measure_of(np.repeat(np.arange(100), 10), np.repeat(values, 10))
    assert (tenfold.low, tenfold.high) == (pytest.approx(once.low), pytest.approx(once.high))


def test_merged_parts_are_the_whole_in_any_order() -> None:
    rng = np.random.default_rng(0)
    documents, values = rng.integers(0, 9, size=60), rng.normal(size=(60, 2))
    whole, left, right = DocumentSums(("a", "b")), DocumentSums(("a", "b")), DocumentSums(("a", "b"))
    whole.add(documents, values)
    right.add(documents[:13], values[:13])
    left.add(documents[13:], values[13:])
    left.merge(right)
    assert np.array_equal(left.documents, whole.documents)
    assert left.column("b") == pytest.approx(whole.column("b"), rel=1e-12)


def test_undefined_says_so_and_is_no_number() -> None:
    sums = DocumentSums(("n",))
    sums.add(np.array([0, 1]), np.zeros((2, 1)))
    result = measured(
        sums.mean_of("n", "n"), sums.documents, seed=0, name="x", unit="", n=2, n_of="items", masks=Masks(), definition="",
        undefined="nothing was counted",
    )  # fmt: skip
    assert (result.value, result.low, result.high, result.undefined) == (None, None, None, "nothing was counted")


def test_one_document_has_a_value_and_no_interval() -> None:
    result = measure_of(np.array([4, 4]), np.array([1.0, 2.0]))
    assert (result.value, result.low, result.high) == (1.5, None, None)


def test_a_nan_is_named_where_it_enters() -> None:
    with pytest.raises(NumericsError, match="nats: NaN or infinity in row 1 of 2"):
        DocumentSums(("a",)).add(np.array([0, 0]), np.array([[1.0], [np.nan]]), place="nats")


def test_an_interval_mostly_undefined_is_none() -> None:
    assert interval(np.array([np.nan, np.nan, 1.0])) == (None, None)
    assert interval(np.array([1.0, 1.0, 1.0, np.nan])) == (1.0, 1.0)


def test_wilson_agrees_with_published_values_and_has_width_at_the_ends() -> None:
    assert wilson(81, 263) == (
        pytest.approx(0.2553, abs=1e-4),
        pytest.approx(0.3662, abs=1e-4),
    )  # Newcombe 1998, table I
    assert wilson(0, 20) == (0.0, pytest.approx(0.1611, abs=1e-4))
    assert wilson(20, 20)[1] == 1.0
