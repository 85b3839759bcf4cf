"""The whole way of the rows through an S3 server, by the command line: bit for bit what local folders give."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.faults.conftest import HOOKPOINTS, Mohole, leftovers
from tests.faults.drivers import Drivers
from tests.faults.tiny import write_recipe

from mohole.execute import own_cores
from mohole.storage import open_storage
from mohole.store import Documents, Store, write_store
from mohole.store.stream import Stream
from mohole.store.verify import verify

BUCKET = "s3://mohole-tests/faults"
ROWS, SORTED = f"{BUCKET}/rows", f"{BUCKET}/sorted"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def empty_bucket(s3_server: str) -> Iterator[None]:
    yield
    place = open_storage(BUCKET)
    place.delete(place.names())


@pytest.mark.usefixtures("empty_bucket")
def test_rows_in_a_bucket_give_what_rows_in_a_folder_give(tmp_path: Path, mohole: Mohole) -> None:
    here = write_recipe(tmp_path / "here.toml", tmp_path / "here")
    there = write_recipe(tmp_path / "there.toml", tmp_path / "there", harvest={"place": ROWS})
    for recipe in (here, there):
        assert mohole("harvest", recipe)[0] == 0
        assert mohole("train", recipe)[0] == 0
    assert contents(tmp_path / "there" / "resid_post.0" / "dictionary") == contents(
        tmp_path / "here" / "resid_post.0" / "dictionary"
    )

    runs, remote_runs = Store.open(tmp_path / "here" / "activations"), Store.open(ROWS)
    assert not (tmp_path / "there" / "activations" / "shards").exists()
    assert remote_runs.manifest.digest == runs.manifest.digest
    assert remote_runs.facts == Store.open(tmp_path / "there" / "activations").facts == runs.facts
    assert mohole("verify", ROWS)[0] == 0

    assert mohole("shuffle", runs.url, tmp_path / "sorted", "--levels", 1)[0] == 0
    assert mohole("shuffle", ROWS, SORTED, "--levels", 1)[0] == 0
    assert mohole("verify", SORTED, "--mend")[0] == 0
    sorted_here, sorted_there = Store.open(tmp_path / "sorted"), Store.open(SORTED)
    assert verify(sorted_there).order_hash == verify(sorted_here).order_hash is not None
    assert sorted_there.facts == sorted_here.facts
    assert leftovers(sorted_there.storage) == []
    for first in (0, sorted_here.facts.n_training - 5):
        batches = [
            Stream(store, "resid_post.0", memory_bytes=300_000).rows(first, 700).numpy()
            for store in (sorted_here, sorted_there, remote_runs)
        ]
        np.testing.assert_array_equal(batches[0], batches[1])
        np.testing.assert_array_equal(batches[0], batches[2])

    assert mohole("export", SORTED, tmp_path / "tables_there", "--to", "safetensors")[0] == 0
    assert mohole("export", tmp_path / "sorted", tmp_path / "tables_here", "--to", "safetensors")[0] == 0
    assert contents(tmp_path / "tables_there") == contents(tmp_path / "tables_here")


@pytest.mark.usefixtures("empty_bucket")
def test_damage_and_loss_in_a_bucket_are_named_and_mended(source: Store, mohole: Mohole) -> None:
    assert mohole("shuffle", source.url, SORTED)[0] == 0
    place = open_storage(SORTED)
    order_hash = verify(Store.open(SORTED)).order_hash
    damaged, lost = [place.names(f"shards/sorted/{hookpoint}/")[0] for hookpoint in HOOKPOINTS]
    others = {name: place.read(name) for name in place.names("shards/") if name not in (damaged, lost)}
    data = bytearray(place.read(damaged))
    data[5000] ^= 4
    place.put(damaged, bytes(data))
    place.delete([lost])
    status, said = mohole("verify", SORTED)
    assert status == 1
    assert f"{SORTED}/{damaged}" in said
    assert f"{SORTED}/{lost}" in said
    assert mohole("verify", SORTED, "--mend")[0] == 0
    assert mohole("shuffle", source.url, SORTED)[0] == 0
    certificate = verify(Store.open(SORTED))
    assert certificate.holds
    assert certificate.order_hash == order_hash
    assert {name: place.read(name) for name in others} == others


@pytest.mark.skipif(own_cores() < 2, reason="one core has one worker")
def test_the_driver_of_a_shuffle_holds_no_rows(source: Store, shuffles: Drivers, tmp_path: Path) -> None:
    """Its memory is the same for a store of 1 MB and for one of 50 MB."""
    n_rows, width = 50_000, 256
    documents = Documents(np.arange(0, n_rows + 1, 100), np.zeros(n_rows // 100, dtype=np.bool_))
    rows = np.random.default_rng(0).random((n_rows, width), dtype=np.float32)
    write_store(tmp_path / "big", {name: rows for name in HOOKPOINTS}, documents, shard_rows=5_000)
    peaks = []
    for place, memory in ((source.url, 80_000), (str(tmp_path / "big"), 4_000_000)):
        driver = shuffles.start(
            source=place, out=str(tmp_path / f"out-{memory}"), memory=memory, executor="process", levels=1
        )
        assert driver.join() == (0, "")
        peaks.append(driver.peak_bytes)
    assert verify(Store.open(tmp_path / "out-4000000")).holds
    assert peaks[1] - peaks[0] < 8 << 20
