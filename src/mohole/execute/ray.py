"""Ray Core: tasks on the machines of a cluster, or on this one. ray is imported only when it is asked for.

Ray schedules and starts processes; that is all it is used for. Arguments are tasks, results are None or an error, so its
object store stays empty. What is tried again is decided in `schedule.py` as for every other worker: Ray's own retries have
no end where memory ran out, and do not say how often they tried.
"""

import signal
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mohole import progress
from mohole.errors import StageError
from mohole.execute.cluster import open_cluster
from mohole.execute.cores import Cores
from mohole.execute.schedule import WorkerLostError, run_all
from mohole.execute.task import OnDone, Task, ignore, run_in_worker
from mohole.version import __version__

if TYPE_CHECKING:
    from ray import ObjectRef

_SECONDS_TO_UNWIND = 10.0
_SECONDS_BETWEEN_COUNTS = 5.0


@contextmanager
def open_ray(cores: Cores, address: str | None, max_attempts: int) -> Iterator["RayWorkers"]:
    """Workers of the cluster at `address`, or of a Ray of our own; see `open_cluster`."""
    with open_cluster(cores, address) as is_cluster:
        yield RayWorkers(cores, max_attempts, is_cluster=is_cluster)


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
