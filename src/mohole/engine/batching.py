"""The engine of this machine: transformers, one thread, and a batch that continuations join and leave between any two tokens.

A round: who is cancelled or late leaves, who waits begins (prompts of several lengths in one pass), all go on by one token.
A row's text does not depend on who is beside it: interventions, seed and positions are its own, and padding is never seen.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch

from mohole.engine.ask import Ask, Ended, Event
from mohole.engine.cohort import Cohort, Outcome, chosen, joined
from mohole.engine.engine import Counters, Limits
from mohole.engine.row import Row
from mohole.engine.stream import Stream, deliver
from mohole.engine.writer import Writer
from mohole.errors import ConfigError, EngineError, MoholeError, NumericsError
from mohole.model import LanguageModel

_LOG = logging.getLogger(__name__)
_FOREVER = float("inf")

Told = dict[Stream, list[Event | Exception]]
"""What a round has to say, to whom."""


class BatchingEngine:
    """An `Engine` over a loaded model. The model is its own from now on, but for who holds `alone`."""

    def __init__(
        self,
        model: LanguageModel,
        limits: Limits = Limits(),  # noqa: B008, it is frozen
        *,
        alone: AbstractContextManager[Any] | None = None,
    ) -> None:
        """Args: alone: entered around every pass, where others use the model, too."""
        self.model, self.limits = model, limits
        self._alone = nullcontext() if alone is None else alone
        self._ends = end_tokens(model)
        self._changed = threading.Condition()
        self._waiting: deque[Row] = deque()
        self._cohorts: list[Cohort] = []
        self._in_hand: list[Row] = []  # of the round that runs: whatever happens in it, each of them is told
        self._counters = Counters()
        self._end_at = _FOREVER
        self._is_closed = False
        self._worker = threading.Thread(target=self._work, name="engine", daemon=True)
        self._worker.start()

    async def answer(self, ask: Ask) -> AsyncGenerator[Event]:
        """See `Engine`."""
        rows = self._rows(ask, Stream())
        self._take(rows)
        n_left = len(rows)
        try:
            while n_left:
                event = await rows[0].stream.next()
                n_left -= isinstance(event, Ended)
                yield event
        finally:
            self._leave(rows)

    @property
    def counters(self) -> Counters:
        """As of now."""
        with self._changed:
            n_running = sum(len(cohort.rows) for cohort in self._cohorts)
            return replace(self._counters, n_running=n_running, n_waiting=len(self._waiting))

    def end(self, seconds: float) -> None:
        """See `Engine`."""
        with self._changed:
            self._end_at = min(self._end_at, time.monotonic() + seconds)
            self._changed.notify()

    def close(self) -> None:
        """See `Engine`."""
        self.end(0.0)
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._worker.join()

    # --- in the event loop

    def _rows(self, ask: Ask, stream: Stream) -> list[Row]:
        n, context = len(ask.prompt), self.model.context
        if n == 0 or ask.max_new_tokens < 1 or not ask.samplings:
            raise ConfigError("ask: a prompt, at least one token to write and one way to sample are needed")
        if context is not None and n + ask.max_new_tokens > context:
            raise ConfigError(
                f"prompt: {n} tokens, and {ask.max_new_tokens} to write; {self.model.name} has a context of {context}"
            )
        if n + ask.max_new_tokens > self.limits.most_tokens:
            raise ConfigError(f"prompt: {n} tokens, and {ask.max_new_tokens} to write; here {self.limits.most_tokens}")
        if min(ask.prompt) < 0 or max(ask.prompt) >= self.model.vocab_size:
            raise ConfigError(f"prompt: tokens of this model are 0 to {self.model.vocab_size - 1}")
        begins = int(ask.prompt[0] == self.model.bos_id)
        until = _FOREVER if ask.most_seconds is None else time.monotonic() + ask.most_seconds
        return [
            Row(ask, number, stream, self._writer(ask), begins, self._ends, until)
            for number in range(len(ask.samplings))
        ]

    def _writer(self, ask: Ask) -> Writer:
        return Writer(self.model.tokenizer, ask.prompt, ask.stop, skips_space=ask.skips_space)

    def _take(self, rows: Sequence[Row]) -> None:
        with self._changed:
            if self._end_at < _FOREVER:
                raise EngineError("ending", "the server is ending")
            if len(self._waiting) + len(rows) > self.limits.most_waiting:
                raise EngineError("full", f"{len(self._waiting)} answers wait already; ask again in a moment")
            self._waiting.extend(rows)
            self._counters.n_asked += len(rows)
            self._changed.notify()

    def _leave(self, rows: Sequence[Row]) -> None:
        with self._changed:
            for row in rows:
                row.is_cancelled = True
            self._changed.notify()

    # --- in the worker

    def _work(self) -> None:
        while True:
            with self._changed:
                while not (self._waiting or self._cohorts or self._is_closed):
                    self._changed.wait()
                if self._is_closed and not self._waiting and not self._cohorts:
                    return
            told: Told = {}
            try:
                self._round(told)
            except (
                Exception
            ) as error:  # no fault of a request: those that were running end, and the next ones are answered
                _LOG.exception("a round of the engine failed")
                self._fail_all(error, told)
            deliver(told)

    def _round(self, told: Told) -> None:
        self._sweep(told)
        new = self._admit()
        self._in_hand = [*(row for cohort in self._cohorts for row in cohort.rows), *new]
        if new:
            self._advance(self._begun(new, told), told)
        with self._changed:
            self._cohorts = joined(self._cohorts)
        outcomes = []
        for cohort in list(self._cohorts):
            outcomes += self._stepped(cohort, told)
        self._advance(outcomes, told)

    def _sweep(self, told: Told) -> None:
        """Those who are cancelled, late, or cut leave."""
        now = time.monotonic()
        with self._changed:
            is_ending, is_over = self._end_at < _FOREVER, now >= self._end_at
            waiting, self._waiting = self._waiting, deque()
            for row in waiting:
                if not self._gone(row, now, told, is_cut=is_ending):
                    self._waiting.append(row)
            for cohort in self._cohorts:
                cohort.keep([row for row in cohort.rows if not self._gone(row, now, told, is_cut=is_over)])
            self._cohorts = [cohort for cohort in self._cohorts if cohort.rows]

    def _gone(self, row: Row, now: float, told: Told, *, is_cut: bool) -> bool:
        if row.is_cancelled:
            self._counters.n_cancelled += not row.is_done
            return True
        if is_cut:
            self._fail(row, EngineError("ending", "the server is ending; this answer was cut"), told)
        elif now > row.until:
            seconds = row.ask.most_seconds or 0.0
            self._fail(row, EngineError("late", f"not done in {seconds:g} s; ask for fewer tokens"), told)
        return row.is_done

    def _admit(self) -> list[Row]:
        """Those of the queue, in order, for whom there is room now."""
        with self._changed:
            rows = [row for cohort in self._cohorts for row in cohort.rows]
            n_rows, n_tokens = len(rows), sum(row.n_most for row in rows)
            new: list[Row] = []
            longest = 0
            while self._waiting:
                row = self._waiting[0]
                longest = max(longest, len(row.ask.prompt))
                is_full = n_rows + len(new) >= self.limits.most_rows
                is_long = n_tokens + row.n_most > self.limits.most_tokens
                is_much = longest * (len(new) + 1) > self.limits.prefill_tokens
                if is_full or ((n_rows or new) and is_long) or (new and is_much):
                    break
                new.append(self._waiting.popleft())
                n_tokens += row.n_most
            return new

    def _begun(self, rows: Sequence[Row], told: Told) -> list[tuple[Cohort, Outcome]]:
        """Rows at their first token, or at all that they have so far. Who fails does so alone."""
        try:
            with self._alone:
                begun = [Cohort.begin(self.model, rows)]
        except Exception as error:  # whatever one of them asked for, it is not to cost the others theirs
            if len(rows) == 1:
                self._fail(rows[0], error, told)
                return []
            begun = [one for row in rows for one in self._begun([row], told)]
        else:
            self._count(rows, n_prompt=sum(len(row.ask.prompt) for row in rows if not row.chosen))
            with self._changed:
                self._cohorts += [cohort for cohort, _ in begun]
        return begun

    def _stepped(self, cohort: Cohort, told: Told) -> list[tuple[Cohort, Outcome]]:
        """One token on. Where some row's interventions fail, a half-run cache is nobody's: each begins again alone."""
        try:
            with self._alone:
                outcome = cohort.step()
        except Exception as error:  # as in _begun
            with self._changed:
                self._cohorts.remove(cohort)
            if len(cohort.rows) == 1:
                self._fail(cohort.rows[0], error, told)
                return []
            for row in cohort.rows:
                row.begin_again()
            self._counters.n_rescued += len(cohort.rows)
            return [one for row in cohort.rows for one in self._begun([row], told)]
        self._count(cohort.rows)
        return [(cohort, outcome)]

    def _count(self, rows: Sequence[Row], n_prompt: int = 0) -> None:
        self._counters.n_passes += 1
        self._counters.n_rows_run += len(rows)
        self._counters.n_prompt_tokens += n_prompt

    def _advance(self, outcomes: Sequence[tuple[Cohort, Outcome]], told: Told) -> None:
        """Everyone's next token, from what the passes gave."""
        for cohort, outcome in outcomes:
            is_bad = torch.isnan(outcome.logits).any(dim=-1).tolist()
            for row, stamp, values, bad in zip(cohort.rows, outcome.stamps, outcome.values, is_bad, strict=True):
                if bad:
                    self._fail(row, NumericsError("logits: NaN; an intervention is too strong"), told)
                    continue
                self._counters.n_moved_tokens += stamp.n_moved
                with self._failing_alone(row, told):
                    self._tell(row, row.ran(stamp, values), told)
            going = [place for place, row in enumerate(cohort.rows) if not row.is_done]
            rows = [cohort.rows[place] for place in going]
            if rows:
                logits = outcome.logits if len(rows) == len(cohort.rows) else outcome.logits[going]
                for row, (token, likelihood) in zip(rows, chosen(rows, logits), strict=True):
                    self._counters.n_written_tokens += 1
                    with self._failing_alone(row, told):
                        self._tell(row, row.chose(token, likelihood), told)
            cohort.keep([row for row in cohort.rows if not row.is_done])
        with self._changed:
            self._cohorts = [cohort for cohort in self._cohorts if cohort.rows]

    def _tell(self, row: Row, events: Sequence[Event], told: Told) -> None:
        told.setdefault(row.stream, []).extend(events)
        for event in events:
            if isinstance(event, Ended):
                self._counters.n_stopped += event.reason == "stop"
                self._counters.n_at_length += event.reason == "length"

    def _fail(self, row: Row, error: Exception, told: Told) -> None:
        row.is_done = True
        self._counters.n_failed += 1
        if not isinstance(error, MoholeError):
            _LOG.error("a row of the engine failed", exc_info=error)
        told.setdefault(row.stream, []).append(error)

    def _fail_all(self, error: Exception, told: Told) -> None:
        with self._changed:
            self._cohorts = []
        for row in self._in_hand:
            if not row.is_done:
                self._fail(row, error, told)

    @contextmanager
    def _failing_alone(self, row: Row, told: Told) -> Iterator[None]:
        try:
            yield
        except MoholeError as error:
            self._fail(row, error, told)


def end_tokens(model: LanguageModel) -> frozenset[int]:
    """Those that end a text: the tokenizer's, and those that the model's makers list beside it (a chat model has several)."""
    listed = getattr(getattr(model.hf, "generation_config", None), "eos_token_id", None)
    ids = listed if isinstance(listed, list) else [listed]
    return frozenset(each for each in (*ids, model.tokenizer.eos_id) if isinstance(each, int))
