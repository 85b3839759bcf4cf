"""A changed bit anywhere, and a file that is gone: found, named, and made again alone."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.faults.conftest import MEMORY, Mohole, digests, files, flip, leftovers, small_machine, write_source

from mohole.artifact import folder
from mohole.errors import ArtifactError, DamageError, StageError
from mohole.job import rows
from mohole.store import Store
from mohole.store import shuffle as shuffle_module
from mohole.store.listing import Layout, sealed, unsealed, write_layout
from mohole.store.merge_task import MergeTask, run_merge
from mohole.store.stream import Stream
from mohole.store.verify import verify

N_FLIPS = 5
"""Of each kind of file."""


@pytest.fixture(autouse=True)
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    small_machine(monkeypatch)


def shuffle(source: Store, out: Path, **options: Any) -> Store:
    from mohole.config import Machine

    rows.shuffle_store(source, str(out), Machine(executor="inline"), **options)
    return Store.open(out)


@pytest.fixture
def runs(tmp_path: Path) -> Store:
    write_source(tmp_path / "activations")
    return Store.open(tmp_path / "activations")


@pytest.mark.parametrize("name", ["shards", "store.json", "layout.json", "documents.safetensors", "manifest.json"])
@pytest.mark.parametrize("is_sorted", [False, True])
def test_a_flipped_bit_of_any_file_is_found_and_the_file_is_named(
    source: Store, tmp_path: Path, dice: random.Random, mohole: Mohole, name: str, is_sorted: bool
) -> None:
    folder = tmp_path / "store"
    if is_sorted:
        shuffle(source, folder, levels=0)
    else:
        shutil.copytree(source.url, folder)
    assert mohole("verify", folder)[0] == 0
    for _ in range(N_FLIPS):
        chosen = dice.choice(sorted(digests(Store.open(folder)))) if name == "shards" else name
        before = (folder / chosen).read_bytes()
        place = flip(folder / chosen, dice)
        status, said = mohole("verify", folder)
        assert status == 1, (chosen, place)
        assert f"store/{chosen}" in said, (place, said)
        assert "\x00" not in said
        (folder / chosen).write_bytes(before)
    assert mohole("verify", folder)[0] == 0


def test_every_stage_that_reads_a_damaged_or_lost_run_names_it(
    runs: Store, tmp_path: Path, dice: random.Random, mohole: Mohole
) -> None:
    name = dice.choice(sorted(digests(runs)))
    hookpoint = name.split("/")[2]
    path = tmp_path / "activations" / name
    content = path.read_bytes()
    data = bytearray(content)
    data[4096 + dice.randrange(runs.n_rows // 16 * 16)] ^= 1  # in the keys: padding is not read but by verify
    for damage in (lambda: path.write_bytes(data), path.unlink):
        damage()
        for read in (
            lambda: shuffle(Store.open(runs.url), tmp_path / "out", levels=1),
            lambda: Stream(Store.open(runs.url), hookpoint).rows(0, runs.facts.n_training),
        ):
            with pytest.raises((DamageError, StageError), match=name):
                read()
        assert f"activations/{name}" in mohole("verify", runs.url)[1]
    assert not (tmp_path / "out").exists()
    path.write_bytes(content)
    assert verify(shuffle(Store.open(runs.url), tmp_path / "out", levels=1)).holds


@pytest.mark.parametrize("damage", [flip, lambda path, _: path.unlink()])
def test_mending_a_sorted_store_makes_the_damaged_shard_alone_again(
    source: Store, tmp_path: Path, dice: random.Random, mohole: Mohole, damage: Callable[[Path, random.Random], object]
) -> None:
    out = tmp_path / "out"
    made = shuffle(source, out, levels=0)
    expected, manifest, before = digests(made), made.manifest.digest, files(out / "shards")
    name = dice.choice(sorted(expected))
    damage(out / name, dice)
    status, said = mohole("verify", out, "--mend")
    assert status == 0
    assert name in said
    with pytest.raises(ArtifactError, match="no finished store there"):
        Store.open(out)
    again = shuffle(source, out, levels=0)
    assert (digests(again), again.manifest.digest) == (expected, manifest)
    assert leftovers(again.storage) == []
    changed = {path for path, file in files(out / "shards").items() if before[path] != file}
    assert changed == {name.removeprefix("shards/")}


@pytest.mark.parametrize("name", ["store.json", "layout.json", "documents.safetensors", "manifest.json"])
@pytest.mark.parametrize("damage", [flip, lambda path, _: path.unlink()])
def test_mending_a_small_file_keeps_every_shard(
    source: Store,
    tmp_path: Path,
    dice: random.Random,
    mohole: Mohole,
    name: str,
    damage: Callable[[Path, random.Random], object],
) -> None:
    out = tmp_path / "out"
    manifest, before = shuffle(source, out, levels=1).manifest.digest, files(out / "shards")
    damage(out / name, dice)
    status, said = mohole("verify", out)
    assert (status, name in said) == (1, True)
    assert mohole("verify", out, "--mend")[0] == 0
    assert shuffle(source, out, levels=1).manifest.digest == manifest
    assert mohole("verify", out)[0] == 0
    assert files(out / "shards") == before


@pytest.mark.parametrize("levels", [0, 1])
def test_a_damaged_record_of_a_task_is_found_and_the_store_stays_finished(
    source: Store, tmp_path: Path, dice: random.Random, mohole: Mohole, levels: int
) -> None:
    out = tmp_path / "out"
    made = shuffle(source, out, levels=levels)
    record = dice.choice(sorted((out / "tasks" / "sorted").rglob("*.json")))
    for path in (record, out / "tasks" / "plan.json"):
        flip(path, dice)
        status, said = mohole("verify", out)
        assert (status, f"out/{path.relative_to(out)}" in said) == (1, True)
        assert mohole("verify", out, "--mend")[0] == 0
        assert mohole("verify", out)[0] == 0
    name = dice.choice(sorted(digests(made)))
    flip(out / name, dice)
    assert mohole("verify", out, "--mend")[0] == 0
    assert digests(shuffle(source, out, levels=levels)) == digests(made)


def test_a_shard_that_has_grown_is_found_and_mended(source: Store, tmp_path: Path, mohole: Mohole) -> None:
    out = tmp_path / "out"
    made = shuffle(source, out, levels=0)
    expected, name = digests(made), min(digests(made))
    with (out / name).open("ab") as file:
        file.write(b"more")
    status, said = mohole("verify", out, "--mend")
    assert (status, name in said) == (0, True)
    assert digests(shuffle(source, out, levels=0)) == expected
    assert mohole("verify", out)[0] == 0


def test_a_list_of_shards_that_lacks_a_hookpoint_is_no_certificate(
    source: Store, tmp_path: Path, mohole: Mohole
) -> None:
    out = tmp_path / "out"
    made = shuffle(source, out, levels=0)
    first = made.hookpoints[0]
    for kept in ({}, {first: made.layout.shards[first]}):
        write_layout(made.storage, Layout(kept))
        status, said = mohole("verify", out)
        assert (status, "layout.json: lists shards of" in said) == (1, True)
    assert mohole("verify", out, "--mend")[0] == 0
    assert digests(shuffle(source, out, levels=0)) == digests(made)


@pytest.mark.parametrize(
    "changed",
    [
        {"name": "../elsewhere"},
        {"name": "/etc/passwd"},
        {"name": 3},
        {"cells": 4},
        {"fingerprint": "x"},
        {"n_bytes": None},
    ],
)
def test_a_list_of_shards_that_makes_no_sense_is_one_line(
    source: Store, tmp_path: Path, mohole: Mohole, changed: dict[str, Any]
) -> None:
    out = tmp_path / "out"
    made = shuffle(source, out, levels=0)
    body = unsealed((out / "layout.json").read_bytes(), "here")
    body["shards"][made.hookpoints[0]][0] |= changed
    (out / "layout.json").write_bytes(sealed(body))
    status, said = mohole("verify", out)
    assert (status, "layout.json: not a list of shards" in said, said.count("error:")) == (1, True, 1)
    assert mohole("verify", out, "--mend")[0] == 0
    assert digests(shuffle(source, out, levels=0)) == digests(made)


@pytest.fixture
def at_the_last_pass(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Do something once, when the first task of the last pass starts."""

    def arrange(action: Callable[[], None]) -> None:
        todo = [action]

        def run(task: MergeTask) -> None:
            if task.level == "sorted" and todo:
                todo.pop()()
            run_merge(task)

        monkeypatch.setattr(shuffle_module, "run_merge", run)

    return arrange


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("damage", [flip, lambda path, _: path.unlink()])
def test_a_shuffle_that_meets_a_damaged_shard_of_its_own_starts_again_and_ends_right(
    source: Store,
    tmp_path: Path,
    dice: random.Random,
    at_the_last_pass: Callable[[Callable[[], None]], None],
    damage: Callable[[Path, random.Random], object],
) -> None:
    expected = shuffle(source, tmp_path / "expected", levels=1)

    def spoil() -> None:
        inside = (tmp_path / ".out.partial" / "shards" / "pass-0").rglob("*.safetensors")
        chosen = dice.choice(sorted(inside))
        damage(chosen, dice)
        if chosen.exists():
            data = bytearray(chosen.read_bytes())
            data[4096] ^= 1  # in a key, too: the flip may be in padding, which is not read
            chosen.write_bytes(data)

    at_the_last_pass(spoil)
    made = shuffle(source, tmp_path / "out", levels=1)
    assert verify(made).holds
    assert (digests(made), made.manifest.digest) == (digests(expected), expected.manifest.digest)
    assert leftovers(made.storage) == []


