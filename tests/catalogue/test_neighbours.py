"""Neighbours are those that comparing every pair finds, and not a byte of them depends on how the work was cut."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mohole.catalogue import neighbours
from mohole.catalogue.neighbours import nearest, nearest_among


def slowly(directions: torch.Tensor, n: int) -> tuple[list[list[int]], list[list[float]]]:
    """Every pair, each cosine from sums without rounding."""
    rows = [[float(x) for x in row.float()] for row in directions]
    lengths = [math.sqrt(math.fsum(x * x for x in row)) for row in rows]
    all_latents, all_cosines = [], []
    for i, row in enumerate(rows):
        pairs = []
        for j, other in enumerate(rows):
            if i != j and 0 < lengths[i] < math.inf and 0 < lengths[j] < math.inf:
                product = math.fsum(x * y for x, y in zip(row, other, strict=True))
                pairs.append((-float(np.float32(product / (lengths[i] * lengths[j]))), j))
        pairs = [*sorted(pairs)[:n], *[(0.0, -1)] * n][:n]
        all_latents.append([j for _, j in pairs])
        all_cosines.append([-cosine for cosine, _ in pairs])
    return all_latents, all_cosines


def some_directions(seed: int, n: int, d: int) -> torch.Tensor:
    """Random ones; copies, copies of other lengths and upside down, ones that differ by rounding; and ones without length."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(n, d, generator=generator) * torch.exp(torch.randn(n, 1, generator=generator))
    kind = torch.randint(0, 8, (n,), generator=generator)
    source = torch.randint(0, max(n, 1), (n,), generator=generator)
    rows = torch.where((kind == 1)[:, None], rows[source], rows)
    rows = torch.where((kind == 2)[:, None], rows[source] * 2.0, rows)
    rows = torch.where((kind == 3)[:, None], -rows[source], rows)
    rows = torch.where((kind == 4)[:, None], rows[source] * (1 + 1e-6 * torch.randn(n, d, generator=generator)), rows)
    return torch.where((kind == 5)[:, None], 0.0, rows)


@given(st.integers(0, 10**6), st.integers(0, 40), st.sampled_from([1, 2, 3, 17]), st.integers(0, 6))
def test_they_are_what_comparing_every_pair_finds(seed: int, n_latents: int, d: int, n: int) -> None:
    directions = some_directions(seed, n_latents, d)
    latents, cosines = nearest(directions, 0, n_latents, n)
    expected_latents, expected_cosines = slowly(directions, n)
    assert latents.tolist() == expected_latents
    assert cosines.tolist() == expected_cosines
    assert (latents.dtype, cosines.dtype, latents.shape) == (np.int32, np.float32, (n_latents, n))


@given(st.integers(0, 10**6), st.integers(1, 90), st.integers(1, 40), st.integers(1, 3000), st.data())
def test_no_byte_depends_on_ranges_or_blocks(
    seed: int, n_latents: int, d: int, numbers: int, data: st.DataObject
) -> None:
    directions = some_directions(seed, n_latents, d)
    latents, cosines = nearest(directions, 0, n_latents, 5)
    first = data.draw(st.integers(0, n_latents))
    last = data.draw(st.integers(first, n_latents))
    some_latents, some_cosines = nearest(directions, first, last, 5, block_numbers=numbers)
    assert some_latents.tobytes() == latents[first:last].tobytes()
    assert some_cosines.tobytes() == cosines[first:last].tobytes()


def test_a_coarse_product_changes_nothing_but_how_many_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is near is found by a product whose rounding is whatever it is: here that of bfloat16."""
    directions = some_directions(0, 300, 24)
    expected = [part.tobytes() for part in nearest(directions, 0, 300, 7)]
    units = neighbours._units
    monkeypatch.setattr(neighbours, "_units", lambda *args: units(*args).bfloat16().float())
    torch.set_float32_matmul_precision("medium")
    try:
        for numbers in (100, 5000, 1 << 20):
            assert [part.tobytes() for part in nearest(directions, 0, 300, 7, block_numbers=numbers)] == expected
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("n_copies", [2000, 997])
def test_many_alike_are_found_in_memory_for_few(n_copies: int) -> None:
    """2000 copies of one direction, or of two: the first ones, and no list of all pairs on the way."""
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(2, 16, generator=generator)
    directions = rows[(torch.arange(2000) >= n_copies).long()]
    latents, cosines = nearest(directions, 1990, 2000, 4, block_numbers=4000)
    start = 0 if n_copies == 2000 else n_copies
    assert latents.tolist() == [[start, start + 1, start + 2, start + 3]] * 10
    assert (cosines == 1).all()


def test_those_without_a_direction_have_none_and_are_nobody_s() -> None:
    directions = torch.tensor(
        [[1.0, 0.0], [0.0, 0.0], [math.nan, 1.0], [1.0, 1.0], [math.inf, 0.0], [1e-44, 0.0], [-1.0, 0.0]]
    )
    latents, cosines = nearest(directions, 0, 7, 3)
    assert latents.tolist() == [[5, 3, 6], [-1] * 3, [-1] * 3, [0, 5, 6], [-1] * 3, [0, 3, 6], [3, 0, 5]]
    assert cosines[[1, 2, 4]].tolist() == [[0.0] * 3] * 3
    assert cosines[0].tolist() == [1.0, np.float32(math.sqrt(0.5)), -1.0]


def test_rows_of_elsewhere_find_the_latent_they_are() -> None:
    directions = some_directions(3, 50, 8)
    latents, cosines = nearest_among(directions * 3, directions, 1, block_numbers=64)
    alive = directions.abs().sum(1).numpy() > 0
    assert (cosines[alive, 0] == 1).all()
    assert (latents[alive, 0] <= np.flatnonzero(alive)).all()  # itself, or an earlier copy of it
    assert (latents[~alive] == -1).all()
