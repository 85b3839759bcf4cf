"""One continuation under way: its tokens, its text, the proof that it was steered, and what is told of it. Runs no model."""

from dataclasses import dataclass, field, replace

from mohole.act import Stamp
from mohole.engine.ask import Ask, Ended, Event, Likelihood, Reason, Written
from mohole.engine.stream import Stream
from mohole.engine.writer import Writer
from mohole.errors import StageError
from mohole.model.generate import Sampling


@dataclass(eq=False)
class Row:
    """A continuation in an engine."""

    ask: Ask
    number: int
    """Which of the ask's."""
    stream: Stream
    writer: Writer
    begins: int
    """1 where the prompt begins with a begin-of-text token, else 0."""
    ends: frozenset[int]
    """Tokens that end a text."""
    until: float
    """On the monotonic clock, when it is too late."""
    chosen: list[int] = field(default_factory=list)
    """All that the model wrote."""
    is_cancelled: bool = False
    is_done: bool = False
    _n_tokens: int = 0
    _n_fired: int = 0
    _n_moved: int = 0
    _pending: Written | None = None
    """The last token, where its own row is still to be read."""
    _reason: Reason | None = None
    """Why it ends, once it is known."""

    @property
    def sampling(self) -> Sampling:
        return self.ask.samplings[self.number]

    @property
    def n_most(self) -> int:
        """Positions that it may come to take."""
        return len(self.ask.prompt) + self.ask.max_new_tokens

    def begin_again(self) -> None:
        """All of it is going to be run from its first token."""
        self._n_tokens = self._n_fired = self._n_moved = 0

    def ran(self, stamp: Stamp, values: tuple[float, ...] | None) -> list[Event]:
        """A pass ran its newest tokens.

        Args:
            values: of the readings, at the last of them.
        """
        self._n_tokens += stamp.n_tokens
        self._n_fired += stamp.n_fired
        self._n_moved += stamp.n_moved
        if self._pending is None:
            return []
        pending, self._pending = replace(self._pending, values=values), None
        return self._added(pending)

    def chose(self, token: int, likelihood: Likelihood | None) -> list[Event]:
        """The model's next token."""
        self.chosen.append(token)
        if token in self.ends:
            return self._ended("stop")
        written = Written(self.number, token, "", likelihood)
        if len(self.chosen) == self.ask.max_new_tokens:
            self._reason = "length"
        if self.ask.readings:  # its own row runs with the next pass, also where nothing is to be chosen behind it
            self._pending = written
            return []
        return self._added(written)

    def _added(self, written: Written) -> list[Event]:
        events: list[Event] = list(self.writer.add(written))
        if self.writer.has_stopped:
            return [*events, *self._ended("stop")]
        return [*events, *self._ended(self._reason)] if self._reason else events

    def _ended(self, reason: Reason) -> list[Event]:
        """Raises: StageError: the hooks did not see what was run, so this is no steered text."""
        self.is_done = True
        n_run = len(self.ask.prompt) + len(self.chosen) - self.begins - (0 if self._has_run_last() else 1)
        if not self._n_fired == self._n_tokens == n_run:
            raise StageError(
                f"the interventions were at work at {self._n_fired} of {n_run} tokens ({self._n_tokens} run), so the text is "
                "not steered; load the model with its self-test on to check its hookpoints"
            )
        key = self.ask.plan.key
        stamp = Stamp(self._n_tokens, self._n_fired, self._n_moved, key)
        return [*self.writer.end(), Ended(self.number, reason, len(self.chosen), stamp)]

    def _has_run_last(self) -> bool:
        """Has the last token's own row been run?"""
        return bool(self.ask.readings) and self.chosen[-1] not in self.ends
