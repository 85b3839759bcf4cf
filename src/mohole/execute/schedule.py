"""Who runs what, what is tried again, what is started twice: the one loop behind every kind of worker. Knows no processes."""

import math
import time
from bisect import insort
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol, TypeVar, runtime_checkable

from mohole.errors import StageError
from mohole.execute.task import OnDone, Task

MAX_ATTEMPTS = 3
STRAGGLER_SECONDS = 2.0
STRAGGLER_RATIO = 3.0

Attempt = TypeVar("Attempt")
"""One start of one task, as its workers know it; hashable."""

Run = tuple[int, float]
"""Which task an attempt runs, and when it started."""


class WorkerLostError(Exception):
    """A worker went away before it answered; the text says how, and what may help."""


@runtime_checkable
class Workers(Protocol[Attempt]):
    """Law: `outcome` is asked once, for attempts that `wait` returned; a stopped attempt runs no more and is never asked."""

    def n_slots(self) -> int:
        """How many attempts may run at once, as things stand now."""

    def start(self, task: Task) -> Attempt: ...

    def wait(self, attempts: Sequence[Attempt], seconds: float | None) -> Iterable[Attempt]:
        """The attempts that have ended, as soon as there is one; none when the time is over."""

    def outcome(self, attempt: Attempt) -> Exception | None:
        """The error that stops the run, or None when the task is done.

        Raises:
            WorkerLostError: its worker is gone.
        """

    def stop(self, attempts: Sequence[Attempt]) -> None:
        """End these attempts, and return when they have ended."""


def run_all(
    workers: Workers[Attempt],
    tasks: Sequence[Task],
    on_done: OnDone,
    max_attempts: int = MAX_ATTEMPTS,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Run every task on `workers`; whatever happens, none of them runs any more when this returns.

    A task whose worker is lost starts again, up to `max_attempts` times. When nothing waits and a slot is free, a
    straggler is started a second time; whichever copy ends first counts, the other is stopped.
    """
    waiting = deque(range(len(tasks)))
    running: dict[Attempt, Run] = {}
    times_lost: Counter[int] = Counter()
    durations: list[float] = []
    try:
        while waiting or running:
            while has_free_slot := len(running) < workers.n_slots():
                index = waiting.popleft() if waiting else overdue(_copyable(tasks, running), durations, clock())
                if index is None:
                    break
                running[workers.start(tasks[index])] = (index, clock())
            copyable = _copyable(tasks, running) if has_free_slot else {}
            for attempt in workers.wait(list(running), seconds_until_overdue(copyable, durations, clock())):
                if attempt not in running:  # its twin ended in the same moment and counted
                    continue
                index, start = running.pop(attempt)
                twins = [other for other, (its_index, _) in running.items() if its_index == index]
                try:
                    error = workers.outcome(attempt)
                except WorkerLostError as lost:
                    times_lost[index] += 1
                    if not twins:
                        _refuse_to_go_on(tasks[index], times_lost[index], max_attempts, lost)
                        waiting.appendleft(index)
                    continue
                if error is not None:
                    raise error
                for twin in twins:
                    del running[twin]
                workers.stop(twins)
                insort(durations, clock() - start)
                on_done(tasks[index])
    finally:
        workers.stop(list(running))


def _refuse_to_go_on(task: Task, times_lost: int, max_attempts: int, lost: WorkerLostError) -> None:
    if times_lost >= max_attempts:
        times = "once" if times_lost == 1 else f"{times_lost} times"
        raise StageError(f"{task.name}: tried {times}: {lost}; what was finished is kept, run it again") from None


def _copyable(tasks: Sequence[Task], running: Mapping[Attempt, Run]) -> dict[int, float]:
    """When each task started that runs once and may run twice."""
    n_copies = Counter(index for index, _ in running.values())
    return {index: start for index, start in running.values() if n_copies[index] == 1 and not tasks[index].alone}


def overdue(starts: Mapping[int, float], durations: Sequence[float], now: float) -> int | None:
    """The task to start a second time: the oldest, if it is a straggler.

    Args:
        starts: when each task started that may be started again.
        durations: seconds that finished tasks took, ascending.

    >>> overdue({7: 0.0, 8: 1.0}, [0.5], now=2.0), overdue({7: 0.0, 8: 1.0}, [0.5], now=2.1)
    (None, 7)
    """
    oldest = min(starts, key=lambda index: starts[index], default=None)
    return oldest if oldest is not None and now - starts[oldest] > straggler_limit(durations) else None


def seconds_until_overdue(starts: Mapping[int, float], durations: Sequence[float], now: float) -> float | None:
    """How long nothing need be looked at but the ends of tasks. None: for ever."""
    left = min(starts.values(), default=math.inf) + straggler_limit(durations) - now
    return None if left == math.inf else max(left, 0.0) + 0.01  # waking a moment early would mean looking twice


def straggler_limit(durations: Sequence[float]) -> float:
    """Seconds after which a task is a straggler. Without a finished task nothing is known, and nothing is.

    >>> straggler_limit([]), straggler_limit([0.1, 0.1, 9.0]), straggler_limit([1.0, 2.0, 3.0])
    (inf, 2.0, 6.0)
    """
    if not durations:
        return math.inf
    return max(STRAGGLER_SECONDS, STRAGGLER_RATIO * durations[len(durations) // 2])
