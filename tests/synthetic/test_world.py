"""Synthetic rows are what they say: the same by id, firing as often as they should, one child at a time, sums of directions."""

import numpy as np
import pytest
import torch

from mohole import keys
from mohole.config import Synthetic
from mohole.errors import ConfigError
from mohole.synthetic.directions import directions, mean_overlap
from mohole.synthetic.tree import chances, drawn_chances, levels, parents
from mohole.synthetic.world import Firings, SyntheticWorld

SMALL = Synthetic(
    n_features=120, d_model=24, highest_chance=0.3, lowest_chance=0.02, roots=6, branching=3, depth=2,
    correlation_rank=4, correlation_scale=0.3,
)  # fmt: skip
ALONE = SMALL.model_copy(update={"roots": 0, "correlation_rank": 0})
IDS = np.arange(40_000)


def dense(firings: Firings, n: int) -> np.ndarray:
    result = np.zeros((firings.n_rows, n), dtype=np.float32)
    result[firings.rows, firings.features] = firings.magnitudes
    return result


@pytest.fixture(scope="module")
def world() -> SyntheticWorld:
    return SyntheticWorld(SMALL, seed=3)


@pytest.fixture(scope="module")
def fired(world: SyntheticWorld) -> np.ndarray:
    return dense(world.firings(IDS), 120)


def test_a_row_is_the_same_in_any_batch_and_for_any_order(world: SyntheticWorld, fired: np.ndarray) -> None:
    some = np.array([39_999, 7, 12_345, 8])
    again = world.firings(some)
    assert np.array_equal(dense(again, 120), fired[some])
    one_by_one = np.concatenate([world.rows(world.firings(some[i : i + 1])).numpy() for i in range(4)])
    np.testing.assert_allclose(world.rows(again).numpy(), one_by_one, rtol=1e-5, atol=1e-5)
    other = dense(SyntheticWorld(SMALL, seed=4).firings(some), 120)
    assert not np.array_equal(other, fired[some])


