"""What interventions did to the rows inside the model, measured: against the formula by another way, and what is read back.

The other way: every dictionary encodes whole rows, each term is worked out alone in float64, one row of the batch at a time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mohole.act.interventions import Ablate, Clamp
from mohole.act.steering import Steered
from mohole.act.terms import LatentReading, Reading, Term
from mohole.act.where import TokenClasses, mask
from mohole.dictionary import CrossLayerTranscoder
from mohole.model import Edit, PassTokens

Tokens = Int[Tensor, "batch position"]


@dataclass(frozen=True, slots=True)
class Check:
    """What was done to the rows of one hookpoint."""

    hookpoint: str
    n_rows: int
    """Begin-of-text tokens not counted."""
    row_error: float
    """Largest distance of a row from where the formula puts it, relative to the longest row: rounding, or it is not exact."""
    reads_back: float | None
    """Of clamps and ablations, the share of (row, latent) pairs where encoding x' reads c again within 5 %. Less than 1 is no
    error: see interventions.py. None: nothing that is clamped is read here."""


def check(steered: Steered, tokens: Tokens, *, n_prompt: Sequence[int] | None = None) -> tuple[Check, ...]:
    """Measure in the model, for each hookpoint that is acted at, how exactly rows moved and how often latents read c again."""
    model, names = steered.model, steered.hookpoints
    watches = {name: _Watch() for name in names}
    watching = [Edit(name, watch.change) for name, watch in watches.items()]
    given = model.given(tokens, n_prompt=n_prompt)
    after = {
        name: rows.float().cpu()
        for name, rows in model.read(tokens, names, [*watching, steered], n_prompt=n_prompt).items()
    }
    before = {name: watch.rows.float().cpu() for name, watch in watches.items()}
    return tuple(_compared(steered, name, given, before[name], after) for name in names if name in steered.banks)


def _compared(steered: Steered, name: str, given: PassTokens, before: Tensor, after: Mapping[str, Tensor]) -> Check:
    worst, longest, n_rows, reads = 0.0, 0.0, 0, []
    classes = TokenClasses(lambda: steered.model.tokenizer, steered.model.vocab_size)
    for row in range(len(before)):
        plan = steered.plans[row if len(steered.plans) > 1 else 0]
        seen = {at: rows[row] for at, rows in after.items()}
        expected = before[row].double()
        for group in plan.stages.get(name, ()):
            here = {**seen, name: expected.float()}
            moves = [_movement(term, here) * mask(term.where, given, classes)[row].cpu() for term in group]
            ways = torch.stack([term.along.cpu().double() for term in group])
            expected = expected + torch.stack(moves, dim=1) @ ways
        first = given.begins[row]
        worst = max(worst, float((after[name][row].double() - expected).norm(dim=1).max()))
        longest = max(longest, float(after[name][row].double().norm(dim=1).max()))
        n_rows += before.shape[1] - first
        for term in (term for group in plan.stages.get(name, ()) for term in group):
            found = _read_again(term, seen, mask(term.where, given, classes)[row].cpu())
            reads += [] if found is None else found
    return Check(name, n_rows, worst / max(longest, 1e-30), sum(reads) / len(reads) if reads else None)


def _movement(term: Term, rows: Mapping[str, Tensor]) -> Float[Tensor, " position"]:
    """How far each position moves along the term's vector, where it acts."""
    own = rows[term.hookpoint]
    movement = torch.full((len(own),), term.constant, dtype=torch.float64)
    if term.read is not None:
        read = _read(term.read, rows)
        movement = movement + term.slope * read + (read.clamp(term.low, term.high) - read)
    if term.by_norm:
        movement = movement * own.double().norm(dim=1)
    if term.scaled_by is not None:
        movement = movement * term.scaled_by.scale_of(own)[:, 0]
    if term.when is not None:
        reading, bound = term.when
        movement = torch.where(_read(reading, rows) > bound, movement, 0.0)
    return movement


def _read(reading: Reading, rows: Mapping[str, Tensor]) -> Float[Tensor, " position"]:
    taken = torch.cat([rows[name] for name in reading.hookpoints], dim=1)
    if not isinstance(reading, LatentReading):
        return taken.double() @ reading.vector.cpu().double() + reading.bias
    dictionary = reading.dictionary
    if isinstance(dictionary, CrossLayerTranscoder):
        codes = dictionary.layers[reading.place.layer].encode(taken)
    else:
        codes = dictionary.encode(taken)
    return codes.column(reading.place.latent).double()


def _read_again(term: Term, after: Mapping[str, Tensor], held: Tensor) -> list[bool] | None:
    """At the positions where a clamp held its latent, does it read what it was held at? None: no clamp, or read elsewhere."""
    if not isinstance(term.of, Clamp | Ablate) or term.read is None or term.hookpoint not in term.read.hookpoints:
        return None
    if term.when is not None:
        held = held & (_read(term.when[0], after) > term.when[1])
    left = (_read(term.read, after) - term.constant).abs()
    within: list[bool] = (left <= 0.05 * max(abs(term.constant), 1e-6))[held].tolist()
    return within


@dataclass
class _Watch:
    """Keeps the rows that came before, and passes them on."""

    rows: Tensor = field(default_factory=lambda: torch.empty(0))

    def change(self, rows: Float[Tensor, "batch position d"], first_position: int) -> Float[Tensor, "batch position d"]:
        self.rows = rows.clone()
        return rows
