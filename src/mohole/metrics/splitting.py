"""Feature splitting: which latents of a large dictionary are the children of a small one's, and how much of it they cover."""

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from mohole.metrics.codes import Codes, firings_of, matrix_of
from mohole.metrics.geometry import unit_rows

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


def children_by_cosine(
    parents: Float[Tensor, "parent d"],
    children: Float[Tensor, "child d"],
    *,
    threshold: float = 0.7,
    block: int = 1024,
) -> Int64:
    """Pairs [pair, (parent, child)] of decoder rows with a cosine above the threshold, ascending."""
    found = [np.zeros((0, 2), dtype=np.int64)]
    for first in range(0, len(parents), block):
        for low in range(0, len(children), block):
            cosines = unit_rows(parents[first : first + block]) @ unit_rows(children[low : low + block]).T
            found.append((cosines > threshold).nonzero().numpy() + np.array([first, low]))
    pairs = np.concatenate(found)
    return np.asarray(pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))])


class CoFiring:
    """Counts of rows in which a parent, a child, and both fire. Codes of two dictionaries on the same rows; sparse, exact."""

    def __init__(self, n_parents: int, n_children: int) -> None:
        from scipy.sparse import csr_matrix  # type: ignore[import-untyped]

        self.both = csr_matrix((n_parents, n_children), dtype=np.int64)
        self.parents: Int64 = np.zeros(n_parents, dtype=np.int64)
        self.children: Int64 = np.zeros(n_children, dtype=np.int64)
        self.n_rows = 0

    def add(self, parents: Codes, children: Codes) -> None:
        """Add rows: both dictionaries' codes of the same ones, in the same order."""
        mine, theirs = firings_of(parents), firings_of(children)
        if mine.shape[0] != theirs.shape[0]:
            raise ValueError(f"codes of {mine.shape[0]} and of {theirs.shape[0]} rows are not of the same rows")
        self.both = self.both + mine.T @ theirs
        self.parents = self.parents + np.asarray(mine.sum(0)).ravel()
        self.children = self.children + np.asarray(theirs.sum(0)).ravel()
        self.n_rows += mine.shape[0]

    def merge(self, other: "CoFiring") -> None:
        """Add what another accumulator has seen."""
        self.both = self.both + other.both
        self.parents, self.children = self.parents + other.parents, self.children + other.children
        self.n_rows += other.n_rows

    def pairs(self, *, threshold: float = 0.9, densest: float = 0.1) -> Int64:
        """Pairs [pair, (parent, child)] with P(parent fires | child fires) above the threshold, ascending.

        A parent that fires in more than a share `densest` of rows has no children here: it fires with everything.
        """
        both = self.both.tocoo()
        children = both.data > threshold * self.children[both.col]
        children &= self.parents[both.row] <= densest * self.n_rows
        pairs = np.stack([both.row, both.col], axis=1)[children].astype(np.int64)
        return np.asarray(pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))])


class Coverage:
    """How much of each parent's firing mass lies on rows in which one of its children fires."""

    def __init__(self, pairs: Int64, n_parents: int, n_children: int) -> None:
        from scipy.sparse import csr_matrix

        ones = np.ones(len(pairs), dtype=np.int64)
        self._family = csr_matrix((ones, (pairs[:, 1], pairs[:, 0])), shape=(n_children, n_parents))
        self.mass: Float64 = np.zeros(n_parents)
        """Sum over rows of |f_j|."""
        self.covered: Float64 = np.zeros(n_parents)

    def add(self, parents: Codes, children: Codes) -> None:
        """Add rows: both dictionaries' codes of the same ones, in the same order."""
        mass = abs(matrix_of(parents))
        n_children_firing = firings_of(children) @ self._family
        self.mass = self.mass + np.asarray(mass.sum(0)).ravel()
        self.covered = self.covered + np.asarray(mass.multiply(n_children_firing > 0).sum(0)).ravel()

    def merge(self, other: "Coverage") -> None:
        """Add what another accumulator, of the same pairs, has seen."""
        self.mass, self.covered = self.mass + other.mass, self.covered + other.covered

    @property
    def share(self) -> Float64:
        """Covered mass over mass [parent]: 0 for one without children, NaN for one that never fired."""
        return np.asarray(np.divide(self.covered, self.mass, out=np.full(len(self.mass), np.nan), where=self.mass > 0))
