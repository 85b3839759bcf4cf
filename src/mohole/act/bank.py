"""The terms of all rows of a batch at one hookpoint, as a few products. Rows in, rows out; knows no model and counts nothing.

Axes: N row of a pass (batch, then position), B batch, P position, T term, K reading, D columns. A row of the batch that does not
have a term has False in `own_BT` there. A pass of 16 tokens through a small model takes 3 ms, and thirty operations on a few
numbers a tenth of that, so they are few here.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mohole.act.terms import LatentReading, Plan, Reading, Term
from mohole.act.where import Where
from mohole.dictionary import NormalisedAutoencoder
from mohole.dictionary.readout import Readout, readout


@dataclass(frozen=True)
class _Readings:
    """Numbers that are read together: latents of one layer, or projections on directions of one hookpoint."""

    reads: tuple[str, ...]
    own: Readout | tuple[Tensor, Tensor]

    def of(self, seen: Mapping[str, Tensor]) -> Tensor:
        """[N, K], of rows of each hookpoint [N, D] in float32."""
        rows = seen[self.reads[0]] if len(self.reads) == 1 else torch.cat([seen[name] for name in self.reads], dim=-1)
        if isinstance(self.own, tuple):
            ways_DK, bias_K = self.own
            return torch.addmm(bias_K, rows, ways_DK)
        return self.own(rows).to(rows.device)


class Bank:
    """One group of terms of every row, at one hookpoint."""

    def __init__(self, hookpoint: str, groups: Sequence[Sequence[Term]], device: torch.device) -> None:
        """Args: groups: the terms of each row of the batch; of a single one, those of all rows."""
        self.hookpoint = hookpoint
        terms = list({id(term): term for group in groups for term in group}.values())
        place = {id(term): i for i, term in enumerate(terms)}
        own_BT = torch.zeros(len(groups), len(terms), dtype=torch.bool)
        for row, group in enumerate(groups):
            for term in group:
                own_BT[row, place[id(term)]] = True
        self.own_BT = None if bool(own_BT.all()) else own_BT[:, None].to(device)
        self.nothing = torch.zeros((), device=device)
        self.readings, columns = _gathered(terms, device)
        read_at = [columns.get(id(term.read)) for term in terms]
        self.read_T = _columns(read_at, device)
        self.is_in_order = read_at == list(range(len(set(columns.values()))))
        self.when_T = _columns([columns.get(id(term.when[0])) if term.when else None for term in terms], device)
        numbers = [
            (term.constant, term.slope, term.low, term.high, term.when[1] if term.when else -math.inf) for term in terms
        ]
        parts = torch.tensor(numbers, dtype=torch.float32, device=device).T
        self.constant_T, self.slope_T, self.low_T, self.high_T, self.above_T = parts
        self.has_slope = bool((self.slope_T != 0).any())
        self.has_bounds = bool((self.low_T > -math.inf).any() or (self.high_T < math.inf).any())
        self.by_norm_T = torch.tensor([term.by_norm for term in terms], device=device)
        self.has_norm = bool(self.by_norm_T.any())
        self.scales: dict[int, tuple[NormalisedAutoencoder, Tensor]] = {}
        for number, term in enumerate(terms):
            if term.scaled_by is not None:
                default = (term.scaled_by, torch.zeros(len(terms), dtype=torch.bool, device=device))
                self.scales.setdefault(id(term.scaled_by), default)[1][number] = True
        self.along_TD = torch.stack([term.along.to(device, torch.float32) for term in terms])
        self.wheres = list(dict.fromkeys(term.where for term in terms))
        self.where_T = torch.tensor([self.wheres.index(term.where) for term in terms], device=device)

    def act(
        self, rows: Tensor, seen: Mapping[str, Tensor], masks: Mapping[Where, Tensor | None]
    ) -> tuple[Tensor, Tensor]:
        """(rows with the group's terms applied, which of them moved [B, P]). What does not move keeps its bits.

        Args:
            rows: [B, P, D] in float32.
            seen: rows of hookpoints that have run before, [N, D] by name.
            masks: [B, P], for each `Where` of the group; None: everywhere.
        """
        flat = rows.reshape(-1, rows.shape[-1])
        movement_NT, held = self._movement(flat, seen), self._held(masks)
        if held is not None:
            movement_BPT = movement_NT.view(*rows.shape[:2], -1)
            movement_NT = torch.where(held, movement_BPT, self.nothing).view_as(movement_NT)
        moved = torch.addmm(flat, movement_NT, self.along_TD)
        has_moved = (movement_NT != 0).any(dim=-1, keepdim=True)
        return torch.where(has_moved, moved, flat).view(rows.shape), has_moved.view(rows.shape[:2])

    def _movement(self, rows: Tensor, seen: Mapping[str, Tensor]) -> Tensor:
        """[N, T], of rows [N, D]."""
        found = None
        if self.readings:
            here = {**seen, self.hookpoint: rows}
            parts = [each.of(here) for each in self.readings]
            found = parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
        movement: Tensor = self.constant_T.expand(len(rows), -1)
        if self.read_T is not None and found is not None:
            read = found if self.is_in_order else found[:, self.read_T]
            if self.has_slope:
                movement = torch.addcmul(self.constant_T, self.slope_T, read)
            if self.has_bounds:
                movement = movement + (torch.maximum(torch.minimum(read, self.high_T), self.low_T) - read)
        if self.has_norm:
            movement = torch.where(self.by_norm_T, movement * rows.norm(dim=-1, keepdim=True), movement)
        for dictionary, is_scaled in self.scales.values():
            movement = torch.where(is_scaled, movement * dictionary.scale_of(rows), movement)
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
    found: dict[str, tuple[Bank, ...]] = {}
    for hookpoint in dict.fromkeys(name for plan in plans for name in plan.stages):
        most = max(len(plan.stages.get(hookpoint, ())) for plan in plans)
        found[hookpoint] = tuple(
            Bank(hookpoint, [_group(plan, hookpoint, number) for plan in plans], device) for number in range(most)
        )
    return found


def _group(plan: Plan, hookpoint: str, number: int) -> tuple[Term, ...]:
    groups = plan.stages.get(hookpoint, ())
    return groups[number] if number < len(groups) else ()


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
        readings.append(_made_ready(firsts, device))
        for column, several in enumerate(same.values(), start=n_columns):
            columns |= {id(reading): column for reading in several}
        n_columns += len(firsts)
    return readings, columns


def _made_ready(firsts: Sequence[Reading], device: torch.device) -> _Readings:
    first = firsts[0]
    if isinstance(first, LatentReading):
        latents = [each.place.latent for each in firsts if isinstance(each, LatentReading)]
        return _Readings(first.hookpoints, readout(first.dictionary, first.place.layer, latents, device))
    projections = [each for each in firsts if not isinstance(each, LatentReading)]
    ways = torch.stack([each.vector.to(device, torch.float32) for each in projections], dim=1)
    return _Readings(first.hookpoints, (ways, torch.tensor([each.bias for each in projections], device=device)))


def _columns(places: Sequence[int | None], device: torch.device) -> Tensor | None:
    """Where each term's reading stands; what reads nothing points anywhere, for its slope is 0. None: nothing reads."""
    if all(place is None for place in places):
        return None
    return torch.tensor([place or 0 for place in places], device=device)
