"""A model with latents clamped: generating, reading logits, and the proof that every token was really edited.

A begin-of-text token is left as it is: no dictionary was trained on its row, so its code there means nothing, and on many models
its row is an anchor for attention. (Measured on the built-in model: clamping it too costs the answer in German at 2 x maximum.)
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mohole.act.clamp import Clamp, Maxima, resolve
from mohole.dictionary import Dictionary
from mohole.dictionary.clamped import ClampedLatents
from mohole.errors import StageError
from mohole.model import Edit, EditTally, LanguageModel

Tokens = Int[Tensor, "batch position"]


@dataclass(frozen=True, slots=True)
class Continuation:
    """A steered text, with the count that proves it. The last token written is never run, so it is not counted."""

    tokens: Int[Tensor, "batch longer"]
    n_tokens: int
    """Tokens of text that the model ran: sequences x (positions - 1), a begin-of-text token not counted."""
    n_fired: int
    """Tokens at which the clamp fired. Equal to `n_tokens`, or there is a StageError instead of a continuation."""


@dataclass(frozen=True, slots=True)
class Check:
    """What a clamp did to the rows, measured inside the model at one hookpoint."""

    hookpoint: str
    n_rows: int
    row_error: float
    """Largest |x' - x - s(x) sum (c - f) d|, relative to the largest |x'|: 0 up to rounding, or the clamp is not exact."""
    reads_back: float
    """Share of (row, latent) pairs at which encoding x' reads c again within 5 %. Less than 1 is not an error: see clamp.py."""


@dataclass(frozen=True)
class Steered:
    """A model whose latents are held. `edits` also work with any of the model's own methods, without the counting."""

    model: LanguageModel
    held: tuple[ClampedLatents, ...]

    @property
    def edits(self) -> tuple[Edit, ...]:
        """One edit per hookpoint, for `model.generate(..., edits=...)`. A later hookpoint's codes see the earlier edits.

        Where the model has a begin-of-text token, position 0 is taken to hold it and left alone.
        """
        return _edits(self._clampings(n_left=0 if self.model.bos_id is None else 1))

    def generate(self, tokens: Tokens, **options: Any) -> Continuation:
        """`model.generate` with the clamps at every token of every step. `options` are that method's.

        Raises:
            StageError: the clamp did not fire for every token, so the text must not be called steered.
        """
        n_left = self._n_left(tokens)
        clampings, tally = self._clampings(n_left), EditTally()
        written = self.model.generate(tokens, edits=_edits(clampings), tally=tally, **options)
        n_positions = written.shape[1] - 1 if written.shape[1] > tokens.shape[1] else 0
        for clamping in clampings:
            clamping.demand_all(n_positions, tally.n_rows)
        n_tokens = written.shape[0] * max(0, n_positions - n_left)
        return Continuation(written, n_tokens, min(clamping.n_tokens for clamping in clampings))

    def logits(self, tokens: Tokens) -> Float[Tensor, "batch position vocab"]:
        """Next-token logits with the clamps at every token.

        Raises:
            StageError: the clamp did not fire for every token.
        """
        clampings = self._clampings(self._n_left(tokens))
        logits = self.model.logits(tokens, edits=_edits(clampings))
        for clamping in clampings:
            clamping.demand_all(tokens.shape[1], tokens.numel())
        return logits

    def check(self, tokens: Tokens) -> tuple[Check, ...]:
        """Measure in the model, for each hookpoint, how exactly the rows moved and how often the latents read c again."""
        hookpoints = [group.dictionary.hookpoint for group in self.held]
        watches, n_left = [_Watch() for _ in self.held], self._n_left(tokens)
        edits = [
            edit
            for hookpoint, watch, clamp in zip(hookpoints, watches, _edits(self._clampings(n_left)), strict=True)
            for edit in (Edit(hookpoint, watch.change), clamp)
        ]
        after = self.model.read(tokens, hookpoints, edits)
        return tuple(
            _compare(group, watch.rows[:, n_left:], after[hookpoint][:, n_left:])
            for hookpoint, watch, group in zip(hookpoints, watches, self.held, strict=True)
        )

    def _n_left(self, tokens: Tokens) -> int:
        """1 where every sequence begins with a begin-of-text token, else 0."""
        bos = self.model.bos_id
        return int(bos is not None and bool((tokens[:, 0] == bos).all()))

    def _clampings(self, n_left: int) -> list["_Clamping"]:
        return [_Clamping(group, n_left) for group in self.held]


