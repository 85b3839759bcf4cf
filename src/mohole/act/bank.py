"""The terms of all rows of a batch at one hookpoint, applied together. Rows in, rows out; knows no model and counts nothing.

Axes: N row of a pass (batch, then position), B batch, P position, T term, K reading, D columns. A row of the batch that does not
have a term has False in `own_BT` there. On the CPU compiled loops do it (`kernels.few`); elsewhere, under gradients, and where a
row has many terms, a few of torch's products.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mohole.act.terms import LatentReading, Plan, Reading, Term
from mohole.act.where import Where
from mohole.dictionary import NormalisedAutoencoder
from mohole.dictionary.readout import Readout, readout
from mohole.errors import StageError
from mohole.kernels.few import FewLatents, LatentLoop, Movements, ReadAndMove, is_few, is_in_one_thread, is_looped
from mohole.model.hooks import demand_finite

_MOST_TERMS = 64
"""Terms of a row, in the mean, up to which a loop is faster than a product."""


@dataclass(frozen=True)
class _Readings:
    """Numbers that are read together: latents of one layer, or projections on directions of one hookpoint."""

    reads: tuple[str, ...]
    own: "Readout | _Projections"
    columns: slice
    """Where they stand among all that a bank reads."""

    def of(self, seen: Mapping[str, Tensor], wanted_NK: np.ndarray | None) -> Tensor:
        """[N, K of these], of rows of each hookpoint [N, D] in float32; `wanted_NK` is of all that the bank reads."""
        rows = seen[self.reads[0]] if len(self.reads) == 1 else torch.cat([seen[name] for name in self.reads], dim=-1)
        wanted = None if wanted_NK is None else np.ascontiguousarray(wanted_NK[:, self.columns])
        return self.own(rows, wanted).to(rows.device, torch.float32)


@dataclass(frozen=True)
class _Projections:
    """x.v + bias of rows x at one hookpoint, for several v. Read as a `Readout` is."""

    directions: Float[Tensor, "d reading"]
    bias: Float[Tensor, " reading"]
    normalises_rows: ClassVar[bool] = False

    def __call__(self, rows: Tensor, wanted_NK: np.ndarray | None = None) -> Tensor:
        loop = self.loop(wanted_NK) if is_looped(rows) else None
        return torch.addmm(self.bias, rows, self.directions) if loop is None else loop(rows, wanted_NK)

    def loop(self, wanted_NK: np.ndarray | None = None) -> FewLatents | None:
        return self._loop if is_looped(self.directions) and is_few(len(self.bias), wanted_NK) else None

    @cached_property
    def _loop(self) -> FewLatents:
        directions, bias = self.directions.T.contiguous().numpy(), self.bias.numpy()
        coefficients = np.stack([np.zeros_like(bias), np.full_like(bias, -math.inf), np.ones_like(bias), bias])
        origin = np.zeros(directions.shape[1], np.float32)
        return FewLatents(directions, origin, coefficients, np.float32(-math.inf))


class Bank:
    """One group of terms of every row, at one hookpoint."""

    def __init__(self, hookpoint: str, groups: Sequence[Sequence[Term]], device: torch.device) -> None:
        """Args: groups: the terms of each row of the batch; of a single one, those of all rows."""
        self.hookpoint = hookpoint
        terms, own_BT = _distinct(groups)
        self.own_BT = None if own_BT.all() else torch.from_numpy(own_BT)[:, None].to(device)
        self.nothing = torch.zeros((), device=device)  # of a plain number, torch.where makes a tensor each time
        self.readings, columns = _gathered(terms, device)
        read_at = [columns.get(id(term.read)) for term in terms]
        when_at = [columns.get(id(term.when[0])) if term.when else None for term in terms]
        n_columns = len(set(columns.values()))
        self.wanted_BK = None if self.own_BT is None else _wanted(own_BT, read_at, when_at, n_columns)
        self.read_T, self.when_T = _columns(read_at, device), _columns(when_at, device)
        # Term t reads column t, so nothing is gathered.
        self.is_in_order = read_at == list(range(n_columns))
        numbers = [
            (term.constant, term.slope, term.low, term.high, term.when[1] if term.when else -math.inf) for term in terms
        ]
        parts = torch.tensor(numbers, dtype=torch.float32, device=device).T
        self.constant_T, self.slope_T, self.low_T, self.high_T, self.above_T = parts
        self.has_slope = bool((self.slope_T != 0).any())
        self.has_bounds = bool((self.low_T > -math.inf).any() or (self.high_T < math.inf).any())
        self.by_norm_T = torch.tensor([term.by_norm for term in terms], device=device)
        self.has_norm = bool(self.by_norm_T.any())
        self.scales = _scales(terms, device)
        self.along_TD = torch.stack([term.along.to(device, torch.float32) for term in terms])
        self.width = self.along_TD.shape[1]
        self.wheres = list(dict.fromkeys(term.where for term in terms))
        self.where_T = torch.tensor([self.wheres.index(term.where) for term in terms], device=device)
        self.movements: Movements | None = None
        self.only_loop: LatentLoop | None = None
        self._last_at_once: ReadAndMove | None = None  # most passes are as the one before
        if is_looped(self.along_TD) and own_BT.sum() <= _MOST_TERMS * len(own_BT):
            at = np.array([[-1 if column is None else column for column in each] for each in (read_at, when_at)])
            self.movements = Movements(at, parts.contiguous().numpy(), self.along_TD.detach().numpy())
            self.only_loop = _only_loop(self.readings, hookpoint, self.wanted_BK)

    def act(
        self, rows: Tensor, seen: Mapping[str, Tensor], masks: Mapping[Where, Tensor | None] | None
    ) -> tuple[Tensor, Tensor]:
        """(rows with the group's terms applied, which of them moved [B, P]). What does not move keeps its bits.

        Args:
            rows: [B, P, D] in float32.
            seen: rows of hookpoints that have run before, [N, D] by name.
            masks: [B, P], for each `Where` of the group; None, of one or of all: everywhere.

        Raises:
            StageError: rows of another width than the terms.
            NumericsError: a row that moves becomes NaN or infinite.
        """
        if rows.shape[-1] != self.width:
            raise StageError(
                f"{self.hookpoint}: rows of {rows.shape[-1]} numbers, and the plan is for rows of {self.width}; make it for "
                "this model"
            )
        at_once = self._at_once(rows, masks)
        moved, has_moved, are_finite = (*self._in_parts(rows, seen, masks), False) if at_once is None else at_once(rows)
        if not are_finite:  # or nobody has looked
            demand_finite(self.hookpoint, moved, has_moved)
        return moved, has_moved

    def _in_parts(
        self, rows: Tensor, seen: Mapping[str, Tensor], masks: Mapping[Where, Tensor | None] | None
    ) -> tuple[Tensor, Tensor]:
        """What is read, then what is moved, by a loop or by products."""
        factor, held = self._factor(rows), self.own_BT if masks is None else self._held(masks)
        movements = self.movements if is_looped(rows) else None
        flat, found = rows.reshape(-1, rows.shape[-1]), self._found(rows, seen)
        if movements is not None and (found is None or is_looped(found)):
            return movements(rows, found, factor, held)
        movement_NT = self._movement(len(flat), found, factor)
        if held is not None:
            movement_BPT = movement_NT.view(*rows.shape[:2], -1)
            movement_NT = torch.where(held, movement_BPT, self.nothing).view_as(movement_NT)
        moved = torch.addmm(flat, movement_NT, self.along_TD)
        has_moved = (movement_NT != 0).any(dim=-1, keepdim=True)
        return torch.where(has_moved, moved, flat).view(rows.shape), has_moved.view(rows.shape[:2])

    def _at_once(self, rows: Tensor, masks: Mapping[Where, Tensor | None] | None) -> ReadAndMove | None:
        """The one loop that does all of it; None: there is none for such rows."""
        last = self._last_at_once
        if last is not None and masks is None and last.takes(rows):
            return last
        n_rows = rows.shape[0] * rows.shape[1]
        if self.movements is None or self.only_loop is None or not (is_looped(rows) and is_in_one_thread(n_rows)):
            return None
        if not self.only_loop.settles(n_rows):
            return None
        factor, held = self._factor(rows), self.own_BT if masks is None else self._held(masks)
        found = self.movements.after_reading(self.only_loop, rows.shape, self._wanted_of(n_rows), factor, held)
        if factor is None and masks is None:
            self._last_at_once = found
        return found

    def _wanted_of(self, n_rows: int) -> np.ndarray | None:
        """[N, K]: what is read of each row of a pass; None: all of every row."""
        wanted = self.wanted_BK
        if wanted is None or len(wanted) == n_rows:
            return wanted
        return np.repeat(wanted, n_rows // len(wanted), axis=0)

    def _found(self, rows: Tensor, seen: Mapping[str, Tensor]) -> Tensor | None:
        """[N, K], of rows [B, P, D]; None: nothing is read."""
        if not self.readings:
            return None
        flat = rows.reshape(-1, rows.shape[-1])
        here, wanted = {**seen, self.hookpoint: flat}, self._wanted_of(len(flat))
        parts = [each.of(here, wanted) for each in self.readings]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)

    def _factor(self, rows: Tensor) -> Tensor | None:
        """[N, T]: how long one unit of each term is; None: 1."""
        if not self.has_norm and not self.scales:
            return None
        flat = rows.reshape(-1, rows.shape[-1])
        factor = torch.where(self.by_norm_T, flat.norm(dim=-1, keepdim=True), 1.0)
        for dictionary, is_scaled in self.scales:
            factor = torch.where(is_scaled, factor * dictionary.scale_of(flat), factor)
        return factor

    def _movement(self, n_rows: int, found: Tensor | None, factor: Tensor | None) -> Tensor:
        """[N, T]: how far each term moves each row."""
        movement: Tensor = self.constant_T.expand(n_rows, -1)
        if self.read_T is not None and found is not None:
            read = found if self.is_in_order else found[:, self.read_T]
            if self.has_slope:
                movement = torch.addcmul(self.constant_T, self.slope_T, read)
            if self.has_bounds:
                movement = movement + (torch.maximum(torch.minimum(read, self.high_T), self.low_T) - read)
        if factor is not None:
            movement = movement * factor
        if self.when_T is not None and found is not None:
            movement = torch.where(found[:, self.when_T] > self.above_T, movement, self.nothing)
        return movement

    def _held(self, masks: Mapping[Where, Tensor | None]) -> Tensor | None:
        """Which terms act where: [B, P, T], or what spreads to that; None: all do everywhere. Chosen by, not multiplied with: a
        term that is infinite at another's row, or outside of its own window, times 0 is NaN."""
        several = [masks[where] for where in self.wheres]
        there = [mask for mask in several if mask is not None]
        if not there:
            return self.own_BT
        if len(several) == 1:
            held = there[0][..., None]
        else:
            everywhere = torch.ones_like(there[0])
            held = torch.stack([everywhere if mask is None else mask for mask in several], dim=-1)[..., self.where_T]
        return held if self.own_BT is None else held & self.own_BT


def banks_of(plans: Sequence[Plan], device: torch.device) -> dict[str, tuple[Bank, ...]]:
    """For each hookpoint that some row acts at the groups in their order: the rows' first groups together, then their second.

    Args:
        plans: of each row of a batch; a single one is that of all rows.
    """
    keys = [_key(plan) for plan in plans]
    by_key = dict(zip(keys, plans, strict=True))  # they do the same: many requests of one variant are one plan
    plans = list(by_key.values()) if len(by_key) == 1 else [by_key[key] for key in keys]
    found: dict[str, tuple[Bank, ...]] = {}
    for hookpoint in dict.fromkeys(name for plan in plans for name in plan.stages):
        most = max(len(plan.stages.get(hookpoint, ())) for plan in plans)
        found[hookpoint] = tuple(
            Bank(hookpoint, [_group(plan, hookpoint, number) for plan in plans], device) for number in range(most)
        )
    return found


def _key(plan: Plan) -> tuple[object, ...]:
    """A plan's own, and the dictionaries it reads: its key knows of those the latent's numbers, not TopK's other latents."""
    readings = [reading for term in plan.terms for reading in term.readings if isinstance(reading, LatentReading)]
    return plan.key, *dict.fromkeys(id(reading.dictionary) for reading in readings)


def _group(plan: Plan, hookpoint: str, number: int) -> tuple[Term, ...]:
    groups = plan.stages.get(hookpoint, ())
    return groups[number] if number < len(groups) else ()


def _distinct(groups: Sequence[Sequence[Term]]) -> tuple[list[Term], np.ndarray]:
    """The terms of all rows, each once; and which of them each row has, [B, T]."""
    terms = list({id(term): term for group in groups for term in group}.values())
    place = {id(term): i for i, term in enumerate(terms)}
    own_BT = np.zeros((len(groups), len(terms)), np.bool_)
    for row, group in enumerate(groups):
        own_BT[row, [place[id(term)] for term in group]] = True
    return terms, own_BT


def _scales(terms: Sequence[Term], device: torch.device) -> list[tuple[NormalisedAutoencoder, Tensor]]:
    """Each dictionary whose scale of a row is the unit of some terms, and which terms these are, [T]."""
    dictionaries = {id(term.scaled_by): term.scaled_by for term in terms if term.scaled_by is not None}
    return [
        (dictionary, torch.tensor([term.scaled_by is dictionary for term in terms], device=device))
        for dictionary in dictionaries.values()
    ]


def _gathered(terms: Sequence[Term], device: torch.device) -> tuple[list[_Readings], dict[int, int]]:
    """Everything that the terms read, by what can be read together; and the column of each reading (by its id)."""
    together: dict[tuple[object, ...], dict[object, list[Reading]]] = {}
    for reading in (reading for term in terms for reading in term.readings):
        if isinstance(reading, LatentReading):
            kind: tuple[object, ...] = (id(reading.dictionary), reading.place.layer, reading.hookpoints)
            together.setdefault(kind, {}).setdefault(reading.place.latent, []).append(reading)
        else:
            together.setdefault(("projection", reading.hookpoint), {}).setdefault(id(reading), []).append(reading)
    readings: list[_Readings] = []
    columns: dict[int, int] = {}
    n_columns = 0
    for same in together.values():
        firsts = [several[0] for several in same.values()]
        readings.append(_made_ready(firsts, slice(n_columns, n_columns + len(firsts)), device))
        for column, several in enumerate(same.values(), start=n_columns):
            columns |= {id(reading): column for reading in several}
        n_columns += len(firsts)
    return readings, columns


def _made_ready(firsts: Sequence[Reading], columns: slice, device: torch.device) -> _Readings:
    first = firsts[0]
    if isinstance(first, LatentReading):
        latents = [each.place.latent for each in firsts if isinstance(each, LatentReading)]
        return _Readings(first.hookpoints, readout(first.dictionary, first.place.layer, latents, device), columns)
    projections = [each for each in firsts if not isinstance(each, LatentReading)]
    directions = torch.stack([each.vector.to(device, torch.float32) for each in projections], dim=1)
    bias = torch.tensor([each.bias for each in projections], dtype=torch.float32, device=device)
    return _Readings(first.hookpoints, _Projections(directions, bias), columns)


def _columns(places: Sequence[int | None], device: torch.device) -> Tensor | None:
    """Where each term's reading stands; what reads nothing points anywhere, for its slope is 0. None: nothing reads."""
    if all(place is None for place in places):
        return None
    return torch.tensor([place or 0 for place in places], device=device)


def _wanted(
    own_BT: np.ndarray, read_at: Sequence[int | None], when_at: Sequence[int | None], n_columns: int
) -> np.ndarray:
    """[B, K]: which readings the terms of each row ask for."""
    wanted = np.zeros((len(own_BT), n_columns), np.bool_)
    for places in (read_at, when_at):
        for term, at in enumerate(places):
            if at is not None:
                wanted[:, at] |= own_BT[:, term]
    return wanted


def _only_loop(readings: Sequence[_Readings], hookpoint: str, wanted_BK: np.ndarray | None) -> LatentLoop | None:
    """The one loop that reads all that a bank reads, of plain rows of its own hookpoint; None: there is no such loop."""
    if len(readings) != 1 or readings[0].reads != (hookpoint,):
        return None
    own = readings[0].own
    return None if own.normalises_rows else own.loop(wanted_BK)
