"""SIGKILL at random moments: of drivers, workers and the processes of Ray. The end is the same as if nothing had happened."""

import functools
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.catalogue.conftest import contents
from tests.execute.tasks import happens, is_alive
from tests.faults.conftest import MEMORY, digests, files, leftovers
from tests.faults.drivers import Driver, Drivers
from tests.faults.tiny import tables

from mohole import artifact, job
from mohole.catalogue.verify import verify_bytes
from mohole.config import parse
from mohole.store import Store
from mohole.store.verify import verify

ONE_PASS, TWO_PASSES, THREE_PASSES = {"levels": 0}, {"levels": 1}, {"levels": 2}
WORKER = "spawn_main"
"""In the command line of a worker process, and of no other child of a driver."""
RAY_NODE = "raylet/raylet --"
BY_TEXT = {"levels": 1, "order_kind": "text"}


@dataclass
class Kills:
    """What became of them."""

    landed: int = 0
    midway: int = 0
    """Those that came when some tasks were committed and others were not."""

    def __add__(self, other: "Kills") -> "Kills":
        return Kills(self.landed + other.landed, self.midway + other.midway)


@dataclass(frozen=True)
class Undisturbed:
    """What a command gives when nobody kills it."""

    manifest: str
    order_hash: str | None
    digests: dict[str, str]
    n_commits: int
    seconds: float


@dataclass
class Command:
    """Something that makes a store, and can be started again."""

    out: Path
    start: Callable[[], Driver]

    def run_undisturbed(self) -> Undisturbed:
        begin = time.monotonic()
        assert self.start().join() == (0, "")
        seconds = time.monotonic() - begin
        store = Store.open(self.out)
        certificate = verify(store)
        assert certificate.holds
        found = Undisturbed(store.manifest.digest, certificate.order_hash, digests(store), n_commits(self.out), seconds)
        shutil.rmtree(self.out)
        return found

    def is_midway(self, expected: Undisturbed) -> bool:
        return 0 < self.n_committed() < expected.n_commits

    def n_committed(self) -> int:
        """By an attempt that has not ended."""
        return n_commits(self.out.parent / f".{self.out.name}.partial")

    def killed_until_it_ends(self, dice: random.Random, expected: Undisturbed, longest: float = 1 / 3) -> Kills:
        """Kill the driver again and again, ever later, and look at what there is when one has come to its end.

        Args:
            longest: until the first kill, as a share of the time that all takes undisturbed.
        """
        kills = Kills()
        while not (self.out / artifact.MANIFEST).exists():
            driver = self.start()
            time.sleep(dice.random() * longest * expected.seconds)
            longest *= 1.1
            if driver.is_alive():
                kills += Kills(1, int(self.is_midway(expected)))
                driver.kill()
            status, error = driver.join()
            assert status in (0, -signal.SIGKILL), error
        self.check(expected)
        return kills

    def killed_as_it_goes(self, dice: random.Random, expected: Undisturbed, n: int) -> Kills:
        """Kill the driver n times, each time soon after it has committed some more; then let it come to its end."""
        kills = Kills()
        for _ in range(n):
            driver, seen = self.start(), self.n_committed()
            assert happens(functools.partial(has_more, self, driver, seen + 1), 60, every=0.002)
            time.sleep(dice.random() * 0.02)
            if driver.is_alive():
                kills += Kills(1, int(self.is_midway(expected)))
                driver.kill()
            driver.join()
        assert self.start().join() == (0, "")
        self.check(expected)
        return kills

    def with_workers_killed(self, dice: random.Random, expected: Undisturbed, most: int, mark: str = WORKER) -> Kills:
        """Kill workers of a driver, each after some more was committed: one that has just started has nothing to lose."""
        kills, seen = Kills(), 0
        while not (self.out / artifact.MANIFEST).exists():
            driver = self.start()
            while driver.is_alive():
                if kills.landed < most and self.n_committed() > seen:
                    time.sleep(dice.random() * 0.03)
                    seen, midway = self.n_committed(), self.is_midway(expected)
                    if workers := driver.children(mark):
                        with suppress(ProcessLookupError):
                            os.kill(dice.choice(workers), signal.SIGKILL)
                            kills += Kills(1, int(midway))
                time.sleep(0.01)
            status, error = driver.join()
            assert status == 0 or "what was finished is kept, run it again" in error, error
        self.check(expected)
        return kills

    def check(self, expected: Undisturbed) -> None:
        store = Store.open(self.out)
        certificate = verify(store)
        assert certificate.holds
        assert certificate.order_hash == expected.order_hash
        assert digests(store) == expected.digests
        assert store.manifest.digest == expected.manifest
        assert leftovers(store.storage) == []
        shutil.rmtree(self.out)


