"""What the HTTP API says and takes, as pydantic models: the contract between server, web app and anyone's client.

Numbers that are undefined are null, never NaN. Texts are exact: a piece that is no valid UTF-8 is shown as its bytes, <0xE2>.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Sort = Literal["latent", "density", "maximum", "f1", "label"]
Which = Literal["alive", "dead", "all"]
MOST_MEMBERS = 10_000
"""Of a list."""
SOMETHING = r"\S"
"""What people write has more in it than spaces: a label of them would be a heading that nobody sees."""


class Shape(BaseModel):
    """Unknown keys are refused: a misspelled one would be a filter that does nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Error(Shape):
    """Every 4xx and 5xx body."""

    error: str
    """What is wrong, with its value."""
    next_step: str | None = None


class HookpointFacts(Shape):
    """One dictionary of a run, with its catalogue."""

    hookpoint: str
    n_latents: int
    n_dead: int
    n_labelled: int
    """Latents whose label is good or partial."""
    n_tokens: int
    n_documents: int
    n_counted_together: int
    """Tokens, of those looked at, over which firing together was counted."""
    firing_share: float | None
    """Above this share of its maximum a latent counted as firing when labels were found and scored; null: nothing is labelled."""


class RunFacts(Shape):
    """One run folder that is served."""

    run: str
    """Its name in paths, unique among those served."""
    model: str
    hookpoints: tuple[HookpointFacts, ...]
    can_xray: bool
    """Whether its model can be loaded here, so that new texts can be looked at."""


class Runs(Shape):
    version: str
    can_write: bool
    """Whether notes and labels can be written (the server was given a token)."""
    runs: tuple[RunFacts, ...]


class LabelFacts(Shape):
    """A label and how well it foretells where the latent fires, on documents that played no part in finding it."""

    text: str
    status: Literal["good", "partial", "none", "few", "dead", "person"]
    """person: written by a user; its scores are null."""
    kind: str
    f1: float | None
    precision: float | None
    recall: float | None
    n_positive: int | None
    """Tokens, of `n_scored`, at which it fires above the hookpoint's `firing_share` of its maximum: less than all firings."""
    n_scored: int | None


class FeatureLine(Shape):
    """A feature in a list."""

    latent: int
    label: str
    status: str
    f1: float | None
    count: int
    density: float
    maximum: float
    family: int | None


class FeaturePage(Shape):
    total: int
    """Features that pass the filters."""
    offset: int
    features: tuple[FeatureLine, ...]


class Piece(Shape):
    """A vocabulary entry with a logit."""

    token: str
    logit: float


class ExampleFacts(Shape):
    """A stretch of one document with the feature's activations along it."""

    document: int
    token: int
    """Global index of the token it is about; permalinks and `context` name it."""
    at: int
    """Its place in `tokens`."""
    tokens: tuple[str, ...]
    activations: tuple[float, ...]
    begins_document: bool
    ends_document: bool


class LogitChangeFacts(Shape):
    """A vocabulary entry whose logit a feature changes."""

    token: str
    logit: float
    """With the feature less without it, both less their mean over the entries that the corpus has."""
    probability: float
    probability_without: float
    """Of the entry as the next token."""


class EffectFacts(Shape):
    """What a feature does around one token: the model as it is, beside the model with the feature's contribution taken away."""

    document: int
    token: int
    """Global index of the token asked about."""
    start: int
    """Global index of the first of `tokens`: the window's, which the model runs alone."""
    tokens: tuple[str, ...]
    activations: tuple[float, ...]
    loss: tuple[float | None, ...]
    """-ln p of each token, nats, the model as it is; null where no prediction counts."""
    loss_change: tuple[float | None, ...]
    """Loss without the feature less loss with it, nats: above 0 it helps to foretell the token."""
    loss_change_random: tuple[float | None, ...]
    """The same for a push as far along one random direction."""
    promoted: tuple[LogitChangeFacts, ...]
    """Of the prediction made at `token`, what the feature raises most."""
    suppressed: tuple[LogitChangeFacts, ...]
    n_removed: int
    """Tokens at which it was taken away: all of the text that was run."""


class IntervalFacts(Shape):
    """Activations in (low, high]; examples drawn uniformly from the documents that fire in it."""

    low: float
    high: float
    count: int
    examples: tuple[ExampleFacts, ...]


class HistogramFacts(Shape):
    """counts[i] activations in (edges[i], edges[i + 1]]."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]


class Neighbour(Shape):
    """Another latent whose decoder direction is near."""

    latent: int
    label: str
    cosine: float


class Together(Shape):
    """Another latent that fires at the same tokens."""

    latent: int
    label: str
    n_together: int
    phi: float
    """Correlation of the two firings (yes or no). This and `n_together` are over the hookpoint's `n_counted_together` tokens."""


class FamilyFacts(Shape):
    """Latents whose directions hang together."""

    family: int
    size: int
    members: tuple[FeatureLine, ...]
    """The most frequent ones, 50 at most."""


class Match(Shape):
    """A latent of another dictionary that is near: splitting, or the same thing elsewhere."""

    latent: int
    label: str
    cosine: float
    """Of the two decoder directions."""
    correlation: float | None
    """Of the two activations, silence as 0; null: the catalogues are not of the same tokens, or one of the two is constant."""


