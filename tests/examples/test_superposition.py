"""Dense features are kept one a dimension, sparse ones more; and a dictionary takes apart what was superposed."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import numpy as np
import pytest
import torch


@pytest.fixture(scope="module")
def toy(example: Callable[[str], ModuleType]) -> ModuleType:
    return example("superposition")


@pytest.fixture(scope="module")
def toys(toy: ModuleType) -> object:
    return toy.kept_by_density([1.0, 0.3, 0.02], n=20, m=5, steps=1500)


def test_dense_features_have_a_dimension_each_and_the_most_important_are_kept(toys: object) -> None:
    assert toys.n_kept[0] == 5
    assert torch.equal(toys.lengths[0] > 0.5, torch.arange(20) < 5)
    assert toys.crowding[0, :5].max() < 0.1


def test_sparse_features_are_more_than_the_dimensions_and_in_each_others_way(toys: object) -> None:
    assert toys.n_kept[2] >= 15
    assert toys.crowding[2][toys.lengths[2] > 0.5].mean() > 0.2
    assert toys.n_kept[0] <= toys.n_kept[1] <= toys.n_kept[2]


def test_the_phase_diagram_has_its_three_phases_where_the_paper_has_them(toy: ModuleType) -> None:
    phases = toy.phase_diagram(5, steps=400)
    dense, sparse = phases.phase[:, -1], phases.phase[:, 0]
    assert dense.tolist() in ([0, 0, 0, 1, 1], [0, 0, 1, 1, 1])  # the more important one, alone
    assert sparse[2] == 2  # equally important and rare: both, back to back
    assert dense[0] == 0
    assert set(np.unique(phases.phase)) == {0, 1, 2}


def test_a_dictionary_finds_the_superposed_features(toy: ModuleType) -> None:
    """Of a model with 12 features in 6 dimensions, as far apart as they come."""
    toys = toy.train_toys(12, 6, torch.tensor([0.04]), torch.ones(1, 12), steps=1200)
    assert toys.n_kept[0] > 6
    share, matched = toy.solve(toys.W[0], 0.04, n_rows=60_000, steps=400)
    assert share > 0.9
    assert matched > 0.95


def test_the_picture_is_a_drawing(toy: ModuleType, tmp_path: Path) -> None:
    phases = toy.Phases(np.array([0.01, 1.0]), np.array([0.1, 10.0]), np.array([[2, 0], [2, 1]]))
    toy.write_drawing(tmp_path / "out.svg", "Superposition", [], [toy.phase_figure(phases)])
    assert len(list(ElementTree.parse(tmp_path / "out.svg").iter("{http://www.w3.org/2000/svg}rect"))) >= 4
