"""Intervals by resampling documents, never tokens: tokens of one document are not independent.

The Poisson bootstrap: in each replicate a document counts Poisson(1) times. Unlike drawing n documents of n, a document's
count needs to know nothing about the others, so it is keyed by (seed, document, replicate) and the interval is the same
for any number of workers. Source: Hanley & MacGibbon 2006; Chamandy et al. 2012.
"""

import math

import numpy as np
from numpy.typing import NDArray

from mohole.keys import Use, uniform

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

REPLICATES = 400
DEVIATIONS = 1.959963984540054
"""Of a normal distribution, either side of its mean, that hold 95 %: for the intervals that are not resampled."""

_POISSON_CUMULATIVE = np.cumsum([math.exp(-1.0) / math.factorial(k) for k in range(20)])


def document_weights(seed: int, documents: Int64, *, replicates: int = REPLICATES) -> Float64:
    """How often each document counts in each replicate [replicate, document]: Poisson(1), keyed by the document's id."""
    ids = np.tile(documents, replicates)
    sub_ids = np.repeat(np.arange(replicates), len(documents))
    drawn = np.searchsorted(_POISSON_CUMULATIVE, uniform(seed, Use.BOOTSTRAP, ids, sub_ids), side="right")
    return drawn.reshape(replicates, len(documents)).astype(np.float64)


def interval(replicated: Float64) -> tuple[float | None, float | None]:
    """The central 95 % of replicated values. (None, None) when more than half of them are undefined (NaN)."""
    defined = replicated[~np.isnan(replicated)]
    if len(defined) * 2 < len(replicated) or len(defined) == 0:
        return None, None
    low, high = np.quantile(defined, [0.025, 0.975])
    return float(low), float(high)
