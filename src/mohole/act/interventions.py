"""What can be done to a model's rows, as plain frozen values. Worked out for a model in terms.py; read from JSON in parsing.py.

Each is a movement of the row x along directions d, so that acting at some tokens only is one product with a mask:

    clamp          x + s (c - f) d               the latent's activation f held at c
    scale          x + s (by - 1) f d
    ablate         x - s f d                     the latent taken away
    add            x + c v                       or c |x| v/|v|: so many times the row's own length
    cap            x + s (clip(f) - f) d         of a latent; of a direction x + (clip(p) - p) u, p = x.u, u = v/|v|
    orthogonalise  x - (x.u) u                   at the direction's hookpoint, or wherever the stream is written
    swap           x + s ((g - f) d + (f - g) e) of two latents; of two directions their shares in x trade places

s is 1, or the row's own scale where the dictionary normalises rows. None but orthogonalise promises what is read
afterwards: x' is a new row, other latents overlap with d, and a TopK row has room for k only. What is exact is the movement, and
what the dictionary does not explain of x stays in x'.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field

from mohole.act.where import EVERYWHERE, WHOLE_TEXT, Where
from mohole.errors import ConfigError

_STRICT = ConfigDict(extra="forbid")
_Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
_Index = Annotated[int, Field(strict=True)]
_Text = Annotated[str, Field(strict=True, min_length=1)]


@dataclass(frozen=True, slots=True)
class Latent:
    """A latent of a dictionary: its activation is what is read, its decoder row the direction."""

    latent: _Index
    hookpoint: _Text | None = None
    """Which dictionary it is of: its hookpoint, or its folder in a run. None where there is only one."""
    kind: Literal["latent"] = field(default="latent", kw_only=True)

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT


@dataclass(frozen=True, slots=True)
class Named:
    """A direction by the name that it was given along with: of a file, of a difference of means."""

    name: _Text
    hookpoint: _Text | None = None
    """Of one that has several. None: at each of them."""
    kind: Literal["named"] = field(default="named", kw_only=True)

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT


@dataclass(frozen=True, slots=True)
class Vector:
    """A direction given by its numbers."""

    values: tuple[_Number, ...] = field(repr=False)
    hookpoint: _Text
    kind: Literal["vector"] = field(default="vector", kw_only=True)

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    def __post_init__(self) -> None:
        """Raises: ConfigError: no number, one that is not finite, or nothing but zeros."""
        if not all(math.isfinite(value) for value in self.values) or not any(self.values):
            raise ConfigError(f"vector at {self.hookpoint}: a direction needs finite numbers, not all 0")


Source = Annotated[Latent | Named | Vector, Field(discriminator="kind")]


@dataclass(frozen=True, slots=True)
class When:
    """Only at tokens where something is read above a bound, in the row as the intervention finds it."""

    of: Source
    """A latent, whose activation is read; or a direction v, of which x.v + bias is, as of a linear probe."""
    above: _Number
    units: Literal["value", "times_max"] = "value"
    """`times_max`: the bound is in units of the latent's largest activation on the corpus."""
    bias: _Number = 0.0

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    def __post_init__(self) -> None:
        _need_finite("when.above", self.above)
        _need_finite("when.bias", self.bias)
        _need_latent("when", self.of, self.units)
        if self.bias != 0.0 and isinstance(self.of, Latent):
            raise ConfigError("when.bias: goes with a direction; a latent has its own")


@dataclass(frozen=True, slots=True)
class Clamp:
    """Hold one latent at a strength. Give exactly one of `times_max` and `value`.

    Raises:
        ConfigError: both or neither strength, or one that is not finite.
    """

    latent: _Index
    times_max: _Number | None = None
    """Strength in units of the largest activation of the latent on the corpus. 0 removes the feature; negative is allowed."""
    value: _Number | None = None
    """Strength in units of the latent, as `encode` gives them: the model's, or those of each row's own scale."""
    hookpoint: _Text | None = None
    """Which dictionary the latent is of. None where there is only one."""
    where: Where = EVERYWHERE
    when: When | None = None
    kind: Literal["clamp"] = field(default="clamp", kw_only=True)

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    def __post_init__(self) -> None:
        _need_one(f"Clamp of latent {self.latent}", times_max=self.times_max, value=self.value)

    @property
    def strength(self) -> float:
        """The one of `times_max` and `value` that was given."""
        strength = self.value if self.times_max is None else self.times_max
        return math.nan if strength is None else strength


@dataclass(frozen=True, slots=True)
class Scale:
    """Multiply a latent's activation. What is silent stays silent."""

    latent: _Index
    by: _Number
    """0 removes the feature, 1 changes nothing, negative turns it around."""
    hookpoint: _Text | None = None
    where: Where = EVERYWHERE
    when: When | None = None
    kind: Literal["scale"] = field(default="scale", kw_only=True)

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    def __post_init__(self) -> None:
        _need_finite(f"Scale of latent {self.latent}: by", self.by)


