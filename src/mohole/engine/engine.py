"""What every engine is: asks in, events out. What it runs on is its own affair."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass, fields
from typing import Protocol, runtime_checkable

from mohole.engine.ask import Ask, Event


@dataclass(frozen=True, slots=True)
class Limits:
    """What an engine takes."""

    most_rows: int = 64
    """Continuations in a batch."""
    most_waiting: int = 256
    """Continuations that wait for a place in it."""
    most_tokens: int = 1 << 18
    """Positions that the caches of a batch may come to: prompts and all that may be written."""
    prefill_tokens: int = 2048
    """Positions of prompts that are run at once. Those who are being answered wait that long for their next token."""


@dataclass(slots=True)
class Counters:
    """What an engine has done since it began."""

    n_asked: int = 0
    """Continuations."""
    n_stopped: int = 0
    n_at_length: int = 0
    n_cancelled: int = 0
    n_failed: int = 0
    n_prompt_tokens: int = 0
    n_written_tokens: int = 0
    n_passes: int = 0
    n_rows_run: int = 0
    """Over all passes: divided by n_passes, how full batches are."""
    n_moved_tokens: int = 0
    """Tokens whose row an intervention moved."""
    n_rescued: int = 0
    """Continuations that were begun again alone because one beside them had failed."""
    n_running: int = 0
    """Now."""
    n_waiting: int = 0
    """Now."""

    def __add__(self, other: "Counters") -> "Counters":
        return Counters(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))


@runtime_checkable
class Engine(Protocol):
    """Continues prompts under interventions, many at once.

    The law: what is written for one continuation is what would be written for it alone, whatever runs beside it; and nothing is
    written for an ask with interventions unless they were at work at every token.
    """

    def answer(self, ask: Ask) -> AsyncGenerator[Event]:
        """The events of an ask as they come: for each continuation `Written` ones and one `Ended`. To close it is to cancel.

        Raises (at the first event or later):
            EngineError: full, ending, or late. ConfigError: an ask that cannot be meant.
            NumericsError: interventions too strong for the model's numbers. StageError: they were not at work.
        """
        ...

    @property
    def counters(self) -> Counters:
        """As of now."""
        ...

    def end(self, seconds: float) -> None:
        """Take no more; cut what is not done in so many seconds, each with an EngineError. Does not wait, from any thread."""
        ...

    def close(self) -> None:
        """Cut everything and wait until nothing runs."""
        ...