def steer(
    model: LanguageModel,
    dictionary: Dictionary | Sequence[Dictionary],
    clamps: Sequence[Clamp],
    *,
    catalogue: Maxima | Sequence[Maxima] = (),
) -> Steered:
    """The model with these latents held: `steer(model, sae, [Clamp(7, times_max=2)], catalogue=c).generate(tokens, ...)`.

    Clamps of one hookpoint act together on the same row; those of a later hookpoint act on what the earlier ones made of it.

    Raises:
        ConfigError: no such latent or dictionary, a latent clamped twice, or `times_max` without a catalogue.
        HookpointError: the model has no such hookpoint.
        StageError: `times_max` of a latent that was never seen active.
    """
    dictionaries = dictionary if isinstance(dictionary, Sequence) else [dictionary]
    catalogues = catalogue if isinstance(catalogue, Sequence) else [catalogue]
    held = resolve(clamps, dictionaries, catalogues)
    for group in held:
        model.canonical(group.dictionary.hookpoint)
    return Steered(model, held)


def _edits(clampings: Sequence["_Clamping"]) -> tuple[Edit, ...]:
    return tuple(Edit(clamping.group.dictionary.hookpoint, clamping.change) for clamping in clampings)


@dataclass
class _Clamping:
    """One edit at work: leaves the first `n_left` positions of the text alone, and counts what it was given."""

    group: ClampedLatents
    n_left: int
    positions: set[int] = field(default_factory=set)
    n_tokens: int = 0
    """Tokens of text edited, each counted once however often its row runs."""
    n_rows: int = 0

    def change(self, rows: Float[Tensor, "batch position d"], first_position: int) -> Float[Tensor, "batch position d"]:
        changed = self.group.change(rows)
        n_left = max(0, self.n_left - first_position)
        changed[:, :n_left] = rows[:, :n_left]
        new = set(range(first_position, first_position + rows.shape[1])) - self.positions
        self.n_tokens += rows.shape[0] * sum(position >= self.n_left for position in new)
        self.positions |= new
        self.n_rows += rows.shape[0] * rows.shape[1]
        return changed

    def demand_all(self, n_positions: int, n_rows: int) -> None:
        """Every position of the text once at least, and every row that the model ran (without a cache, rows run again)."""
        if self.positions != set(range(n_positions)) or self.n_rows != n_rows:
            raise StageError(
                f"{self.group.dictionary.hookpoint}: the clamp fired at {len(self.positions)} of {n_positions} positions "
                f"({self.n_rows} of {n_rows} rows), so the result is not steered; "
                "load the model with its self-test on to check its hookpoints"
            )


@dataclass
class _Watch:
    """Keeps the rows that came before the clamp, and passes them on."""

    rows: Tensor = field(default_factory=lambda: torch.empty(0))

    def change(self, rows: Float[Tensor, "batch position d"], first_position: int) -> Float[Tensor, "batch position d"]:
        self.rows = rows.clone()
        return rows


def _compare(group: ClampedLatents, before: Tensor, after: Tensor) -> Check:
    device = group.values.device
    old, new = (rows.reshape(-1, rows.shape[-1]).to(device=device, dtype=torch.float32) for rows in (before, after))
    expected = group.movement(old).double() @ group.dictionary.directions(group.latents).double()
    error = (new.double() - old.double() - expected).norm(dim=1).max() / new.double().norm(dim=1).max()
    left = group.shift(new).abs()  # c - f(x'): 0 where the latent reads c
    room = 0.05 * group.values.abs().clamp(min=1e-6)
    return Check(group.dictionary.hookpoint, len(old), float(error), float((left <= room).float().mean()))
