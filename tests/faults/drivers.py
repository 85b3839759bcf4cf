"""Drivers to be killed: one process imports once and forks a driver for each attempt, so that an attempt costs milliseconds.

    python drivers.py shuffle|harvest|catalogue

reads one JSON object a line, a driver's arguments, and answers with its process id and, at its end, with its exit status.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


class Drivers:
    """Starts drivers of one kind; `close` ends the process that forks them."""

    def __init__(self, kind: str, log: Path) -> None:
        """Args:
        log: takes what they print; workers that lose their driver while they start print tracebacks.
        """
        self._log = log
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                [sys.executable, __file__, kind],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=ROOT,
            )  # fmt: skip

    def start(self, **arguments: Any) -> "Driver":
        self._send(arguments)
        return Driver(int(self.answer()), self)

    def _send(self, arguments: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(arguments) + "\n")
        self._process.stdin.flush()

    def answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the process that forks drivers has died: {self._log.read_text()[-1000:]}"
        return line

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()


@dataclass
class Driver:
    """One attempt."""

    pid: int
    drivers: Drivers
    peak_bytes: int = 0
    """Of memory; known when it has ended."""

    def is_alive(self) -> bool:
        """Not after its last line: its end waits to be asked for by then."""
        try:
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
        except (FileNotFoundError, ProcessLookupError):
            return False

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def join(self) -> tuple[int, str]:
        """Its exit status (negative: the signal that ended it), and the error that it ended with."""
        found = json.loads(self.drivers.answer())
        self.peak_bytes = found["peak_bytes"]
        return found["status"], found["error"]

    def children(self, mark: str) -> list[int]:
        """Processes below it with `mark` in their command line."""
        return [pid for pid in _below(self.pid) if mark in _command(pid)]


def _below(pid: int) -> list[int]:
    try:
        found = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [*found, *(further for child in found for further in _below(child))]


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


# What follows runs in the process that forks.


def _shuffle() -> Callable[..., None]:
    from mohole.config import Machine
    from mohole.job import rows
    from mohole.store.plan import Limits
    from mohole.store.store import Store

    def run(source: str, out: str, memory: int, executor: str = "inline", processes: int = 2, **options: Any) -> None:
        """`mohole shuffle`, with so little memory for a worker that a thousand rows are many."""
        rows.Limits = lambda _: Limits(memory, segment_bytes=1, cell_bytes=1024, process_bytes=0)  # type: ignore[misc, assignment]
        machine = Machine(executor=executor, processes=processes)  # type: ignore[arg-type]
        rows.shuffle_store(Store.open(source), out, machine, **options)

    return run


def _harvest() -> Callable[..., None]:
    import torch

    from mohole import job
    from mohole.config import Model, parse
    from mohole.model.shared import shared_model

    torch.set_num_threads(1)
    shared_model(Model())

    def run(recipe: dict[str, Any]) -> None:
        job.run_verb(parse(recipe), "harvest", say=lambda _: None)

    return run


def _catalogue() -> Callable[..., None]:
    import torch

    from mohole import job
    from mohole.catalogue import builder, map_compiled, statistics_compiled  # noqa: F401  # numba, once for all drivers
    from mohole.config import Model, parse
    from mohole.model.shared import shared_model

    torch.set_num_threads(1)
    shared_model(Model())

    def run(recipe: dict[str, Any], dies_after: str | None = None) -> None:
        """`mohole catalogue`, in many parts and ranges, until a function has done its work for the first time."""
        builder.TOKENS_PER_PART, builder.LATENTS_PER_RANGE = 500, 32
        if dies_after is not None:
            module, _, name = dies_after.rpartition(".")
            work = getattr(import_module(module), name)

            def dies(*given: Any, **named: Any) -> None:
                work(*given, **named)
                os.kill(os.getpid(), signal.SIGKILL)

            setattr(import_module(module), name, dies)
        job.run_verb(parse(recipe), "catalogue", say=lambda _: None)

    return run


def _serve(run: Callable[..., None]) -> None:
    os.fsync = lambda descriptor: None  # what a kill leaves behind does not depend on it, and nobody waits for the disk
    for line in sys.stdin:
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            _drive(run, json.loads(line), writing)
        os.close(writing)
        print(pid, flush=True)  # noqa: T201
        with os.fdopen(reading) as pipe:
            error = pipe.read()
        _, ended, used = os.wait4(pid, 0)
        said = {"status": os.waitstatus_to_exitcode(ended), "error": error, "peak_bytes": used.ru_maxrss * 1024}
        print(json.dumps(said), flush=True)  # noqa: T201


def _drive(run: Callable[..., None], arguments: dict[str, Any], errors: int) -> None:
    """The whole life of a driver."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    try:
        run(**arguments)
    except BaseException as error:
        os.write(errors, f"{type(error).__name__}: {error}".encode())
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    _serve({"shuffle": _shuffle, "harvest": _harvest, "catalogue": _catalogue}[sys.argv[1]]())
