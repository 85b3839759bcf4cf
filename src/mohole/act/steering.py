"""A model under interventions: the same for all rows of a batch, or other ones for each.

A begin-of-text token is left as it is, unless an intervention says `bos`: no dictionary was trained on its row, so its code there
means nothing, and on many models its row is an anchor for attention. (Measured on the built-in model: clamping it too costs the
answer in German at 2 x maximum.)
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from types import TracebackType
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mohole.act.bank import Bank, banks_of
from mohole.act.interventions import Intervention
from mohole.act.ledger import Ledger, Sight, Stamp
from mohole.act.planning import make_plan
from mohole.act.sources import Maxima, Sources
from mohole.act.terms import NOTHING, Plan
from mohole.act.usable import StrengthWarning
from mohole.act.where import EVERYWHERE, TokenClasses, Where, mask
from mohole.dictionary.readout import Steerable
from mohole.errors import ConfigError, StageError
from mohole.model import Edit, EditTally, LanguageModel, PassEdits, PassTokens, TextCache, parse_hookpoint
from mohole.model.hooks import demand_finite

Tokens = Int[Tensor, "batch position"]
Masks = Mapping[Where, Bool[Tensor, "batch position"] | None]
"""Which tokens each `Where` holds for; None: all."""


@dataclass(frozen=True, slots=True)
class Continuation:
    """A steered text, with the counts that prove it."""

    tokens: Int[Tensor, "batch longer"]
    stamps: tuple[Stamp, ...]
    """One for each row."""

    @property
    def n_tokens(self) -> int:
        """Of all rows."""
        return sum(stamp.n_tokens for stamp in self.stamps)

    @property
    def n_fired(self) -> int:
        """Equal to `n_tokens`, or there is a StageError instead of a continuation."""
        return sum(stamp.n_fired for stamp in self.stamps)


@dataclass(frozen=True, slots=True)
class Stepped:
    """What one pass gave."""

    logits: Float[Tensor, "batch vocab"]
    """After the last token of each row."""
    cache: TextCache
    stamps: tuple[Stamp, ...]
    """Of this pass alone: those of all passes of a text added up are the text's."""


