"""Proof of a store: whole stores hold, and each kind of fault is found by what it breaks."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.store.worlds import flip, make_world, shuffled, small, write

from mohole import artifact
from mohole.artifact import Inputs
from mohole.errors import DamageError
from mohole.storage import open_storage
from mohole.store import Documents, Order, RowFormat, Store
from mohole.store.cells import Cells
from mohole.store.listing import BULK, Layout, StoreFacts, write_documents, write_facts, write_layout
from mohole.store.shard import ShardFacts
from mohole.store.shard_writer import sorted_places, write_shard
from mohole.store.verify import verify, verify_bytes

WORLD = make_world(40)
FORMAT = RowFormat("float32", 3)
ORDER = Order.random(WORLD.documents, seed=2)
EIGHTHS = Cells.everything(3)

Spoil = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def swap(key_token: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.arange(len(rows))
    order[[100, 101]] = order[[101, 100]]
    return key_token[order], rows[order]


def swap_far(key_token: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The last and the first row: each in a cell that is not its own."""
    order = np.concatenate([[len(rows) - 1], np.arange(1, len(rows) - 1), [0]])
    return key_token[order], rows[order]


def double(key_token: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.sort(np.append(np.arange(len(rows)), 50))
    return key_token[order], rows[order]


def drop(key_token: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.delete(key_token, 50, axis=0), np.delete(rows, 50, axis=0)


def other_key(key_token: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    changed = key_token.copy()
    changed[50, 0] += 1
    return changed, rows


def other_row(key_token: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    changed = rows.copy()
    changed[50, 2] += 1
    return key_token, changed


def unchanged(key_token: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return key_token, rows


def store_of(place: Path, spoil: Spoil = unchanged, cells: Cells = EIGHTHS) -> Store:
    """A sorted store of one shard, sealed as if it were right; its fingerprint is that of the rows before `spoil`."""
    with artifact.create(place, Inputs(kind="shuffled", config={}, seed=2), bulk=BULK) as draft:
        storage = open_storage(draft)
        key_token = np.stack([ORDER.keys(WORLD.tokens, WORLD.documents), WORLD.tokens.astype(np.uint64)], axis=1)
        places = sorted_places(key_token)
        key_token, rows = key_token[places], WORLD.rows["embed"][places]

        def written(key_token: np.ndarray, rows: np.ndarray) -> ShardFacts:
            stored, _ = FORMAT.encode(rows)
            return write_shard(storage, "shards/one", FORMAT, cells, key_token, lambda a, b: stored[a:b])

        whole = written(key_token, rows).fingerprint
        made = written(*spoil(key_token, rows))
        write_documents(draft, WORLD.documents)
        write_layout(storage, Layout({"embed": (made,)}))
        write_facts(storage, StoreFacts(ORDER, {"embed": FORMAT}, {"embed": whole}, is_sorted=True))
    return Store.open(place)


def test_whole_stores_hold_and_a_sorted_one_has_a_hash_of_its_order(tmp_path: Path) -> None:
    runs = write(tmp_path / "runs", WORLD)
    sorted_ = shuffled(tmp_path / "sorted", runs, small())
    for store, has_hash in ((runs, False), (sorted_, True), (store_of(tmp_path / "one"), True)):
        certificate = verify(store)
        assert certificate.holds
        assert (certificate.order_hash is not None) == has_hash
        assert certificate.n_rows == len(WORLD.tokens)
        assert certificate.n_shards == sum(len(shards) for shards in store.layout.shards.values())
        verify_bytes(store)


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (swap, "its rows are not in order"),
        (swap_far, "not in order|outside its range"),
        (double, "its rows are not in order"),
        (other_key, "keys are not those of its tokens under seed 2"),
    ],
)
def test_a_fault_within_a_shard_is_named(tmp_path: Path, spoil: Spoil, found: str) -> None:
    certificate = verify(store_of(tmp_path / "s", spoil))
    assert not certificate.holds
    assert certificate.order_hash is None
    assert [error.name for error in certificate.damaged] == ["shards/one"]
    with pytest.raises(DamageError, match=f"shards/one: .*({found})"):
        raise certificate.damaged[0]


@pytest.mark.parametrize("spoil", [drop, other_row])
def test_a_shard_of_other_rows_is_not_the_store_that_was_harvested(tmp_path: Path, spoil: Spoil) -> None:
    certificate = verify(store_of(tmp_path / "s", spoil))
    assert certificate.damaged == ()
    assert [line.partition(":")[0] for line in certificate.wrong] == ["embed"]
    assert "another fingerprint" in certificate.wrong[0]


def test_rows_outside_the_range_of_a_shard_are_named(tmp_path: Path) -> None:
    certificate = verify(store_of(tmp_path / "s", cells=Cells(3, 0, 5)))
    assert "outside its range of keys" in str(certificate.damaged[0])


def test_a_shard_whose_facts_are_not_its_own_is_named(tmp_path: Path) -> None:
    """Its bytes are right by its own tables, and its fingerprint is said to be another."""
    store = store_of(tmp_path / "s")
    facts = store.layout.shards["embed"][0]
    wrong = replace(facts, fingerprint=replace(facts.fingerprint, sum=facts.fingerprint.sum ^ 1))
    write_layout(store.storage, Layout({"embed": (wrong,)}))
    certificate = verify(Store.open(tmp_path / "s"))
    assert "its fingerprint is not that of its rows" in str(certificate.damaged[0])
    assert len(certificate.wrong) == 1


def test_overlapping_shards_are_not_an_order(tmp_path: Path) -> None:
    runs = write(tmp_path / "runs", WORLD)
    body = json.loads((tmp_path / "runs" / "store.json").read_text())["body"]
    assert not body["is_sorted"]
    with artifact.create(tmp_path / "said", Inputs(kind="shuffled", config={}, seed=0), bulk=BULK) as draft:
        storage = open_storage(draft)
        write_documents(draft, WORLD.documents)
        write_facts(storage, replace(runs.facts, is_sorted=True))
        write_layout(storage, runs.layout.moved(str(tmp_path / "runs")))
    certificate = verify(Store.open(tmp_path / "said"))
    assert any("overlaps the shard before it" in line for line in certificate.wrong)


def test_every_damaged_shard_is_listed(tmp_path: Path) -> None:
    store = write(tmp_path / "s", WORLD)
    names = [store.layout.shards["embed"][1].name, store.layout.shards["mlp_out.0"][2].name]
    flip(tmp_path / "s" / names[0], 4096)
    (tmp_path / "s" / names[1]).unlink()
    assert [error.name for error in verify(Store.open(tmp_path / "s")).damaged] == names
    with pytest.raises(DamageError, match=names[0]):
        verify_bytes(Store.open(tmp_path / "s"))


def test_other_documents_make_other_keys(tmp_path: Path) -> None:
    store = store_of(tmp_path / "s")
    other = Documents(WORLD.documents.starts.copy(), ~WORLD.documents.held_out)
    store.__dict__["documents"] = other
    assert "keys are not those of its tokens" in str(verify(store).damaged[0])
