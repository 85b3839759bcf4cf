"""How much of the codes there is, and how it lies in documents: L1 and firing consistency. Counts of firings are in firing.py."""

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from mohole.metrics.codes import Codes, entry_rows
from mohole.metrics.documents import DocumentSums

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

_HELD = 1 << 20  # unmerged pairs of a document and a latent: 16 MB


def l1_by_row(codes: Codes, norms: Float[Tensor, " latent"] | None = None) -> Float64:
    """Each row's sum over latents of |f_j|, or with the decoder rows' lengths of |f_j| * |d_j|. Model units.

    Only the second means the same for every dictionary: f -> c f with d -> d / c leaves the reconstruction and the second, and
    scales the first by c. Source: Conerly et al. 2024 (transformer-circuits.pub, April update).
    """
    sizes = codes.values.double().abs()
    if norms is not None:
        sizes = sizes * norms.double()[codes.latents]
    sums = torch.zeros(len(codes.row_starts) - 1, dtype=torch.float64)
    return np.asarray(sums.index_add_(0, entry_rows(codes), sizes).numpy())


class DocumentFiring:
    """How often each latent fires in each document in which it fires at all. Exact, also for documents cut between batches.

    Memory is 16 bytes for each pair of a document and a latent that fires in it.
    """

    def __init__(self, n_latents: int) -> None:
        self.n_latents = n_latents
        self._parts: list[tuple[Int64, Int64]] = []  # keys document * n_latents + latent, ascending; firings
        self._n_loose = 0

    def add(self, codes: Codes, documents: Int64) -> None:
        """Add rows of sparse codes and the document of each row. Stored zeros do not count.

        Raises:
            ValueError: a document's id is too large to be kept beside a latent's in 63 bits.
        """
        if len(documents) and int(documents.max()) > (2**63 - 1) // self.n_latents - 1:
            raise ValueError(f"document {documents.max()}: too large an id for {self.n_latents} latents")
        fired = (codes.values != 0).numpy()
        row = entry_rows(codes).numpy()[fired]
        keys = documents[row] * self.n_latents + codes.latents.numpy()[fired]
        self._keep(*np.unique(keys, return_counts=True))

    def merge(self, other: "DocumentFiring") -> None:
        """Add what another accumulator (another shard, another rank) has seen."""
        if self.n_latents != other.n_latents:
            raise ValueError(f"firings of {self.n_latents} and of {other.n_latents} latents do not go together")
        self._keep(*other._pairs())

    @property
    def documents_active(self) -> Int64:
        """Documents in which each latent fires [latent]."""
        return np.bincount(self._pairs()[0] % self.n_latents, minlength=self.n_latents).astype(np.int64)

    @property
    def consistency(self) -> Float64:
        """Firings of each latent per document in which it fires [latent]; NaN where it never does.

        1 is a latent that comes once, a large number one that stays on. Source: SAELens, `consistent_activation_heuristic`.
        """
        keys, firings = self._pairs()
        counts: Int64 = np.zeros(self.n_latents, dtype=np.int64)
        np.add.at(counts, keys % self.n_latents, firings)
        active = self.documents_active
        return np.asarray(np.divide(counts, active, out=np.full(self.n_latents, np.nan), where=active > 0))

    def by_document(self) -> DocumentSums:
        """Columns `firings` and `latents` (those that fire in it) of each document; their pooled ratio is one number for all."""
        keys, firings = self._pairs()
        sums = DocumentSums(("firings", "latents"))
        sums.add(keys // self.n_latents, np.stack([firings, np.ones_like(firings)], axis=1).astype(np.float64))
        return sums

    def _keep(self, keys: Int64, firings: Int64) -> None:
        self._parts.append((keys, firings.astype(np.int64)))
        self._n_loose += len(keys)
        if self._n_loose > _HELD + len(self._parts[0][0]):
            self._pairs()

    def _pairs(self) -> tuple[Int64, Int64]:
        if not self._parts:
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        if len(self._parts) > 1:
            keys, place = np.unique(np.concatenate([part[0] for part in self._parts]), return_inverse=True)
            firings: Int64 = np.zeros(len(keys), dtype=np.int64)
            np.add.at(firings, place, np.concatenate([part[1] for part in self._parts]))
            self._parts, self._n_loose = [(keys, firings)], 0
        return self._parts[0]
