"""Who takes a new connection where several processes listen at one socket: the one that has the fewest. Plain asyncio.

Sockets of their own (SO_REUSEPORT) are filled by a hash: of 32 readers of two processes 23 came to one, which then answered in
twice the time of the other.
"""

import asyncio
import errno
import mmap
import socket
from collections.abc import Callable
from functools import partial

from mohole.serve.connections import Patient

_A_MOMENT = 0.002
"""Seconds that a process with more connections than another leaves a new one to that one. It may be busy, or dead."""
_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_UNTIL_ROOM = 1.0


class Counts:
    """Connections of each of n processes, in memory that they share from before they fork."""

    def __init__(self, n: int) -> None:
        self._cells = memoryview(mmap.mmap(-1, n * 8)).cast("q")

    def add(self, own: int, change: int) -> None:
        """Only the process itself does, so nothing is lost."""
        self._cells[own] += change

    @property
    def each(self) -> list[int]:
        """As of now."""
        return self._cells.tolist()


class Door:
    """Takes connections at a listening socket, one by one. In place of asyncio's server, as far as uvicorn knows that."""

    def __init__(self, listening: socket.socket, counts: Counts, own: int, make: Callable[[], Patient]) -> None:
        """Args: own: which of the processes this is. make: the protocol of a new connection."""
        self._listening, self._counts, self._own, self._make = listening, counts, own, make
        self._loop = asyncio.get_running_loop()
        self._begun: set[asyncio.Task[object]] = set()
        self._again: asyncio.TimerHandle | None = None
        listening.setblocking(False)
        self._open()

    def close(self) -> None:
        """Nobody comes in any more."""
        self._loop.remove_reader(self._listening)
        if self._again is not None:
            self._again.cancel()

    async def wait_closed(self) -> None:
        """It is at once."""

    def _open(self) -> None:
        self._again = None
        self._loop.add_reader(self._listening, self._knock)

    def _shut(self, seconds: float, then: Callable[[], None]) -> None:
        self._loop.remove_reader(self._listening)
        self._again = self._loop.call_later(seconds, then)

    def _knock(self) -> None:
        if (counts := self._counts.each)[self._own] > min(counts):
            self._shut(_A_MOMENT, self._nobody_else)
        else:
            self._take()

    def _nobody_else(self) -> None:
        self._open()
        self._take()

    def _take(self) -> None:
        try:
            connection, _ = self._listening.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # another took it, or it went away
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            self._shut(_UNTIL_ROOM, self._open)
            return
        connection.setblocking(False)
        self._counts.add(self._own, 1)
        task = self._loop.create_task(self._bring_in(connection))
        self._begun.add(task)
        task.add_done_callback(self._begun.discard)

    async def _bring_in(self, connection: socket.socket) -> None:
        protocol = self._make()
        protocol.when_lost = partial(self._counts.add, self._own, -1)
        try:
            await self._loop.connect_accepted_socket(lambda: protocol, connection)
        except OSError:  # it went away before it was the protocol's
            self._counts.add(self._own, -1)
            connection.close()
