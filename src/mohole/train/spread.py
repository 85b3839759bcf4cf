"""What ranks agree on when a dictionary's latents or a batch's rows are spread over several: which codes are kept.

A rank of the latent axis has candidates among its own latents. Values alone are exchanged; every rank finds out which of its own
belong to the best of all, with the same word on ties as one rank has: the lower row first, then the lower latent.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from mohole.kernels.pairs import Pairs
from mohole.parallel import Axis, Mesh, joined

_BITS = 16
"""Of a number that are counted at a time."""


def strongest_of_rows(pairs: Pairs, k: int, axis: Axis) -> Pairs:
    """Of this rank's pairs those that are among their row's k largest over all ranks of the latent axis.

    Args:
        pairs: the row's k largest among this rank's latents, all positive.
    """
    if axis.size == 1:
        return pairs
    rows = pairs.rows
    own = pairs.values.new_zeros(len(pairs.row_starts) - 1, k)
    own[rows, torch.arange(len(rows), device=rows.device) - pairs.row_starts[rows]] = pairs.values
    everyone = torch.stack(axis.gathered(own))
    least = everyone.transpose(0, 1).flatten(1).topk(k, dim=1).values[:, -1]  # zero: fewer than k
    n_above = (everyone > least[:, None]).sum((0, 2))
    n_before = (everyone[: axis.rank] == least[:, None]).sum((0, 2))
    room = k - n_above - n_before
    is_equal = pairs.values == least[rows]
    counted = torch.cat([torch.zeros_like(pairs.row_starts[:1]), is_equal.cumsum(0)])
    nth = counted[1:] - counted[pairs.row_starts[:-1]][rows]
    return pairs.where((pairs.values > least[rows]) | (is_equal & (nth <= room[rows])))


def strongest_of_batch(pairs: Pairs, n: int, mesh: Mesh) -> Pairs:
    """Of this rank's pairs those that are among the n largest of all ranks, whose rows make one batch.

    The n-th largest is found by counting: positive floats are ordered as their bits are, so counts of their upper 16 bits say
    which 16 those are, counts of the next ones among them what follows. No value is sent but those that equal it.

    Args:
        pairs: the n largest of this rank, all positive.
    """
    if mesh.latent.size == mesh.data.size == 1:
        return pairs
    bits = pairs.values.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[pairs.values.element_size()]).long()
    found, left = 0, n
    among = bits
    for shift in reversed(range(0, 8 * pairs.values.element_size(), _BITS)):
        counts = mesh.total(torch.bincount((among >> shift) & 0xFFFF, minlength=1 << _BITS))
        from_top = counts.flip(0).cumsum(0)
        if int(from_top[-1]) < left:
            return pairs  # all of them are fewer than n
        place = int(torch.searchsorted(from_top, left))
        left -= int(from_top[place - 1]) if place else 0
        found = (found << _BITS) | ((1 << _BITS) - 1 - place)
        among = bits[(bits >> shift) == found]
    is_equal = bits == found
    equals = is_equal.nonzero()[:, 0]
    # Data ranks have rows one after the other, latent ranks latents: joined and sorted by row, they are in the order of ties.
    n_rows = torch.tensor([len(pairs.row_starts) - 1], device=bits.device)
    first_row = int(joined(mesh.data, n_rows)[: mesh.data.rank].sum())
    rows = mesh.joined(pairs.rows[equals] + first_row)
    ranks = mesh.joined(torch.full_like(equals, mesh.data.rank * mesh.latent.size + mesh.latent.rank))
    chosen = ranks[rows.argsort(stable=True)[:left]]
    n_own = int((chosen == mesh.data.rank * mesh.latent.size + mesh.latent.rank).sum())
    keep = bits > found
    keep[equals[:n_own]] = True
    return pairs.where(keep)


def pairs_of_all(pairs: Pairs, axis: Axis) -> Pairs:
    """The pairs of all ranks of the data axis, row after row."""
    if axis.size == 1:
        return pairs
    counts = joined(axis, torch.diff(pairs.row_starts))
    starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return Pairs(starts, joined(axis, pairs.latents), joined(axis, pairs.values))


def largest_of_all(values: Float[Tensor, " n"], axis: Axis) -> Float[Tensor, " n"]:
    """Entry by entry, the largest over ranks."""
    return values if axis.size == 1 else torch.stack(axis.gathered(values)).amax(0)
