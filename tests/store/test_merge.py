"""The one step: rows of many shards in one, in order, none lost; damage is found where it is; no rows change on the way."""

from pathlib import Path

import numpy as np
import pytest
from tests.store.worlds import flip, make_world, write

from mohole.errors import ArtifactError, DamageError
from mohole.storage import open_storage
from mohole.store import Order, Store
from mohole.store import merge as merging
from mohole.store.cells import Cells
from mohole.store.merge import Rekey, merge
from mohole.store.shard import Shard

WORLD = make_world(60)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return write(tmp_path / "runs", WORLD)


def merged(store: Store, out: Path, wanted: Cells, **settings: object) -> Shard:
    row_format, place = store.facts.formats["embed"], open_storage(out)
    facts = merge(
        store.shard_storage,
        store.layout.shards["embed"],
        wanted,
        row_format,
        place,
        "merged.safetensors",
        cells=wanted.finer(max(wanted.bits, 4)) if not settings else Cells.everything(2),
        **settings,  # type: ignore[arg-type]
    )
    return Shard(place, facts, row_format)


@pytest.mark.parametrize("wanted", [Cells.everything(), Cells(1, 1, 1), Cells(3, 2, 3)])
def test_the_rows_of_a_range_come_together_in_the_order_of_keys(store: Store, tmp_path: Path, wanted: Cells) -> None:
    shard = merged(store, tmp_path / "out", wanted)
    keys = store.facts.order.keys(WORLD.tokens, WORLD.documents)
    part = keys >> np.uint64(60)
    inside = (part >= wanted.first << (4 - wanted.bits)) & (part < (wanted.first + wanted.count) << (4 - wanted.bits))
    order = np.flatnonzero(inside)[np.argsort(keys[inside])]
    found = shard.read(shard.facts.cells)
    np.testing.assert_array_equal(found.key_token[:, 0], keys[order])
    np.testing.assert_array_equal(found.key_token[:, 1], WORLD.tokens[order])
    np.testing.assert_array_equal(found.stored.view(np.float32), WORLD.rows["embed"][order])


def test_rows_take_new_keys_with_them(store: Store, tmp_path: Path) -> None:
    rekey = Rekey(Order.text(WORLD.documents), WORLD.documents)
    shard = merged(store, tmp_path / "out", Cells.everything(), rekey=rekey)
    np.testing.assert_array_equal(shard.key_token()[:, 1], WORLD.tokens)
    np.testing.assert_array_equal(shard.read(shard.facts.cells).stored.view(np.float32), WORLD.rows["embed"])


def test_a_damaged_source_is_named_and_nothing_is_made(store: Store, tmp_path: Path) -> None:
    name = store.layout.shards["embed"][1].name
    flip(tmp_path / "runs" / name, 4096 + 8)
    with pytest.raises(DamageError, match=name):
        merged(store, tmp_path / "out", Cells.everything())
    assert open_storage(tmp_path / "out").names("") == []


@pytest.mark.parametrize("fault", ["swapped rows", "changed value"])
def test_rows_that_change_on_the_way_are_noticed_and_taken_away(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """A fault of the memory or of the program: no file is damaged."""

    def faulty(stored: np.ndarray, places: np.ndarray) -> np.ndarray:
        rows = stored[places]
        if fault == "swapped rows":
            rows[[0, 1]] = rows[[1, 0]]
        else:
            rows[-1, -1] ^= 1
        return rows

    monkeypatch.setattr(merging, "rows_at", faulty)
    with pytest.raises(ArtifactError, match="holds other rows than its sources"):
        merged(store, tmp_path / "out", Cells.everything())
    assert open_storage(tmp_path / "out").names("") == []
