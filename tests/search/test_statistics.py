"""Searching by numbers: what is within the bounds, in order; the dead and the unscored."""

from math import isnan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mohole.errors import ConfigError
from mohole.search.statistics import Bounds, By, Statistics, by_statistics

KNOWN = Statistics(
    density=np.array([0.5, 0.0, 0.1, 0.1, 0.9, 0.2]),
    maximum=np.array([1, 0, 4, 2, 3, 2], dtype=np.float32),
    f1=np.array([0.9, np.nan, 0.5, np.nan, 0.95, 0.5]),
)


@pytest.mark.parametrize(
    ("bounds", "sort", "ascending", "found"),
    [
        (Bounds(), "density", False, [4, 0, 5, 2, 3]),
        (Bounds(), "density", True, [2, 3, 5, 0, 4]),
        (Bounds(), "f1", False, [4, 0, 2, 5, 3]),
        (Bounds(), "f1", True, [2, 5, 0, 4, 3]),
        (Bounds(least_density=0.2), "maximum", False, [4, 5, 0]),
        (Bounds(most_density=0.0), "density", False, []),
        (Bounds(least_maximum=2, most_maximum=3), "maximum", True, [3, 5, 4]),
        (Bounds(least_f1=0.5, most_f1=0.9), "f1", False, [0, 2, 5]),
        (Bounds(most_f1=1.0), "density", False, [4, 0, 5, 2]),
    ],
)
def test_bounds_hold_and_the_order_is_that_of_the_number(
    bounds: Bounds, sort: By, ascending: bool, found: list[int]
) -> None:
    hits = by_statistics(KNOWN, bounds, 10, sort=sort, ascending=ascending)
    assert [hit.latent for hit in hits] == found
    for hit in hits:
        value = float(getattr(KNOWN, sort)[hit.latent])
        assert hit.score == value or (isnan(hit.score) and isnan(value))
    assert [hit.latent for hit in by_statistics(KNOWN, bounds, 2, sort=sort, ascending=ascending)] == found[:2]


def test_a_hit_says_its_numbers() -> None:
    assert [hit.why for hit in by_statistics(KNOWN, Bounds(most_density=0.1), 2)] == [
        "fires at 10 % of tokens, at most 4, F1 0.50",
        "fires at 10 % of tokens, at most 2",
    ]


@given(st.floats(0, 1), st.floats(0, 1))
def test_bounds_that_nothing_can_be_within_are_refused(one: float, other: float) -> None:
    if one > other:
        with pytest.raises(ConfigError, match="density: at least"):
            by_statistics(KNOWN, Bounds(least_density=one, most_density=other), 1)
    else:
        hits = by_statistics(KNOWN, Bounds(least_density=one, most_density=other), 9)
        assert all(one <= KNOWN.density[hit.latent] <= other for hit in hits)
