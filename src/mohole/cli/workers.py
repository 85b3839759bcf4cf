"""Several processes behind one address: forked when all is open, so that they share it; each listens at a socket of its own."""

import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Sequence

from mohole.errors import StageError

_ENDING = (signal.SIGINT, signal.SIGTERM)


def run_forked(sockets: Sequence[socket.socket], work: Callable[[socket.socket], None]) -> None:
    """Call `work` with each socket in a process of its own, and wait; all end with this one, or with the first that fails.

    The kernel spreads connections over sockets of one address (SO_REUSEPORT). Nothing may be open that two processes must
    not share, such as a database.

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
    for own in sockets:
        workers.add(_forked(own, sockets, work))
    for each in sockets:
        each.close()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
    pid, status = os.wait()
    workers.discard(pid)
    _end(workers)
    for other in sorted(workers):
        os.waitpid(other, 0)
    if not told:
        how = os.waitstatus_to_exitcode(status)
        raise StageError(f"a process of this server ended ({how}), so all did; its reason is above; start it again")


def _forked(own: socket.socket, sockets: Sequence[socket.socket], work: Callable[[socket.socket], None]) -> int:
    """The new process's id."""
    pid = os.fork()
    if pid:
        return pid
    try:
        for number in _ENDING:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
        for other in sockets:
            if other is not own:
                other.close()
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
