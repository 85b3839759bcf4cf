"""A measured number with everything needed to read it: unit, masks, baseline, n, interval, definition. And its making."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mohole.errors import NumericsError
from mohole.metrics.bootstrap import DEVIATIONS, document_weights, interval

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

Statistic = Callable[[Float64], Float64]
"""From document weights [replicate, document] to one value per replicate; NaN where it is undefined."""


@dataclass(frozen=True, slots=True)
class Masks:
    """Which positions were replaced, counted and scored, in words. Every library conflates these three."""

    replaced: str = "none"
    """Positions whose activation was swapped while the model ran."""
    counted: str = "none"
    """Positions whose rows enter sums over rows (FVU, L0, densities)."""
    scored: str = "none"
    """Positions whose prediction is scored (CE, KL, accuracy)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One number. `value` None means undefined, and `undefined` says why; `low` and `high` bound the central 95 %."""

    name: str
    value: float | None
    unit: str
    low: float | None
    high: float | None
    n: int
    n_of: str
    """What `n` counts: rows, pairs of tokens, prompts."""
    n_documents: int
    masks: Masks
    baseline: str
    """What it is measured against, in words; empty where there is no baseline."""
    definition: str
    undefined: str = ""
    replicates: Any = field(default=None, repr=False, compare=False)
    """float64 [replicate]: the value with documents counted as in each resampling. Two numbers of the same documents and seed
    share their resamplings, so the difference of their replicates has the interval of the difference. Not a part of its JSON."""


def measured(
    statistic: Statistic,
    documents: Int64,
    *,
    seed: int,
    name: str,
    unit: str,
    n: int,
    n_of: str,
    masks: Masks,
    definition: str,
    baseline: str = "",
    undefined: str = "its denominator is zero",
) -> Measure:
    """A statistic over documents, each counted once, with its interval over resampled documents.

    Args:
        documents: ids of the documents that the statistic's weights refer to, in that order.
        undefined: the reason to give when the value is NaN. (Inputs are checked to be finite where they are summed.)
    """
    value = float(statistic(np.ones((1, len(documents))))[0])
    if math.isinf(value):
        raise NumericsError(f"{name}: infinite over {n} {n_of}; its inputs are not numbers")
    replicates = statistic(_weights(seed, documents.tobytes())) if len(documents) > 1 else None
    low, high = interval(replicates) if replicates is not None else (None, None)
    known = not math.isnan(value)
    return Measure(
        name=name,
        value=value if known else None,
        unit=unit,
        low=low if known else None,
        high=high if known else None,
        n=n,
        n_of=n_of,
        n_documents=len(documents),
        masks=masks,
        baseline=baseline,
        definition=definition,
        undefined="" if known else undefined,
        replicates=replicates if known else None,
    )


@dataclass(frozen=True, slots=True)
class Reading:
    """How one number is read from sums by document, whatever they are sums over."""

    name: str
    statistic: Statistic
    unit: str
    baseline: str
    definition: str
    undefined: str
    """The reason to give when the value is NaN."""

    def of(self, documents: Int64, *, seed: int, n: int, n_of: str, masks: Masks) -> Measure:
        """The number, as `measured`."""
        return measured(
            self.statistic,
            documents,
            seed=seed,
            name=self.name,
            unit=self.unit,
            n=n,
            n_of=n_of,
            masks=masks,
            definition=self.definition,
            baseline=self.baseline,
            undefined=self.undefined,
        )


@lru_cache(maxsize=2)
def _weights(seed: int, documents: bytes) -> Float64:
    """Drawn once for all numbers of the same documents. Nobody writes into them."""
    return document_weights(seed, np.frombuffer(documents, dtype=np.int64))


def as_json(value: Any) -> Any:
    """A dataclass with measures in it as plain tables, without replicates."""
    return asdict(value, dict_factory=lambda items: {name: part for name, part in items if name != "replicates"})


def ratio(numerator: Float64, denominator: Float64) -> Float64:
    """numerator / denominator, NaN (and no warning) where the denominator is not positive."""
    return np.divide(numerator, denominator, out=np.full_like(numerator, np.nan), where=denominator > 0)


def wilson(successes: int, n: int) -> tuple[float, float]:
    """95 % interval of a share of independent trials. Sensible at 0 and 1, where resampling gives a width of zero.

    Source: Wilson 1927.
    """
    if n == 0:
        raise ValueError("wilson: no trials")
    z, share = DEVIATIONS, successes / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def require_finite(values: Tensor | NDArray[np.floating], place: str) -> None:
    """Stop at the first NaN or infinity.

    Raises:
        NumericsError: names the place and the index of the first bad row.
    """
    numbers = values if isinstance(values, Tensor) else torch.from_numpy(values)
    if math.isfinite(float(numbers.sum())):
        return  # no NaN and no infinity leaves a sum; one that overflows is looked at number by number
    finite = torch.isfinite(numbers)
    if not bool(finite.all()):
        row = int((~finite).flatten(1).any(1).nonzero()[0, 0]) if finite.ndim > 1 else int((~finite).nonzero()[0, 0])
        raise NumericsError(
            f"{place}: NaN or infinity in row {row} of {len(finite)}; check the weights, or use float32"
        )
