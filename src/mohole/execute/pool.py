"""Worker processes for independent tasks. A task that fails, or a worker that dies, stops the others and is named."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from mohole import progress
from mohole.errors import MoholeError, StageError


@dataclass(frozen=True)
class Task:
    """One call that can be repeated without harm: what it makes, it makes whole or not at all."""

    name: str
    run: Callable[..., None]
    arguments: tuple[object, ...] = ()


@dataclass(frozen=True)
class Cores:
    """How a job shares the machine. processes x threads is never more than the cores."""

    processes: int
    threads: int


def share_cores(n_tasks: int, *, processes: int = 0, threads: int = 0, cores: int | None = None) -> Cores:
    """Divide the cores this process may use. Zeros mean "as fits"; a request that does not fit is cut down.

    Two threads on one busy core were measured 6 times slower than one (threads wait for each other by spinning).

    >>> share_cores(3, cores=8), share_cores(3, processes=8, threads=4, cores=2)
    (Cores(processes=3, threads=2), Cores(processes=1, threads=2))
    """
    available = cores or own_cores()
    n_threads = min(threads, available) if threads else 0
    n_processes = min(processes or available, n_tasks, available // max(n_threads, 1)) or 1
    return Cores(n_processes, n_threads or max(1, available // n_processes))


def own_cores() -> int:
    """Cores this process may use: fewer than the machine has in a container or under taskset, where the system tells."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def run_tasks(tasks: Sequence[Task], cores: Cores) -> None:
    """Run every task; one at a time in this process, or in `cores.processes` workers.

    Raises:
        MoholeError: the error of the first task that failed; the others are stopped and may be run again.
    """
    if cores.processes <= 1 or len(tasks) <= 1:
        for task in tasks:
            task.run(*task.arguments)
        return
    waiting = list(tasks)
    running: dict[Connection, tuple[Task, BaseProcess]] = {}
    context = multiprocessing.get_context("spawn")
    try:
        while waiting or running:
            while waiting and len(running) < cores.processes:
                task = waiting.pop(0)
                receiver, sender = context.Pipe(duplex=False)
                process = context.Process(target=_work, args=(sender, task), daemon=True)
                process.start()
                sender.close()
                running[receiver] = (task, process)
            for ready in wait(list(running)):
                assert isinstance(ready, Connection)
                _finish(ready, *running.pop(ready))
    finally:
        for _, worker in running.values():
            worker.terminate()
        for connection, (_, worker) in running.items():
            worker.join()
            connection.close()


def _finish(receiver: Connection, task: Task, process: BaseProcess) -> None:
    """Take a worker's answer; its error, if it had one, is raised here."""
    try:
        error: BaseException | None = receiver.recv()
    except EOFError:
        process.join()
        raise StageError(
            f"{task.name}: {_how_it_ended(process.exitcode)}; what was finished is kept, run it again"
        ) from None
    finally:
        receiver.close()
    process.join()
    if error is not None:
        raise error


def _how_it_ended(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        return f"its process was ended by signal {-exit_code}, perhaps because memory ran out (machine.processes = 1 needs less)"
    return f"its process failed (exit status {exit_code}) with the error above, which mohole did not foresee"


def _work(sender: Connection, task: Task) -> None:
    # Ctrl-C reaches the whole process group; the parent alone decides, and stops the workers by terminating them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _raise_exit)
    threading.Thread(target=_follow_parent, daemon=True).start()
    progress.plain_lines = True  # several workers' bars on one terminal would overwrite each other
    try:
        task.run(*task.arguments)
    except (MoholeError, OSError, MemoryError) as error:
        _answer(sender, error)
    else:
        _answer(sender, None)
    finally:
        sender.close()


def _answer(sender: Connection, error: Exception | None) -> None:
    with suppress(BrokenPipeError):  # nobody is left to hear it
        sender.send(error)


def _follow_parent() -> None:
    """End when the parent is gone, however it went: a worker that nobody waits for would hold its locks for hours."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)


def _raise_exit(signum: int, frame: object) -> None:
    """End by unwinding, so that a half-written artifact is taken away."""
    raise SystemExit(128 + signum)
