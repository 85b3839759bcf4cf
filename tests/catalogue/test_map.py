"""The map keeps neighbours near, has a place for everyone whatever the input, and is the same bytes for a seed."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.manifold import trustworthiness

from mohole.catalogue import map as feature_map
from mohole.catalogue.map import RIM, place
from mohole.catalogue.neighbours import nearest


def planted(n: int, d: int, size: int, noise: float) -> tuple[torch.Tensor, np.ndarray]:
    """Directions around random centres, `size` of them around each, and whose they are."""
    generator = torch.Generator().manual_seed(0)
    family = torch.arange(n) % (n // size)
    centres = torch.randn(n // size, d, generator=generator)
    return centres[family] + noise * torch.randn(n, d, generator=generator), family.numpy()


def mapped(directions: torch.Tensor, **settings: int) -> np.ndarray:
    return place(*nearest(directions, 0, len(directions), 15), directions, **{"seed": 0, **settings})


def trust(directions: torch.Tensor, places: np.ndarray) -> float:
    return trustworthiness(directions.numpy(), places, n_neighbors=10, metric="cosine")


def test_near_features_end_near() -> None:
    directions, family = planted(1000, 32, 20, 0.6)
    places = mapped(directions)
    shuffled = np.random.default_rng(0).permutation(places)
    assert trust(directions, places) > 0.98
    assert trust(directions, shuffled) < 0.55
    distances = ((places[:, None] - places) ** 2).sum(-1)
    np.fill_diagonal(distances, np.inf)
    assert (family[distances.argsort(1)[:, :10]] == family[:, None]).mean() > 0.99
    assert np.median(distances.min(1)) > 0.01 / len(places)  # of squares: the disc is filled, not a few heaps in it
    start = mapped(directions, epochs=0)
    assert trust(directions, start) < 0.85  # so it is not the principal components that do it


def test_the_bytes_are_the_seed_s_and_not_those_of_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    directions, _ = planted(300, 16, 10, 0.5)
    neighbours = nearest(directions, 0, 300, 8)
    places = place(*neighbours, directions, seed=3, epochs=50)
    assert places.tobytes() == place(*neighbours, directions, seed=3, epochs=50).tobytes()
    assert places.tobytes() != place(*neighbours, directions, seed=4, epochs=50).tobytes()
    with monkeypatch.context() as patch:
        patch.setattr(feature_map, "HAS_NUMBA", False)
        assert places.tobytes() == place(*neighbours, directions, seed=3, epochs=50).tobytes()
    monkeypatch.setattr(feature_map, "_BLOCK_ROWS", 7)  # sums in another order
    noise = 1e-14 * torch.randn(300, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert places.tobytes() == place(*neighbours, directions.double() + noise, seed=3, epochs=50).tobytes()


def test_orthogonal_directions_have_no_first_component_and_a_place_that_rounding_does_not_choose() -> None:
    """All components are equally large: an eigenvalue routine's answer would be whatever rounding makes of it."""
    directions = torch.eye(40, dtype=torch.float64)
    neighbours = (np.arange(1, 41, dtype=np.int32)[:, None] % 40, np.full((40, 1), 0.5, np.float32))
    places = place(*neighbours, directions, seed=0)
    turned = directions + 1e-14 * torch.randn(40, 40, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert places.tobytes() == place(*neighbours, turned, seed=0).tobytes()


def test_those_without_neighbours_are_on_the_rim_and_the_others_inside() -> None:
    directions, _ = planted(200, 8, 10, 0.3)
    directions[[3, 50, 51]] = 0.0
    places = mapped(directions)
    radius = np.sqrt((places.astype(np.float64) ** 2).sum(1))
    dead = np.isin(np.arange(200), [3, 50, 51])
    assert (radius[dead] >= RIM).all()
    assert (radius[dead] < RIM + 0.1).all()
    assert radius[~dead].max() == pytest.approx(1.0, abs=1e-6)
    assert len(np.unique(places, axis=0)) == 200


@given(st.integers(0, 10**6), st.integers(0, 30), st.integers(0, 5), st.integers(0, 4), st.integers(0, 30))
def test_there_is_a_place_for_everyone_whatever_the_input(seed: int, n: int, k: int, d: int, epochs: int) -> None:
    """Names of nobody, of oneself, twice the same; numbers that are none; copies; nothing at all."""
    rng = np.random.default_rng(seed)
    neighbours = rng.integers(-1, n + 2, (n, k)).astype(np.int32)
    cosines = rng.choice(np.float32([math.nan, math.inf, -1, 0, 1e-30, 0.5, 1, 1, 2]), (n, k))
    rows = rng.choice([math.nan, math.inf, 0.0, 1e-44, 3e38, 1.0, -1.0], (n, d), p=[0.02, 0.02, *[0.192] * 5])
    places = place(neighbours, cosines, torch.from_numpy(rows).float(), seed=seed, epochs=epochs)
    assert (places.shape, places.dtype) == ((n, 2), np.float32)
    assert np.isfinite(places).all()
    assert np.abs(places).max(initial=0) <= RIM + 0.1
    assert len(np.unique(places, axis=0)) == n


def test_copies_of_one_direction_part() -> None:
    directions = torch.ones(60, 5)
    places = mapped(directions)
    assert len(np.unique(places, axis=0)) == 60


def test_oneself_is_no_neighbour() -> None:
    neighbours = np.int32([[1, 0], [0, 1], [2, 2]])
    places = place(neighbours, np.full((3, 2), 0.5, np.float32), torch.eye(3), seed=0)
    assert np.sqrt((places**2).sum(1)) == pytest.approx([1.0, 1.0, 1.15])


def test_the_order_of_a_list_names_of_nobody_and_names_twice_do_not_matter() -> None:
    directions, _ = planted(100, 8, 10, 0.5)
    latents, cosines = nearest(directions, 0, 100, 6)
    padded = (np.pad(latents, ((0, 0), (2, 1)), constant_values=-1), np.pad(cosines, ((0, 0), (2, 1))))
    order = [4, 0, 7, 3, 8, 2, 1, 5, 6]
    expected = place(latents, cosines, directions, seed=0, epochs=20)
    twice = (np.concatenate([latents, latents[:, :3]], 1), np.concatenate([cosines, cosines[:, :3]], 1))
    assert place(*twice, directions, seed=0, epochs=20).tobytes() == expected.tobytes()
    assert (
        place(padded[0][:, order], padded[1][:, order], directions, seed=0, epochs=20).tobytes() == expected.tobytes()
    )
