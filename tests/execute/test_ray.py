"""Ray Core: the same laws as worker processes. One Ray is started for all of these tests, which costs 10 seconds once."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest
from tests.catalogue.conftest import contents
from tests.execute import tasks
from tests.faults import tiny

from mohole import job
from mohole.catalogue.verify import verify_bytes
from mohole.errors import ConfigError, StageError
from mohole.execute import Cores, Executor, Task, open_executor
from mohole.execute.replicas import ReplicaPlan, open_replicas

ray = pytest.importorskip("ray", reason="ray is not installed; pip install 'mohole[ray]'")

TWO = Cores(processes=2, threads=1)
ROOT = Path(__file__).parents[2]


# Ended behind these tests: what Ray tells of a full disk, every ten seconds, would stand in what others have printed.
@pytest.fixture(scope="module")
def executor() -> Iterator[Executor]:
    before, on_terminate = dict(os.environ), signal.getsignal(signal.SIGTERM)
    on_interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in a script's background; its workers inherit that
    with open_executor("ray", TWO) as executor:
        signal.signal(signal.SIGINT, on_interrupt)
        assert dict(os.environ) == before
        assert signal.getsignal(signal.SIGTERM) is on_terminate
        yield executor
    assert not ray.is_initialized()


def test_without_ray_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(ConfigError, match=r"machine\.executor: ray is not installed; pip install 'mohole\[ray\]'"),
        open_executor("ray", TWO),
    ):
        pass


def test_every_task_runs_once_elsewhere_and_is_told_once(executor: Executor, tmp_path: Path) -> None:
    paths = [tmp_path / str(i) for i in range(12)]
    done: list[Task] = []
    # alone: on a busy machine a worker may take so long to start that its first task looks like a straggler
    todo = [Task(path.name, tasks.add_line, (path,), alone=True) for path in paths]
    executor.run(todo, on_done=done.append)
    assert [len(tasks.lines(path)) for path in paths] == [1] * 12
    assert sorted(done, key=todo.index) == todo
    assert str(os.getpid()) not in {pid for path in paths for pid in tasks.lines(path)}


def test_a_straggler_runs_a_second_time_and_its_first_attempt_is_stopped(executor: Executor, tmp_path: Path) -> None:
    slow = tmp_path / "slow"
    done: list[Task] = []
    others = [Task(str(i), tasks.add_line, (tmp_path / str(i),)) for i in range(2)]
    executor.run([Task("slow", tasks.linger_first, (slow, 60.0)), *others], on_done=done.append)
    assert slow.with_suffix(".stopped").exists()
    assert len(tasks.lines(slow)) == 2
    assert sorted(task.name for task in done) == ["0", "1", "slow"]


def test_workers_see_their_own_environment_and_report_to_nobody(executor: Executor, tmp_path: Path) -> None:
    quiet = ["RAY_USAGE_STATS_ENABLED", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"]
    names = ["OMP_NUM_THREADS", "OMP_WAIT_POLICY", "TOKENIZERS_PARALLELISM", *quiet]
    executor.run([Task("look", tasks.write_environment, (tmp_path / "x", names))])
    assert tasks.lines(tmp_path / "x") == ["1", "PASSIVE", "false", "0", "0"]


def test_an_error_keeps_its_kind_and_words_and_stops_the_others(executor: Executor, tmp_path: Path) -> None:
    waiting = tmp_path / "waiting"
    with pytest.raises(ConfigError, match=r"^train\.k: 0 is too small$"):
        executor.run(
            [Task("slow", tasks.wait_and_clean, (waiting,)), Task("bad", tasks.fail, ("train.k: 0 is too small",))]
        )
    # Seen once in many runs on a busy machine: Ray said that the other was cancelled before it had unwound.
    end = time.monotonic() + 10
    while waiting.exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert not waiting.exists()
    with pytest.raises(FileNotFoundError) as caught:
        executor.run([Task("bad", tasks.open_missing, (tmp_path / "nowhere",))])
    assert (caught.value.errno, caught.value.filename) == (2, str(tmp_path / "nowhere"))
    with pytest.raises(StageError, match=r"buggy: failed with ZeroDivisionError, which mohole did not foresee"):
        executor.run([Task("buggy", tasks.divide, (0,))])


def test_a_task_that_a_machine_cannot_load_is_named(executor: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "only_here", tasks.die, raising=False)
    monkeypatch.setattr(tasks.die, "__qualname__", "only_here")
    monkeypatch.setattr(tasks.die, "__name__", "only_here")
    with pytest.raises(StageError, match=r"^odd: could not be run by Ray \(.*only_here.*\); has every machine mohole"):
        executor.run([Task("odd", tasks.die)])


def test_a_killed_worker_costs_its_task_another_attempt(executor: Executor, tmp_path: Path) -> None:
    path = tmp_path / "pids"

    def kill_first() -> None:
        tasks.happens(lambda: len(tasks.lines(path)) == 1, 20)
        os.kill(int(tasks.lines(path)[0]), signal.SIGKILL)

    killer = threading.Thread(target=kill_first)
    killer.start()
    executor.run([Task("victim", tasks.linger_first, (path, 60.0))])
    killer.join()
    assert len(tasks.lines(path)) == 2


def test_a_task_that_always_kills_its_worker_is_named(executor: Executor, tmp_path: Path) -> None:
    path = tmp_path / "pids"
    with pytest.raises(
        StageError, match=r"victim: tried 3 times: its process was ended or crashed, perhaps because mem"
    ):
        executor.run([Task("victim", tasks.die_always, (path,))])
    assert len(tasks.lines(path)) == 3


def test_nothing_goes_through_the_object_store(executor: Executor, tmp_path: Path) -> None:
    executor.run([Task(str(i), tasks.add_line, (tmp_path / "x",)) for i in range(20)])
    free, total = (
        resources().get("object_store_memory") for resources in (ray.available_resources, ray.cluster_resources)
    )
    assert free == total


def test_a_cluster_that_runs_already_is_used_and_left_running(executor: Executor, tmp_path: Path) -> None:
    """From another process, as a driver on the head of a cluster would; its worker ends when it is killed."""
    look, waiting = tmp_path / "look", tmp_path / "waiting"
    code = (
        "from pathlib import Path\nfrom mohole.execute import Cores, Task, open_executor\n"
        "from tests.execute import tasks\n"
        f"with open_executor('ray', Cores(1, 2), address={ray.get_runtime_context().gcs_address!r}) as executor:\n"
        f"    executor.run([Task('look', tasks.write_environment, (Path({str(look)!r}), ['OMP_NUM_THREADS']))])\n"
        f"    executor.run([Task('wait', tasks.wait_and_clean, (Path({str(waiting)!r}),))])\n"
    )
    token = {"RAY_AUTH_MODE": "token"}  # a Ray of one's own asks for the token that it has put into the home folder
    driver = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=os.environ | token)
    try:
        assert tasks.happens(lambda: len(tasks.lines(waiting)) == 1, 60)
        worker = int(waiting.read_text())
    finally:
        driver.kill()
        driver.wait()
    assert tasks.lines(look) == ["2"]
    assert tasks.happens(lambda: not tasks.is_alive(worker), 30)
    executor.run([Task("after", tasks.add_line, (tmp_path / "x",))])


def test_a_connection_of_the_callers_own_is_used_and_left_open(executor: Executor, tmp_path: Path) -> None:
    with open_executor("ray", TWO) as again:
        again.run([Task("one", tasks.add_line, (tmp_path / "x",))])
    assert ray.is_initialized()
    executor.run([Task("two", tasks.add_line, (tmp_path / "x",))])
    assert len(tasks.lines(tmp_path / "x")) == 2


def test_a_catalogue_made_by_ray_has_the_bytes_of_one_process(
    executor: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of `mohole catalogue RECIPE --executor ray`, in several parts and ranges; the work is done elsewhere."""
    monkeypatch.setattr("mohole.catalogue.builder.TOKENS_PER_PART", 1200)
    monkeypatch.setattr("mohole.catalogue.builder.LATENTS_PER_RANGE", 32)
    run, train = tmp_path / "run", {"n_latents": 64}
    job.run_until(tiny.recipe(run, train=train), "catalogue", say=lambda _: None)
    out = run / "resid_post.0" / "catalogue"
    expected = contents(out)
    assert {"codes/000001.safetensors", "features/000001.bin"} < set(expected)
    shutil.rmtree(out)

    def not_here(*given: object) -> None:
        raise AssertionError("done by the driver")

    monkeypatch.setattr("mohole.catalogue.encode.encode", not_here)
    monkeypatch.setattr("mohole.catalogue.features.gather", not_here)
    machine = {"executor": "ray", "processes": 2}
    job.run_verb(tiny.recipe(run, train=train, machine=machine), "catalogue", say=lambda _: None)
    assert contents(out) == expected
    verify_bytes(out)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nonsense"])
