"""From interventions to the terms that do them in one model: which dictionary, which place, which numbers. Runs nothing."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import assert_never

import torch
import xxhash
from jaxtyping import Float
from torch import Tensor

from mohole.act.direction import Direction
from mohole.act.interventions import (
    Ablate,
    Add,
    Cap,
    Clamp,
    Intervention,
    Latent,
    Named,
    Orthogonalise,
    Scale,
    Swap,
    Vector,
    When,
)
from mohole.act.parsing import as_json
from mohole.act.places import Place, place_of
from mohole.act.sources import Sources
from mohole.act.terms import NOTHING, LatentReading, Plan, Projection, Reading, Term
from mohole.artifact import digest_of
from mohole.dictionary.readout import encoder_of, width_read
from mohole.errors import ConfigError, HookpointError
from mohole.model import LanguageModel, parse_hookpoint

_LARGEST = float(torch.finfo(torch.float32).max)


def make_plan(model: LanguageModel, interventions: Sequence[Intervention], sources: Sources) -> Plan:
    """Work out interventions for a model.

    The order: hookpoints as the model runs; at one hookpoint as they are listed, each on what the one before made of the row.
    But latents of one dictionary that stand side by side in the list act together, read from the same row: x + sum (c - f) d.

    Raises:
        ConfigError: no such latent, dictionary or direction, one of another width, a latent clamped twice, or `times_max`
            without a catalogue.
        HookpointError: the model has no such hookpoint, or something is read after the place that it acts on.
        StageError: `times_max` of a latent that was never seen active.
    """
    found: dict[str, list[list[Term]]] = {}
    for each in interventions:
        for term in _Resolver(model, sources).terms(each):
            groups = found.setdefault(term.hookpoint, [])
            if groups and _goes_with(groups[-1], term, each):
                groups[-1].append(term)
            else:
                groups.append([term])
    ordered = sorted(found, key=lambda name: parse_hookpoint(name).execution)
    stages = {name: tuple(tuple(group) for group in found[name]) for name in ordered}
    for group in (group for listed in stages.values() for group in listed):
        _check_once(group)
    return Plan(tuple(interventions), stages, _key(interventions, stages)) if stages else NOTHING


def read_latent(model: LanguageModel, of: Latent, sources: Sources) -> LatentReading:
    """A latent as something to read.

    Raises:
        ConfigError: no such latent or dictionary. HookpointError: the model has no such hookpoint.
    """
    return _Resolver(model, sources).reading(of)


def _goes_with(group: list[Term], term: Term, of: Intervention) -> bool:
    """Terms of one intervention always, and latents of the same dictionary."""
    last = group[-1]
    if last.of is of:
        return True
    mine, others = term.read, last.read
    if not isinstance(mine, LatentReading) or not isinstance(others, LatentReading):
        return False
    return mine.dictionary is others.dictionary


def _check_once(group: Sequence[Term]) -> None:
    seen: dict[int, Intervention] = {}
    for term in group:
        if isinstance(term.of, Clamp | Ablate | Cap) and isinstance(term.read, LatentReading):
            latent = term.of.of.latent if isinstance(term.of, Cap) and isinstance(term.of.of, Latent) else None
            latent = term.of.latent if isinstance(term.of, Clamp | Ablate) else latent
            if latent is None:
                continue
            before = seen.setdefault(latent, term.of)
            if before is not term.of and before.where == term.of.where and before.when == term.of.when:
                raise ConfigError(f"latent {latent} at {term.read.name}: clamped twice; give each latent one strength")


@dataclass(frozen=True)
class _Resolver:
    """Finds what interventions name, in the model's words."""

    model: LanguageModel
    sources: Sources

    def terms(self, each: Intervention) -> Iterator[Term]:
        when = None if each.when is None else self.condition(each.when)
        for term in self._own(each):
            term = replace(term, when=when)
            self._check(term)
            yield term

    def _own(self, each: Intervention) -> Iterator[Term]:
        match each:
            case Clamp():
                of = Latent(each.latent, each.hookpoint)
                held = each.strength if each.times_max is None else each.times_max * self.sources.maximum(of)
                yield from self.along_latent(each, of, constant=held, slope=-1.0)
            case Scale():
                yield from self.along_latent(each, Latent(each.latent, each.hookpoint), slope=each.by - 1.0)
            case Ablate():
                yield from self.along_latent(each, Latent(each.latent, each.hookpoint), slope=-1.0)
            case Add():
                yield from self.adding(each)
            case Cap():
                yield from self.capping(each)
            case Orthogonalise():
                yield from self.taking_out(each)
            case Swap():
                yield from self.swapping(each)
            case _:
                assert_never(each)

    def along_latent(
        self, each: Intervention, of: Latent, *, constant: float = 0.0, slope: float = 0.0,
        low: float = -math.inf, high: float = math.inf, read: LatentReading | None = None,
    ) -> Iterator[Term]:  # fmt: skip
        """A term for each place that the latent writes."""
        name = self.sources.name(of)
        dictionary = self.sources.dictionaries[name]
        place = self.placed(place_of(dictionary, of.latent))
        reading = read or LatentReading(name, dictionary, place)
        for hookpoint, direction in place.writes:
            yield Term(hookpoint, direction, each.where, each, reading, constant, slope, low, high)

    def adding(self, each: Add) -> Iterator[Term]:
        if isinstance(each.of, Latent) and each.times_norm is None:
            strength = each.value if each.value is not None else _times(each.times_max, self.sources.maximum(each.of))
            yield from self.along_latent(each, each.of, constant=strength)
            return
        for direction in self.directions(each.of):
            if each.times_norm is None:
                assert each.value is not None
                yield Term(direction.hookpoint, direction.vector, each.where, each, constant=each.value)
            else:
                unit = _unit(direction)
                yield Term(direction.hookpoint, unit, each.where, each, constant=each.times_norm, by_norm=True)

    def capping(self, each: Cap) -> Iterator[Term]:
        low = -math.inf if each.low is None else each.low
        high = math.inf if each.high is None else each.high
        if isinstance(each.of, Latent):
            maximum = 1.0 if each.units == "value" else self.sources.maximum(each.of)
            yield from self.along_latent(each, each.of, low=low * maximum, high=high * maximum)
            return
        for direction in self.directions(each.of):
            unit = _unit(direction)
            read = Projection(direction.hookpoint, unit)
            yield Term(direction.hookpoint, unit, each.where, each, read, low=low, high=high)

    def taking_out(self, each: Orthogonalise) -> Iterator[Term]:
        found = self.directions(each.of)
        if each.at == "stream" and len(found) > 1:
            raise ConfigError(
                f"orthogonalise: there are directions at {', '.join(one.hookpoint for one in found)}, and the stream can be "
                "freed of one; say of which"
            )
        for direction in found:
            unit = _unit(direction)
            places = stream_writers(self.model) if each.at == "stream" else (direction.hookpoint,)
            for hookpoint in places:
                yield Term(hookpoint, unit, each.where, each, Projection(hookpoint, unit), slope=-1.0)

    def swapping(self, each: Swap) -> Iterator[Term]:
        if isinstance(each.a, Latent) and isinstance(each.b, Latent):
            first, second = self.sources.name(each.a), self.sources.name(each.b)
            if first != second:
                raise ConfigError(f"Swap: latents of {first} and of {second}; both must be of one dictionary")
            read = {of: self.reading(of) for of in (each.a, each.b)}
            for of, other in ((each.a, each.b), (each.b, each.a)):
                yield from self.along_latent(each, of, slope=-1.0, read=read[of])
                yield from self.along_latent(each, of, slope=1.0, read=read[other])
            return
        ones, others = self.directions(each.a), self.directions(each.b)
        at = {direction.hookpoint: direction for direction in others}
        if set(at) != {direction.hookpoint for direction in ones}:
            raise ConfigError("Swap: the two directions are at different hookpoints; they must share theirs")
        for direction in ones:
            yield from _trading(each, direction.hookpoint, _unit(direction), _unit(at[direction.hookpoint]))

    def condition(self, when: When) -> tuple[Reading, float]:
        if isinstance(when.of, Latent):
            maximum = 1.0 if when.units == "value" else self.sources.maximum(when.of)
            return self.reading(when.of), when.above * maximum
        found = self.directions(when.of)
        if len(found) > 1:
            raise ConfigError(
                f"when: the direction is at {', '.join(each.hookpoint for each in found)}; say at which it is read"
            )
        return Projection(found[0].hookpoint, found[0].vector, when.bias), when.above

    def reading(self, of: Latent) -> LatentReading:
        name = self.sources.name(of)
        dictionary = self.sources.dictionaries[name]
        return LatentReading(name, dictionary, self.placed(place_of(dictionary, of.latent)))

    def directions(self, of: Latent | Named | Vector) -> tuple[Direction, ...]:
        """In float32, at the model's own names."""
        match of:
            case Latent():
                name = self.sources.name(of)
                place = self.placed(place_of(self.sources.dictionaries[name], of.latent))
                found = tuple(Direction(at, vector, f"latent {of.latent}") for at, vector in place.writes)
            case Named():
                found = self.sources.named(of)
            case Vector():
                found = (Direction(of.hookpoint, torch.tensor(of.values), "vector"),)
            case _:
                assert_never(of)
        return tuple(
            replace(each, hookpoint=self.model.canonical(each.hookpoint), vector=each.vector.detach().float())
            for each in found
        )

    def placed(self, place: Place) -> Place:
        reads = tuple(self.model.canonical(name) for name in place.reads)
        return replace(place, reads=reads, writes=tuple((self.model.canonical(at), way) for at, way in place.writes))

    def _check(self, term: Term) -> None:
        """Widths are the model's, numbers stay in float32, and nothing is read after it is needed."""
        for hookpoint, vector in ((term.hookpoint, term.along), *_read_vectors(term)):
            if len(vector) != self.model.width(hookpoint):
                raise ConfigError(
                    f"{hookpoint}: a direction of {len(vector)} numbers, where {self.model.name} has rows of "
                    f"{self.model.width(hookpoint)}; it is of another model or another place"
                )
        for reading in term.readings:
            self._check_width(reading)
        if beyond := [number for number in (term.constant, term.slope) if not abs(number) <= _LARGEST]:
            raise ConfigError(f"{term.hookpoint}: a strength of {beyond[0]:.3g} is beyond float32; use a smaller one")
        mine = parse_hookpoint(term.hookpoint).execution
        for reading in term.readings:
            for name in reading.hookpoints:
                if parse_hookpoint(name).execution > mine:
                    raise HookpointError(
                        f"{name}: is read to act at {term.hookpoint}, which has run by then; act at {name} or later"
                    )

    def _check_width(self, reading: Reading) -> None:
        if not isinstance(reading, LatentReading):
            return
        needed, there = (
            width_read(reading.dictionary, reading.place.layer),
            sum(map(self.model.width, reading.hookpoints)),
        )
        if needed not in (None, there):
            raise ConfigError(
                f"{'+'.join(reading.hookpoints)}: the encoder of {reading.name} reads {needed} numbers, where {self.model.name} "
                f"has rows of {there}; it is of another model or another place"
            )


