"""Wrong ways to sum codes, and to count the documents in which a latent fires."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mohole.metrics.codes import Codes, entry_rows, matrix_of
from mohole.metrics.definitions import OURS, Array
from mohole.metrics.mutants.mutant import Mutant, mutant
from mohole.metrics.sparsity import DocumentFiring


def _signed(codes: Codes, norms: Tensor | None = None) -> Array:
    """Values are summed with their sign, and cancel.

    Seen in: sae-lens before 6.54, L1 of signed codes.
    """
    matrix = matrix_of(codes)
    weights = np.ones(codes.n_latents) if norms is None else norms.double().numpy()
    return np.asarray(matrix @ weights)


def _norm_twice(codes: Codes, norms: Tensor | None = None) -> Array:
    """The decoder's lengths are applied twice.

    Seen in: dictionary_learning #39; SAELens #365.
    """
    return OURS.l1_by_row(codes, None if norms is None else norms.square())


def _over_rows(codes: Codes, norms: Tensor | None = None) -> Array:
    """The sum runs over rows instead of latents.

    Seen in: SAELens #119.
    """
    sums = np.asarray(abs(matrix_of(codes)).sum(0)).ravel()
    return np.asarray(sums if norms is None else sums * norms.double().numpy())


def _norms_of_others(codes: Codes, norms: Tensor | None = None) -> Array:
    """Lengths are taken in the order of entries, not by latent.

    Seen in: sparse codes whose places are taken for ids.
    """
    if norms is None or len(codes.latents) == 0:
        return OURS.l1_by_row(codes, norms)
    taken = norms.double()[torch.arange(len(codes.latents)) % len(norms)]
    rows = torch.zeros(len(codes.row_starts) - 1, dtype=torch.float64)
    return np.asarray(rows.index_add_(0, entry_rows(codes), codes.values.abs() * taken).numpy())


class _ByBatch(DocumentFiring):
    """A document that two batches cut counts twice.

    Seen in: prompts counted by batch, as in SAELens's consistent_activation_heuristic.
    """

    def __init__(self, n_latents: int) -> None:
        super().__init__(n_latents)
        self.shift = 0

    def add(self, codes: Codes, documents: Any) -> None:
        self.shift += 1000
        super().add(codes, documents + self.shift)


class _StoredZerosAreActive(DocumentFiring):
    """An entry that is stored is taken for one that fires.

    Seen in: sparse codes padded to k entries.
    """

    def add(self, codes: Codes, documents: Any) -> None:
        keys = documents[entry_rows(codes).numpy()] * self.n_latents + codes.latents.numpy()
        self._keep(*np.unique(keys, return_counts=True))


class _DeadIsZero(DocumentFiring):
    """A latent that never fires has consistency 0.

    Seen in: ratios passed through nan_to_num.
    """

    @property
    def consistency(self) -> Array:
        return np.nan_to_num(super().consistency)


MUTANTS: tuple[Mutant, ...] = (
    mutant("l1_by_row", _signed),
    mutant("l1_by_row", _norm_twice),
    mutant("l1_by_row", _over_rows),
    mutant("l1_by_row", _norms_of_others),
    mutant("document_firing", _ByBatch),
    mutant("document_firing", _StoredZerosAreActive),
    mutant("document_firing", _DeadIsZero),
)
