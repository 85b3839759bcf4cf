"""Is a general latent silent because a special one speaks for it? Feature absorption, token by token.

"The word is an animal" should fire on every animal. A sparse dictionary saves by writing it into the latent of "fox", and the
general latent gets a hole. Tokens are those that a linear probe finds positive: where the row itself says it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mohole.metrics.codes import CodeMatrix

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
Bools = NDArray[np.bool_]

LEAST_SHARE = 0.4
"""Of the row's projection: what an absorbing latent must carry."""
LEAST_COSINE = 0.1
"""Between an absorbing latent's direction and the probe's: less is chance (0.03 is common in 768 dimensions)."""
N_ABSORBERS = 3


@dataclass(frozen=True, slots=True)
class Absorbed:
    """What became of the probe's direction at each token."""

    defined: Bools
    """The row, less the decoder's bias, points along the probe at all. Elsewhere no share of it means anything."""
    full: Bools
    """No main latent fires, and one other latent carries at least LEAST_SHARE of the projection."""
    share: Float64
    """How much of (main + absorbers) the absorbers carry; 0 where they carry less than LEAST_SHARE of the projection; NaN where
    it is not defined."""


def absorption(
    rows: NDArray[np.floating],
    codes: CodeMatrix,
    decoder: NDArray[np.floating],
    bias: NDArray[np.floating],
    direction: Float64,
    main: Int64,
    *,
    least_projection: float,
) -> Absorbed:
    """Which tokens of a label are carried by other latents than the label's own.

        projection p = (x - b_dec) . u        carried by latent j: c_j = f_j (d_j . u)        u the probe's unit direction
        share = A / (A + M)    M = sum of c over the main latents, at least 0
                               A = min(C, p - M), at least 0; 0 where C < 0.4 p
                               C = sum of the three largest other c_j > 0 with cos(d_j, u) >= 0.1

    Products, not cosines: with cosines the result changes with the decoder rows' lengths (SAEBench #88 made that a
    warning). Measured from b_dec, which no latent carries. Where p is below `least_projection` (in the row's units; a tenth
    of the mean projection is sensible) nothing is decided, or a share of nearly nothing would count as much as any.
    Source: Chanin et al. 2024 (arXiv 2409.14507); the share is SAEBench's (arXiv 2503.09532).

    Args:
        main: the label's own latents, as k-sparse probing finds them.
    """
    unit = direction / np.linalg.norm(direction)
    projection = (rows.astype(np.float64) - bias) @ unit
    along = np.asarray(decoder.astype(np.float64) @ unit)
    length = np.linalg.norm(decoder.astype(np.float64), axis=1)
    aligned = along >= LEAST_COSINE * np.where(length > 0, length, np.inf)
    aligned[main] = False
    top = _largest(codes, np.asarray(along * aligned), N_ABSORBERS)
    mine = codes[:, main].toarray().astype(np.float64)
    carried = np.maximum(mine @ along[main], 0.0)
    candidates = top.sum(axis=1)
    others = np.clip(np.minimum(candidates, projection - carried), 0.0, None) * (candidates >= LEAST_SHARE * projection)
    defined = projection >= least_projection
    full = defined & ~mine.any(axis=1) & (top[:, 0] >= LEAST_SHARE * projection)
    total = carried + others
    share = np.divide(others, total, out=np.zeros_like(total), where=total > 0)
    share[~defined] = np.nan
    return Absorbed(defined, full, share)


def _largest(codes: CodeMatrix, weights: Float64, n: int) -> Float64:
    """The n largest of each row's f_j w_j, descending; 0 where there are fewer above 0. Goes through entries, never a matrix."""
    carried = np.maximum(codes.data.astype(np.float64) * weights[codes.indices], 0.0)
    row = np.repeat(np.arange(codes.shape[0]), np.diff(codes.indptr))
    order = np.lexsort((-carried, row))
    place = np.arange(len(order)) - codes.indptr[row]
    kept = place < n
    largest = np.zeros((codes.shape[0], n))
    largest[row[kept], place[kept]] = carried[order[kept]]
    return largest
