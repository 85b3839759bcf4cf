"""Law 2: a shuffled store is its rows in the order of their keys, whatever was run, how, and by whom."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.store.worlds import World, flip, make_world, shuffled, small, tokens_in_order, write

from mohole.artifact import Inputs, create
from mohole.errors import ArtifactError, ConfigError, StageError
from mohole.execute import Cores, open_executor
from mohole.job.rows import source_of
from mohole.storage import open_storage
from mohole.store import Order, Store
from mohole.store import merge as merging
from mohole.store import plan as planning
from mohole.store import shuffle as shuffling
from mohole.store.listing import BULK, write_documents
from mohole.store.shuffle import shuffle
from mohole.store.uniformity import uniformity
from mohole.store.verify import verify

WORLD = make_world(40)


def is_in_order(store: Store, world: World, order: Order) -> None:
    """The tokens of every hookpoint by ascending key, each with its own row, and a certificate that says so."""
    certificate = verify(store)
    assert certificate.holds, certificate
    keys = order.keys(world.tokens, world.documents)
    for hookpoint, rows in world.rows.items():
        in_order = tokens_in_order(store, hookpoint)
        np.testing.assert_array_equal(in_order, world.tokens[np.argsort(keys)])
        np.testing.assert_array_equal(store.take(hookpoint, world.tokens), rows)


@settings(max_examples=8, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_the_order_is_that_of_the_keys_for_any_plan(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("shuffle")
    world = make_world(data.draw(st.integers(1, 40)), seed=data.draw(st.integers(0, 9)))
    source = write(
        folder / "runs",
        world,
        seed=3,
        shard_rows=data.draw(st.integers(1, 400).filter(lambda n: n > len(world.tokens) / 20)),
        cell_bytes=data.draw(st.sampled_from([60, 300, 10_000])),
    )
    limits = small(data.draw(st.integers(60, 2000)), cell_bytes=data.draw(st.sampled_from([60, 300, 10_000])))
    order = data.draw(
        st.sampled_from([None, Order.text(world.documents), Order.random(world.documents, seed=3, epoch=1)])
    )
    try:
        made = shuffled(folder / "out", source, limits, levels=data.draw(st.integers(0, 3)), order=order)
    except ConfigError:  # piles of whole cells that do not fit the memory
        limits = small(20_000)
        made = shuffled(folder / "again", source, limits, levels=data.draw(st.integers(0, 3)), order=order)
    is_in_order(made, world, order or source.facts.order)


@pytest.mark.parametrize("levels", [0, 2])
def test_worker_processes_make_the_same_bytes(tmp_path: Path, levels: int | None) -> None:
    source = write(tmp_path / "runs", WORLD)
    here = shuffled(tmp_path / "here", source, small(), levels=levels)
    there = shuffled(tmp_path / "there", source, small(), levels=levels, kind="process")
    is_in_order(there, WORLD, source.facts.order)
    names = open_storage(tmp_path / "here").names("shards/")
    assert names == open_storage(tmp_path / "there").names("shards/")
    for name in [*names, "manifest.json", "store.json", "layout.json"]:
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes()
    assert verify(here).order_hash == verify(there).order_hash


def test_one_order_hash_and_one_digest_for_all_plans_and_another_for_other_orders(tmp_path: Path) -> None:
    plans: list[dict[str, Any]] = [
        {"levels": 0, "limits": small(10_000)}, {"levels": 1}, {"levels": 3, "limits": small(60)},
        {"limits": small(700, cell_bytes=1000)},
    ]  # fmt: skip
    hashes, digests = set(), set()
    for number, plan in enumerate(plans):
        source = write(tmp_path / f"runs{number}", WORLD, shard_rows=70 * (number + 1))
        made = shuffled(tmp_path / str(number), source, **({"limits": small()} | plan))
        hashes.add(verify(made).order_hash)
        digests.add(made.manifest.digest)
        assert verify(source).order_hash is None
    assert len(hashes) == len(digests) == 1
    other = shuffled(tmp_path / "epoch", source, small(), order=Order.random(WORLD.documents, seed=0, epoch=1))
    assert verify(other).order_hash not in hashes


def test_runs_too_short_to_be_cut_are_brought_together_and_then_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "SEGMENTS_FOR_FREE", 4)
    source = write(tmp_path / "runs", WORLD, shard_rows=20)
    limits = small(150, segment_bytes=400)
    plan = planning.plan_shuffle(source.n_rows, 20, len(source.layout.shards["mlp_out.0"]), limits)
    assert plan.passes[0].n_piles == 1 < plan.passes[-1].n_piles
    made = shuffled(tmp_path / "out", source, limits)
    is_in_order(made, WORLD, source.facts.order)
    assert len(made.layout.shards["embed"]) > 1


def test_to_the_order_of_the_text_and_back(tmp_path: Path) -> None:
    source = write(tmp_path / "runs", WORLD)
    text = shuffled(tmp_path / "text", source, small(), order=Order.text(WORLD.documents))
    np.testing.assert_array_equal(tokens_in_order(text), WORLD.tokens)
    back = shuffled(tmp_path / "back", text, small(), order=source.facts.order)
    is_in_order(back, WORLD, source.facts.order)
    straight = shuffled(tmp_path / "straight", source, small())
    assert verify(back).order_hash == verify(straight).order_hash


def test_a_sorted_store_is_sorted_again_into_other_shards(tmp_path: Path) -> None:
    source = shuffled(tmp_path / "fine", write(tmp_path / "runs", WORLD), small(70))
    again = shuffled(tmp_path / "coarse", source, small(10_000))
    assert len(again.layout.shards["embed"]) < len(source.layout.shards["embed"])
    is_in_order(again, WORLD, source.facts.order)


def test_only_the_last_pass_leaves_shards(tmp_path: Path) -> None:
    made = shuffled(tmp_path / "out", write(tmp_path / "runs", WORLD), small(), levels=2)
    names = open_storage(tmp_path / "out").names("shards/")
    assert names == sorted(shard.name for shards in made.layout.shards.values() for shard in shards)
    assert {name.split("/")[1] for name in names} == {"sorted"}
    assert open_storage(tmp_path / "out").names("listings/") == []


def test_no_more_than_two_passes_are_on_the_disk_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    levels: dict[str, set[str]] = {}
    write_layout = shuffling.write_layout

    def watched(storage: Any, layout: Any, name: str) -> str:
        levels[name] = {shard.split("/")[1] for shard in storage.names("shards/")}
        return write_layout(storage, layout, name)

    monkeypatch.setattr(shuffling, "write_layout", watched)
    shuffled(tmp_path / "out", write(tmp_path / "runs", WORLD), small(), levels=2)
    assert levels == {
        "listings/pass-0.json": set(),
        "listings/pass-1.json": {"pass-0"},
        "listings/sorted.json": {"pass-1"},
    }


def test_no_task_holds_more_rows_than_its_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world, most = make_world(150), 0
    source = write(tmp_path / "runs", world, shard_rows=500, cell_bytes=160)
    read_range = merging.read_range

    def watched(*arguments: Any) -> Any:
        nonlocal most
        found = read_range(*arguments)
        most = max(most, len(found[0].key_token))
        return found

    monkeypatch.setattr(merging, "read_range", watched)
    for levels in (0, 1, 2):
        limits, most = small(250, cell_bytes=160), 0
        made = shuffled(tmp_path / f"out{levels}", source, limits, levels=levels)
        assert most <= limits.room_rows(20)
        is_in_order(made, world, source.facts.order)


def test_a_damaged_source_is_named_and_kept(tmp_path: Path) -> None:
    source = write(tmp_path / "runs", WORLD)
    name = source.layout.shards["mlp_out.0"][2].name
    flip(tmp_path / "runs" / name, 8192 + 3)
    with pytest.raises(StageError, match=f"{name}.*mohole verify --mend"):
        shuffled(tmp_path / "out", source, small())
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "runs" / name).exists()


def test_a_shard_between_two_passes_that_is_damaged_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, read_layout, damaged = write(tmp_path / "runs", WORLD), shuffling.write_layout, []

    def spoil_once(storage: Any, layout: Any, name: str) -> str:
        if name == "listings/sorted.json" and not damaged:
            damaged.append(layout.shards["embed"][0].name)
            flip(storage.local / damaged[0], 4096 + 5)
        return read_layout(storage, layout, name)

    monkeypatch.setattr(shuffling, "write_layout", spoil_once)
    made = shuffled(tmp_path / "out", source, small(), levels=1)
    assert len(damaged) == 1
    is_in_order(made, WORLD, source.facts.order)


def test_rows_lost_by_a_pass_are_noticed_before_their_source_is_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that is not laid out: each shard is whole, and the whole is not."""
    source, merges = write(tmp_path / "runs", WORLD), shuffling.merges
    monkeypatch.setattr(shuffling, "merges", lambda *a, **k: merges(*a, **k)[: None if k["is_last"] else -1])
    with pytest.raises(ArtifactError, match="the rows of embed after the pass 'pass-0' are not those of the source"):
        shuffled(tmp_path / "out", source, small(), levels=1)


