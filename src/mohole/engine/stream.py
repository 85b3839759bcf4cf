"""From the thread that computes to the event loop that answers: what was written, in order, a whole round at once."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence

from mohole.engine.ask import Event


class Stream:
    """The events of one ask. Read in its event loop, written to from any thread by `deliver`."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._there: deque[Event | Exception] = deque()
        self._has_some = asyncio.Event()

    async def next(self) -> Event:
        """The next event. Raises what was put there as an error."""
        while not self._there:
            self._has_some.clear()
            await self._has_some.wait()
        found = self._there.popleft()
        if isinstance(found, Exception):
            raise found
        return found

    def put(self, events: Sequence[Event | Exception]) -> None:
        """In its own loop."""
        self._there.extend(events)
        self._has_some.set()


def deliver(told: dict[Stream, list[Event | Exception]]) -> None:
    """One call into each event loop: waking a loop for every token of every text would cost as much as the model."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[Stream, list[Event | Exception]]]] = {}
    for stream, events in told.items():
        by_loop.setdefault(stream.loop, []).append((stream, events))
    for loop, streams in by_loop.items():
        with contextlib.suppress(RuntimeError):  # a loop that has ended: nobody listens there any more
            loop.call_soon_threadsafe(_put, streams)


def _put(streams: Sequence[tuple[Stream, Sequence[Event | Exception]]]) -> None:
    for stream, events in streams:
        stream.put(events)
