"""Signs of life: a bar with rate and time left on a terminal, plain lines elsewhere. Silent for what ends within two seconds.

The first sign does not wait for the first part of the work, which may be minutes of it.
"""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

QUIET_SECONDS = 2.0
LINE_SECONDS = 10.0
_LEAST_SHARE = 0.01
"""Of a job: from less, in a single report, nothing is told of the rest."""

plain_lines = False
"""Set in worker processes: print lines even on a terminal, because several bars would overwrite each other."""

silent: ContextVar[bool] = ContextVar("silent", default=False)
"""Set in a thread whose work is a part of what another one shows."""


class Tracker:
    """Counts done units of a job and shows them on standard error. Where its size is not known, no share and no time left."""

    def __init__(self, label: str, total: int | None, unit: str, done: int = 0) -> None:
        self.label, self.total, self.unit = label, total, unit
        self._is_silent = silent.get()
        self.done = self._before = self._before_mark = done
        self._note = ""
        self._start = self._mark = time.monotonic()
        self._n_reports = 0
        self._last_line = self._start
        self._bar: tuple[Progress, TaskID] | None = None
        self._showing = threading.Lock()
        self._first_sign: threading.Timer | None = None

    def advance(self, count: int = 1, note: str = "") -> None:
        """Report `count` more units. `note` is a short figure to show beside them, such as `fvu 0.041`."""
        self.done += count
        self._note = note or self._note
        now = time.monotonic()
        self._n_reports += 1
        if (
            self._n_reports == 1
        ):  # the first part is slow where kernels are compiled for it: it says little of the others
            self._mark, self._before_mark = now, self.done
        if now - self._start < QUIET_SECONDS or self._is_silent:
            return
        if _is_for_bars() or now - self._last_line >= LINE_SECONDS:
            self._last_line = now
            self._show()

    def _show(self) -> None:
        with self._showing:
            if _is_for_bars():
                self._draw()
            else:
                sys.stderr.write(self._line() + "\n")
                sys.stderr.flush()

    def _show_first(self) -> None:
        if self._n_reports == 0:
            self._show()

    def _draw(self) -> None:
        progress, task = self._bar or self._new_bar()
        progress.update(task, completed=self.done, note=self._note, share=self._share(), rate=self._speed())

    def _new_bar(self) -> "tuple[Progress, TaskID]":
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[share]}{task.fields[rate]}"),
            *([] if self.total is None else [TimeRemainingColumn()]),
            TextColumn("{task.fields[note]}", style="dim"),
            console=Console(stderr=True),
            transient=True,
        )
        self._bar = (
            progress,
            progress.add_task(self.label, total=self.total, completed=self._before, note="", rate="", share=""),
        )
        progress.start()
        return self._bar

    def _rate(self) -> float | None:
        """Units a second since the first report, or up to it while there is no other; None while that would be a guess."""
        now = time.monotonic()
        if self._n_reports > 1 and now > self._mark:
            return (self.done - self._before_mark) / (now - self._mark)
        is_little = self.total is not None and self.done - self._before < _LEAST_SHARE * self.total
        return None if is_little else (self.done - self._before) / max(now - self._start, 1e-9)

    def _speed(self) -> str:
        rate = self._rate()
        return "" if rate is None else f", {quantity(rate)} {self.unit}/s"

    def _share(self) -> str:
        """What is done, of the whole where that is known."""
        if self.total is None:
            return f"{quantity(self.done)} {self.unit}"
        return f"{self.done / max(self.total, 1):.0%}"

    def _line(self) -> str:
        note = f", {self._note}" if self._note else ""
        left, rate = "", self._rate()
        if self.total is not None and rate:
            left = f", {(self.total - self.done) / rate:.0f} s left"
        return f"{self.label}: {self._share()}{self._speed()}{left}{note}"

    def __enter__(self) -> "Tracker":
        if not self._is_silent:
            self._first_sign = threading.Timer(QUIET_SECONDS if _is_for_bars() else LINE_SECONDS, self._show_first)
            self._first_sign.daemon = True
            self._first_sign.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._first_sign is not None:
            self._first_sign.cancel()
            self._first_sign.join()
        if self._bar is not None:
            self._bar[0].stop()


def _is_for_bars() -> bool:
    return sys.stderr.isatty() and not plain_lines


@contextmanager
def track(label: str, total: int | None, unit: str, *, done: int = 0) -> Iterator[Tracker]:
    """Follow a job of `total` units (None: not known): `with track("harvest", n_tokens, "tokens") as t: ... t.advance(n)`.

    Args:
        done: units that were done before, by a job that this one goes on with.
    """
    with Tracker(label, total, unit, done) as tracker:
        yield tracker


def tell(line: str) -> None:
    """A line on standard error, for what is known before a job starts. Not in a thread whose work another one shows."""
    if not silent.get():
        sys.stderr.write(line + "\n")
        sys.stderr.flush()


def quantity(number: float) -> str:
    """A short human number.

    >>> quantity(12_345), quantity(0.5), quantity(3_200_000)
    ('12.3k', '0.5', '3.2M')
    """
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return f"{number / size:.1f}{suffix}"
    return f"{number:.0f}" if abs(number) >= 10 else f"{number:.2g}"


def duration(seconds: float) -> str:
    """A short human time.

    >>> duration(7.4), duration(150), duration(5400), duration(200_000)
    ('7 s', '2.5 min', '1.5 h', '2.3 days')
    """
    for size, suffix in ((86400.0, "days"), (3600.0, "h"), (60.0, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {suffix}"
    return f"{seconds:.0f} s"
