"""Rows put in their places: as numpy's own assignment does it, for every width, wherever rows and target begin."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mohole.kernels.place import put_rows, room_for_rows


@given(
    n_rows=st.integers(0, 40),
    spare=st.integers(0, 5),
    row_bytes=st.sampled_from([1, 12, 32, 64, 100, 128, 192, 4096]),
    shift=st.sampled_from([0, 1, 32, 64]),
    seed=st.integers(0, 99),
)
def test_every_row_arrives_and_nothing_else_changes(
    n_rows: int, spare: int, row_bytes: int, shift: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    room = room_for_rows(1, (n_rows + spare) * row_bytes + shift)[0]
    room[:] = random.integers(0, 256, len(room))
    before = room.copy()
    target = room[shift:].reshape(n_rows + spare, row_bytes)
    rows = random.integers(0, 256, (n_rows, row_bytes), dtype=np.uint8)
    places = random.permutation(n_rows + spare)[:n_rows]
    put_rows(target, places, rows)
    expected = before[shift:].reshape(target.shape).copy()
    expected[places] = rows
    np.testing.assert_array_equal(target, expected)
    np.testing.assert_array_equal(room[:shift], before[:shift])


@pytest.mark.parametrize("places", [[0, 4], [-1, 2]])
def test_a_place_outside_is_refused_before_a_byte_is_written(places: list[int]) -> None:
    target = room_for_rows(4, 64)
    target[:] = 7
    with pytest.raises(IndexError, match="of 4 rows"):
        put_rows(target, np.array(places), np.zeros((2, 64), dtype=np.uint8))
    assert (target == 7).all()


def test_arrays_that_are_no_rows_for_these_places_are_refused() -> None:
    target, rows, places = room_for_rows(8, 64), np.zeros((4, 64), dtype=np.uint8), np.arange(4)
    for wrong in (
        (target, places, rows[:2]),
        (target, places, np.zeros((4, 32), np.uint8)),
        (target, places[:2], rows[::2]),
    ):
        with pytest.raises(ValueError, match="not rows for these places"):
            put_rows(*wrong)
