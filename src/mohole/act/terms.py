"""An intervention worked out for one model: which number is read of a row, and how far it moves the row along which vector.

Every kind is made of terms of one form, so that all of them, of all rows of a batch, are run by the same few products:

    x' = x + unit * (constant + slope * r + (clip(r, low, high) - r)) * along        r: what is read, 0 where nothing is

unit is 1, the row's length, or the row's own scale of a dictionary that normalises rows.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

from jaxtyping import Float
from torch import Tensor

from mohole.act.interventions import Intervention
from mohole.act.places import Place
from mohole.act.where import Where
from mohole.dictionary import NormalisedAutoencoder
from mohole.dictionary.readout import Steerable


@dataclass(frozen=True, eq=False)
class LatentReading:
    """A latent's activation, of rows at all of `reads` side by side."""

    name: str
    """Of its dictionary."""
    dictionary: Steerable
    place: Place

    @property
    def hookpoints(self) -> tuple[str, ...]:
        return self.place.reads


@dataclass(frozen=True, eq=False)
class Projection:
    """x.v + bias of rows at one hookpoint."""

    hookpoint: str
    vector: Float[Tensor, " d"]
    bias: float = 0.0

    @property
    def hookpoints(self) -> tuple[str, ...]:
        return (self.hookpoint,)


Reading = LatentReading | Projection


@dataclass(frozen=True, eq=False)
class Term:
    """One movement along one vector at one hookpoint."""

    hookpoint: str
    along: Float[Tensor, " d"]
    where: Where
    of: Intervention
    read: Reading | None = None
    constant: float = 0.0
    slope: float = 0.0
    low: float = -math.inf
    high: float = math.inf
    by_norm: bool = False
    """In units of the row's length."""
    when: tuple[Reading, float] | None = None
    """Only where this reading is above this bound."""

    @property
    def scaled_by(self) -> NormalisedAutoencoder | None:
        """What normalises each row by itself and so says how long one unit is in it."""
        if isinstance(self.read, LatentReading) and isinstance(self.read.dictionary, NormalisedAutoencoder):
            return self.read.dictionary
        return None

    @property
    def readings(self) -> tuple[Reading, ...]:
        return tuple(each for each in (self.read, self.when[0] if self.when else None) if each is not None)


@dataclass(frozen=True, eq=False)
class Plan:
    """Interventions worked out for one model, in order. Make it once and use it for many texts, alone or in a batch."""

    interventions: tuple[Intervention, ...]
    stages: dict[str, tuple[tuple[Term, ...], ...]] = field(repr=False)
    """By hookpoint in order of execution: groups of terms. A group reads one row; the next reads what it made of it."""
    key: str
    """Of all that decides what it does: equal keys do the same. Empty where nothing is done."""

    @property
    def terms(self) -> Iterator[Term]:
        return (term for groups in self.stages.values() for group in groups for term in group)

    @cached_property
    def needs_prompt(self) -> bool:
        """Does what it does to a token depend on where the prompt ends?"""
        return any(term.where.needs_prompt for term in self.terms)


NOTHING = Plan((), {}, "")