@dataclass(frozen=True, slots=True)
class Ablate:
    """Take a latent away: a clamp at 0. Of a whole direction, see Orthogonalise."""

    latent: _Index
    hookpoint: _Text | None = None
    where: Where = EVERYWHERE
    when: When | None = None
    kind: Literal["ablate"] = field(default="ablate", kw_only=True)

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT


@dataclass(frozen=True, slots=True)
class Add:
    """Add a direction, on top of what is there already. Give exactly one of `value`, `times_max` and `times_norm`."""

    of: Source
    value: _Number | None = None
    """Times the vector, or the decoder row, as it is."""
    times_max: _Number | None = None
    """Of a latent: times its largest activation on the corpus."""
    times_norm: _Number | None = None
    """Times the row's own length, along the direction: the same share of every row."""
    where: Where = EVERYWHERE
    when: When | None = None
    kind: Literal["add"] = field(default="add", kw_only=True)

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    def __post_init__(self) -> None:
        _need_one("Add", value=self.value, times_max=self.times_max, times_norm=self.times_norm)
        _need_latent("Add", self.of, "value" if self.times_max is None else "times_max")


@dataclass(frozen=True, slots=True)
class Cap:
    """Keep a reading within bounds: a latent's activation, or the row's projection on a direction of length 1."""

    of: Source
    low: _Number | None = None
    high: _Number | None = None
    units: Literal["value", "times_max"] = "value"
    """Of both bounds. `times_max` is for latents."""
    where: Where = EVERYWHERE
    when: When | None = None
    kind: Literal["cap"] = field(default="cap", kw_only=True)

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    def __post_init__(self) -> None:
        bounds = [bound for bound in (self.low, self.high) if bound is not None]
        if not bounds:
            raise ConfigError("Cap: give low, high, or both")
        for bound in bounds:
            _need_finite("Cap", bound)
        if bounds != sorted(bounds):
            raise ConfigError(f"Cap: low {self.low} is above high {self.high}; no reading keeps to both")
        _need_latent("Cap", self.of, self.units)


@dataclass(frozen=True, slots=True)
class Orthogonalise:
    """Take out a row's whole part along a direction, so that nothing of it can be read there."""

    of: Source
    at: Literal["hookpoint", "stream"] = "hookpoint"
    """`stream`: wherever the residual stream is written, in every layer; `orthogonalised` does the same to the weights."""
    where: Where = WHOLE_TEXT
    when: When | None = None
    kind: Literal["orthogonalise"] = field(default="orthogonalise", kw_only=True)

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT


@dataclass(frozen=True, slots=True)
class Swap:
    """Let two latents of one dictionary, or two directions of one hookpoint, trade places."""

    a: Source
    b: Source
    where: Where = EVERYWHERE
    when: When | None = None
    kind: Literal["swap"] = field(default="swap", kw_only=True)

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    def __post_init__(self) -> None:
        if isinstance(self.a, Latent) != isinstance(self.b, Latent):
            raise ConfigError("Swap: one of a and b is a latent and the other a direction; give two of a kind")
        if self.a == self.b:
            raise ConfigError("Swap: a and b are the same; nothing can trade places")


Intervention = Clamp | Scale | Ablate | Add | Cap | Orthogonalise | Swap


def latents_in(interventions: Sequence[Intervention]) -> Iterator[Latent]:
    """Every latent that is read or acted through, with the dictionary that is said."""
    return (each for each in sources_in(interventions) if isinstance(each, Latent))


def sources_in(interventions: Sequence[Intervention]) -> Iterator[Latent | Named | Vector]:
    """Every latent and direction that is read or acted through."""
    for each in interventions:
        yield from _sources(each)


def _sources(value: Any) -> Iterator[Latent | Named | Vector]:
    if isinstance(value, Latent | Named | Vector):
        yield value
    elif is_dataclass(value) and not isinstance(value, type):
        if hasattr(value, "latent") and hasattr(value, "hookpoint"):
            yield Latent(value.latent, value.hookpoint)
        for each in fields(value):
            yield from _sources(getattr(value, each.name))


def _need_one(what: str, **strengths: float | None) -> None:
    given = {name: value for name, value in strengths.items() if value is not None}
    if len(given) != 1:
        raise ConfigError(f"{what}: give exactly one of {' and '.join(strengths)}")
    for value in given.values():
        _need_finite(f"{what}: strength", value)


def _need_finite(what: str, value: float) -> None:
    if not math.isfinite(value):
        raise ConfigError(f"{what} {value} is not a finite number")


def _need_latent(what: str, of: object, units: str) -> None:
    if units == "times_max" and not isinstance(of, Latent):
        raise ConfigError(f"{what}: times_max is in units of a latent's maximum; a direction has none, give a value")
