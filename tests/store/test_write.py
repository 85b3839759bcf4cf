"""A store from memory: the same store however it is cut and given, refused where its rows make no sense."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.store.worlds import World, make_world, shuffled, small, write

from mohole.artifact import Inputs
from mohole.errors import ArtifactError, NumericsError
from mohole.store import Documents, Store, write_store
from mohole.store.shuffle import grouped
from mohole.store.verify import verify

WORLD = make_world(40)


@pytest.mark.parametrize("shard_rows", [1, 7, 100, 10**6])
@pytest.mark.parametrize("cell_bytes", [40, 10**6])
def test_how_it_is_cut_changes_the_layout_alone(tmp_path: Path, shard_rows: int, cell_bytes: int) -> None:
    world = make_world(10)
    one = write(tmp_path / "one", world)
    other = write(tmp_path / "other", world, shard_rows=shard_rows, cell_bytes=cell_bytes)
    assert verify(other).holds
    assert len(other.layout.shards["embed"]) == -(-len(world.tokens) // shard_rows)
    assert other.manifest.digest == one.manifest.digest
    for hookpoint, rows in world.rows.items():
        np.testing.assert_array_equal(other.take(hookpoint, world.tokens), rows)


def test_the_order_in_which_rows_are_given_does_not_matter(tmp_path: Path) -> None:
    order = np.random.default_rng(0).permutation(len(WORLD.tokens))
    mixed = World(WORLD.documents, WORLD.tokens[order], {name: rows[order] for name, rows in WORLD.rows.items()})
    one, other = write(tmp_path / "one", WORLD), write(tmp_path / "other", mixed)
    assert one.manifest.digest == other.manifest.digest
    np.testing.assert_array_equal(other.tokens, WORLD.tokens)
    assert verify(other).holds


def test_without_tokens_every_token_has_a_row(tmp_path: Path) -> None:
    rows = np.arange(21, dtype=np.float32).reshape(7, 3)
    write_store(
        tmp_path / "s", {"embed": rows}, Documents(np.array([0, 3, 7]), np.array([False, True])), dtype="float32"
    )
    store = Store.open(tmp_path / "s")
    np.testing.assert_array_equal(store.take("embed", np.arange(7)), rows)
    assert (store.facts.n_training, store.manifest.kind) == (3, "activations")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"tokens": np.array([0, 1, 2, 7])}, "token 7: the documents have 7 tokens"),
        ({"tokens": np.array([-2, 1, 2, 3])}, "token -2: the documents have 7 tokens"),
        ({"tokens": np.array([5, 1, 5, 3])}, "token 5 has two rows"),
        ({"tokens": np.array([0, 1, 2])}, "embed: 4 rows for 3 tokens"),
        ({}, "embed: 4 rows for 7 tokens"),
    ],
)
def test_rows_that_make_no_sense_are_refused_and_nothing_is_left(
    tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    documents = Documents(np.array([0, 3, 7]), np.array([False, True]))
    with pytest.raises(ValueError, match=message):
        write_store(tmp_path / "s", {"embed": np.ones((4, 2), np.float32)}, documents, **changed)
    assert not list(tmp_path.glob("s*"))


def test_a_taken_place_and_a_value_that_does_not_fit_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "s", WORLD)
    with pytest.raises(ArtifactError, match="already there"):
        write(tmp_path / "s", WORLD)
    WORLD.rows["embed"][3, 1], before = 1e6, WORLD.rows["embed"][3, 1]
    try:
        with pytest.raises(NumericsError, match=r"1e\+06 does not fit float16"):
            write(tmp_path / "half", WORLD, dtype="float16")
    finally:
        WORLD.rows["embed"][3, 1] = before
    assert not (tmp_path / "half").exists()


def test_inputs_seed_and_epoch_are_in_the_manifest_and_the_order(tmp_path: Path) -> None:
    inputs = Inputs(kind="activations", config={"from": "elsewhere"}, seed=9)
    store = write(tmp_path / "s", WORLD, inputs=inputs, seed=9, epoch=2)
    assert store.manifest.inputs == inputs
    assert (store.facts.order.seed, store.facts.order.epoch) == (9, 2)


def test_a_store_without_rows_is_a_store(tmp_path: Path) -> None:
    world = World(WORLD.documents, WORLD.tokens[:0], {name: rows[:0] for name, rows in WORLD.rows.items()})
    store = write(tmp_path / "s", world)
    assert (store.n_rows, len(store.tokens), verify(store).holds) == (0, 0, True)


def test_a_short_last_shard_does_not_make_the_grid_coarse(tmp_path: Path) -> None:
    """Shards are read by the cells that all of them have: a last one of few rows must have as many as the others."""
    world = make_world(300)
    n_rows = len(world.tokens)
    store = write(tmp_path / "s", world, shard_rows=(n_rows - 2) // 3)
    assert [shard.n_rows for shard in store.layout.shards["embed"]][-1] in (2, 3, 4)
    bits = {shard.cells.bits for shard in store.layout.shards["embed"]}
    assert len(bits) == 1
    made = shuffled(tmp_path / "out", store, small(200))
    assert max(shard.n_rows for shard in made.layout.shards["embed"]) <= small(200).room_rows(12)


def test_cells_are_grouped_while_they_fit_and_a_fuller_one_is_alone() -> None:
    found = grouped(np.array([3, 3, 4, 9, 1, 0, 0, 2]), 3, 6)
    assert [(cells.first, cells.count) for cells in found] == [(0, 2), (2, 1), (3, 1), (4, 4)]


def test_int8_scales_come_from_many_rows(tmp_path: Path) -> None:
    store = write(tmp_path / "s", WORLD, dtype="int8")
    assert store.facts.n_clipped == dict.fromkeys(WORLD.rows, 0)
    for hookpoint, rows in WORLD.rows.items():
        error = np.abs(store.take(hookpoint, WORLD.tokens) - rows).max(0)
        assert (error <= 0.51 * 1.25 * np.abs(rows).max(0) / 127).all()


def test_values_beyond_the_calibrated_range_are_clipped_and_counted_over_all_shards(tmp_path: Path) -> None:
    documents = Documents(np.array([0, 16_484]), np.array([False]))
    rows = np.random.default_rng(0).uniform(-1, 1, (16_484, 2)).astype(np.float32)
    beyond = [(16_390, 0), (16_391, 1), (16_480, 1)]  # behind the rows that the scales are taken from, in two shards
    for row, dimension in beyond:
        rows[row, dimension] = 1000.0
    write_store(tmp_path / "s", {"embed": rows}, documents, dtype="int8", shard_rows=100)
    store = Store.open(tmp_path / "s")
    assert store.facts.n_clipped["embed"] == len(beyond)
    assert sum(shard.n_clipped > 0 for shard in store.layout.shards["embed"]) == 2
    assert verify(store).holds
    found = store.take("embed", np.arange(16_484))
    assert np.abs(found).max() < 2
    kept = np.ones_like(rows, dtype=bool)
    kept[tuple(np.transpose(beyond))] = False
    assert np.abs(found - rows)[kept].max() < 1.25 / 127