class Steered:
    """A model and what is to be done to each row of a batch. One plan is for every row of any batch.

    Three ways to use it: its own `generate` and `logits`, which count and answer for it; `with steered: ...`, inside which the
    model's own methods run under it; and as one of the `edits` of any of those methods.
    """

    def __init__(self, model: LanguageModel, plans: Sequence[Plan]) -> None:
        """Raises: ConfigError: no plan."""
        if not plans:
            raise ConfigError("steer: no row to steer; give a plan, or one for each row of the batch")
        self.model, self.plans = model, tuple(plans)
        self._inside = ExitStack()
        self._ledger: Ledger | None = None

    @cached_property
    def banks(self) -> dict[str, tuple[Bank, ...]]:
        """What is done at each hookpoint, ready to run."""
        return banks_of(self.plans, self.model.device)

    @cached_property
    def hookpoints(self) -> tuple[str, ...]:
        """Those that are acted at or read, in order of execution."""
        names = {name for plan in self.plans for name in plan.stages}
        names |= {
            name
            for plan in self.plans
            for term in plan.terms
            for reading in term.readings
            for name in reading.hookpoints
        }
        return tuple(sorted(names, key=lambda name: parse_hookpoint(name).execution))

    @cached_property
    def _read_later(self) -> frozenset[str]:
        """Hookpoints whose rows are read by terms that act at another one."""
        terms = [term for plan in self.plans for term in plan.terms]
        read = {(name, term.hookpoint) for term in terms for reading in term.readings for name in reading.hookpoints}
        return frozenset(name for name, hookpoint in read if name != hookpoint)

    @cached_property
    def _needs_prompt(self) -> bool:
        return any(plan.needs_prompt for plan in self.plans)

    @cached_property
    def _own_keys(self) -> tuple[str, ...]:
        return tuple(plan.key for plan in self.plans)

    @cached_property
    def _wheres(self) -> tuple[Where, ...]:
        return tuple(dict.fromkeys(where for banks in self.banks.values() for bank in banks for where in bank.wheres))

    @cached_property
    def _classes(self) -> TokenClasses:
        return TokenClasses(lambda: self.model.tokenizer, self.model.vocab_size)

    @property
    def edits(self) -> tuple["Steered", ...]:
        """For `model.generate(..., edits=...)` and the like. A later hookpoint's codes see the earlier edits."""
        return (self,)

    def of_pass(self, given: PassTokens) -> tuple[Edit, ...]:
        """The edits of one pass over these tokens.

        Raises:
            StageError: a batch of another number of rows than there are plans.
        """
        return self._of_pass(given, self._ledger)

    def keys(self, given: PassTokens) -> tuple[str, ...]:
        """What is done to each row; with the length of its prompt, where that matters."""
        plans = self._for(given)
        if not self._needs_prompt:
            return self._own_keys if len(self.plans) > 1 else self._own_keys * len(plans)
        return tuple(
            f"{plan.key}/{n_prompt}" if plan.needs_prompt else plan.key
            for plan, n_prompt in zip(plans, given.n_prompt, strict=True)
        )

    def _for(self, given: PassTokens) -> tuple[Plan, ...]:
        n = len(given.tokens)
        if len(self.plans) not in (1, n):
            raise StageError(f"steer: plans for {len(self.plans)} rows, and the batch has {n}; give one for each row")
        return self.plans * n if len(self.plans) == 1 else self.plans

    def _of_pass(self, given: PassTokens, ledger: "Ledger | None") -> tuple[Edit, ...]:
        self._for(given)
        state = _Pass(given, self._masks(given), self._read_later, ledger)
        return tuple(
            Edit(name, _At(name, self.banks.get(name, ()), state).change, keeps_nothing=True, is_checked=True)
            for name in self.hookpoints
        )

    def _masks(self, given: PassTokens) -> Masks | None:
        """None: all tokens, whichever the `Where`, as in most passes."""
        # Of every row the first token, which alone may be left out, has run.
        is_past_first = given.first > max(given.padding)
        if is_past_first and self._is_everywhere:
            return None
        return {
            where: None if is_past_first and where == EVERYWHERE else mask(where, given, self._classes)
            for where in self._wheres
        }

    @cached_property
    def _is_everywhere(self) -> bool:
        return all(where == EVERYWHERE for where in self._wheres)

    def __enter__(self) -> "Steered":
        self._inside.enter_context(self.model.under(self))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._inside.close()

    def generate(self, tokens: Tokens, **options: Any) -> Continuation:
        """`model.generate` with the interventions at every token of every step. `options` are that method's.

        Raises:
            StageError: the hooks did not see every token, so the text must not be called steered.
        """
        tally, more = EditTally(), options.pop("edits", ())
        with self._counted() as (edits, ledger):
            written = self.model.generate(tokens, edits=(*edits, *more), tally=tally, **options)
        n_columns = written.shape[1] - 1 if written.shape[1] > tokens.shape[1] else 0
        ledger.demand_all(self.hookpoints, range(n_columns), tally.n_rows)
        return Continuation(written, ledger.stamps(self.plans, self._n_text(tokens, n_columns, options.get("padding"))))

    def logits(self, tokens: Tokens, *, n_prompt: Sequence[int] | None = None) -> Float[Tensor, "batch position vocab"]:
        """Next-token logits with the interventions at every token they are for.

        Args:
            n_prompt: how many of each text's tokens are its prompt; None: all of them.

        Raises:
            StageError: the hooks did not see every token.
        """
        with self._counted() as (edits, ledger):
            logits = self.model.logits(tokens, edits=edits, n_prompt=n_prompt)
        ledger.demand_all(self.hookpoints, range(tokens.shape[1]), tokens.numel())
        return logits

    def step(
        self,
        tokens: Tokens,
        cache: TextCache | None = None,
        *,
        n_prompt: Sequence[int] | None = None,
        padding: Sequence[int] | None = None,
        reads: Sequence[PassEdits] = (),
    ) -> Stepped:
        """`model.step` with the interventions and the proof: one pass of a loop of one's own.

        Args:
            reads: what looks at the rows behind the interventions, such as `Reader`.

        Raises:
            StageError: the hooks did not see every token of the pass.
        """
        ledger, tally = Ledger(), EditTally()
        first = 0 if cache is None else cache.tokens.shape[1]
        logits, after = self.model.step(
            tokens, cache, edits=(_Counted(self, ledger), *reads), tally=tally, n_prompt=n_prompt, padding=padding
        )
        ledger.demand_all(self.hookpoints, range(first, first + tokens.shape[1]), tally.n_rows)
        ran = PassTokens(tokens, first, after.padding, after.n_prompt, after.begins).n_text
        return Stepped(logits, after, ledger.stamps(self.plans, ran))

    def _n_text(self, tokens: Tensor, n_columns: int, padding: Sequence[int] | None) -> list[int]:
        """Of each row the tokens of text among the first columns: neither padding nor begin-of-text."""
        bos, before = self.model.bos_id, list(padding) if padding else [0] * len(tokens)
        begins = [int(bos is not None and int(row[n]) == bos) for row, n in zip(tokens, before, strict=True)]
        return [max(0, n_columns - n - begin) for n, begin in zip(before, begins, strict=True)]

    @contextmanager
    def _counted(self) -> Iterator[tuple[tuple["_Counted", ...], "Ledger"]]:
        """Edits with a ledger of their own; none to add where the model stands under these already: twice would be too much."""
        ledger = Ledger()
        if not self.model.is_under(self):
            yield (_Counted(self, ledger),), ledger
            return
        before, self._ledger = self._ledger, ledger
        try:
            yield (), ledger
        finally:
            self._ledger = before


