"""Can one attribute of a word be changed and another kept? Interchange interventions in a dictionary's latents (RAVEL).

A base word gets the latents of one attribute from a source word. Then a read-out says which value of each attribute the edited
row has. Both words must differ in the attribute: where they agree, nothing can be caused and nothing can leak.
"""

import numpy as np
from numpy.typing import NDArray

from mohole.metrics.codes import CodeMatrix

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


def interchange(
    rows: NDArray[np.floating], base: CodeMatrix, source: CodeMatrix, decoder: NDArray[np.floating], latents: Int64
) -> Float64:
    """Base rows with these latents at the source's values: x + sum (f_j(source) - f_j(base)) d_j. The error stays the base's."""
    change = (source[:, latents] - base[:, latents]).toarray().astype(np.float64)
    return np.asarray(rows + change @ decoder[latents].astype(np.float64))


def caused(base: Int64, source: Int64, clean: Int64, edited: Int64) -> Float64:
    """For each pair, 1 where the edited attribute reads as the source's, else 0. NaN: the pair says nothing.

    A pair says nothing where base and source agree, or where the unedited row did not read as the base's value.
    """
    return np.where(_tells(base, source, clean), (edited == source).astype(np.float64), np.nan)


def isolated(base: Int64, source: Int64, clean: Int64, edited: Int64) -> Float64:
    """For each pair, 1 where the attribute that was not edited still reads as the base's, else 0. NaN as in `caused`.

    Where base and source agree even a swap of the whole row would leave it, so such pairs are left out.
    """
    return np.where(_tells(base, source, clean), (edited == base).astype(np.float64), np.nan)


def disentanglement(cause: Float64, isolation: Float64) -> Float64:
    """Mean over attributes of (cause + isolation) / 2. Axes: [..., attribute]. NaN where any of them is undefined.

    Read the two parts beside it: an edit that changes nothing has cause 0 and isolation 1, a swap of the whole row cause 1
    and isolation 0, and both score 0.5. Source: Huang et al. 2024 (arXiv 2402.17700).
    """
    return np.asarray((cause + isolation).mean(axis=-1) / 2)


def _tells(base: Int64, source: Int64, clean: Int64) -> NDArray[np.bool_]:
    return np.asarray((base != source) & (clean == base))
