"""What must be true of parents, children and coverage."""

from collections.abc import Iterator

import numpy as np
import torch

from mohole.metrics.definitions import Definitions
from mohole.metrics.known_answers.answer import Answer, Check
from mohole.metrics.known_answers.coded import coded
from mohole.metrics.known_answers.rows import Int64

_N = 40


def _same(found: Int64, true: list[tuple[int, int]]) -> float:
    return float([tuple(pair) for pair in found.tolist()] == true)


def children_point_as_their_parent(d: Definitions) -> Iterator[Answer]:
    """Cosines 0.8, 0.71 and 0.69 with one parent, -1 with the other: two children of the first, in blocks of any size."""
    parents = torch.tensor([[5.0, 0.0], [0.0, -1.0]], dtype=torch.float64)
    cosines = torch.tensor([0.69, 0.8, 0.71, 0.0], dtype=torch.float64)
    children = torch.stack([cosines, (1 - cosines.square()).sqrt()], dim=1)
    for block in (1, 2, 1024):
        found = d.children_by_cosine(parents, children, block=block)
        yield Answer(f"children by cosine, blocks of {block}", _same(found, [(0, 1), (0, 2)]), 1.0)


def _family() -> tuple[torch.Tensor, torch.Tensor]:
    """Parent 0 fires in rows 0 to 3, parent 1 in every row. Children: of its rows one, three, one and three others; one dead."""
    parents, children = torch.zeros(_N, 2, dtype=torch.float64), torch.zeros(_N, 4, dtype=torch.float64)
    parents[:4, 0] = torch.tensor([1.0, -2.0, 3.0, 4.0], dtype=torch.float64)
    parents[:, 1] = 1.0
    children[0, 0] = 0.5
    children[0:3, 1] = 9.0
    children[[3, 10, 11, 12], 2] = 1.0
    return parents, children


def children_fire_under_their_parent(d: Definitions) -> Iterator[Answer]:
    """A child fires where its parent does, not the parent where the child does; what fires everywhere is nobody's parent."""
    parents, children = _family()
    for n_ranks, batch in ((1, _N), (2, 7)):
        ranks = [d.co_firing(2, 4) for _ in range(n_ranks)]
        for turn, first in enumerate(range(0, _N, batch)):
            part = slice(first, first + batch)
            ranks[turn % n_ranks].add(coded(parents[part]), coded(children[part], with_zeros=True))
        for rank in ranks[1:]:
            ranks[0].merge(rank)
        yield Answer(f"children by firing, {n_ranks} ranks", _same(ranks[0].pairs(), [(0, 0), (0, 1)]), 1.0)
        loose = ranks[0].pairs(threshold=0.2, densest=1.0)
        expected = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
        yield Answer(f"children above 0.2, any density, {n_ranks} ranks", _same(loose, expected), 1.0)


def children_cover_mass_once(d: Definitions) -> Iterator[Answer]:
    """Mass 10 of which 6 lies on rows where one or both children fire: 0.6. No children: 0. No firing: undefined."""
    parents, children = _family()
    parents = torch.cat([parents, 0 * parents[:, :1]], dim=1)
    pairs = np.array([(0, 0), (0, 1)])
    ranks = [d.coverage(pairs, 3, 4), d.coverage(pairs, 3, 4)]
    for turn, first in enumerate(range(0, _N, 3)):
        ranks[turn % 2].add(coded(parents[first : first + 3]), coded(children[first : first + 3]))
    ranks[0].merge(ranks[1])
    for parent, true in enumerate((0.6, 0.0, float("nan"))):
        yield Answer(f"coverage of parent {parent}", float(ranks[0].share[parent]), true)


CHECKS: tuple[Check, ...] = (
    children_point_as_their_parent, children_fire_under_their_parent, children_cover_mass_once,
)  # fmt: skip
