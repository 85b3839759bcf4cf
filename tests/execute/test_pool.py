"""Worker processes: all tasks run, failures keep their words, dead workers are replaced, nobody stays behind."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tests.execute import tasks

from mohole.errors import ConfigError, StageError
from mohole.execute import Cores, Task, open_executor

TWO = Cores(processes=2, threads=1)
VARIABLES = ["OMP_NUM_THREADS", "OMP_WAIT_POLICY", "TOKENIZERS_PARALLELISM"]
ROOT = Path(__file__).parents[2]


def workers() -> set[int]:
    return {child.pid for child in multiprocessing.active_children() if child.pid}


def test_the_scheduler_needs_no_numbers() -> None:
    """A worker is there at once: what a task needs is loaded by the task."""
    code = "import sys, mohole.execute; sys.exit(bool({'torch', 'numpy', 'ray', 'rich'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("kind", ["inline", "process"])
def test_every_task_runs_once_and_is_told_once(tmp_path: Path, kind: str) -> None:
    paths = [tmp_path / str(i) for i in range(12)]
    done: list[Task] = []
    # alone: on a busy machine a worker may take so long to start that its first task looks like a straggler
    todo = [Task(path.name, tasks.add_line, (path,), alone=True) for path in paths]
    with open_executor(kind, TWO) as executor:
        executor.run(todo, on_done=done.append)
    ran = [tasks.lines(path) for path in paths]
    assert [len(pids) for pids in ran] == [1] * 12
    assert sorted(done, key=todo.index) == todo
    pids = {pid for (pid,) in ran}
    assert (pids == {str(os.getpid())}) if kind == "inline" else (len(pids) <= 2 and str(os.getpid()) not in pids)
    assert not workers()


def test_workers_stay_for_the_next_run_and_no_more_are_started_than_there_are_tasks(tmp_path: Path) -> None:
    path = tmp_path / "pids"
    with open_executor("process", TWO) as executor:
        assert not workers()
        for _ in range(3):
            executor.run([Task("one", tasks.add_line, (path,))])
        assert {str(pid) for pid in workers()} == set(tasks.lines(path))
        assert len(workers()) == 1


def test_workers_see_their_own_environment_and_the_callers_is_not_changed(tmp_path: Path) -> None:
    before = dict(os.environ)
    for kind in ("inline", "process"):
        with open_executor(kind, Cores(1, 3)) as executor:
            executor.run([Task("look", tasks.write_environment, (tmp_path / kind, VARIABLES))])
        assert tasks.lines(tmp_path / kind) == ["3", "PASSIVE", "false"]
    assert dict(os.environ) == before


def test_an_error_keeps_its_kind_and_words_and_stops_the_others(tmp_path: Path) -> None:
    waiting = tmp_path / "waiting"
    with open_executor("process", TWO) as executor:
        with pytest.raises(ConfigError, match=r"train\.k: 0 is too small"):
            executor.run(
                [
                    Task("slow", tasks.wait_and_clean, (waiting,)),
                    Task("bad", tasks.fail, ("train.k: 0 is too small",)),
                ]
            )
        assert not waiting.exists()
        with pytest.raises(FileNotFoundError) as caught:
            executor.run([Task("bad", tasks.open_missing, (tmp_path / "nowhere",))])
        assert (caught.value.errno, caught.value.filename) == (2, str(tmp_path / "nowhere"))
        with pytest.raises(StageError, match="bad: UnsendableError: no answer from the server"):
            executor.run([Task("bad", tasks.raise_unsendable)])
        executor.run([Task("good", tasks.add_line, (tmp_path / "x",))])
    assert len(tasks.lines(tmp_path / "x")) == 1


def test_an_error_nobody_foresaw_is_shown_and_named(capfd: pytest.CaptureFixture[str]) -> None:
    with (
        open_executor("process", TWO) as executor,
        pytest.raises(StageError, match=r"buggy: failed with ZeroDivisionError, which mohole did not foresee"),
    ):
        executor.run([Task("buggy", tasks.divide, (0,))])
    assert "_ = 1 // by" in capfd.readouterr().err


def test_a_task_that_the_worker_cannot_find_is_not_tried_again(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "only_here", tasks.die, raising=False)
    monkeypatch.setattr(tasks.die, "__qualname__", "only_here")
    with (
        open_executor("process", TWO) as executor,
        pytest.raises(StageError, match=r"odd: its process failed \(exit status 1\) with the error above"),
    ):
        executor.run([Task("odd", tasks.die)])
    assert capfd.readouterr().err.count("AttributeError") == 1


def test_everything_is_done_though_workers_are_killed_at_random(tmp_path: Path) -> None:
    paths = [tmp_path / str(i) for i in range(10)]
    with open_executor("process", TWO, max_attempts=20) as executor:
        executor.run([Task(path.name, tasks.commit_or_die, (path, 0.3, 0)) for path in paths])
    attempts = [len(tasks.lines(path.with_suffix(".attempts"))) for path in paths]
    assert all(path.read_text() == "half" for path in paths)
    assert 12 <= sum(attempts) <= 25  # the dice are the same every time


def test_a_worker_killed_from_outside_is_replaced_and_its_task_runs_again(tmp_path: Path) -> None:
    path = tmp_path / "pids"

    def kill_first() -> None:
        tasks.happens(lambda: len(tasks.lines(path)) == 1, 20)
        os.kill(int(tasks.lines(path)[0]), 9)

    killer = threading.Thread(target=kill_first)
    killer.start()
    with open_executor("process", Cores(1, 1)) as executor:
        executor.run([Task("victim", tasks.linger_first, (path, 60.0))])
    killer.join()
    assert len(tasks.lines(path)) == 2


def test_a_worker_that_died_idle_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "pids"
    with open_executor("process", Cores(1, 1), max_attempts=1) as executor:
        executor.run([Task("one", tasks.add_line, (path,))])
        pid = int(tasks.lines(path)[0])
        os.kill(pid, 9)
        assert tasks.happens(lambda: not tasks.is_alive(pid), 10)
        executor.run([Task("two", tasks.add_line, (path,))])
    assert len(set(tasks.lines(path))) == 2


def test_a_task_that_always_kills_its_worker_is_named(tmp_path: Path) -> None:
    with (
        open_executor("process", TWO) as executor,
        pytest.raises(
            StageError, match=r"victim: tried 3 times: its process was ended by signal 9, perhaps because me"
        ),
    ):
        executor.run([Task("victim", tasks.die), Task("other", tasks.add_line, (tmp_path / "x",))])
    assert not workers()


def test_a_straggler_runs_a_second_time_and_its_first_worker_is_stopped(tmp_path: Path) -> None:
    slow = tmp_path / "slow"
    done: list[Task] = []
    with open_executor("process", TWO) as executor:
        executor.run(
            [
                Task("slow", tasks.linger_first, (slow, 60.0)),
                *[Task(str(i), tasks.add_line, (tmp_path / str(i),)) for i in range(2)],
            ],
            on_done=done.append,
        )
        assert slow.with_suffix(".stopped").exists()
        assert len(workers()) == 1
    assert len(tasks.lines(slow)) == 2
    assert sorted(task.name for task in done) == ["0", "1", "slow"]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_when_their_parent_is_killed_or_interrupted(tmp_path: Path, how: signal.Signals) -> None:
    """They take away what they were writing; else they would go on for hours and hold their locks."""
    waiting = tmp_path / "waiting"
    code = (
        "import signal\nfrom pathlib import Path\nfrom mohole.execute import Cores, Task, open_executor\n"
        "from tests.execute.tasks import wait_and_clean\n"
        "if __name__ == '__main__':\n"
        "    signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a script's background would have it ignored
        "    with open_executor('process', Cores(2, 1)) as executor:\n"
        f"        executor.run([Task(str(i), wait_and_clean, (Path({str(waiting)!r} + str(i)),)) for i in range(2)])\n"
    )
    (tmp_path / "parent.py").write_text(code)
    errors = tmp_path / "errors"
    with errors.open("w") as file:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        parent = subprocess.Popen(
            [sys.executable, str(tmp_path / "parent.py")], env=environment, stderr=file, start_new_session=True
        )
    files = [Path(f"{waiting}{i}") for i in range(2)]
    assert tasks.happens(lambda: all(len(tasks.lines(file)) == 1 for file in files), 60)
    pids = [int(file.read_text()) for file in files]
    if how == signal.SIGINT:
        os.killpg(parent.pid, how)  # Ctrl-C reaches the workers too, and they leave it to the parent
    else:
        parent.send_signal(how)
    parent.wait()
    assert tasks.happens(lambda: not any(file.exists() for file in files), 20)
    assert tasks.happens(lambda: not any(tasks.is_alive(pid) for pid in pids), 20)
    assert errors.read_text().count("Traceback") == (how == signal.SIGINT)


def test_living_workers_have_numbers_of_their_own(tmp_path: Path) -> None:
    """So that each can take a GPU of its own."""
    with open_executor("process", TWO) as executor:
        executor.run([Task(str(i), tasks.write_number_when_both_are_here, (tmp_path, i), alone=True) for i in range(2)])
    assert {(tmp_path / str(i)).read_text() for i in range(2)} == {"0", "1"}
