"""uvicorn's HTTP protocol, but not endlessly patient: thousands of connections that ask for nothing are closed after a while."""

import asyncio
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

IDLE_SECONDS = 20.0
"""That a connection may take to send the head of a request; uvicorn itself would wait for good. Between requests it waits 5 s."""

_Base: Any = AutoHTTPProtocol
"""The fast one where it is there."""


class Patient(_Base):  # type: ignore[misc]
    """Closes what stays silent."""

    when_lost: Callable[[], None] | None = None
    """Called when the connection is no more."""

    def connection_made(self, transport: Any) -> None:  # uvloop's are no asyncio.Transport
        super().connection_made(transport)
        self._idle: asyncio.TimerHandle | None = None
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._idle is not None:
            self._idle.cancel()
        super().connection_lost(exc)
        if self.when_lost is not None:
            self.when_lost()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def _watch(self) -> None:
        """Count while there is no request: from the first byte of a connection, or of the next head, on."""
        if self._is_busy():
            if self._idle is not None:
                self._idle.cancel()
                self._idle = None
        elif self._idle is None:
            self._idle = self.loop.call_later(IDLE_SECONDS, self._has_waited)

    def _has_waited(self) -> None:
        self._idle = None
        if not self._is_busy() and not self.transport.is_closing():
            self.transport.close()

    def _is_busy(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete
