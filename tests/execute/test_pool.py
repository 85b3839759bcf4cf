"""Worker processes: all tasks run, failures keep their words, dead workers are named, cores are never oversubscribed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mohole.errors import ConfigError, StageError
from mohole.execute import Task, run_tasks, share_cores
from mohole.execute.pool import Cores

TWO = Cores(processes=2, threads=1)


def write(path: Path) -> None:
    path.write_text(str(os.getpid()))


def fail(message: str) -> None:
    raise ConfigError(message)


def divide(by: int) -> None:
    _ = 1 // by


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def wait_and_clean(path: Path) -> None:
    path.write_text("started")
    try:
        time.sleep(60)
    finally:
        path.unlink()


@given(n_tasks=st.integers(1, 20), processes=st.integers(0, 9), threads=st.integers(0, 9), cores=st.integers(1, 16))
def test_cores_are_never_oversubscribed(n_tasks: int, processes: int, threads: int, cores: int) -> None:
    shared = share_cores(n_tasks, processes=processes, threads=threads, cores=cores)
    assert 1 <= shared.processes * shared.threads <= cores
    assert shared.processes <= n_tasks


@pytest.mark.parametrize("cores", [Cores(1, 1), TWO])
def test_every_task_runs(tmp_path: Path, cores: Cores) -> None:
    paths = [tmp_path / str(i) for i in range(3)]
    run_tasks([Task(path.name, write, (path,)) for path in paths], cores)
    workers = {path.read_text() for path in paths}
    assert (workers == {str(os.getpid())}) is (cores.processes == 1)


def test_an_error_keeps_its_kind_and_words_and_stops_the_others(tmp_path: Path) -> None:
    waiting = tmp_path / "waiting"
    with pytest.raises(ConfigError, match=r"train\.k: 0 is too small"):
        run_tasks([Task("slow", wait_and_clean, (waiting,)), Task("bad", fail, ("train.k: 0 is too small",))], TWO)
    assert not waiting.exists()


def test_a_killed_worker_is_named(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"victim: its process was ended by signal 9, perhaps because memory ran out"):
        run_tasks([Task("victim", die), Task("other", write, (tmp_path / "x",))], TWO)


def test_an_error_nobody_foresaw_is_not_called_a_lack_of_memory(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(StageError, match=r"buggy: its process failed \(exit status 1\) with the error above") as caught:
        run_tasks([Task("buggy", divide, (0,)), Task("other", write, (tmp_path / "x",))], TWO)
    assert "memory" not in str(caught.value)
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_a_worker_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    """It takes away what it was writing; else it would go on for hours and hold its locks."""
    waiting = tmp_path / "waiting"
    code = (
        "from pathlib import Path\nfrom mohole.execute import Task, run_tasks\nfrom mohole.execute.pool import Cores\n"
        "from tests.execute.test_pool import wait_and_clean\n"
        "if __name__ == '__main__':\n"
        f"    run_tasks([Task(str(i), wait_and_clean, (Path({str(waiting)!r} + str(i)),)) for i in range(2)], Cores(2, 1))\n"
    )
    (tmp_path / "parent.py").write_text(code)
    root = str(Path(__file__).parents[2])
    parent = subprocess.Popen([sys.executable, str(tmp_path / "parent.py")], env=os.environ | {"PYTHONPATH": root})
    files = [Path(f"{waiting}{i}") for i in range(2)]
    assert happens(lambda: all(file.exists() for file in files), 60)
    parent.kill()
    parent.wait()
    assert happens(lambda: not any(file.exists() for file in files), 20)


def happens(condition: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.1)
    return False
