"""What may stand behind the question mark of an address. Unknown names are refused, as in `shapes`."""

from typing import Annotated, Literal

from fastapi import Path
from pydantic import Field

from mohole.serve.shapes import Shape, Sort, Which

LONGEST_CONTEXT = 512

Latent = Annotated[int, Path(ge=0, le=2**31 - 1, description="A latent's number.")]
RunName = Annotated[str, Path(description="As in `/api/v1/runs`.", min_length=1, max_length=200)]
Hookpoint = Annotated[str, Path(description="As in `/api/v1/runs`.", min_length=1, max_length=200)]
TileLevel = Annotated[
    int, Path(ge=0, le=15, description="0: one tile for the whole map; each level halves their sides.")
]
TilePlace = Annotated[int, Path(ge=0, le=2**15 - 1, description="From the left, or from below.")]
ListName = Annotated[str, Path(description="What somebody called it.", min_length=1, max_length=100)]
NoteId = Annotated[str, Path(description="As in `Note`.", min_length=1, max_length=18)]

_Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
_Number = Annotated[float, Field(allow_inf_nan=False)]


class FeaturesAsk(Shape):
    """A page of features."""

    offset: Annotated[int, Field(ge=0, le=2**40)] = 0
    limit: Annotated[int, Field(ge=1, le=200)] = 50
    sort: Sort = "latent"
    descending: bool = False
    q: Annotated[str, Field(max_length=200)] = ""
    """Part of a label, in any case; or a latent's number."""
    which: Which = "alive"
    status: Literal["good", "partial", "none", "few", "dead", "person"] | None = None
    least_density: _Share | None = None
    most_density: _Share | None = None
    least_f1: _Share | None = None
    family: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None


class ContextAsk(Shape):
    """A wider stretch around an example."""

    token: Annotated[int, Field(ge=0, le=2**62)]
    """Global index of the token, as in `ExampleFacts`."""
    before: Annotated[int, Field(ge=0, le=LONGEST_CONTEXT)] = 128
    after: Annotated[int, Field(ge=0, le=LONGEST_CONTEXT)] = 128


class ListFeaturesAsk(Shape):
    """A page of a list."""

    offset: Annotated[int, Field(ge=0, le=2**40)] = 0
    limit: Annotated[int, Field(ge=1, le=200)] = 50


class EffectAsk(Shape):
    """A place where a feature fires."""

    token: Annotated[int, Field(ge=0, le=2**62)]
    """Global index of the token, as in `ExampleFacts`."""


class PlacesAsk(Shape):
    """Some latents."""

    latent: Annotated[tuple[Annotated[int, Field(ge=0, le=2**31 - 1)], ...], Field(min_length=1, max_length=200)]
    """Repeatable."""


class SearchAsk(Shape):
    """A search among the features of a hookpoint."""

    q: Annotated[str, Field(max_length=2000)] = ""
    """What is looked for; by statistics there is nothing, and nowhere else may it be empty."""
    by: Literal["label", "token", "text", "statistics"] = "label"
    limit: Annotated[int, Field(ge=1, le=200)] = 50
    sort: Literal["density", "maximum", "f1"] = "density"
    """By statistics: the number that comes first is the largest; or the smallest, `ascending`."""
    ascending: bool = False
    least_density: _Share | None = None
    most_density: _Share | None = None
    least_maximum: _Number | None = None
    most_maximum: _Number | None = None
    least_f1: _Share | None = None
    most_f1: _Share | None = None
