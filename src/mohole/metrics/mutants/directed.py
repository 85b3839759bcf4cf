"""Wrong ways to measure lengths and cosines of directions."""

from typing import Any

import torch
from torch import Tensor

from mohole.metrics.definitions import OURS
from mohole.metrics.geometry import unit_rows
from mohole.metrics.mutants.mutant import Mutant, mutant


def _over_latents(rows: Tensor) -> Tensor:
    """The length of a dimension over latents, not of a latent over dimensions.

    Seen in: SAELens #119.
    """
    lengths: Tensor = rows.double().norm(dim=0)
    return lengths


def _dot(one: Tensor, other: Tensor) -> Tensor:
    """A product of rows that were never normalised is called a cosine.

    Seen in: SAEBench #88.
    """
    return (one.double() * other.double()).sum(1)


def _absolute(one: Tensor, other: Tensor) -> Tensor:
    """The sign is dropped: an encoder that reads the opposite fits.

    Seen in: alignment by |cos|.
    """
    return OURS.paired_cosine(one, other).abs()


def _zero_is_orthogonal(one: Tensor, other: Tensor) -> Tensor:
    """A row without length has cosine 0 with everything.

    Seen in: sae_lens.util.cosine_similarities, and torch's own.
    """
    return torch.nn.functional.cosine_similarity(one.double(), other.double(), dim=1)


def _length_of_the_mean(rows: Tensor, direction: Tensor) -> Tensor:
    """The mean row's length is left in.

    Seen in: projections that are called cosines.
    """
    return unit_rows(rows) @ direction.double()


def _within_a_block(rows: Tensor, among: Tensor, *, itself: Tensor | None = None, block: int = 1024) -> Any:
    """Rows are compared with those of their own block only.

    Seen in: delphi, neighbours whose chunks slice the wrong axis.
    """
    return OURS.best_cosine(rows, among[:block], itself=itself, block=block)


def _flips_match(rows: Tensor, among: Tensor, *, itself: Tensor | None = None, block: int = 1024) -> Any:
    """The sign is dropped: a flipped latent counts.

    Seen in: sae_lens, synthetic evals, mean_correlation_coefficient.
    """
    best, which = OURS.best_cosine(rows, among, itself=itself, block=block)
    worst, opposite = OURS.best_cosine(rows, -among, itself=itself, block=block)
    return torch.maximum(best, worst), torch.where(worst > best, opposite, which)


def _zero_matches(rows: Tensor, among: Tensor, *, itself: Tensor | None = None, block: int = 1024) -> Any:
    """A row without length matches the first with cosine 0.

    Seen in: norms with an epsilon.
    """
    best, which = OURS.best_cosine(rows, among, itself=itself, block=block)
    return best.nan_to_num(), which.clamp(min=0)


def _itself(rows: Tensor, of: Tensor | None = None, *, block: int = 1024) -> Any:
    """Every row is its own nearest.

    Seen in: maxima over a matrix whose diagonal was left in.
    """
    return OURS.best_cosine(rows if of is None else rows[of], rows, block=block)


def _opposite_is_near(rows: Tensor, of: Tensor | None = None, *, block: int = 1024) -> Any:
    """The sign is dropped: an opposite is a near duplicate.

    Seen in: redundancy by |cos|.
    """
    of = torch.arange(len(rows)) if of is None else of
    return _flips_match(rows[of], rows, itself=of, block=block)


MUTANTS: tuple[Mutant, ...] = (
    mutant("row_norms", _over_latents),
    mutant("paired_cosine", _dot),
    mutant("paired_cosine", _absolute),
    mutant("paired_cosine", _zero_is_orthogonal),
    mutant("cosine_with", _length_of_the_mean),
    mutant("best_cosine", _within_a_block),
    mutant("best_cosine", _flips_match),
    mutant("best_cosine", _zero_matches),
    mutant("nearest_other", _itself),
    mutant("nearest_other", _opposite_is_near),
)