@pytest.mark.parametrize("order_kind", [None, "text"])
def test_a_damaged_commit_is_named_and_its_task_runs_again(
    source: Store,
    tmp_path: Path,
    dice: random.Random,
    at_the_last_pass: Callable[[Callable[[], None]], None],
    order_kind: str | None,
) -> None:
    options = {"levels": 1, "order_kind": order_kind}
    expected = shuffle(source, tmp_path / "expected", **options)
    for _ in range(3):
        at_the_last_pass(interrupt)
        with pytest.raises(KeyboardInterrupt):
            shuffle(source, tmp_path / "out", **options)
        commit = dice.choice(sorted((tmp_path / ".out.partial" / "tasks" / "pass-0").rglob("*.json")))
        place = flip(commit, dice)
        with pytest.raises(ArtifactError, match=rf"{commit}: .*it was taken away, and its task runs again"):
            shuffle(source, tmp_path / "out", **options)
        made = shuffle(source, tmp_path / "out", **options)
        assert digests(made) == digests(expected), place
        shutil.rmtree(tmp_path / "out")


def test_a_damaged_plan_or_listing_costs_work_and_nothing_else(
    source: Store, tmp_path: Path, dice: random.Random, at_the_last_pass: Callable[[Callable[[], None]], None]
) -> None:
    expected = shuffle(source, tmp_path / "expected", levels=1)
    for name in ("tasks/plan.json", "listings/sorted.json", "listings/pass-0.json"):
        at_the_last_pass(interrupt)
        with pytest.raises(KeyboardInterrupt):
            shuffle(source, tmp_path / "out", levels=1)
        flip(tmp_path / ".out.partial" / name, dice)
        made = shuffle(source, tmp_path / "out", levels=1)
        assert digests(made) == digests(expected)
        assert leftovers(made.storage) == []
        shutil.rmtree(tmp_path / "out")


def test_another_memory_after_an_interruption_is_another_plan(
    source: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    at_the_last_pass: Callable[[Callable[[], None]], None],
) -> None:
    """Tasks of the two plans have the same names; commits of one must not be taken for those of the other."""
    order_hash = verify(shuffle(source, tmp_path / "expected", levels=1)).order_hash
    at_the_last_pass(interrupt)
    with pytest.raises(KeyboardInterrupt):
        shuffle(source, tmp_path / "out", levels=1)
    small_machine(monkeypatch, memory=MEMORY * 3)
    made = shuffle(source, tmp_path / "out", levels=1)
    certificate = verify(made)
    assert certificate.holds
    assert certificate.order_hash == order_hash
    assert leftovers(made.storage) == []


def test_an_artifact_killed_before_its_last_rename_is_gone_on_with(
    source: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(folder, "swap", killed)
        with pytest.raises(KeyboardInterrupt):
            shuffle(source, tmp_path / "out", levels=1)
    before = files(tmp_path / ".out.partial" / "shards")
    made = shuffle(source, tmp_path / "out", levels=1)
    assert files(tmp_path / "out" / "shards") == before
    assert leftovers(made.storage) == []