def steer(
    model: LanguageModel,
    dictionary: Steerable | Sequence[Steerable] | Sequence[Intervention],
    interventions: Sequence[Intervention] | None = None,
    *,
    catalogue: Maxima | Sequence[Maxima] = (),
    sources: Sources | None = None,
) -> Steered:
    """The model under interventions, in the order of the list (see `make_plan`), on every row alike.

        steer(model, sae, [Clamp(7, times_max=2)], catalogue=catalogue).generate(tokens, max_new_tokens=20)
        with steer(model, [Clamp(7, times_max=2)], sources=Sources.of_run("runs/demo", ["resid_post.1"])):
            model.generate(tokens, max_new_tokens=20)

    Args:
        dictionary: what the interventions' latents are of; left out where `sources` has it, or nothing is of a latent.

    Raises:
        ConfigError, HookpointError, StageError: as `make_plan`.

    Warns:
        StrengthWarning: a clamp outside of the range that a sweep of the run found usable.
    """
    if interventions is None:
        listed: Sequence[Any] = dictionary if isinstance(dictionary, Sequence) else [dictionary]
        dictionaries: Sequence[Any] = ()
    else:
        listed = interventions
        dictionaries = dictionary if isinstance(dictionary, Sequence) else [dictionary]
    if wrong := [each for each in listed if not isinstance(each, Intervention)]:
        raise ConfigError(
            f"steer: {type(wrong[0]).__name__} is no intervention; give a list such as [Clamp(7, times_max=2)]"
        )
    if sources is not None and dictionaries:
        raise ConfigError("steer: give dictionaries, or sources that have them, not both")
    catalogues = catalogue if isinstance(catalogue, Sequence) else [catalogue]
    found = Sources.of(dictionaries, catalogues) if sources is None else sources
    for objection in found.objections(listed):
        warnings.warn(objection, StrengthWarning, stacklevel=2)
    return Steered(model, [make_plan(model, listed, found)])


def steer_rows(model: LanguageModel, plans: Sequence[Plan | None]) -> Steered:
    """The model with a plan for each row of a batch; None: nothing is done to that row."""
    return Steered(model, [NOTHING if plan is None else plan for plan in plans])


@dataclass
class _Pass:
    """What the edits of one pass share."""

    given: PassTokens
    masks: Masks | None
    read_later: frozenset[str]
    ledger: "Ledger | None"
    seen: dict[str, Tensor] = field(default_factory=dict)
    """Rows [batch and position, d] by hookpoint as they left it, in float32, of those that are read later."""


@dataclass
class _At:
    """The edit at one hookpoint in one pass."""

    name: str
    banks: tuple[Bank, ...]
    state: _Pass

    def change(self, rows: Float[Tensor, "batch position d"], first_position: int) -> Float[Tensor, "batch position d"]:
        state = self.state
        exact = rows if rows.dtype is torch.float32 else rows.float()
        moved = None
        for bank in self.banks:
            exact, has_moved = bank.act(exact, state.seen, state.masks)
            moved = has_moved if moved is None else moved | has_moved
        if self.name in state.read_later:
            state.seen[self.name] = exact.reshape(-1, exact.shape[-1]).clone()
        if state.ledger is not None:
            state.ledger.add(self.name, Sight(state.given, rows.shape[0] * rows.shape[1], moved))
        if rows.dtype is torch.float32:
            return exact
        changed = exact.to(rows.dtype)
        if moved is not None:
            demand_finite(self.name, changed, moved)  # what a float32 holds may be too large for it
        return changed


class _Counted:
    """Steering with a ledger of its own, for one text."""

    def __init__(self, steered: Steered, ledger: Ledger) -> None:
        self.steered, self.ledger = steered, ledger

    def of_pass(self, given: PassTokens) -> tuple[Edit, ...]:
        return self.steered._of_pass(given, self.ledger)

    def keys(self, given: PassTokens) -> tuple[str, ...]:
        return self.steered.keys(given)
