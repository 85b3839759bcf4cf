"""Cells: where each begins against a slow loop; splits cover everything once; finer cells are the same range of keys."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mohole.store.cells import Cells


@st.composite
def any_cells(draw: st.DrawFn, max_bits: int = 7) -> Cells:
    bits = draw(st.integers(0, max_bits))
    first = draw(st.integers(0, 2**bits - 1))
    return Cells(bits, first, draw(st.integers(1, 2**bits - first)))


def key_range(cells: Cells) -> tuple[int, int]:
    return cells.first << (64 - cells.bits), (cells.first + cells.count) << (64 - cells.bits)


@st.composite
def cells_and_keys(draw: st.DrawFn) -> tuple[Cells, np.ndarray]:
    """Keys anywhere in the range, and often right at the edges of cells."""
    cells = draw(any_cells())
    low, high = key_range(cells)
    edges = [(cells.first + i) << (64 - cells.bits) for i in range(cells.count + 1)]
    near = st.sampled_from([edge + step for edge in edges for step in (-1, 0, 1) if low <= edge + step < high])
    found = draw(st.lists(st.integers(low, high - 1) | near, max_size=40))
    return cells, np.sort(np.array(found, dtype=np.uint64))


@given(cells_and_keys())
def test_a_cell_begins_where_a_slow_loop_says(given_: tuple[Cells, np.ndarray]) -> None:
    cells, found = given_
    starts = cells.starts(found)
    assert len(starts) == cells.count + 1
    for cell in range(cells.count):
        inside = [key for key in found.tolist() if key >> (64 - cells.bits) == cells.first + cell]
        assert found[starts[cell] : starts[cell + 1]].tolist() == inside
    assert cells.holds(found)


@given(any_cells(), st.integers(0, 2**64 - 1))
def test_keys_outside_are_not_held(cells: Cells, key: int) -> None:
    low, high = key_range(cells)
    assert cells.holds(np.array([key], dtype=np.uint64)) == (low <= key < high)
    assert cells.holds(np.zeros(0, dtype=np.uint64))


@given(any_cells(), st.integers(1, 200))
def test_a_split_covers_every_cell_once_in_like_parts(cells: Cells, n_parts: int) -> None:
    parts = cells.split(n_parts)
    assert len(parts) == min(n_parts, cells.count)
    covered = [cell for part in parts for cell in range(part.first, part.first + part.count)]
    assert covered == list(range(cells.first, cells.first + cells.count))
    sizes = {part.count for part in parts}
    assert max(sizes) - min(sizes) <= 1


@given(any_cells(), st.integers(0, 20))
def test_finer_cells_are_the_same_range(cells: Cells, more: int) -> None:
    finer = cells.finer(cells.bits + more)
    assert key_range(finer) == key_range(cells)
    assert finer.count == cells.count << more
    if more:
        with pytest.raises(ValueError, match="coarser"):
            finer.finer(cells.bits)


def test_everything_is_the_whole_key_space() -> None:
    assert key_range(Cells.everything(5)) == key_range(Cells.everything()) == (0, 1 << 64)
    assert Cells.everything(5).holds(np.array([0, 2**64 - 1], dtype=np.uint64))
