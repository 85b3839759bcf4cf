"""A disk that fills up: one line that names the file, and the same command goes on when there is space."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.faults.conftest import Mohole, digests, files, leftovers, small_machine
from tests.faults.tiny import write_recipe

from mohole.store import Store
from mohole.store.verify import verify

Disk = Callable[[int], Path]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A disk of so many bytes; asked again, the same one with another size. Only root can mount one."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(n_bytes: int) -> Path:
        again = ["-o", "remount"] if os.path.ismount(place) else []
        size = ["-t", "tmpfs", *again, "-o", f"size={n_bytes}", "tmpfs", str(place)]
        done = subprocess.run(["mount", *size], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
        return place

    yield mount
    if os.path.ismount(place):
        subprocess.run(
            ["umount", "--lazy", place], check=True
        )  # a worker's corpus may be mapped until its process ends


def n_used(folder: Path) -> int:
    """Bytes on disk, in its blocks."""
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("executor", ["inline", "process"])
def test_a_shuffle_stops_cleanly_and_goes_on(
    source: Store, tmp_path: Path, disk: Disk, mohole: Mohole, monkeypatch: pytest.MonkeyPatch, executor: str
) -> None:
    small_machine(monkeypatch)
    options = ["--levels", "1", "--executor", executor, "--processes", "2"]
    assert mohole("shuffle", source.url, tmp_path / "expected", *options)[0] == 0
    expected = Store.open(tmp_path / "expected")
    needed = n_used(tmp_path / "expected")
    place = disk(int(needed * 1.4))  # the runs between and some of the sorted shards
    status, said = mohole("shuffle", source.url, place / "out", *options)
    assert status == 1
    assert said.startswith(f"error: {place}/.out.partial/shards/sorted/") or f"{place}/.out.partial/tasks" in said, said
    assert "the disk is full; nothing half-written was kept" in said
    assert said.count("error:") == 1
    tasks = place / ".out.partial" / "tasks"
    before = files(tasks)
    assert len(before) > 24
    disk(needed * 4)
    assert mohole("shuffle", source.url, place / "out", *options)[0] == 0
    made = Store.open(place / "out")
    assert files(place / "out" / "tasks").items() >= before.items()
    assert digests(made) == digests(expected)
    assert verify(made).order_hash == verify(expected).order_hash
    assert leftovers(made.storage) == []


def test_a_harvest_stops_cleanly_and_goes_on(tmp_path: Path, disk: Disk, mohole: Mohole) -> None:
    recipe = write_recipe(tmp_path / "tiny.toml", tmp_path / "run")
    assert mohole("harvest", recipe)[0] == 0
    expected = Store.open(tmp_path / "run" / "activations")
    corpus, rows = n_used(tmp_path / "run" / "corpus"), n_used(tmp_path / "run" / "activations")
    place = disk(corpus + rows * 6 // 10)
    (place / "run").mkdir()
    shutil.copytree(tmp_path / "run" / "corpus", place / "run" / "corpus")
    elsewhere = ["-o", f"run={place}/run"]
    status, said = mohole("harvest", recipe, *elsewhere)
    assert status == 1
    assert said.startswith(f"error: {place}/run/.activations.partial/shards/runs/"), said
    assert "the disk is full; nothing half-written was kept" in said
    before = files(place / "run" / ".activations.partial" / "tasks")
    assert before
    disk((corpus + rows) * 4)
    assert mohole("harvest", recipe, *elsewhere)[0] == 0
    made = Store.open(place / "run" / "activations")
    assert files(place / "run" / "activations" / "tasks").items() >= before.items()
    assert digests(made) == digests(expected)
    assert made.manifest.digest == expected.manifest.digest
    assert verify(made).holds
    assert leftovers(made.storage) == []
