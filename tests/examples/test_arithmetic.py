"""Sums of vectors are right where vectors add, at chance where they do not, and in the built-in model above both nulls."""

from collections.abc import Callable
from itertools import product
from types import ModuleType

import numpy as np
import pytest

CONCEPTS, LANGUAGES = [f"c{i}" for i in range(12)], ["en", "de", "fr"]


@pytest.fixture(scope="module")
def sums(example: Callable[[str], ModuleType]) -> ModuleType:
    return example("arithmetic")


def test_vectors_that_add_are_found_by_adding(sums: ModuleType) -> None:
    random = np.random.default_rng(0)
    concept, language = ({name: random.normal(size=40) for name in names} for names in (CONCEPTS, LANGUAGES))
    means = {
        (one, other): concept[one] + language[other] + 0.05 * random.normal(size=40)
        for one, other in product(CONCEPTS, LANGUAGES)
    }
    found = sums.analogies(means)
    assert found.n == 12 * 11 * 3 * 2
    assert found.added == 1.0
    assert found.nothing_added < 0.75  # three languages, so two of one's own concept are near: half by luck
    assert found.wrong_difference < 0.5


def test_vectors_that_do_not_add_are_at_chance(sums: ModuleType) -> None:
    random = np.random.default_rng(1)
    found = sums.analogies({pair: random.normal(size=40) for pair in product(CONCEPTS, LANGUAGES)})
    assert found.chance == pytest.approx(1 / 33)
    assert found.added < 4 * found.chance
    assert found.nothing_added < 4 * found.chance


def test_pairs_that_are_missing_are_left_out(sums: ModuleType) -> None:
    means = {pair: np.random.default_rng(2).normal(size=8) for pair in product(CONCEPTS[:3], LANGUAGES[:2])}
    del means["c0", "en"]
    assert sums.analogies(means).n == 2 * 1 * 2


def test_concepts_and_languages_add_in_the_built_in_model(sums: ModuleType) -> None:
    found = sums.analogies(sums.mean_rows("resid_post.2", 300, least=3))
    assert found.n > 200
    assert found.added > 0.4
    assert found.added > found.nothing_added + 0.15
    assert found.added > found.wrong_difference + 0.25
    assert found.chance < 0.05