def n_commits(folder: Path) -> int:
    """None, too, where the draft becomes the store while it is being looked at."""
    try:
        return sum(path.count("/") > 1 for path in _names(folder / "tasks"))
    except FileNotFoundError:
        return 0


def _names(folder: Path) -> list[str]:
    return [f"tasks/{path.relative_to(folder)}" for path in folder.rglob("*.json") if not path.name.startswith(".")]


def shuffle_command(shuffles: Drivers, source: Store, out: Path, **options: Any) -> Command:
    return Command(out, lambda: shuffles.start(source=source.url, out=str(out), memory=MEMORY, **options))


def test_a_shuffle_killed_fifty_times_gives_the_same_store(
    source: Store, shuffles: Drivers, tmp_path: Path, dice: random.Random
) -> None:
    drivers, workers = Kills(), Kills()
    for options in (ONE_PASS, TWO_PASSES, THREE_PASSES, BY_TEXT):
        inline = shuffle_command(shuffles, source, tmp_path / "out", **options)
        expected = inline.run_undisturbed()
        for _ in range(2):
            drivers += inline.killed_until_it_ends(dice, expected)
        if options is not ONE_PASS:
            pool = shuffle_command(shuffles, source, tmp_path / "out", executor="process", **options)
            slower = pool.run_undisturbed()
            assert slower.digests == expected.digests
            drivers += pool.killed_until_it_ends(dice, slower)
            workers += pool.with_workers_killed(dice, expected, most=6)
    assert drivers.landed + workers.landed >= 50
    assert drivers.midway + workers.midway >= 25
    assert workers.landed >= 5


@pytest.fixture(scope="module")
def harvests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Drivers]:
    drivers = Drivers("harvest", tmp_path_factory.mktemp("harvests") / "log")
    yield drivers
    drivers.close()


def test_a_killed_harvest_gives_the_same_store(harvests: Drivers, tmp_path: Path, dice: random.Random) -> None:
    run = tmp_path / "run"
    slices = {"shard_tokens": 150}
    inline = Command(run / "activations", lambda: harvests.start(recipe=tables(run, harvest=slices)))
    inline.run_undisturbed()  # makes the corpus, too
    expected = inline.run_undisturbed()
    kills = inline.killed_as_it_goes(dice, expected, 4)  # at random, few come between two commits
    while kills.landed < 6:
        kills += inline.killed_until_it_ends(dice, expected, longest=0.9)
    assert kills.landed >= 6
    assert kills.midway >= 3
    machine = {"executor": "process"}
    pool = Command(run / "activations", lambda: harvests.start(recipe=tables(run, harvest=slices, machine=machine)))
    kills = Kills()
    for _ in range(5):  # a worker may have committed the rest between the look and the kill
        kills = pool.with_workers_killed(dice, expected, most=1)
        if kills.midway:
            break
    assert kills == Kills(1, 1)


@dataclass
class Catalogues:
    """Drivers of a catalogue, and the bytes that it has when nobody kills it."""

    drivers: Drivers
    out: Path
    expected: dict[str, bytes]

    def start(self, machine: dict[str, Any] | None = None, **options: Any) -> Driver:
        changes = {"machine": machine} if machine else {}
        run = self.out.parents[1]
        return self.drivers.start(recipe=tables(run, train={"n_latents": 128}, **changes), **options)

    def commits(self) -> dict[str, tuple[int, int]]:
        """Of an attempt that has not ended: which file each is."""
        partial = self.out.parent / f".{self.out.name}.partial"
        return files(partial / "tasks") if partial.exists() else {}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalogues]:
    run = tmp_path_factory.mktemp("catalogues") / "run"
    recipe = parse(tables(run, train={"n_latents": 128}))
    job.run_verb(recipe, "harvest", say=lambda _: None)
    job.run_verb(recipe, "train", say=lambda _: None)
    drivers = Drivers("catalogue", run.parent / "log")
    found = Catalogues(drivers, run / "resid_post.0" / "catalogue", {})
    assert found.start().join() == (0, "")
    found.expected = contents(found.out)
    assert {"codes/000003.safetensors", "features/000003.bin"} < set(found.expected)
    yield found
    drivers.close()


