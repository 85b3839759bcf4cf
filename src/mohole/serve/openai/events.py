"""Answers that take their time: server-sent events, and nothing computed for who has gone. ASGI; knows no models."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from mohole.serve.bodies import json_bytes

Found = TypeVar("Found")

_HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-store",
    "x-accel-buffering": "no",  # nginx hands on each event when it comes
}
DONE = b"data: [DONE]\n\n"


def event(body: object) -> bytes:
    """One event of a stream."""
    return b"data: " + json_bytes(body) + b"\n\n"


class EventStream(Response):
    """Events as they come. What makes them is closed as soon as nobody reads them any more, or too slowly."""

    def __init__(self, first: bytes, events: AsyncGenerator[bytes], most_seconds: float) -> None:
        """Args: first: what the events have given already."""
        self.first, self.events, self.most_seconds = first, events, most_seconds
        self.status_code, self.background = 200, None
        self.raw_headers = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def write() -> None:
            async with asyncio.timeout(self.most_seconds), aclosing(self.events):
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                await send({"type": "http.response.body", "body": self.first, "more_body": True})
                async for each in self.events:
                    await send({"type": "http.response.body", "body": each, "more_body": True})
                await send({"type": "http.response.body", "body": b"", "more_body": False})

        try:
            await _while_there(receive, write())
        except (ClientDisconnect, TimeoutError):
            await self.events.aclose()


async def while_there(request: Request, work: Coroutine[Any, Any, Found]) -> Found:
    """What `work` gives; it is cancelled when the asker goes away. The body must have been read.

    Raises:
        ClientDisconnect: the asker has gone.
    """
    return await _while_there(request.receive, work)


async def _while_there(receive: Callable[[], Awaitable[Message]], work: Coroutine[Any, Any, Found]) -> Found:
    working, watching = asyncio.ensure_future(work), asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        for task in (working, watching):
            task.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def _gone(receive: Callable[[], Awaitable[Message]]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
