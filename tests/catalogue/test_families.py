"""Families are the planted ones, do not follow chains, and do not depend on how latents are numbered or listed."""

from itertools import pairwise

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from mohole.catalogue.families import families, splits
from mohole.catalogue.neighbours import nearest


def of(directions: torch.Tensor, at_least: float, n: int = 10) -> np.ndarray:
    return families(*nearest(directions, 0, len(directions), n), directions, at_least=at_least)


def planted(sizes: list[int], d: int = 48, noise: float = 0.3) -> tuple[torch.Tensor, np.ndarray]:
    """Directions at a cosine of about 1 / (1 + noise^2) with those of the same family, and near 0 with others; shuffled."""
    generator = torch.Generator().manual_seed(0)
    family = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    family = family[torch.randperm(len(family), generator=generator)]
    centres = torch.nn.functional.normalize(torch.randn(len(sizes), d, generator=generator), dim=1)
    noises = noise * torch.randn(len(family), d, generator=generator) / d**0.5
    return centres[family] + noises, family.numpy()


def test_planted_families_are_found_also_those_larger_than_a_list() -> None:
    sizes = [200, 60, 12, 7, 7, 3, 2, *[1] * 50]
    directions, family = planted(sizes)
    found = of(directions, 0.7)
    assert np.bincount(found[found >= 0]).tolist() == sizes[:7]
    alone = np.array(sizes)[family] == 1
    assert (found[alone] == -1).all()
    for number in (0, 1, 2, 5, 6):
        assert (family[found == number] == number).all()
    first = [np.flatnonzero(found == number)[0] for number in (3, 4)]
    assert first[0] < first[1]  # of equal ones that of the smaller member


def test_a_chain_is_cut() -> None:
    """Directions along a half circle, each near the next: the ends are opposite, and single link would join them."""
    angle = torch.linspace(0, np.pi, 400)
    chain = torch.stack([angle.cos(), angle.sin()], 1)
    found = of(chain, 0.99, n=10)  # 18 steps to each side are within 0.99; a list holds 5 of them
    assert found.min() >= 0
    spread = [np.ptp(np.flatnonzero(found == number)) for number in range(found.max() + 1)]
    assert 10 <= max(spread) <= 40


def test_a_bridge_joins_no_two_families() -> None:
    directions, family = planted([8, 8], noise=0.1)
    centres = torch.stack([directions[family == number].mean(0) for number in (0, 1)])
    bridge = torch.stack(
        [0.8 * centres[0] + 0.5 * centres[1], 0.6 * centres[0] + 0.6 * centres[1], 0.5 * centres[0] + 0.8 * centres[1]]
    )
    found = of(torch.cat([directions, bridge]), 0.75)
    assert set(found[:16][family == 0]) != set(found[:16][family == 1])
    assert {len(set(found[:16][family == number])) for number in (0, 1)} == {1}


def some_directions(seed: int, n: int) -> torch.Tensor:
    """Few dimensions: many are near, in heaps and between them. No two cosines are alike."""
    generator = torch.Generator().manual_seed(seed)
    heap = torch.randint(0, 4, (n,), generator=generator)
    return torch.randn(4, 3, generator=generator)[heap] + 0.5 * torch.randn(n, 3, generator=generator)


@given(st.integers(0, 10**6), st.integers(2, 40), st.integers(1, 6), st.floats(0.3, 0.99))
def test_neither_numbering_nor_the_order_of_lists_matters(seed: int, n: int, k: int, at_least: float) -> None:
    directions = some_directions(seed, n)
    neighbours, cosines = nearest(directions, 0, n, k)
    found = families(neighbours, cosines, directions, at_least=at_least)
    rng = np.random.default_rng(seed)
    turned = rng.permutation(k)
    again = families(neighbours[:, turned], cosines[:, turned], directions, at_least=at_least)
    assert again.tobytes() == found.tobytes()
    old = rng.permutation(n)  # latent i was old[i]
    other = np.empty_like(found)
    other[old] = of(directions[torch.from_numpy(old)], at_least, k)
    together = (found[:, None] == found) & (found >= 0)
    assert (together == ((other[:, None] == other) & (other >= 0))).all()


@given(st.integers(0, 10**6), st.integers(2, 40), st.integers(1, 6), st.floats(0.3, 0.99))
def test_families_are_linked_numbered_by_size_and_cannot_be_joined(seed: int, n: int, k: int, at_least: float) -> None:
    directions = some_directions(seed, n)
    neighbours, cosines = nearest(directions, 0, n, k)
    found = families(neighbours, cosines, directions, at_least=at_least)
    linked = np.zeros((n, n), np.bool_)
    for i in range(n):
        linked[i, neighbours[i][(cosines[i] >= at_least) & (neighbours[i] >= 0)]] = True
    linked |= linked.T
    units = torch.nn.functional.normalize(directions.double(), dim=1).numpy()
    sizes = np.bincount(found[found >= 0], minlength=found.max() + 1)
    assert (sizes >= 2).all()
    groups = [np.flatnonzero(found == number) for number in range(len(sizes))]
    for one, other in pairwise(groups):
        assert (-len(one), one[0]) < (-len(other), other[0])
    groups += [np.array([i]) for i in np.flatnonzero(found == -1)]
    for number, one in enumerate(groups):
        reached = one[:1]
        for _ in one:
            reached = np.unique(np.concatenate([reached, one[linked[np.ix_(reached, one)].any(0)]]))
        assert reached.tolist() == one.tolist()
        for other in groups[number + 1 :]:
            if linked[np.ix_(one, other)].any():
                assert (units[one] @ units[other].T).mean() < at_least


def test_nothing_and_no_neighbours() -> None:
    def found(neighbours: list[list[int]], n: int) -> list[int]:
        lists = np.array(neighbours, np.int32).reshape(n, -1 if n else 3)
        return families(lists, np.ones(lists.shape, np.float32), torch.eye(n, 4), at_least=0.5).tolist()

    assert found([], 0) == []
    assert found([[], []], 2) == [-1, -1]
    assert found([[-1, -1]] * 3, 3) == [-1] * 3
    assert found([[0], [1]], 2) == [-1, -1]


def test_the_nearest_are_joined_first() -> None:
    """The one between is nearer to one side: that side has it, and the other is too far from the two."""
    angle = torch.tensor([0.0, 0.451, 0.0 + 0.451 + 0.318])  # cosines 0.90, 0.95, and 0.72 of the ends
    assert of(torch.stack([angle.cos(), angle.sin()], 1), 0.85).tolist() == [-1, 0, 0]


def test_copies_are_a_family_at_a_cosine_of_one() -> None:
    assert of(torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 1.0], [3.0, 6.0, 9.0], [0.0] * 3]), 1.0).tolist() == [
        0,
        -1,
        0,
        -1,
    ]


def test_children_are_parts_of_the_parent_they_are_nearest_to() -> None:
    parents = torch.eye(4)[:3]
    children = torch.tensor(
        [[1, 0.2, 0, 0], [2, 0, 0.3, 0], [0, 1, 0, 0], [0, 0, 0, 1], [0.8, 0.9, 0, 0], [0, 0, -1, 0], [0.0] * 4]
    )
    parent, cosine = splits(parents, children, at_least=0.7)
    assert parent.tolist() == [0, 0, 1, -1, 1, -1, -1]
    np.testing.assert_allclose(cosine[2:], [1, 0, 0.9 / (0.8**2 + 0.9**2) ** 0.5, 0, 0], rtol=1e-6)
