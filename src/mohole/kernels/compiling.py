"""A sign of life while numba compiles: that takes half a minute at the first use on a machine, and looks like a hang.

numba tells when it compiles, and not when it finds what it compiled before. Imports numba: only where loops of it are.
"""

import threading
import time
from typing import Any

from numba.core import event

from mohole import progress

_WORDS = "compiling kernels for this processor; once on this machine, it is kept for the next time"


class Compiling(event.Listener):
    """Says so once, as soon as all compiling together has taken longer than people wait in silence."""

    def __init__(self, seconds: float = progress.QUIET_SECONDS) -> None:
        self._left: float | None = seconds
        """Seconds of compiling that are still passed over. None: it has been said."""
        self._depth, self._begun = 0, 0.0
        self._timer: threading.Timer | None = None
        self._lock = threading.Lock()

    def on_start(self, event: Any) -> None:
        """A function is compiled, perhaps for another one that is."""
        with self._lock:
            self._depth += 1
            if self._depth == 1 and self._left is not None and not progress.silent.get():
                self._begun = time.monotonic()
                self._timer = threading.Timer(self._left, self._say)
                self._timer.daemon = True
                self._timer.start()

    def on_end(self, event: Any) -> None:
        """What it took is taken off, so that many short ones are told of, too."""
        with self._lock:
            self._depth -= 1
            if self._depth == 0 and self._timer is not None:
                self._timer.cancel()
                self._timer = None
                if self._left is not None:
                    self._left = max(self._left - (time.monotonic() - self._begun), 0.0)

    def hush(self) -> None:
        """Say nothing: for a process whose standard error is compared with what it must be."""
        with self._lock:
            self._left = None

    def _say(self) -> None:
        with self._lock:
            if self._left is not None:
                self._left = None
                progress.tell(_WORDS)


COMPILING = Compiling()
event.register("numba:compile", COMPILING)  # type: ignore[no-untyped-call]  # once in a process, by whoever imports this first
