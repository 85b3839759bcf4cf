"""Several processes that do the same: forked when all is open, so that they share it."""

import os
import signal
import sys
import traceback
from collections.abc import Callable

from mohole.errors import StageError

_ENDING = (signal.SIGINT, signal.SIGTERM)


def run_forked(n: int, work: Callable[[int], None]) -> None:
    """Call `work` with 0 to n - 1, each in a process of its own, and wait; all end with this one, or with the first that fails.

    Nothing may be open that two processes must not share, such as a database.

    Raises:
        StageError: one of them ended by itself.
    """
    workers: set[int] = set()
    told: list[int] = []

    def end(signum: int, frame: object) -> None:
        told.append(signum)
        _end(workers)

    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)  # until all are known: nobody is left behind
    for number in _ENDING:
        signal.signal(number, end)
    for own in range(n):
        workers.add(_forked(own, work))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
    pid, status = os.wait()
    workers.discard(pid)
    _end(workers)
    for other in sorted(workers):
        os.waitpid(other, 0)
    if not told:
        how = os.waitstatus_to_exitcode(status)
        raise StageError(f"a process of this server ended ({how}), so all did; its reason is above; start it again")


def _forked(own: int, work: Callable[[int], None]) -> int:
    """The new process's id."""
    pid = os.fork()
    if pid:
        return pid
    try:
        for number in _ENDING:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
        work(own)
    except BaseException:  # the parent's frames are below: nothing may come back to them
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)


def _end(workers: set[int]) -> None:
    for pid in workers:
        try:
            os.kill(pid, signal.SIGTERM)
        except ProcessLookupError:
            continue
