"""What must be true of the correlation of codes."""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mohole.metrics.correlation import CodeCorrelation
from mohole.metrics.definitions import Definitions
from mohole.metrics.known_answers.answer import Answer, Check
from mohole.metrics.known_answers.coded import coded
from mohole.metrics.known_answers.directed import random_rows

_N = 30


def _sparse(first: int) -> Float[Tensor, "row 4"]:
    """Codes of four latents that fire in about a third of rows."""
    return (random_rows(_N, 4, first=first) - 0.5).clamp(min=0)


def _summed(
    d: Definitions, one: Tensor, other: Tensor, *, batch: int | None = None, n_ranks: int = 1
) -> CodeCorrelation:
    ranks = [d.code_correlation(one.shape[1], other.shape[1]) for _ in range(n_ranks)]
    for turn, first in enumerate(range(0, len(one), batch or len(one))):
        part = slice(first, first + (batch or len(one)))
        ranks[turn % n_ranks].add(coded(one[part]), coded(other[part]))
    for rank in ranks[1:]:
        ranks[0].merge(rank)
    return ranks[0]


def codes_correlate_as_columns_do(d: Definitions) -> Iterator[Answer]:
    """What numpy's corrcoef gives for the columns, zeros included, in any batches on any ranks; each with its own mean."""
    one, other = _sparse(0), 3 * _sparse(500) + 1.0 * (_sparse(0)[:, :1] > 0)
    true = np.corrcoef(one.T.numpy(), other.T.numpy())[:4, 4:]
    mine, theirs = np.arange(16) // 4, np.arange(16) % 4
    for batch, n_ranks in ((_N, 1), (7, 3)):
        found = _summed(d, one, other, batch=batch, n_ranks=n_ranks).between(mine, theirs)
        for pair in (0, 5, 10, 12):
            name = f"correlation of pair {pair}, batches of {batch}, {n_ranks} ranks"
            yield Answer(name, float(found[pair]), float(true[mine[pair], theirs[pair]]))


def the_same_latent_is_found_again(d: Definitions) -> Iterator[Answer]:
    """A dictionary against itself mixed, and in other units: each latent has 1 with its own. Upside down it has not."""
    one, places = _sparse(0), torch.tensor([2, 0, 3, 1])
    units = torch.tensor([1.0, 1e4, 5.0, 0.1], dtype=torch.float64)
    value, which = _summed(d, one, units * one[:, places]).best()
    for latent in range(4):
        yield Answer(f"best correlation of latent {latent}", float(value[latent]), 1.0)
        yield Answer(f"best match of latent {latent}", float(places[which[latent]]), float(latent), 0)
    found = _summed(d, one, -one).between(np.arange(4), np.arange(4))
    yield Answer("correlation with itself upside down", float(found.max()), -1.0)


def what_is_constant_correlates_with_nothing(d: Definitions) -> Iterator[Answer]:
    """A latent that is dead, or the same in every row (also after rounding), has no correlation, not one of zero."""
    one = torch.cat([_sparse(0)[:, :1], torch.zeros(_N, 1, dtype=torch.float64)], dim=1)
    for constant in (0.1, 1e8, 0.0):
        other = torch.full((_N, 1), constant, dtype=torch.float64)
        found = _summed(d, one, other, batch=7).between(np.array([0, 1]), np.array([0, 0]))
        yield Answer(f"correlation with a constant {constant:g}", float(found[0]), float("nan"))
        yield Answer(f"correlation of the dead with a constant {constant:g}", float(found[1]), float("nan"))
    value, which = _summed(d, one, one[:, 1:]).best()
    yield Answer("best correlation among the dead", float(value[0]), float("nan"))
    yield Answer("best match among the dead", float(which[0]), -1.0, 0)


CHECKS: tuple[Check, ...] = (
    codes_correlate_as_columns_do, the_same_latent_is_found_again, what_is_constant_correlates_with_nothing,
)  # fmt: skip