def test_the_shards_of_a_pass_stay_while_those_of_the_next_are_not_proved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, merges = write(tmp_path / "runs", WORLD), shuffling.merges
    monkeypatch.setattr(shuffling, "merges", lambda *a, **k: merges(*a, **k)[: -1 if k["is_last"] else None])
    with pytest.raises(ArtifactError, match="the rows of embed after the pass 'sorted' are not those of the source"):
        shuffled(tmp_path / "out", source, small(), levels=1)
    kept = open_storage(tmp_path / ".out.partial").names("shards/pass-0/")
    assert len(kept) == len(open_storage(tmp_path / ".out.partial").names("tasks/pass-0/")) > 0


def fill(draft: Path, source: Store, **plan: Any) -> None:
    write_documents(draft, source.documents)
    with open_executor("inline", Cores(1, 1)) as executor:
        shuffle(source_of(source), open_storage(draft), executor, **({"limits": small(), "levels": 1} | plan))


@pytest.mark.parametrize("after", [3, 14])
@pytest.mark.parametrize("plan", [{}, {"levels": 2}, {"limits": small(300)}])
def test_a_killed_shuffle_goes_on_with_this_plan_or_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int, plan: dict[str, Any]
) -> None:
    source, n_done, run_merge = write(tmp_path / "runs", WORLD), 0, shuffling.run_merge

    def dies(task: Any) -> None:
        nonlocal n_done
        if n_done == after:
            raise KeyboardInterrupt
        n_done += 1
        run_merge(task)

    inputs = Inputs(kind="shuffled", config={}, seed=0, parents={"activations": source.manifest.digest})
    with monkeypatch.context() as patch:
        patch.setattr(shuffling, "run_merge", dies)
        with pytest.raises(KeyboardInterrupt), create(tmp_path / "out", inputs, resume=True, bulk=BULK) as draft:
            fill(draft, source)
    made = shuffled(tmp_path / "out", source, **({"limits": small(), "levels": 1} | plan))
    is_in_order(made, WORLD, source.facts.order)


def test_the_order_is_one_that_chance_gives_and_so_is_its_prefix(tmp_path: Path) -> None:
    world = make_world(800, skipped=0.0, held_out=0.0)
    tokens = tokens_in_order(shuffled(tmp_path / "out", write(tmp_path / "runs", world, shard_rows=4000), small(4000)))
    for part in (tokens, tokens[: len(tokens) // 4]):
        assert not uniformity(part).suspicious()
    prefix = np.bincount(world.documents.of(tokens[:1500]) // 100, minlength=8)
    expected = 1500 * np.bincount(world.documents.of(world.tokens) // 100) / len(tokens)
    assert (np.abs(prefix - expected) < 5 * expected**0.5).all()


def test_half_rounded_rows_and_their_clip_counts_go_along(tmp_path: Path) -> None:
    world = make_world(40)
    world.rows["embed"][:, 2] *= 1e-3
    source = write(tmp_path / "runs", world, dtype="int8")
    made = shuffled(tmp_path / "out", source, small())
    assert made.facts.formats == source.facts.formats
    assert made.facts.fingerprints == source.facts.fingerprints
    for hookpoint in world.rows:
        np.testing.assert_array_equal(made.take(hookpoint, world.tokens), source.take(hookpoint, world.tokens))