def _read_vectors(term: Term) -> Iterator[tuple[str, Tensor]]:
    for reading in term.readings:
        if isinstance(reading, Projection):
            yield reading.hookpoint, reading.vector


def stream_writers(model: LanguageModel) -> tuple[str, ...]:
    """Where the residual stream is written: what it begins as, and what each layer's attention and MLP add."""
    layers = range(model.n_layers)
    return ("resid_pre.0", *(f"{kind}.{layer}" for layer in layers for kind in ("attn_out", "mlp_out")))


def _trading(each: Swap, hookpoint: str, a: Tensor, b: Tensor) -> Iterator[Term]:
    """x = alpha a + beta b + what is orthogonal to both; alpha and beta trade places."""
    one, other = a.double(), b.double()
    cosine = float(one @ other)
    if 1.0 - abs(cosine) < 1e-6:
        raise ConfigError(f"Swap at {hookpoint}: the two directions are parallel, so their shares cannot be told apart")
    # The dual basis: alpha = x.(a - cos b) / sin^2, beta likewise. x moves by (beta - alpha) (a - b).
    difference = ((other - cosine * one) - (one - cosine * other)) / (1.0 - cosine**2)
    read = Projection(hookpoint, difference.float())
    yield Term(hookpoint, (one - other).float(), each.where, each, read, slope=1.0)