def test_a_cluster_that_is_not_there_is_named_at_once(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with (
        pytest.raises(
            ConfigError, match=rf"^machine\.address: no Ray cluster answers at {address} \(.*\); `ray status`"
        ),
        open_executor("ray", TWO, address=address),
    ):
        pass


def replica_plan(port: int, **more: object) -> ReplicaPlan:
    return ReplicaPlan(TWO, "127.0.0.1", port, **more)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore")  # of Ray Serve's own
def test_replicas_of_an_app_share_a_cluster_that_is_left_as_it_was(executor: Executor, tmp_path: Path) -> None:
    """Two that answer at one address; a second server is refused; told to end, both are, and Ray stays."""
    pytest.importorskip("ray.serve", reason="Ray Serve is not installed; pip install 'mohole[replicas]'")
    from ray.util import list_named_actors

    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        port = place.getsockname()[1]
    make = partial(tasks.app_that_says_its_process, tmp_path)
    answered: set[str] = set()
    with open_replicas(replica_plan(port, ending_seconds=1.5), make, tasks.end_app) as replicas:
        assert tasks.happens(lambda: replicas.standing().n == 2, 60)

        def both_have_answered() -> bool:
            answered.add(httpx.get(f"http://127.0.0.1:{port}/any/path?at=all").text)
            return len(answered) == 2

        assert tasks.happens(both_have_answered, 20, every=0)
        assert str(os.getpid()) not in answered
        refused = replica_plan(port + 1, address="auto")
        with (
            pytest.raises(ConfigError, match=r"^--ray auto: Ray Serve runs there already, and a cluster has one;"),
            open_replicas(refused, make, tasks.end_app),
        ):
            pass
        assert httpx.get(f"http://127.0.0.1:{port}/").status_code == 200, "the refused one took nothing away"
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(answered, "1.5")
    assert tasks.happens(lambda: not any(map(tasks.is_alive, map(int, answered))), 10)
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/")
    assert not any(each["namespace"] == "serve" for each in list_named_actors(all_namespaces=True))
    executor.run([Task("after", tasks.add_line, (tmp_path / "x",))])


@pytest.mark.filterwarnings("ignore")
def test_an_app_that_cannot_be_made_is_one_error_with_its_reason(executor: Executor) -> None:
    pytest.importorskip("ray.serve", reason="Ray Serve is not installed; pip install 'mohole[replicas]'")
    make = partial(tasks.fail, "/runs/demo: no such folder")
    with (
        pytest.raises(StageError, match=r"none could be made \(.*/runs/demo: no such folder\); has every machine"),
        open_replicas(replica_plan(0), make, tasks.end_app) as replicas,
    ):
        tasks.happens(lambda: replicas.standing().n > 0, 60)
