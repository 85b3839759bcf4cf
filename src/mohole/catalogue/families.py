"""Families: groups of features whose directions are near one another, and which features of a small dictionary split in a large.

Arrays in, arrays out; no files.
"""

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from mohole.catalogue.neighbours import nearest_among

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

_ROUNDING = 1e-6  # of cosines given as float32


@torch.no_grad()
def families(neighbours: Int32, cosines: Float32, directions: Float[Tensor, "latent d"], *, at_least: float) -> Int32:
    """The family of each latent [latent], -1 for one that is alone: 0 is the largest, of equal ones that of the smaller member.

    Two latents are linked if one's list has the other with a cosine of `at_least`. Links are taken from the nearest pair on
    (ties: smaller latents first), and the two groups at its ends become one if the mean cosine of all pairs between them is
    `at_least`, too: average link, along links only, again until nothing changes. The mean is one product of the groups' sums
    of unit directions, so pairs that no list names count as what they are: lists of ten cannot tell a family of two hundred
    from a chain.

    Why not connected groups (single link): a chain of neighbours, each near the next, joins everything. Why not Louvain or
    Leiden: they weigh a link against the whole graph, so that a family is swallowed or falls apart as the rest of the dictionary
    changes (the resolution limit, Fortunato & Barthelemy 2007), and the answer hangs on a seed or on the numbering of latents.
    Here a family depends on its surroundings alone, and `at_least` means what it says.

    Time is that of sorting the links and a few passes over them, a product of d numbers each; memory that of the linked
    latents' directions in float64.

    Args:
        neighbours: [latent, n] as of `neighbours.nearest`, -1 where there is none.
        cosines: theirs.
    """
    one, other = _links(neighbours, cosines, at_least)
    group = np.arange(len(neighbours))
    if len(one):
        linked = np.unique(np.concatenate([one, other]))
        rows = directions[torch.from_numpy(linked)].float().double().cpu().numpy()
        units = rows / np.maximum(np.sqrt((rows * rows).sum(1, keepdims=True)), np.finfo(np.float64).tiny)
        pairs = zip(np.searchsorted(linked, one).tolist(), np.searchsorted(linked, other).tolist(), strict=True)
        group[linked] = linked[_merge(list(pairs), units, at_least - _ROUNDING)]
    return _numbered(group)


def _links(neighbours: Int32, cosines: Float32, at_least: float) -> tuple[Int64, Int64]:
    """Pairs with a cosine of `at_least`, each once, smaller latent first: from the nearest pair on, then by latents."""
    n_latents, n = neighbours.shape
    one, other = np.repeat(np.arange(n_latents), n), neighbours.astype(np.int64).ravel()
    near = (other >= 0) & (other < n_latents) & (cosines.ravel() >= at_least)
    low, high = np.minimum(one, other)[near], np.maximum(one, other)[near]
    order = np.lexsort((-cosines.ravel()[near], low * n_latents + high))
    pairs, first = np.unique((low * n_latents + high)[order], return_index=True)
    by_cosine = np.lexsort((pairs, -cosines.ravel()[near][order][first]))
    return low[order][first][by_cosine], high[order][first][by_cosine]


def _merge(links: list[tuple[int, int]], sums: Float64, at_least: float) -> list[int]:
    """The group of each row, named by a member. Overwrites `sums`, at first each row's own direction."""
    parent, size, n_merged = list(range(len(sums))), [1] * len(sums), -1

    def group(latent: int) -> int:
        while parent[latent] != latent:
            parent[latent] = latent = parent[parent[latent]]
        return latent

    while n_merged:
        n_merged, left = 0, []
        for link in links:
            one, other = group(link[0]), group(link[1])
            if one == other:
                continue
            if float(sums[one] @ sums[other]) < at_least * size[one] * size[other]:
                left.append(link)
                continue
            parent[other] = one
            sums[one] += sums[other]
            size[one] += size[other]
            n_merged += 1
        links = left
    return [group(latent) for latent in range(len(sums))]


def _numbered(group: Int64) -> Int32:
    """Groups of two and more by size, then by smallest member."""
    _, smallest, which, size = np.unique(group, return_index=True, return_inverse=True, return_counts=True)
    order = np.lexsort((smallest, -size))
    number = np.empty(len(order), np.int32)
    number[order] = np.arange(len(order), dtype=np.int32)
    number[size < 2] = -1
    return np.asarray(number[which], dtype=np.int32)


def splits(
    parents: Float[Tensor, "parent d"], children: Float[Tensor, "child d"], *, at_least: float = 0.7
) -> tuple[Int32, Float32]:
    """The latent of a smaller dictionary that each latent of a larger one is a part of, and their cosine; both [child].

    The parent of nearest decoder direction, if the cosine is `at_least`; else -1 and 0: a feature the smaller one has not. A
    parent with two children or more has split. Each child has one parent, so that the sizes of a family of dictionaries make
    trees; `metrics.splitting` counts every pair above the threshold instead, which is what its shares are of. Same decoder
    space only. Source: Bricken et al. 2023 ("Towards Monosemanticity", feature splitting).
    """
    latents, cosines = nearest_among(children, parents, 1)
    near = (latents[:, 0] >= 0) & (cosines[:, 0] >= at_least)
    return np.where(near, latents[:, 0], np.int32(-1)), np.where(near, cosines[:, 0], np.float32(0))
