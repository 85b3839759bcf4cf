"""A sign of life while kernels are compiled: that takes half a minute at the first use on a machine, and looks like a hang.

Who compiles says when it begins and ends: `compiling_loops` for numba's loops, `compiling_programs` for Triton's programs.
"""

import threading
import time
from types import TracebackType

from mohole import progress


class Compiling:
    """Says so once, as soon as all compiling together has taken longer than people wait in silence. Open while something is."""

    def __init__(self, words: str, seconds: float = progress.QUIET_SECONDS) -> None:
        self._words = words
        self._left: float | None = seconds
        """Seconds of compiling that are still passed over. None: it has been said."""
        self._depth, self._begun = 0, 0.0
        self._timer: threading.Timer | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> "Compiling":
        """A function is compiled, perhaps for another one that is."""
        with self._lock:
            self._depth += 1
            if self._depth == 1 and self._left is not None and not progress.silent.get():
                self._begun = time.monotonic()
                self._timer = threading.Timer(self._left, self._say)
                self._timer.daemon = True
                self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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
                progress.tell(self._words)
