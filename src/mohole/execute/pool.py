"""Worker processes on this machine. Each takes tasks one after the other, so what it has loaded, such as a model, stays."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait

from mohole import progress
from mohole.errors import StageError
from mohole.execute.cores import WORKER, Cores, environment
from mohole.execute.schedule import WorkerLostError, run_all
from mohole.execute.task import OnDone, Task, ignore, run_in_worker

# A task in a long call of a C library hears SIGTERM only afterwards; what it half made is invisible anyway.
_SECONDS_TO_UNWIND = 10.0


class Pool:
    """At most `cores.processes` workers, started when there is work for them. They stay until `close`, also between runs."""

    def __init__(self, cores: Cores, max_attempts: int) -> None:
        self._cores, self._max_attempts = cores, max_attempts
        self._idle: list[_Worker] = []
        self._busy: set[_Worker] = set()

    def run(self, tasks: Sequence[Task], *, on_done: OnDone = ignore) -> None:
        run_all(self, tasks, on_done, self._max_attempts)

    def close(self) -> None:
        """End every worker."""
        self._end([*self._idle, *self._busy])
        self._idle.clear()
        self._busy.clear()

    # What follows is what `run_all` asks of workers.

    def n_slots(self) -> int:
        return self._cores.processes

    def start(self, task: Task) -> "_Worker":
        while self._idle:
            worker = self._idle.pop()
            if worker.process.is_alive():
                break
            worker.end()  # it died with nothing to do: nobody's loss
        else:
            taken = {other.number for other in self._busy}
            number = next(n for n in range(len(taken) + 1) if n not in taken)
            with environment(self._cores.environment() | {WORKER: str(number)}):
                worker = _Worker(number)
        self._busy.add(worker)
        worker.task = task.name
        with suppress(BrokenPipeError, ConnectionResetError):  # it has just died; `outcome` will find that
            worker.connection.send(task)
        return worker

    def wait(self, attempts: Sequence["_Worker"], seconds: float | None) -> Iterable["_Worker"]:
        by_connection = {worker.connection: worker for worker in attempts}
        return [by_connection[ready] for ready in wait(list(by_connection), seconds) if isinstance(ready, Connection)]

    def outcome(self, attempt: "_Worker") -> Exception | None:
        self._busy.remove(attempt)
        try:
            error: Exception | None = attempt.connection.recv()
        except (EOFError, OSError):  # nothing, or half an answer
            return attempt.post_mortem()
        self._idle.append(attempt)
        return error

    def stop(self, attempts: Sequence["_Worker"]) -> None:
        self._end(attempts)
        self._busy.difference_update(attempts)

    def _end(self, workers: Sequence["_Worker"]) -> None:
        for worker in workers:
            worker.process.terminate()
        for worker in workers:
            worker.end()


class _Worker:
    """One process, and this end of the pipe to it."""

    def __init__(self, number: int) -> None:
        self.number = number
        """No other worker of the pool that lives has the same one."""
        self.task = ""
        """The name of the one that it runs, or ran last."""
        context = multiprocessing.get_context("spawn")
        self.connection, its_end = context.Pipe()
        self.process = context.Process(target=_work, args=(its_end,), daemon=True)
        self.process.start()
        its_end.close()  # else its death would not end the pipe

    def post_mortem(self) -> StageError:
        """The error of a worker that ended by itself.

        Raises:
            WorkerLostError: it was ended by something else, and its task deserves another attempt.
        """
        self.end()
        exit_code = self.process.exitcode
        if exit_code == 1:  # Python's own, for instance where the worker cannot import the task's module
            return StageError(
                f"{self.task}: its process failed (exit status 1) with the error above, which mohole did not foresee; "
                "what was finished is kept, run it again"
            )
        if exit_code is not None and exit_code < 0:
            raise WorkerLostError(
                f"its process was ended by signal {-exit_code}, perhaps because memory ran out "
                "(machine.processes = 1 needs less)"
            )
        raise WorkerLostError(f"its process ended with exit status {exit_code}")

    def end(self) -> None:
        """Wait until the process is gone; kill it when it does not go."""
        self.connection.close()
        self.process.join(_SECONDS_TO_UNWIND)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def _work(connection: Connection) -> None:
    """In the worker: run task after task, until there is nobody to ask for the next one."""
    # Ctrl-C reaches the whole process group; the parent alone decides, and stops the workers by terminating them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _raise_exit)
    threading.Thread(target=_follow_parent, daemon=True).start()
    progress.plain_lines = True  # several workers' bars on one terminal would overwrite each other
    with suppress(EOFError, OSError):  # the other end is closed, or gone
        while True:
            connection.send(run_in_worker(connection.recv()))


def _follow_parent() -> None:
    """End when the parent is gone, however it went: a worker that nobody waits for would hold its locks for hours."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_SECONDS_TO_UNWIND)
        os.kill(os.getpid(), signal.SIGKILL)


def _raise_exit(signum: int, frame: object) -> None:
    """End by unwinding, so that a half-written artifact is taken away."""
    raise SystemExit(128 + signum)