class DictionaryMatches(Shape):
    """The nearest latents of one other dictionary of the same width."""

    run: str
    hookpoint: str
    n_latents: int
    is_same_model: bool
    """Where it is not, the two streams have nothing to do with each other, unless one model was made from the other."""
    chance: float | None
    """Cosine of the nearest of as many random directions, on average: what is no nearer is no match. Null: left out."""
    matches: tuple[Match, ...]
    left_out: str | None
    """Why it was not compared."""


class FeatureFacts(Shape):
    """Everything known about one feature."""

    latent: int
    hookpoint: str
    label: LabelFacts
    count: int
    n_tokens: int
    density: float
    maximum: float
    mean: float
    is_dead: bool
    histogram: HistogramFacts | None
    top: tuple[ExampleFacts, ...]
    intervals: tuple[IntervalFacts, ...]
    promoted: tuple[Piece, ...]
    suppressed: tuple[Piece, ...]
    neighbours: tuple[Neighbour, ...]
    together: tuple[Together, ...]
    family: FamilyFacts | None


class XrayAsk(Shape):
    text: Annotated[str, Field(min_length=1, max_length=20_000)]
    top: Annotated[int, Field(ge=1, le=50)] = 8
    """Features shown for each token."""
    latent: int | None = None
    """Follow this one along the whole text, too."""


class XrayFeature(Shape):
    latent: int
    label: str
    activation: float
    of_maximum: float | None
    """activation / its maximum in the catalogue; null for one that never fired there."""


class XrayToken(Shape):
    token: str
    features: tuple[XrayFeature, ...]
    """Strongest first; none for a special token, whose row no dictionary was trained on."""


class Xray(Shape):
    hookpoint: str
    tokens: tuple[XrayToken, ...]
    strongest: tuple[XrayFeature, ...]
    """Of the whole text, by largest activation as a share of the maximum."""
    along: tuple[float, ...] | None
    """The followed latent's activation at each token."""


class SearchHit(Shape):
    feature: FeatureLine
    score: float | None
    """Null: by statistics, of a feature that has no such number."""
    why: str
    """In words: which label matched, or which text it fired on."""


class SearchAnswer(Shape):
    query: str
    by: Literal["label", "token", "text", "statistics"]
    hits: tuple[SearchHit, ...]


class TileFacts(Shape):
    """How to read `map/tiles/{z}/{x}/{y}`: two int32, how many points are in the tile and how many of its square in deeper ones,
    then the columns one after the other, little-endian, one entry for each point."""

    columns: tuple[tuple[str, Literal["float32", "int32"]], ...]
    square: tuple[float, float, float]
    """Least x, least y, side: level z cuts it into 2^z x 2^z tiles, the first at the least x and y."""
    shares: tuple[float, ...]
    """Of all points, how many are in the tiles of each level and those above it. Each point is in one tile."""
    most: int
    """Points of a tile at most; only a tile of level 15, which nothing is below, can have more."""


class MapPlace(Shape):
    latent: int
    x: float
    y: float


class MapFacts(Shape):
    """How to read `map/points`: columns one after the other, little-endian, one entry for each latent."""

    n: int
    bounds: tuple[float, float, float, float]
    """Least x, least y, largest x, largest y."""
    columns: tuple[tuple[str, Literal["float32", "int32", "uint8"]], ...]
    tiles: TileFacts | None
    """Null: the map is small, and `map/points` is the quicker way to all of it."""


class Note(Shape):
    note: str
    """Its id."""
    hookpoint: str
    latent: int
    text: str
    written: str
    """UTC, ISO 8601."""


class NoteAsk(Shape):
    text: Annotated[str, Field(min_length=1, max_length=10_000, pattern=SOMETHING)]


class LabelAsk(Shape):
    text: Annotated[str, Field(min_length=1, max_length=300, pattern=SOMETHING)]


class FeatureList(Shape):
    """Features somebody put together under a name."""

    name: str
    members: tuple[tuple[str, int], ...]
    """(hookpoint, latent)"""


class ListLine(Shape):
    """A list, seen from a feature."""

    name: str
    n_members: int
    is_in: bool
    """Whether the feature is in it."""


class ListedFeature(Shape):
    """A member of a list."""

    hookpoint: str
    feature: FeatureLine


class ListPage(Shape):
    """A part of a list, with what is known of its members. Those of dictionaries that are not served are left out."""

    name: str
    total: int
    offset: int
    members: tuple[ListedFeature, ...]


class ListAsk(Shape):
    members: Annotated[tuple[tuple[str, int], ...], Field(max_length=MOST_MEMBERS)]


class Curve(Shape):
    name: str
    steps: tuple[int, ...]
    values: tuple[float | None, ...]


class MeasureFacts(Shape):
    name: str
    value: float | None
    unit: str
    low: float | None
    high: float | None
    n: int
    baseline: str
    definition: str


class ArtifactFacts(Shape):
    """Where an artifact came from."""

    name: str
    kind: str
    digest: str
    code: str
    seed: int
    parents: dict[str, str]
    config: dict[str, object]


class RunPage(Shape):
    """The run page: how training went, how good the dictionaries are, what it cost and where everything came from."""

    run: RunFacts
    curves: dict[str, tuple[Curve, ...]]
    """By hookpoint."""
    measures: dict[str, tuple[MeasureFacts, ...]]
    """By hookpoint, from its evaluation."""
    costs: tuple[tuple[str, float, float], ...]
    """(stage, CPU-seconds, wall seconds)"""
    artifacts: tuple[ArtifactFacts, ...]