@pytest.fixture
def catalogues(made: Catalogues) -> Catalogues:
    shutil.rmtree(made.out, ignore_errors=True)
    return made


def test_a_killed_catalogue_gives_the_same_bytes(catalogues: Catalogues, dice: random.Random) -> None:
    """Killed ever later; and worker processes make what one process makes."""
    out, kills, patience = catalogues.out, 0, 0.0
    while kills < 2:
        shutil.rmtree(out, ignore_errors=True)
        while not (out / artifact.MANIFEST).exists():
            driver = catalogues.start()
            time.sleep(patience * dice.random())
            patience += 0.3
            if driver.is_alive():
                kills += 1
                driver.kill()
            status, error = driver.join()
            assert status in (0, -signal.SIGKILL), error
        assert contents(out) == catalogues.expected
        verify_bytes(out)
    shutil.rmtree(out)
    assert catalogues.start({"executor": "process", "processes": 2}).join() == (0, "")
    assert contents(out) == catalogues.expected


STEPS = (
    "builder.write_tensors",  # of the sample
    "encode.encode",
    "encode.write_run",
    "encode.commit",
    "builder.sort_runs",
    "builder.commit",  # of the index
    "builder._for_ranges",
    "features.gather",
    "features._blocks",
    "features.commit",
    "builder.families",
    "builder.write_header",
    "builder._write_pieces",
    "builder._tidy",
)
"""What makes a catalogue, in order."""


def test_a_catalogue_killed_after_each_of_its_steps_loses_none(catalogues: Catalogues) -> None:
    committed: dict[str, tuple[int, int]] = {}
    for step in STEPS:
        driver = catalogues.start(dies_after=f"mohole.catalogue.{step}")
        assert driver.join() == (-signal.SIGKILL, ""), step
        if step != "builder._tidy":
            assert catalogues.commits().items() >= committed.items(), step
            committed = catalogues.commits()
    assert len(committed) > len(catalogues.expected) / 4
    assert catalogues.start().join() == (0, "")
    assert contents(catalogues.out) == catalogues.expected
    verify_bytes(catalogues.out)


def test_killed_processes_of_ray_give_the_same_store(
    source: Store, shuffles: Drivers, tmp_path: Path, dice: random.Random
) -> None:
    """A worker, then the node process, each after some more was committed; then undisturbed to the end."""
    pytest.importorskip("ray", reason="ray is not installed; pip install 'mohole[ray]'")
    expected = shuffle_command(shuffles, source, tmp_path / "out", **THREE_PASSES).run_undisturbed()
    command = shuffle_command(shuffles, source, tmp_path / "out", executor="ray", **THREE_PASSES)
    left = ["ray::_work", RAY_NODE]
    for _ in range(4):  # of a store that is nearly done, the rest may be done before a process is found and killed
        left = [mark for mark in left if mark not in killed_of_ray(command, expected, dice, left)]
        if not left:
            break
    assert left == []


def killed_of_ray(command: Command, expected: Undisturbed, dice: random.Random, marks: list[str]) -> set[str]:
    """Kill a process of each of these names, and let the command come to its end. Those that were killed midway."""
    midway = set[str]()
    for those in (marks, []):
        driver, everyone = command.start(), list[int]()
        for mark in those:
            seen = command.n_committed()
            assert happens(functools.partial(has_more, command, driver, seen + 5), 120)
            time.sleep(dice.random() * 0.1)
            everyone += driver.children("")
            for victim in driver.children(mark)[:1]:
                is_midway = command.is_midway(expected)
                with suppress(ProcessLookupError):
                    os.kill(victim, signal.SIGKILL)
                    midway |= {mark} if is_midway else set()
        status, said = driver.join()
        assert status == 0 or "what was finished is kept, run it again" in said, said
        for pid in filter(is_alive, everyone):  # Ray's agents outlive its node process for half a minute
            os.kill(pid, signal.SIGKILL)
        if status == 0:  # the workers it had have ended the rest without it
            break
    command.check(expected)
    return midway


def has_more(command: Command, driver: Driver, n_commits: int) -> bool:
    """Has it committed so many? True, too, where it has ended."""
    return command.n_committed() >= n_commits or not driver.is_alive()
