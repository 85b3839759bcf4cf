"""Fingerprints: of a set, not of an order; parts add up; one changed byte, token or row gives another."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mohole.store.fingerprint import Fingerprint, row_hashes

SIZES = st.sampled_from([1, 2, 3, 4, 6, 7, 8, 12, 16, 40])


def rows(n: int, row_bytes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    return draw.permutation(10 * n)[:n], draw.integers(0, 256, (n, row_bytes), dtype=np.uint8)


def mark(tokens: np.ndarray, stored: np.ndarray) -> Fingerprint:
    return Fingerprint.of(row_hashes(tokens, stored))


@given(SIZES, st.integers(0, 99), st.integers(0, 20))
def test_the_order_does_not_matter_and_parts_add_up(row_bytes: int, seed: int, cut: int) -> None:
    tokens, stored = rows(20, row_bytes, seed)
    whole = mark(tokens, stored)
    order = np.random.default_rng(seed + 1).permutation(20)
    assert mark(tokens[order], stored[order]) == whole
    assert mark(tokens[:cut], stored[:cut]) + mark(tokens[cut:], stored[cut:]) == whole
    assert whole + Fingerprint() == whole
    assert whole.n_rows == 20


@given(SIZES, st.integers(0, 2**31), st.integers(1, 255))
def test_any_changed_byte_is_seen(row_bytes: int, place: int, change: int) -> None:
    tokens, stored = rows(5, row_bytes)
    changed = stored.copy()
    changed.reshape(-1)[place % stored.size] ^= change
    assert mark(tokens, changed) != mark(tokens, stored)
    assert (row_hashes(tokens, changed) != row_hashes(tokens, stored)).sum() == 1


@given(SIZES, st.integers(0, 99))
def test_swapped_tokens_other_tokens_and_doubled_or_dropped_rows_are_seen(row_bytes: int, seed: int) -> None:
    tokens, stored = rows(6, row_bytes, seed)
    stored[0, 0], stored[1, 0] = 1, 2  # not alike: their tokens are swapped below
    whole = mark(tokens, stored)
    swapped, other = tokens.copy(), tokens.copy()
    swapped[[0, 1]] = tokens[[1, 0]]
    other[3] += 1000
    for wrong in (swapped, other):
        assert mark(wrong, stored) != whole
    assert mark(np.append(tokens, tokens[2]), np.append(stored, stored[2:3], axis=0)) != whole
    assert mark(tokens[1:], stored[1:]) != whole
    same_number = [0, 0, *range(2, 6)]  # one doubled where another is lost
    assert mark(tokens[same_number], stored[same_number]) != whole


def test_a_row_that_stands_four_times_is_seen_though_the_exclusive_or_is_not_changed_by_it() -> None:
    tokens, stored = rows(6, 8)
    thrice = [0, 0, 0, 1, 2, 3, 4, 5]
    assert mark(tokens[thrice], stored[thrice]).xor == mark(tokens, stored).xor
    assert mark(tokens[thrice], stored[thrice]) != mark(tokens, stored)


def test_swapped_values_within_a_row_are_seen() -> None:
    stored = np.arange(16, dtype=np.uint8).reshape(1, 16)
    swapped = np.roll(stored, 8, axis=1)
    assert mark(np.array([3]), swapped) != mark(np.array([3]), stored)


def test_hashes_fill_their_range_even_for_rows_of_zeros() -> None:
    hashes = row_hashes(np.arange(4096), np.zeros((4096, 8), dtype=np.uint8))
    assert len(np.unique(hashes)) == 4096
    ones = np.unpackbits(hashes.view(np.uint8)).mean()
    assert ones == pytest.approx(0.5, abs=4 * 0.5 / (64 * 4096) ** 0.5)


def test_a_fingerprint_is_read_back_from_json() -> None:
    found = mark(*rows(9, 4))
    assert Fingerprint.from_json(found.as_json()) == found
    assert mark(*rows(0, 4)) == Fingerprint()
