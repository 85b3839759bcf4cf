"""Whose a place is; a store in two places; mending makes only what is damaged again."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.store.worlds import flip, make_world, shuffled, small, write

from mohole import artifact
from mohole.artifact import Inputs
from mohole.config import Machine
from mohole.errors import ArtifactError
from mohole.job.rows import shuffle_store
from mohole.storage import open_storage
from mohole.store import Store
from mohole.store.listing import BULK
from mohole.store.seal import claim, mend, publish
from mohole.store.verify import verify

WORLD = make_world(40)


def inputs(seed: int = 0) -> Inputs:
    return Inputs(kind="activations", config={}, seed=seed)


@pytest.mark.parametrize("url", ["memory://claims", ""])
def test_a_place_is_for_one_job(tmp_path: Path, url: str) -> None:
    place = open_storage(url or tmp_path)
    claim(place, inputs())
    claim(place, inputs())
    with pytest.raises(ArtifactError, match=r"holds rows of another job .*name another place, or delete it"):
        claim(place, inputs(seed=1))


def test_a_published_store_is_opened_where_its_shards_are_and_wherever_they_are_copied_to(tmp_path: Path) -> None:
    runs = write(tmp_path / "runs", WORLD)
    place = open_storage(tmp_path / "place")
    shutil.copytree(tmp_path / "runs" / "shards", tmp_path / "place" / "shards")
    publish(tmp_path / "runs", place, runs.manifest.inputs)
    shutil.copytree(tmp_path / "place", tmp_path / "copy")
    shutil.rmtree(tmp_path / "place")
    for folder in ("runs", "copy"):
        found = Store.open(tmp_path / folder)
        assert found.manifest.digest == runs.manifest.digest
        np.testing.assert_array_equal(found.take("embed", WORLD.tokens), WORLD.rows["embed"])


def bytes_and_times(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(file.relative_to(folder)): (file.read_bytes(), file.stat().st_mtime_ns)
        for file in folder.rglob("*.safetensors")
    }


def test_mending_a_shuffle_in_one_pass_makes_only_the_damaged_shards_again(tmp_path: Path) -> None:
    runs = write(tmp_path / "runs", WORLD)
    made = shuffled(tmp_path / "out", runs, small(), levels=0)
    before = bytes_and_times(tmp_path / "out" / "shards")
    names = [made.layout.shards["embed"][1].name, made.layout.shards["mlp_out.0"][0].name]
    for name in names:
        flip(tmp_path / "out" / name, 4096 + 1)
    found = Store.open(tmp_path / "out")
    mend(found, verify(found).damaged)
    with pytest.raises(ArtifactError, match="no finished store there"):
        Store.open(tmp_path / "out")
    again = shuffled(tmp_path / "out", runs, small(), levels=0)
    assert verify(again).holds
    after = bytes_and_times(tmp_path / "out" / "shards")
    assert {name: data for name, (data, _) in after.items()} == {name: data for name, (data, _) in before.items()}
    changed = {name for name in after if after[name][1] != before[name][1]}
    assert changed == {name.removeprefix("shards/") for name in names}
    assert again.manifest.digest == made.manifest.digest


def test_mending_a_shuffle_in_two_passes_makes_it_again(tmp_path: Path) -> None:
    runs = write(tmp_path / "runs", WORLD)
    made = shuffled(tmp_path / "out", runs, small(), levels=1)
    (tmp_path / "out" / made.layout.shards["embed"][0].name).unlink()
    found = Store.open(tmp_path / "out")
    mend(found, verify(found).damaged)
    again = shuffled(tmp_path / "out", runs, small(), levels=1)
    assert verify(again).holds
    assert again.manifest.digest == made.manifest.digest


def test_a_store_behind_a_url_is_mended_too(tmp_path: Path) -> None:
    runs, machine = write(tmp_path / "runs", WORLD), Machine(processes=1)
    url = "memory://mended"
    shuffle_store(runs, url, machine)
    store = Store.open(url)
    name = store.layout.shards["embed"][0].name
    data = store.storage.read(name)
    store.storage.put(name, data[:9000] + bytes([data[9000] ^ 4]) + data[9001:])
    damaged = verify(Store.open(url)).damaged
    assert [error.name for error in damaged] == [name]
    mend(Store.open(url), damaged)
    with pytest.raises(ArtifactError, match="no finished store"):
        Store.open(url)
    assert shuffle_store(runs, url, machine)
    assert store.storage.read(name) == data
    assert not shuffle_store(runs, url, machine)


def test_a_store_is_not_shuffled_into_itself(tmp_path: Path) -> None:
    runs = write(tmp_path / "runs", WORLD)
    with pytest.raises(ArtifactError, match="is the store to be shuffled"):
        shuffle_store(runs, str(tmp_path / "runs"), Machine(processes=1), replace=True)
    assert verify(runs).holds


def test_bulk_is_what_the_manifest_does_not_list(tmp_path: Path) -> None:
    write(tmp_path / "s", WORLD)
    manifest = artifact.open_artifact(tmp_path / "s")
    assert set(manifest.files) == {"store.json", "documents.safetensors"}
    assert manifest.bulk == BULK