def test_blocks_do_not_show(world: SyntheticWorld, fired: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mohole.synthetic.world._BLOCK_ENTRIES", 700)
    assert np.array_equal(dense(world.firings(IDS[:100]), 120), fired[:100])


def test_rows_are_sums_of_directions_and_the_bias(world: SyntheticWorld, fired: np.ndarray) -> None:
    expected = torch.from_numpy(fired[:50]) @ world.directions + world.bias
    torch.testing.assert_close(world.rows(world.firings(IDS[:50])), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(world.directions.norm(dim=1), torch.ones(120))
    assert float(world.bias.norm()) == pytest.approx(0.5)


def test_features_that_stand_alone_fire_at_their_chance_and_independently() -> None:
    world = SyntheticWorld(ALONE, seed=0)
    fires = dense(world.firings(IDS), 120) > 0
    error = np.sqrt(world.chances * (1 - world.chances) / len(IDS))
    z = (fires.mean(0) - world.chances) / error
    assert np.abs(z).max() < 4.5
    assert 0.7 < z.std() < 1.3
    together = np.corrcoef(fires.T)[np.triu_indices(120, 1)]
    assert np.abs(together).max() < 0.03


def test_chances_fall_as_a_power_of_the_rank_between_their_ends() -> None:
    found = chances(Synthetic())
    assert (found[0], found[-1]) == (0.4, 5e-4)
    assert (np.diff(found) < 0).all()
    rank = np.array([1, 4, 16, 64]) - 1
    steps = (found[rank] - found[-1]) / (found[0] - found[-1])
    assert steps == pytest.approx([1.0, 0.5, 0.25, 0.125], abs=0.01)  # exponent 0.5: half for four times the rank


def test_a_child_fires_only_with_its_parent_and_one_of_its_siblings_at_most(
    world: SyntheticWorld, fired: np.ndarray
) -> None:
    fires = fired > 0
    children = np.flatnonzero(world.parents >= 0)
    assert len(children) == 6 * 3 + 6 * 9
    assert not (fires[:, children] & ~fires[:, world.parents[children]]).any()
    for parent in np.unique(world.parents[children]):
        siblings = fires[:, world.parents == parent].sum(1)
        assert siblings.max() == 1


def test_siblings_share_where_they_do_not_exclude_each_other() -> None:
    world = SyntheticWorld(SMALL.model_copy(update={"exclusive": False}), seed=3)
    fires = dense(world.firings(IDS[:10_000]), 120) > 0
    assert fires[:, world.parents == 0].sum(1).max() == 3
    children = np.flatnonzero(world.parents >= 0)
    assert not (fires[:, children] & ~fires[:, world.parents[children]]).any()


def test_children_fire_nearly_as_often_as_they_should(world: SyntheticWorld, fired: np.ndarray) -> None:
    """Independent of each other without factors: a child's rate is its chance where nothing excludes it."""
    world = SyntheticWorld(SMALL.model_copy(update={"exclusive": False, "correlation_rank": 0}), seed=3)
    rate = (dense(world.firings(IDS), 120) > 0).mean(0)
    error = np.sqrt(world.chances / len(IDS))
    assert np.abs((rate - world.chances) / error).max() < 5
    exclusive = (fired > 0).mean(0)
    children = world.parents >= 0
    assert 0.5 < exclusive[children].sum() / world.chances[children].sum() < 1.1
    assert exclusive[~children].sum() == pytest.approx(world.chances[~children].sum(), rel=0.05)


def test_parents_are_numbered_level_by_level() -> None:
    found = parents(Synthetic(n_features=12, d_model=8, roots=2, branching=2, depth=2))
    assert found.tolist() == [-1, -1, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert [level.tolist() for level in levels(found)] == [[2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]
    assert len(levels(parents(ALONE))) == 0
    published = parents(Synthetic())
    assert (published >= 0).sum() == 128 * (4 + 16 + 64)


def test_the_chance_to_be_drawn_makes_up_for_parents_and_siblings() -> None:
    wanted = np.array([0.5, 0.1, 0.2])
    family = np.array([-1, 0, 0])
    assert drawn_chances(wanted, family, exclusive=False) == pytest.approx([0.5, 0.2, 0.4])
    assert drawn_chances(wanted, family, exclusive=True) == pytest.approx([0.5, 0.2 * 1.4, 0.4 * 1.2])
    assert drawn_chances(np.array([0.1, 0.1, 0.1]), family, exclusive=True).max() == 1.0


def test_factors_make_features_fire_together_as_a_gaussian_copula_says() -> None:
    """Of two features, the rate of firing together is the bivariate normal's beyond both thresholds."""
    from scipy.stats import multivariate_normal, norm

    settings = ALONE.model_copy(update={"correlation_rank": 2, "correlation_scale": 0.6, "n_features": 30})
    world = SyntheticWorld(settings, seed=1)
    fires = dense(world.firings(IDS), 30) > 0
    error = np.sqrt(world.chances * (1 - world.chances) / len(IDS))
    assert np.abs((fires.mean(0) - world.chances) / error).max() < 4.5
    correlation = world._factor @ world._factor.T
    pairs = np.argsort(-np.abs(np.triu(correlation, 1)).ravel())[:6]
    for a, b in zip(*np.unravel_index(pairs, correlation.shape), strict=True):
        cut = [-norm.ppf(world.chances[feature]) for feature in (a, b)]
        expected = multivariate_normal(cov=[[1, correlation[a, b]], [correlation[a, b], 1]]).cdf([-cut[0], -cut[1]])
        found = (fires[:, a] & fires[:, b]).mean()
        assert found == pytest.approx(expected, abs=5 * np.sqrt(expected / len(IDS)) + 1e-4)


def test_magnitudes_have_their_means_and_a_child_has_its_parents_share() -> None:
    world = SyntheticWorld(ALONE.model_copy(update={"magnitude_spread": 0.2}), seed=0)
    magnitudes = dense(world.firings(IDS), 120)
    means = magnitudes.sum(0) / (magnitudes > 0).sum(0)
    assert means == pytest.approx(world.mean_magnitudes, abs=0.25)
    assert (world.mean_magnitudes[0], world.mean_magnitudes[-1]) == (5.0, 4.0)
    still = SyntheticWorld(SMALL.model_copy(update={"magnitude_spread": 0.0}), seed=3)
    exact = dense(still.firings(IDS[:500]), 120)
    np.testing.assert_allclose(exact, np.where(exact > 0, still.mean_magnitudes, 0), rtol=1e-6)
    scaled = SyntheticWorld(SMALL, seed=3).firings(IDS[:2000])
    plain = SyntheticWorld(SMALL.model_copy(update={"scaled_by_parent": False}), seed=3).firings(IDS[:2000])
    scaled_, plain_ = dense(scaled, 120), dense(plain, 120)
    child = np.flatnonzero(still.parents == 0)[0]
    rows = scaled_[:, child] > 0
    expected = plain_[rows, child] * plain_[rows, 0] / still.mean_magnitudes[0]
    np.testing.assert_allclose(scaled_[rows, child], expected, rtol=1e-5)


@pytest.mark.parametrize(("n", "overlap"), [(60, 0.2), (200, 0.3), (200, 0.6), (200, 0.95)])
def test_overlap_is_as_asked(n: int, overlap: float) -> None:
    natural = mean_overlap(directions(200, 40, None, seed=0))
    assert 0.4 < natural < 0.6
    found = mean_overlap(directions(n, 40, overlap, seed=0))
    assert found == pytest.approx(overlap, abs=0.03)


def test_directions_that_have_room_are_orthogonal_and_those_that_have_none_are_refused() -> None:
    found = directions(16, 24, 0.0, seed=0)
    torch.testing.assert_close(found @ found.T, torch.eye(16), atol=1e-5, rtol=0)
    with pytest.raises(ConfigError, match=r"synthetic.overlap: 200 directions in 8 dimensions"):
        directions(200, 8, 0.05, seed=0)


def test_directions_are_keyed_by_feature() -> None:
    torch.testing.assert_close(directions(50, 8, None, seed=1)[:20], directions(20, 8, None, seed=1))


def test_a_stream_of_words_is_numpys_philox_and_differs_by_id_and_use() -> None:
    one = keys.stream(7, keys.Use.ROW_FIRING, 5, 1000)
    assert np.array_equal(one[:10], keys.stream(7, keys.Use.ROW_FIRING, 5, 10))
    for other in ((8, keys.Use.ROW_FIRING, 5), (7, keys.Use.SIBLING, 5), (7, keys.Use.ROW_FIRING, 6)):
        assert not np.isin(keys.stream(*other, 1000), one).any()
    assert abs((one >> np.uint64(63)).mean() - 0.5) < 0.06


def test_settings_that_cannot_be_meant_are_refused() -> None:
    with pytest.raises(ValueError, match="lowest_chance"):
        Synthetic(lowest_chance=0.5, highest_chance=0.1)
    with pytest.raises(ValueError, match="correlation_scale"):
        Synthetic(correlation_rank=100, correlation_scale=0.2)
