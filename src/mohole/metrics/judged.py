"""How good is an explanation, by a judge's answers: detection scores with failures counted, and the score of a simulation.

A judge is a language model or a rule. An answer that cannot be read is a result, not a missing value.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mohole.metrics.measure import wilson

Float64 = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Judged:
    """A judge's answers against the truth."""

    balanced_accuracy: float
    """Mean over the two classes of the share answered rightly; what cannot be read is not right. NaN: a class is empty."""
    of_answered: float
    """The same over readable answers only: what the judge would score if failures fell at random. NaN: a class has none."""
    failure_rate: float
    """Share of answers that cannot be read."""
    failure_low: float
    failure_high: float
    n: int


def judged(said: Sequence[bool | None], positive: Bools) -> Judged:
    """Score yes/no answers, None for one that cannot be read.

    Dropping unreadable answers without a word flatters judges that fail on the hard ones, and a counter of failures that is
    never raised says they never do (delphi #178). Both classes count the same, so that always-yes has 0.5 with any number
    of negatives.

    Raises:
        ValueError: not one answer for each item.
    """
    if len(said) != len(positive):
        raise ValueError(f"judged: {len(said)} answers to {len(positive)} items")
    if not said:
        raise ValueError("judged: no answers")
    failed = np.array([answer is None for answer in said])
    right = ~failed & (np.array([bool(answer) for answer in said]) == positive)
    classes = (positive, ~positive)
    low, high = wilson(int(failed.sum()), len(said))
    return Judged(
        float(np.mean([_share(right[side]) for side in classes])),
        float(np.mean([_share(right[side & ~failed]) for side in classes])),
        float(failed.mean()),
        low,
        high,
        len(said),
    )


def simulation_score(simulated: Float64, real: Float64) -> float:
    """Pearson correlation of simulated and real activations over all tokens together. NaN where either is constant.

    Over the tokens of all texts at once, not a mean over texts: in a text without a firing it is undefined. A simulator
    that says the same everywhere has not scored 0, it has no score (delphi #137). Does not see scale or offset.
    Source: Bills et al. 2023 ("Language models can explain neurons in language models").

    Raises:
        ValueError: fewer than two tokens, or not one simulated value for each real one.
    """
    if len(simulated) != len(real) or len(real) < 2:
        raise ValueError(f"simulation: {len(simulated)} simulated values for {len(real)} real ones")
    if (simulated == simulated[0]).all() or (real == real[0]).all():
        return float("nan")
    a, b = simulated - simulated.mean(), real - real.mean()
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def _share(right: Bools) -> float:
    return float(right.mean()) if len(right) else float("nan")
