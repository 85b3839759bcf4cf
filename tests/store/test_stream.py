"""The stream: rows in the order of their keys, the same by any memory, batch, rank and place to begin at."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.store.worlds import WIDTHS, World, make_documents, make_world, shuffled, small, write

from mohole.errors import HookpointError, NumericsError, StageError
from mohole.store import Order, Store, write_store
from mohole.store.plan import plan_loader
from mohole.store.stream import Stream

WORLD = make_world(40)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Store]:
    """The same rows as runs, sorted in one shard, and sorted in many."""
    folder = tmp_path_factory.mktemp("stream")
    runs = write(folder / "runs", WORLD)
    return {
        "runs": runs,
        "one shard": shuffled(folder / "one", runs, small(5000)),
        "many shards": shuffled(folder / "many", runs, small(80), levels=1),
    }


def training_order(world: World, order: Order) -> np.ndarray:
    """Training tokens by ascending key."""
    keys = order.keys(world.tokens, world.documents)
    in_order = world.tokens[np.argsort(keys)]
    return in_order[~world.documents.held_out[world.documents.of(in_order)]]


@pytest.mark.parametrize("name", ["runs", "one shard", "many shards"])
@pytest.mark.parametrize("memory_rows", [60, 300, 100_000])
def test_rows_are_the_training_rows_in_the_order_of_keys(stores: dict[str, Store], name: str, memory_rows: int) -> None:
    store = stores[name]
    expected = training_order(WORLD, store.facts.order)
    for hookpoint in WIDTHS:
        stream = Stream(store, hookpoint, memory_bytes=2 * memory_rows * (20 + 64))
        assert (stream.n_rows, stream.d_model, stream.hookpoint) == (len(expected), WIDTHS[hookpoint], hookpoint)
        rows = stream.rows(0, stream.n_rows)
        assert rows.dtype == torch.float32
        np.testing.assert_array_equal(rows.numpy(), store.take(hookpoint, expected))


@settings(max_examples=15)
@given(
    name=st.sampled_from(["runs", "one shard", "many shards"]),
    memory_rows=st.integers(60, 2000),
    places=st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 900)), min_size=1, max_size=4),
)
def test_any_place_at_any_time_gives_its_rows_and_after_the_last_comes_the_first(
    stores: dict[str, Store], name: str, memory_rows: int, places: list[tuple[int, int]]
) -> None:
    """Resuming is asking for a later rank first."""
    stream = Stream(stores[name], "embed", memory_bytes=2 * memory_rows * (12 + 64))
    expected = training_order(WORLD, stores[name].facts.order)
    for first, n_rows in places:
        ranks = (first + np.arange(n_rows)) % len(expected)
        np.testing.assert_array_equal(stream.rows(first, n_rows)[:, 0].numpy(), expected[ranks])


def test_the_parts_of_the_ranks_are_the_batch_and_batches_are_the_stream(stores: dict[str, Store]) -> None:
    stream = Stream(stores["runs"], "embed", memory_bytes=20_000)
    for step in (0, 3, 40):
        whole = stream.batch(step, 24)
        assert torch.equal(whole, stream.rows(step * 24, 24))
        for world in (1, 2, 3, 8):
            parts = [stream.batch(step, 24, rank=rank, world=world) for rank in range(world)]
            assert torch.equal(torch.cat(parts), whole)
    with pytest.raises(ValueError, match="24 rows cannot be shared by 5 ranks"):
        stream.batch(0, 24, rank=0, world=5)


def test_a_pile_never_holds_more_rows_than_its_memory(stores: dict[str, Store]) -> None:
    stream = Stream(stores["runs"], "embed", memory_bytes=2 * 200 * (12 + 64))
    assert len(stream._ranges) > 3
    assert np.diff(stream._firsts).max() <= 200
    assert stream._firsts[-1] == len(WORLD.tokens)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_is_named_by_token_and_rank(tmp_path: Path, bad: float) -> None:
    world = make_world(30)
    expected = training_order(world, Order.random(world.documents, seed=0))
    token = int(expected[77])
    world.rows["embed"][world.tokens == token, 1] = bad
    stream = Stream(write(tmp_path / "s", world), "embed")
    stream.rows(0, 77)
    with pytest.raises(
        NumericsError, match=rf"^embed: not a finite .* token {token} of .*, row 77 of the stream; .*float32"
    ):
        stream.rows(70, 20)
    n_rows = stream.n_rows
    with pytest.raises(NumericsError, match=rf"token {token} of"):
        stream.rows(n_rows + 70, 20)


def test_values_whose_sum_overflows_are_finite(tmp_path: Path) -> None:
    world = make_world(10)
    world.rows["embed"][:, 1:] = 3e38
    stream = Stream(write(tmp_path / "s", world), "embed")
    assert torch.isfinite(stream.rows(0, stream.n_rows)).all()


def test_held_out_rows_are_never_read_out_even_where_they_share_a_pile(tmp_path: Path) -> None:
    world = make_world(30, held_out=0.5)
    is_held_out = world.documents.held_out[world.documents.of(world.tokens)]
    world.rows["embed"][is_held_out] = np.nan
    stream = Stream(write(tmp_path / "s", world), "embed", memory_bytes=1 << 30)
    assert len(stream._ranges) == 1
    assert torch.isfinite(stream.rows(0, 3 * stream.n_rows)).all()


def test_what_cannot_be_streamed_is_refused(stores: dict[str, Store], tmp_path: Path) -> None:
    text = shuffled(tmp_path / "text", stores["runs"], small(), order=Order.text(WORLD.documents))
    with pytest.raises(StageError, match=r"in the order of the text; mohole shuffle .*text"):
        Stream(text, "embed")
    with pytest.raises(HookpointError, match=r"resid_post.9: not in .*; it has embed, mlp_out.0"):
        Stream(stores["runs"], "resid_post.9")
    with pytest.raises(StageError, match="0 rows that are not held out"):
        Stream(write(tmp_path / "held", make_world(10, held_out=1.0)), "embed")


@pytest.mark.parametrize("n_runs", [1, 2, 7])
@pytest.mark.parametrize("memory_kb", [700, 1900, 60_000])
def test_the_planned_reads_of_the_loader_are_those_it_makes_also_where_parts_are_read_in_pieces(
    tmp_path: Path, n_runs: int, memory_kb: int
) -> None:
    """At 700 KB a part of the one run is read in four pieces."""
    documents, row_bytes = make_documents(500, held_out=0.0), 256
    tokens = np.arange(int(documents.starts[-1]))
    rows = {"embed": np.zeros((len(tokens), row_bytes // 4), dtype=np.float32)}
    shard_rows = -(-len(tokens) // n_runs)
    write_store(
        tmp_path / "runs", rows, documents, tokens=tokens, shard_rows=shard_rows, cell_bytes=512, dtype="float32"
    )
    store = Store.open(tmp_path / "runs")
    opened = replace(store.shard_storage.traffic)
    stream = Stream(store, "embed", memory_bytes=memory_kb * 1000)
    for number in range(len(stream._ranges)):  # all piles once; reading rows would begin the first one again
        stream._load(number)
    made = store.shard_storage.traffic
    _, _, planned = plan_loader(len(tokens), row_bytes, n_runs, memory_kb * 1000, 512)
    assert made.bytes_read - opened.bytes_read == pytest.approx(planned.bytes_read, rel=0.02)
    assert made.n_reads - opened.n_reads == pytest.approx(planned.n_reads, rel=0.02)
