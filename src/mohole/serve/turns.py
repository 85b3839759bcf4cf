"""Who comes first is served first: a worker that does long jobs in turn, and a lock that threads hold in turn. Knows no jobs."""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import TypeVar

from mohole.serve.errors import Refusal

Found = TypeVar("Found")

_RETRY_SECONDS = 2


class Turns:
    """A thread of its own. Who comes when the queue is full is told to come back."""

    def __init__(self, longest: int, waiting: str) -> None:
        """Args:
        longest: jobs that wait or run, at most.
        waiting: what they wait for, in words: "texts wait for the model".
        """
        self._longest, self._waiting = longest, waiting
        self._n_queued, self._counting = 0, threading.Lock()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix=waiting.partition(" ")[0])

    async def take(self, work: Callable[[], Found]) -> Found:
        """What `work` gives, when its turn has come. Refusal: the queue is full."""
        with self._counting:
            if self._n_queued >= self._longest:
                raise Refusal(
                    503,
                    f"{self._n_queued} {self._waiting} already",
                    "ask again in a moment",
                    {"Retry-After": str(_RETRY_SECONDS)},
                )
            self._n_queued += 1
        done = self._worker.submit(work)
        done.add_done_callback(self._one_less)  # not when the asker goes away: the work goes on
        return await asyncio.wrap_future(done)

    def _one_less(self, done: "Future[Found]") -> None:
        with self._counting:
            self._n_queued -= 1

    def close(self) -> None:
        """Take no more; what waits is dropped."""
        self._worker.shutdown(wait=False, cancel_futures=True)


class InTurn:
    """A lock that is handed to who has waited longest. A plain one goes back to a thread that lets go and takes it again at once,
    as an engine does between two passes: nobody else would ever get it."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._is_held = False
        self._queue: deque[threading.Event] = deque()

    def __enter__(self) -> None:
        with self._mutex:
            if not self._is_held:
                self._is_held = True
                return
            mine = threading.Event()
            self._queue.append(mine)
        mine.wait()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._mutex:
            if self._queue:
                self._queue.popleft().set()  # held still, by that one
            else:
                self._is_held = False
