"""Small stores that are made in many tasks, and drivers to make them."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.conftest import exit_status
from tests.faults.drivers import Drivers

from mohole.storage import Storage
from mohole.store import Documents, Store, write_store
from mohole.store.listing import LAYOUT_FILE
from mohole.store.plan import Limits

N_ROWS, WIDTH = 6_000, 16
HOOKPOINTS = ("resid_post.0", "mlp_out.1")
MEMORY = 80_000
"""Bytes of a worker: a pile holds some 450 rows, so that the last pass has 14 for each hookpoint."""

Mohole = Callable[..., tuple[int, str]]


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store of 16 runs for each of two hookpoints; not to be changed."""
    out = tmp_path_factory.mktemp("source") / "activations"
    write_source(out)
    return Store.open(out)


def write_source(out: Path, **options: int) -> None:
    """The store of `source`, for tests that damage theirs."""
    draw = np.random.default_rng(5)
    starts = np.concatenate([[0], np.sort(draw.choice(np.arange(1, N_ROWS), 99, replace=False)), [N_ROWS]])
    documents = Documents(starts, draw.random(100) < 0.1)
    rows = {name: draw.normal(size=(N_ROWS, WIDTH)).astype(np.float32) for name in HOOKPOINTS}
    write_store(out, rows, documents, **({"seed": 3, "shard_rows": N_ROWS // 16 + 1, "cell_bytes": 1024} | options))  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def shuffles(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Drivers]:
    """Drivers of `shuffle_store`."""
    drivers = Drivers("shuffle", tmp_path_factory.mktemp("shuffles") / "log")
    yield drivers
    drivers.close()


@pytest.fixture
def dice(request: pytest.FixtureRequest) -> random.Random:
    """The same throws for the same test."""
    return random.Random(request.node.name)


@pytest.fixture
def mohole(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Mohole:
    """Run the command line in this process; returns its exit status and what it printed, as one line."""
    monkeypatch.setenv("COLUMNS", "1000")

    def call(*arguments: object) -> tuple[int, str]:
        status = exit_status(monkeypatch, *arguments)
        return status, " ".join("".join(capfd.readouterr()).split())

    return call


def digests(store: Store) -> dict[str, str]:
    """Of every shard, by its name."""
    return {shard.name: shard.digest for shards in store.layout.shards.values() for shard in shards}


def leftovers(storage: Storage) -> list[str]:
    """What a finished store has no use for: unfinished files, listings, shards of passes before the last."""
    listed = {LAYOUT_FILE, "manifest.json", "store.json", "documents.safetensors", "inputs.json", "draft-of"}
    listed |= set(digests(Store(storage)))
    left = [name for name in storage.names() if name not in listed and not name.startswith("tasks/")]
    return [*left, *unfinished(storage)]


def unfinished(storage: Storage) -> list[str]:
    """Hidden files of dead writers."""
    if storage.local is None:
        return []
    return [str(path) for path in storage.local.rglob(".*.tmp")]


def files(folder: Path) -> dict[str, tuple[int, int]]:
    """Which file each one is, and when it was written: other numbers where it was made again. Not what a write was still at."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".tmp")
    return {str(path.relative_to(folder)): (path.stat().st_ino, path.stat().st_mtime_ns) for path in found}


def flip(path: Path, dice: random.Random) -> int:
    """Change one bit of a file. Returns where."""
    data = bytearray(path.read_bytes())
    place = dice.randrange(len(data))
    data[place] ^= 1 << dice.randrange(8)
    path.write_bytes(data)
    return place


def small_machine(monkeypatch: pytest.MonkeyPatch, memory: int = MEMORY) -> None:
    """Shuffles in this process plan for so little memory."""
    monkeypatch.setattr(
        "mohole.job.rows.Limits", lambda _: Limits(memory, segment_bytes=1, cell_bytes=1024, process_bytes=0)
    )
