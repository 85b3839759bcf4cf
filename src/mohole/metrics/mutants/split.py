"""Wrong ways to find children."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mohole.metrics.codes import Codes, firings_of, matrix_of
from mohole.metrics.definitions import OURS
from mohole.metrics.mutants.mutant import Mutant, mutant
from mohole.metrics.splitting import CoFiring, Coverage

Int64 = NDArray[np.int64]


def _opposites(parents: Tensor, children: Tensor, *, threshold: float = 0.7, block: int = 1024) -> Int64:
    """The sign is dropped: an opposite is a child.

    Seen in: splitting by |cos|.
    """
    found = [OURS.children_by_cosine(parents, sign * children, threshold=threshold) for sign in (1, -1)]
    return np.unique(np.concatenate(found), axis=0)


def _places_in_blocks(parents: Tensor, children: Tensor, *, threshold: float = 0.7, block: int = 1024) -> Int64:
    """A latent's place in its block is taken for its id.

    Seen in: chunked products.
    """
    found = OURS.children_by_cosine(parents, children, threshold=threshold, block=block)
    return found % block


class _OtherConditional(CoFiring):
    """P(child | parent) for P(parent | child).

    Seen in: a conditional probability read backwards.
    """

    def pairs(self, *, threshold: float = 0.9, densest: float = 0.1) -> Int64:
        both = self.both.tocoo()
        kept = both.data > threshold * self.parents[both.row]
        return np.asarray(np.stack([both.row, both.col], axis=1)[kept].astype(np.int64))


class _EverythingsParent(CoFiring):
    """A latent that fires everywhere is parent of all.

    Seen in: conditional probabilities without the base rate.
    """

    def pairs(self, *, threshold: float = 0.9, densest: float = 0.1) -> Int64:
        return super().pairs(threshold=threshold, densest=1.0)


class _CountsOfOneRank(CoFiring):
    """Pairs are summed over ranks, firings are not.

    Seen in: sparsify #119.
    """

    def merge(self, other: CoFiring) -> None:
        self.both = self.both + other.both
        self.n_rows += other.n_rows


class _CoversTwice(Coverage):
    """A row with two children counts twice: coverage above 1.

    Seen in: coverage summed over children.
    """

    def add(self, parents: Codes, children: Codes) -> None:
        mass = abs(matrix_of(parents))
        self.mass = self.mass + np.asarray(mass.sum(0)).ravel()
        self.covered = self.covered + np.asarray(mass.multiply(firings_of(children) @ self._family).sum(0)).ravel()


class _RowsForMass(Coverage):
    """Rows are counted, not how strongly the parent fires there.

    Seen in: coverage of firings called coverage of mass.
    """

    def add(self, parents: Codes, children: Codes) -> None:
        class _Ones:
            row_starts, latents, n_latents = parents.row_starts, parents.latents, parents.n_latents
            values = (parents.values != 0).to(parents.values.dtype)

        ones: Any = _Ones()
        super().add(ones, children)


MUTANTS: tuple[Mutant, ...] = (
    mutant("children_by_cosine", _opposites),
    mutant("children_by_cosine", _places_in_blocks),
    mutant("co_firing", _OtherConditional),
    mutant("co_firing", _EverythingsParent),
    mutant("co_firing", _CountsOfOneRank),
    mutant("coverage", _CoversTwice),
    mutant("coverage", _RowsForMass),
)
