"""How a job shares the machine: processes, threads, and what the environment of worker processes says about them."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Cores:
    """How a job shares the machine. processes x threads is never more than the cores."""

    processes: int
    threads: int

    def environment(self) -> dict[str, str]:
        """For libraries that read it when they are first imported. Waiting threads sleep instead of spinning:
        spinning ones were measured to double the CPU-seconds of a busy machine."""
        return {
            "OMP_NUM_THREADS": str(self.threads),
            "OMP_WAIT_POLICY": "PASSIVE",
            "TOKENIZERS_PARALLELISM": "false",
        }


WORKER = "MOHOLE_WORKER"
"""The environment variable that tells a worker process its number."""


def worker_number() -> int:
    """Of this worker process among those of its pool, from 0: which of several GPUs is its own. 0 in a driver."""
    return int(os.environ.get(WORKER, "0"))


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


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for the time of a block, for the processes started and the libraries loaded in it."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
