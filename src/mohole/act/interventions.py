"""What can be done to a model's rows, as a person, a file or a request says it: plain frozen values, and one strict parser.

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

import difflib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from mohole.act.where import EVERYWHERE, WHOLE_TEXT, Where
from mohole.errors import ConfigError
from mohole.visible import visible

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
INTERVENTIONS: tuple[Any, ...] = get_args(Intervention)

_LIST = TypeAdapter[list[Intervention]](list[Annotated[Intervention, Field(discriminator="kind")]])
_KINDS = {kind.__dataclass_fields__["kind"].default: kind for kind in (*INTERVENTIONS, *get_args(get_args(Source)[0]))}


def parse_interventions(values: Any) -> tuple[Intervention, ...]:
    """Plain JSON values, a list of tables each with its `kind`, as interventions.

    Raises:
        ConfigError: no list, an unknown key or kind, a value that cannot be meant; names each, at most three.
    """
    try:
        return tuple(_LIST.validate_python(values))
    except ValidationError as error:
        errors = error.errors(include_url=False)
        said = dict.fromkeys(_said(each) for each in errors[:3])
        more = f" (and {len(errors) - 3} more)" if len(errors) > 3 else ""
        raise ConfigError("; ".join(said) + more) from None
    except RecursionError:
        raise ConfigError("interventions: nested too deeply to be meant") from None


def as_json(interventions: Sequence[Intervention]) -> list[dict[str, Any]]:
    """What `parse_interventions` reads: what is at its default is left out, but for the kind."""
    return [_plain(each) for each in interventions]


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


def _plain(value: Any) -> Any:
    if not is_dataclass(value) or isinstance(value, type):
        return list(value) if isinstance(value, tuple) else value
    said = {each.name: getattr(value, each.name) for each in fields(value)}
    kept = [each.name for each in fields(value) if each.name == "kind" or said[each.name] != each.default]
    ordered = sorted(kept, key=lambda name: name != "kind")  # stable: the kind, then the rest as they are defined
    return {name: _plain(said[name]) for name in ordered}


def _said(error: Any) -> str:
    """One fault: where in what was given, the value, what would do."""
    loc = error["loc"]
    place = [part for i, part in enumerate(loc) if not _is_tag(loc, i)]
    key, value = ".".join(str(part) for part in ("interventions", *place)), error["input"]
    context = error.get("ctx", {})
    match error["type"]:
        case "unexpected_keyword_argument":
            names = _names_at(error["loc"][:-1])
            near = difflib.get_close_matches(str(place[-1]), names, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"
            return f"{visible(key)[:120]}: no such key; {hint}"
        case "missing" | "missing_argument":
            return f"{key}: needed, and not given"
        case "union_tag_not_found":
            return f"{key}: has no kind; one of {_tags(error['loc'])}"
        case "union_tag_invalid":
            given = str(context["tag"])
            near = difflib.get_close_matches(
                given, [tag.strip("' ") for tag in context["expected_tags"].split(",")], n=1
            )
            hint = f"did you mean {near[0]!r}?" if near else f"one of {context['expected_tags']}"
            return f"{key}.kind: {visible(repr(given))[:80]} is no kind; {hint}"
        case "value_error":
            return f"{key}: {context['error']}"
        case _:
            message = error["msg"][0].lower() + error["msg"][1:]
            return f"{key}: {visible(repr(value))[:80]}: {message}"


def _is_tag(loc: Sequence[int | str], index: int) -> bool:
    """A union's tag stands in the path behind a place in a list or the name of a source; who wrote the JSON wrote none there."""
    before = loc[index - 1] if index else ""
    return loc[index] in _KINDS and (isinstance(before, int) or before in ("of", "a", "b"))


def _tags(loc: Sequence[int | str]) -> str:
    is_source = bool(loc) and loc[-1] in ("of", "a", "b")
    kinds: tuple[Any, ...] = get_args(get_args(Source)[0]) if is_source else INTERVENTIONS
    return ", ".join(kind.__dataclass_fields__["kind"].default for kind in kinds)


def _names_at(loc: Sequence[int | str]) -> list[str]:
    last = next((part for part in reversed(loc) if isinstance(part, str)), "")
    kind = {"where": Where, "when": When}.get(last) or _KINDS.get(last)
    return [] if kind is None else [each.name for each in fields(kind)]


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
