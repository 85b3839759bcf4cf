"""Which latents fire in the same tokens: pairs counted by one latent's tokens at a time. Whole numbers, so order is nothing.

Axes: R latents of a range, L latents, T tokens, N firings, P pairs. Codes come as compressed rows, one for each token.
One row of L counters is held, never R x L. 300k tokens, 32 of 16384 latents each, one core: 1.2 s where densities fall as in
dictionaries, 3.3 s where all are alike; with products of sparse matrices, which is what runs without numba, 60 s.
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mohole.kernels import HAS_NUMBA

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix  # type: ignore[import-untyped]

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


class Counted(NamedTuple):
    """How often each latent of a range fires together with another: compressed rows, in which latents ascend; no zeros."""

    starts: Int64
    """[R + 1]"""
    latents: Int32
    """[P]"""
    counts: Int64
    """[P]"""


class Best(NamedTuple):
    """The n best of each row: latent -1 and zeros where there are fewer."""

    latents: Int32
    """[R, n]"""
    counts: Int64
    phi: Float32


def nothing_counted(n_range: int) -> Counted:
    """Of a range of so many latents."""
    return Counted(np.zeros(n_range + 1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.int64))


def count(row_starts: Int64, latents: Int32, first: int, last: int, n_latents: int) -> Counted:
    """Tokens in which both fire, of each latent of [first, last) and every other one."""
    if HAS_NUMBA:
        from mohole.kernels import together_compiled  # numba takes 0.3 s to import

        narrow = _narrow(latents, n_latents)
        starts, tokens = together_compiled.tokens_of(row_starts, narrow, first, last)
        return Counted(*together_compiled.count(row_starts, narrow, starts, tokens, first, n_latents))
    return _counted(_product(row_starts, latents, first, last, n_latents))


def add(one: Counted, other: Counted, n_latents: int) -> Counted:
    """The counts of both, of the same range."""
    if len(one.latents) == 0 or len(other.latents) == 0:
        return one if len(one.latents) else other
    return _counted(_matrix(one, n_latents) + _matrix(other, n_latents))


def best(
    row_starts: Int64,
    latents: Int32,
    before: Counted,
    first: int,
    last: int,
    totals: Int64,
    n_tokens: int,
    n: int,
    least: int,
) -> Best:
    """The n others with the largest positive phi with each latent of [first, last), of these tokens and those counted before.

    Args:
        totals: [L] tokens in which each latent fires, of all `n_tokens`.
        least: tokens in which a pair must fire together to be named.
    """
    spread = np.sqrt(totals * (np.float64(n_tokens) - totals))
    if HAS_NUMBA:
        from mohole.kernels import together_compiled

        narrow = _narrow(latents, len(totals))
        starts, tokens = together_compiled.tokens_of(row_starts, narrow, first, last)
        return Best(
            *together_compiled.best(
                row_starts, narrow, starts, tokens, *before, first, totals, spread, float(n_tokens), n, least
            )
        )
    counted = add(before, count(row_starts, latents, first, last, len(totals)), len(totals))
    row = np.repeat(np.arange(last - first), np.diff(counted.starts))
    phi = _phi(counted.counts, totals, spread, row + first, counted.latents, n_tokens)
    named = np.flatnonzero((phi > 0) & (counted.counts >= least))
    named = named[np.lexsort((counted.latents[named], -phi[named], row[named]))]
    row_starts_named = np.searchsorted(row[named], np.arange(last - first))
    rank = np.arange(len(named)) - row_starts_named[row[named]]
    named, rank = named[rank < n], rank[rank < n]
    found = Best(
        np.full((last - first, n), -1, np.int32),
        np.zeros((last - first, n), np.int64),
        np.zeros((last - first, n), np.float32),
    )
    place = (row[named], rank)
    found.latents[place], found.counts[place], found.phi[place] = (
        counted.latents[named],
        counted.counts[named],
        phi[named],
    )
    return found


def _narrow(latents: Int32, n_latents: int) -> "NDArray[np.uint16] | Int32":
    """Half the bytes, where they do: each token's are fetched anew for each of its latents, which is half of the time."""
    return latents.astype(np.uint16) if n_latents <= 1 << 16 else latents


def _phi(counts: Int64, totals: Int64, spread: Float64, one: Int64, other: Int32, n_tokens: int) -> Float32:
    """See `catalogue.together`. In the order of operations of the compiled loop: the same bits. 0 where it is undefined."""
    covariance = np.float64(n_tokens) * counts - totals[one].astype(np.float64) * totals[other]
    deviations = spread[one] * spread[other]
    return np.divide(covariance, deviations, out=np.zeros(len(counts)), where=deviations > 0).astype(np.float32)


def _product(row_starts: Int64, latents: Int32, first: int, last: int, n_latents: int) -> "csr_matrix":
    from scipy.sparse import csr_matrix  # a third of a second: not at import

    fires = csr_matrix((np.ones(len(latents), np.int64), latents, row_starts), shape=(len(row_starts) - 1, n_latents))
    together = (fires[:, first:last].T @ fires).tocoo()
    other = together.col != together.row + first
    parts = (together.data[other], (together.row[other], together.col[other]))
    return csr_matrix(parts, shape=(last - first, n_latents))


def _matrix(counted: Counted, n_latents: int) -> "csr_matrix":
    from scipy.sparse import csr_matrix

    return csr_matrix((counted.counts, counted.latents, counted.starts), shape=(len(counted.starts) - 1, n_latents))


def _counted(matrix: "csr_matrix") -> Counted:
    matrix.sort_indices()
    return Counted(matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32), matrix.data)
