"""A request to stop (Ctrl-C, SIGTERM) that waits for the end of a step: only there is a state that a checkpoint can hold."""

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class AfterThisStep:
    """While it is open, a first request is kept until `obey`; a second one acts at once, whatever is lost.

    What a request does is left to whoever handled it before. Signals that nobody handles (SIGTERM in a notebook) or that are
    ignored stay so, and in another thread than the main one, which hears no signals, nothing is changed.
    """

    def __init__(self) -> None:
        self._before: dict[int, Callable[[int, FrameType | None], Any]] = {}
        self._request: tuple[int, FrameType | None] | None = None

    @property
    def is_asked(self) -> bool:
        """Has a stop been asked for?"""
        return self._request is not None

    def __enter__(self) -> "AfterThisStep":
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                handler = signal.getsignal(number)
                if callable(handler):
                    self._before[number] = handler
                    signal.signal(number, self._keep)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """A request that came too late to be obeyed is obeyed now, unless there is an error to tell of."""
        self._give_back()
        if kind is None:
            self.obey()

    def obey(self) -> None:
        """Do what was asked for, as it would have been done at once. Raises: what the handler of before raises."""
        if self._request is not None:
            (number, frame), self._request = self._request, None
            handler = self._before.get(number)
            self._give_back()
            if handler is not None:
                handler(number, frame)

    def _keep(self, number: int, frame: FrameType | None) -> None:
        if self._request is None:
            self._request = (number, frame)
        else:
            self.obey()

    def _give_back(self) -> None:
        for number, handler in self._before.items():
            if signal.getsignal(number) == self._keep:  # a handler that has been called may have put another one there
                signal.signal(number, handler)
