"""Keyed random numbers: the published vectors, uniform and independent in sight, the same in any order."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mohole import keys
from mohole.keys import Use


@pytest.mark.parametrize(
    ("counter", "key", "output"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_published_vectors(
    counter: tuple[int, ...], key: tuple[int, int], output: tuple[int, ...]
) -> None:
    """Random123, tests/kat_vectors, philox4x32-10."""
    first = np.array([counter[0] | counter[1] << 32], dtype=np.uint64)
    second = np.array([counter[2] | counter[3] << 32], dtype=np.uint64)
    low, high = keys.philox(first, second, key[0] | key[1] << 32)
    words = [int(low[0]) & 0xFFFFFFFF, int(low[0]) >> 32, int(high[0]) & 0xFFFFFFFF, int(high[0]) >> 32]
    assert words == list(output)


def test_uniform_numbers_are_uniform() -> None:
    numbers = keys.uniform(1, Use.SCALE_ROWS, np.arange(100_000))
    assert numbers.min() >= 0
    assert numbers.max() < 1
    counts = np.histogram(numbers, bins=100, range=(0, 1))[0]
    chi2 = ((counts - 1000) ** 2 / 1000).sum()
    assert 60 < chi2 < 150  # 99 degrees of freedom, both tails: too even is as wrong as too uneven


@pytest.mark.parametrize("other", ["next id", "next sub id", "next seed", "other use"])
def test_neighbours_in_every_direction_are_independent(other: str) -> None:
    ids = np.arange(50_000)
    numbers = keys.uniform(5, Use.ROW_ORDER, ids)
    partner = {
        "next id": keys.uniform(5, Use.ROW_ORDER, ids + 1),
        "next sub id": keys.uniform(5, Use.ROW_ORDER, ids, 1),
        "next seed": keys.uniform(6, Use.ROW_ORDER, ids),
        "other use": keys.uniform(5, Use.LATENT_INIT, ids),
    }[other]
    assert not np.isin(numbers, partner).all()
    assert abs(np.corrcoef(numbers, partner)[0, 1]) < 4 / 50_000**0.5


def test_every_bit_of_a_word_is_a_fair_coin() -> None:
    words = keys.words(9, Use.ROW_ORDER, np.arange(20_000))
    share = ((words[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)).mean(0)
    assert np.abs(share - 0.5).max() < 4.5 * 0.5 / 20_000**0.5


@given(seed=st.integers(0, 2**63 - 1), ids=st.lists(st.integers(0, 2**55), min_size=1, max_size=30))
def test_a_number_depends_on_its_id_and_not_on_its_company(seed: int, ids: list[int]) -> None:
    together = keys.words(seed, Use.ROW_ORDER, np.array(ids))
    backwards = keys.words(seed, Use.ROW_ORDER, np.array(ids[::-1]))[::-1]
    alone = [int(keys.words(seed, Use.ROW_ORDER, np.array([i]))[0]) for i in ids]
    assert together.tolist() == backwards.tolist() == alone


@pytest.mark.parametrize("sub_ids", [3, np.arange(40_000)[::-1]])
def test_many_words_are_the_words_of_each_part(sub_ids: int | np.ndarray) -> None:
    """They are drawn in pieces of 2^14: the last one is shorter, and a lone sub id goes for all."""
    ids = np.arange(40_000)
    drawn = keys.words(4, Use.ROW_ORDER, ids, sub_ids)
    for part in (slice(0, 7), slice(16_380, 16_390), slice(32_760, 32_770), slice(39_995, 40_000)):
        alone = keys.words(4, Use.ROW_ORDER, ids[part], sub_ids if isinstance(sub_ids, int) else sub_ids[part])
        assert np.array_equal(drawn[part], alone)
    assert len(np.unique(drawn)) == len(drawn)


def test_uses_do_not_share_numbers() -> None:
    drawn = [set(keys.words(0, use, np.arange(1000)).tolist()) for use in Use]
    assert len(set().union(*drawn)) == 1000 * len(Use)
    assert len(Use) == len({int(use) for use in Use})


def test_normal_numbers_are_normal_and_keyed_by_row_and_column() -> None:
    numbers = keys.normal(3, Use.LATENT_INIT, np.arange(400), 100)
    assert numbers.shape == (400, 100)
    assert abs(numbers.mean()) < 4 / 200
    assert numbers.var() == pytest.approx(1, abs=0.03)
    assert (numbers**4).mean() == pytest.approx(3, abs=0.2)
    assert np.abs(np.corrcoef(numbers.T) - np.eye(100)).max() < 0.3
    assert np.isfinite(numbers).all()
    np.testing.assert_array_equal(keys.normal(3, Use.LATENT_INIT, np.array([399, 7]), 100), numbers[[399, 7]])
    np.testing.assert_array_equal(keys.normal(3, Use.LATENT_INIT, np.arange(400), 10), numbers[:, :10])


def test_row_keys_differ_by_document_position_epoch_and_seed() -> None:
    document, position = np.divmod(np.arange(10_000), 100)
    drawn = [
        keys.row_keys(0, document, position),
        keys.row_keys(0, document, position, epoch=1),
        keys.row_keys(1, document, position),
    ]
    assert len(np.unique(np.concatenate(drawn))) == 30_000


def test_the_held_out_share_is_what_was_asked_for_and_grows_by_adding() -> None:
    small, large = (keys.held_out(4, np.arange(20_000), share) for share in (0.1, 0.3))
    assert small.mean() == pytest.approx(0.1, abs=4 * (0.1 * 0.9 / 20_000) ** 0.5)
    assert large.mean() == pytest.approx(0.3, abs=4 * (0.3 * 0.7 / 20_000) ** 0.5)
    assert (large >= small).all()
    together = (large[1:] & large[:-1]).mean()  # neighbours are drawn apart
    assert together == pytest.approx(0.09, abs=4 * (0.09 * 0.91 / 20_000) ** 0.5)
    # More documents do not change which of the first are held out.
    assert (keys.held_out(4, np.arange(500), 0.1) == small[:500]).all()
    assert (keys.held_out(5, np.arange(20_000), 0.1) != small).any()
