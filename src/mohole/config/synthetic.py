"""Settings of synthetic rows, whose true features are known. No torch."""

from typing import Annotated

from pydantic import Field, model_validator

from mohole.config.tables import Count, NotNegative, PositiveFloat, Share, Table, Whole

Chance = Annotated[float, Field(strict=True, gt=0.0, le=1.0)]


class Synthetic(Table):
    """Rows that are sums of known features. The defaults are the model that SynthSAEBench-16k was published with (Chanin 2026).

    A feature fires with its own chance, where its parent fires; of children of one parent one at most. A row is the sum of the
    firing features' magnitudes times their unit directions, and a bias.
    """

    n_features: Count = 16_384
    """True features, the most frequent first."""
    d_model: Count = 768
    """Width of a row."""
    highest_chance: Chance = 0.4
    """Firing chance of the first feature; 0.4 is on two rows of five."""
    lowest_chance: Chance = 5e-4
    """... and of the last one."""
    zipf: PositiveFloat = 0.5
    """Chances fall as rank^-zipf between the two."""
    roots: Whole = 128
    """Trees of features. Features that find no place in them stand alone. 0: all do."""
    branching: Count = 4
    """Children of each feature that has any."""
    depth: Count = 3
    """Levels below the roots."""
    exclusive: bool = True
    """Children of one parent exclude each other; where several would fire one of them is drawn."""
    correlation_rank: Whole = 25
    """Hidden normal factors that make features fire together. 0: chances are independent."""
    correlation_scale: NotNegative = 0.1
    """Standard deviation of a feature's weight on each factor."""
    first_magnitude: PositiveFloat = 5.0
    """Mean magnitude of the first feature, in model units; it falls in equal steps to that of the last."""
    last_magnitude: PositiveFloat = 4.0
    """... of the last feature."""
    magnitude_spread: NotNegative = 0.5
    """Each feature's standard deviation of magnitude is |normal(0.5, this)|; 0: every magnitude is its mean."""
    scaled_by_parent: bool = True
    """A child's magnitude is times that of its parent beside the parent's mean."""
    bias: NotNegative = 0.5
    """Length of the vector added to every row."""
    overlap: Annotated[float, Field(strict=True, ge=0.0, lt=1.0)] | None = None
    """Superposition: mean over features of the largest |cosine| with another. None: of random directions, 0.15 at the default
    sizes. Less: directions are pushed apart, as far as there is room. More: features come in pairs as near as this."""
    n_rows: Count = 1_000_000
    """Rows written to the store."""
    held_out: Share = 0.02
    """Share of them that training never sees."""
    scored_rows: Count = 50_000
    """Rows beyond those of the store that dictionaries are scored on."""

    @model_validator(mode="after")
    def _ordered(self) -> "Synthetic":
        if self.lowest_chance > self.highest_chance:
            raise ValueError("lowest_chance: more than highest_chance")
        if self.correlation_rank * self.correlation_scale**2 >= 1.0 and self.correlation_rank:
            raise ValueError("correlation_scale: rank x scale^2 must stay below 1, the variance of a normal number")
        return self
