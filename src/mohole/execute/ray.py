"""Ray Core: tasks on the machines of a cluster, or on this one. The only file that imports ray, and only when it is asked to.

Ray schedules and starts processes; that is all it is used for. Arguments are tasks, results are None or an error, so its
object store stays empty. What is tried again is decided in `schedule.py` as for every other worker: Ray's own retries have
no end where memory ran out, and do not say how often they tried.
"""

import os
import signal
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mohole import progress
from mohole.errors import ConfigError, StageError
from mohole.execute.cores import Cores
from mohole.execute.schedule import WorkerLostError, run_all
from mohole.execute.task import OnDone, Task, ignore, run_in_worker
from mohole.version import __version__

if TYPE_CHECKING:
    from ray import ObjectRef

_SECONDS_TO_UNWIND = 10.0
_SECONDS_BETWEEN_COUNTS = 5.0
_SECONDS_TO_KNOCK = 10.0
_SMALLEST_OBJECT_STORE = 75 << 20  # bytes; Ray takes no less, and would take 30 % of the memory
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # it would report to its makers over the network
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # it would hide the GPUs from tasks that ask Ray for none
}


@contextmanager
def open_ray(cores: Cores, address: str | None, max_attempts: int) -> Iterator["RayWorkers"]:
    """Connect to the cluster at `address`, or start a Ray of our own; end what was begun here, and nothing else."""
    with _callers_process_kept():
        try:
            import ray
        except ImportError:
            raise ConfigError("machine.executor: ray is not installed; pip install 'mohole[ray]'") from None
        is_ours = not ray.is_initialized()  # else the caller's own connection is used, and left as it is
        if is_ours:
            os.environ.update(cores.environment() | _QUIET)
            _start(cores) if address is None else _connect(cores, address)
    try:
        yield RayWorkers(cores, max_attempts, is_cluster=not is_ours or address is not None)
    finally:
        if is_ours:
            ray.shutdown()


def _start(cores: Cores) -> None:
    import ray

    # Workers inherit the environment of this moment. Ray's `runtime_env` would say the same, but starts new processes for
    # it again and again: 200 empty tasks took 28 s with it and 2 s without.
    ray.init(
        address="local",  # not the cluster that RAY_ADDRESS may name
        num_cpus=cores.processes,
        object_store_memory=_SMALLEST_OBJECT_STORE,
        include_dashboard=False,
        configure_logging=False,
        log_to_driver=True,
    )


def _connect(cores: Cores, address: str) -> None:
    import ray

    try:
        _knock(address)
        ray.init(
            address=address,
            runtime_env={"env_vars": cores.environment() | _QUIET},
            configure_logging=False,
            log_to_driver=True,
        )
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ConfigError(
            f"machine.address: no Ray cluster answers at {address} ({reason}); `ray status` on its head says what runs, "
            "and one with tokens needs RAY_AUTH_MODE=token here"
        ) from None


def _knock(address: str) -> None:
    """Ray would knock for more than ten minutes at a door where nobody lives."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():  # not `auto`
        socket.create_connection((host.strip("[]"), int(port)), _SECONDS_TO_KNOCK).close()


@contextmanager
def _callers_process_kept() -> Iterator[None]:
    """Give back what importing and starting Ray takes: variables such as PYTHONBREAKPOINT, and the answer to SIGTERM."""
    variables, on_terminate = dict(os.environ), signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(variables)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_terminate)


class RayWorkers:
    """Workers that Ray starts and keeps. A slot is a CPU of a Ray of our own, `cores.threads` CPUs of a cluster."""

    def __init__(self, cores: Cores, max_attempts: int, *, is_cluster: bool) -> None:
        import ray

        self._cores, self._max_attempts, self._is_cluster = cores, max_attempts, is_cluster
        self._remote: Any = ray.remote(
            num_cpus=cores.threads if is_cluster else 1, max_retries=0, scheduling_strategy="SPREAD"
        )(_work)
        self._names: dict[ObjectRef[Any], str] = {}
        self._slots, self._counted = cores.processes, -_SECONDS_BETWEEN_COUNTS

    def run(self, tasks: Sequence[Task], *, on_done: OnDone = ignore) -> None:
        run_all(self, tasks, on_done, self._max_attempts)

    # What follows is what `run_all` asks of workers.

    def n_slots(self) -> int:
        """As many as the cluster has CPUs for now: machines come and go. Never fewer than asked for, so that it may grow."""
        import ray

        if self._is_cluster and time.monotonic() - self._counted > _SECONDS_BETWEEN_COUNTS:
            self._counted = time.monotonic()
            resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
            n_cpus = int(resources.get("CPU", 0))
            self._slots = max(n_cpus // self._cores.threads, self._cores.processes)
        return self._slots

    def start(self, task: Task) -> "ObjectRef[Any]":
        attempt: ObjectRef[Any] = self._remote.options(num_gpus=task.n_gpus).remote(task)
        self._names[attempt] = task.name
        return attempt

    def wait(self, attempts: "Sequence[ObjectRef[Any]]", seconds: float | None) -> "Iterable[ObjectRef[Any]]":
        import ray

        ray.wait(list(attempts), num_returns=1, timeout=seconds)
        ended, _ = ray.wait(list(attempts), num_returns=len(attempts), timeout=0)  # all of them, not the first
        return ended

    def outcome(self, attempt: "ObjectRef[Any]") -> Exception | None:
        import ray
        from ray.exceptions import LocalRayletDiedError, NodeDiedError, OutOfMemoryError, RayError, WorkerCrashedError

        name = self._names.pop(attempt)
        try:
            error: Exception | None = ray.get(attempt)
        except OutOfMemoryError:
            raise WorkerLostError("its process was ended because memory ran out on its machine") from None
        except WorkerCrashedError:
            raise WorkerLostError("its process was ended or crashed, perhaps because memory ran out") from None
        except NodeDiedError:
            raise WorkerLostError("its machine left the cluster") from None
        except LocalRayletDiedError:
            return StageError(
                f"{name}: Ray's node process on this machine has ended, perhaps because memory ran out; "
                "what was finished is kept, run it again"
            )
        except RayError as error:
            reason = str(error).strip().rpartition("\n")[2]
            return StageError(
                f"{name}: could not be run by Ray ({reason}); has every machine mohole {__version__}, and what it needs?"
            )
        return error

    def stop(self, attempts: "Sequence[ObjectRef[Any]]") -> None:
        import ray

        left = list(attempts)
        for force in (False, True):  # first as by Ctrl-C, which unwinds; then for good
            for attempt in left:
                ray.cancel(attempt, force=force)
            if left:
                _, left = ray.wait(left, num_returns=len(left), timeout=_SECONDS_TO_UNWIND)
        for attempt in attempts:
            del self._names[attempt]


def _work(task: Task) -> Exception | None:
    """In the worker."""
    # Ray stops a task by SIGINT, and a driver started in the background of a script leaves it ignored to all it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    progress.plain_lines = True  # Ray prefixes every line with its process, which bars do not survive
    return run_in_worker(task)