def _unit(direction: Direction) -> Float[Tensor, " d"]:
    exact = direction.vector.double()
    unit: Tensor = (exact / exact.norm()).float()
    return unit


def _times(times_max: float | None, maximum: float) -> float:
    assert times_max is not None
    return times_max * maximum


def _key(interventions: Sequence[Intervention], stages: dict[str, tuple[tuple[Term, ...], ...]]) -> str:
    """Of what was asked for and of every number that it came to."""
    state = xxhash.xxh3_128(digest_of(as_json(interventions)).encode())
    for hookpoint, groups in stages.items():
        for group in groups:
            state.update(f"|{hookpoint}|".encode())
            for term in group:
                numbers = (term.constant, term.slope, term.low, term.high, term.when and term.when[1])
                state.update(repr(numbers).encode())
                _feed(state, term.along)
                for reading in term.readings:
                    _feed_reading(state, reading)
    return state.hexdigest()


def _feed_reading(state: xxhash.xxh3_128, reading: Reading) -> None:
    state.update(repr(reading.hookpoints).encode())
    if isinstance(reading, Projection):
        _feed(state, reading.vector)
        return
    place = reading.place
    state.update(f"{reading.dictionary!r}{place.layer}.{place.latent}".encode())
    for vector in (*encoder_of(reading.dictionary, place.layer, place.latent), *(way for _, way in place.writes)):
        _feed(state, vector)


def _feed(state: xxhash.xxh3_128, tensor: Tensor) -> None:
    state.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
