"""One pass over the rows for several trainings: each runs its own loop in a thread of its own, one at a time, in turns.

The one that has the turn works until it asks for rows; then the turn goes to the one that is furthest behind. So every batch is
read once, held until all have had it, and no training knows of the others: what it does is what it does alone. Trainings that
were killed at different steps catch up with each other by the same rule.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from threading import Condition

from jaxtyping import Float
from torch import Tensor

from mohole.progress import Tracker, silent
from mohole.store.stream import RowStream

Streams = Mapping[str, RowStream]
Work = Callable[[Streams], None]
"""What one training does with its streams."""


def in_turns(streams: Streams, works: Sequence[Work], tracker: Tracker | None = None) -> None:
    """Run all of `works`, each with streams that give what `streams` give.

    Args:
        tracker: told each row of the stream once, up to its total.

    Raises:
        Exception: the first one that a stream or one of the works has raised; the others are stopped at their next batch.
    """
    turns = _Turns(len(works), tracker)
    with ThreadPoolExecutor(max(len(works), 1), thread_name_prefix="mohole-sweep") as pool:
        futures = [pool.submit(turns.run, number, work, streams) for number, work in enumerate(works)]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:  # an interruption reaches this thread alone
            turns.stop()
    if turns.failure is not None:
        raise turns.failure
    for future in futures:
        future.result()


class _StoppedError(BaseException):
    """Ends the work of a thread. Not an Exception: a training must not take it for an error of its own."""


class _Turns:
    """Whose turn it is, and the rows that somebody still has to get."""

    def __init__(self, n_works: int, tracker: Tracker | None) -> None:
        self._turn = Condition()
        self._places = [-1] * n_works
        """The rank of the rows that each asks for, or asked for last."""
        self._live, self._waiting = set(range(n_works)), set(range(n_works))
        self._is_stopped = False
        self._held: dict[tuple[str, int, int], Float[Tensor, "row d"]] = {}
        self._tracker, self._n_read = tracker, 0
        self.failure: BaseException | None = None
        """What a stream has raised."""

    def run(self, number: int, work: Work, streams: Streams) -> None:
        """One thread, from its first turn to its last."""
        silent.set(True)
        try:
            with self._turn:
                self._wait(number)
            work({name: _SharedStream(self, number, stream) for name, stream in streams.items()})
        except _StoppedError:
            return
        except BaseException:
            self.stop()
            raise
        finally:
            with self._turn:
                self._live.discard(number)
                self._waiting.discard(number)
                self._turn.notify_all()

    def stop(self) -> None:
        """Every thread ends at its next batch."""
        with self._turn:
            self._is_stopped = True
            self._turn.notify_all()

    def rows(self, number: int, stream: RowStream, first: int, n_rows: int) -> Float[Tensor, "row d"]:
        """Rows for one of the works, when it has the turn."""
        with self._turn:
            self._places[number] = first
            self._waiting.add(number)
            self._turn.notify_all()
            self._wait(number)
            self._let_go()
            key = stream.hookpoint, first, n_rows
            if key not in self._held:
                self._held[key] = self._read(stream, first, n_rows)
            return self._held[key]

    def _wait(self, number: int) -> None:
        self._turn.wait_for(lambda: self._is_stopped or self._next() == number)
        if self._is_stopped:
            raise _StoppedError
        self._waiting.discard(number)

    def _next(self) -> int | None:
        """Who is furthest behind, when nobody is at work."""
        if self._waiting != self._live:
            return None
        return min(self._waiting, key=lambda number: (self._places[number], number), default=None)

    def _let_go(self) -> None:
        """Of rows that all have had: nobody goes back."""
        last = min(self._places[number] for number in self._live)
        self._held = {key: rows for key, rows in self._held.items() if key[1] >= last}

    def _read(self, stream: RowStream, first: int, n_rows: int) -> Float[Tensor, "row d"]:
        try:
            rows = stream.rows(first, n_rows)
        except BaseException as error:
            self.failure, self._is_stopped = error, True
            self._turn.notify_all()
            raise _StoppedError from None
        if self._tracker is not None:
            end = min(first + n_rows, self._tracker.total or 0)
            self._tracker.advance(max(end - self._n_read, 0))
            self._n_read = max(self._n_read, end)
        return rows


@dataclass(frozen=True, eq=False)
class _SharedStream:
    """A stream as one of the works sees it. Satisfies `RowStream`."""

    turns: _Turns
    number: int
    stream: RowStream

    @property
    def hookpoint(self) -> str:
        return self.stream.hookpoint

    @property
    def d_model(self) -> int:
        return self.stream.d_model

    @property
    def n_rows(self) -> int:
        """Rows of one pass."""
        return self.stream.n_rows

    def rows(self, first: int, n_rows: int) -> Float[Tensor, "row d"]:
        """As the stream's; never to be written into, for others get the same."""
        return self.turns.rows(self.number, self.stream, first, n_rows)

    def batch(self, step: int, n_rows: int, *, rank: int = 0, world: int = 1) -> Float[Tensor, "row d"]:
        """As the stream's."""
        if n_rows % world:
            raise ValueError(f"{n_rows} rows cannot be shared by {world} ranks")
        mine = n_rows // world
        return self.rows(step * n_rows + rank * mine, mine)
