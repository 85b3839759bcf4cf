"""How a dictionary's directions lie: lengths, encoder against decoder, nearest neighbours, the mean row. Weights only, no rows.

All in float64, from blocks of rows: never a matrix of all latents by all latents.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

_TIE = 1e-12  # cosines this close are equal: BLAS rounds them by the shape of a block


def row_norms(rows: Float[Tensor, "row d"]) -> Float[Tensor, " row"]:
    """Length of each row, float64, in the rows' units."""
    lengths: Tensor = rows.double().norm(dim=1)
    return lengths


def unit_rows(rows: Float[Tensor, "row d"]) -> Float[Tensor, "row d"]:
    """Rows of length 1, float64; a row of length zero becomes NaN, and so does every cosine with it."""
    rows = rows.double()
    largest = rows.abs().amax(dim=1, keepdim=True)  # so that squares of tiny rows do not vanish
    rows = rows / largest
    unit: Tensor = rows / rows.norm(dim=1, keepdim=True)
    return unit


def paired_cosine(one: Float[Tensor, "row d"], other: Float[Tensor, "row d"]) -> Float[Tensor, " row"]:
    """cos(one_j, other_j), as of each latent's encoder and decoder row. NaN where either has no length."""
    return (unit_rows(one) * unit_rows(other)).sum(1)


def cosine_with(rows: Float[Tensor, "row d"], direction: Float[Tensor, " d"]) -> Float[Tensor, " row"]:
    """cos(row, direction), as of decoder rows and the mean activation: latents that stand in for a bias are near 1 or -1."""
    return unit_rows(rows) @ unit_rows(direction[None])[0]


def best_cosine(
    rows: Float[Tensor, "row d"],
    among: Float[Tensor, "other d"],
    *,
    itself: Int[Tensor, " row"] | None = None,
    block: int = 1024,
) -> tuple[Float[Tensor, " row"], Int[Tensor, " row"]]:
    """Each row's largest cosine with a row of `among`, and which: the first of equal ones. The sign counts: -1 is far away.

    The same for any `block` (side of the matrix that is held). A row without length has NaN and -1; so has one with none to
    compare with.

    Args:
        itself: where each row stands in `among`, which is then left out: nearest *other* row.
    """
    best = torch.full((len(rows),), -torch.inf, dtype=torch.float64)
    which = torch.full((len(rows),), -1, dtype=torch.int64)
    for low in range(0, len(among), block):
        others = unit_rows(among[low : low + block])
        for first in range(0, len(rows), block):
            part = slice(first, first + block)
            cosines = (unit_rows(rows[part]) @ others.T).nan_to_num(nan=-torch.inf)
            if itself is not None:
                here = itself[part] - low
                inside = ((here >= 0) & (here < len(others))).nonzero()[:, 0]
                cosines[inside, here[inside]] = -torch.inf
            largest = cosines.amax(1)
            better = largest > best[part] + _TIE
            first_of_equal = (cosines >= largest[:, None] - _TIE).to(torch.uint8).argmax(1) + low
            best[part] = torch.where(better, largest, best[part])
            which[part] = torch.where(better, first_of_equal, which[part])
    return torch.where(which >= 0, best, torch.nan), which


def nearest_other(
    rows: Float[Tensor, "row d"], of: Int[Tensor, " chosen"] | None = None, *, block: int = 1024
) -> tuple[Float[Tensor, " chosen"], Int[Tensor, " chosen"]]:
    """The largest cosine of each row (or of those named) with another row, and which. 1 is a duplicate."""
    of = torch.arange(len(rows)) if of is None else of
    return best_cosine(rows[of], rows, itself=of, block=block)
