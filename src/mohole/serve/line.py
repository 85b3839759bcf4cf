"""Answers made in the event loop, first come, first served, a few at a time: whoever asks meanwhile is heard between.

A loop by itself answers all that it has heard. Who is answered last and asks again at once is not heard before the next such
round, and is last again: of 16 readers one waited twice as long as the others, every time (p99 of 24 ms, a median of 12).
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

Made = TypeVar("Made")

_AT_ONCE_SECONDS = 0.002
"""To hear who has asked costs as much as a tenth of an answer, so it is not done after every one."""


class Line(Generic[Made]):
    """Those who wait. For what takes a millisecond; what takes long belongs into a thread."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[asyncio.Future[Made], Callable[[], Made]]] = deque()
        self._is_begun = False

    async def made(self, make: Callable[[], Made]) -> Made:
        """What `make` gives, or raises, when it is its turn."""
        loop = asyncio.get_running_loop()
        mine: asyncio.Future[Made] = loop.create_future()
        self._waiting.append((mine, make))
        if not self._is_begun:
            self._is_begun = True
            loop.call_soon(self._next, loop)
        return await mine

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        until = loop.time() + _AT_ONCE_SECONDS
        while self._waiting:
            mine, make = self._waiting.popleft()
            if not mine.done():  # nobody has gone away
                try:
                    mine.set_result(make())
                except Exception as error:  # the asker's, whatever it is
                    mine.set_exception(error)
            if loop.time() >= until:
                break
        self._is_begun = bool(self._waiting)
        if self._is_begun:
            loop.call_soon(self._next, loop)
