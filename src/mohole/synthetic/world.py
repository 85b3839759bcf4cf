"""Rows with known features, by row id: any rows, in any batch, on any worker, come out the same.

A row is drawn so:
1. eps, `rank` normal numbers of the row; each feature's own normal number z = factor . eps + sqrt(1 - |factor|^2) eta.
2. A feature is drawn where z exceeds the threshold of its chance (a Gaussian copula: chances are exact, co-firing is not chance).
3. From the roots down, a child whose parent does not fire is silenced; of exclusive siblings that would fire one is drawn.
4. Magnitudes: max(mean + spread * normal, 0), a child's times its parent's share of the parent's mean.

Memory is a block of rows x features in 5 bytes each, at most 2^22 entries or one row; firing features are kept as pairs.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.special import ndtri  # type: ignore[import-untyped]
from torch import Tensor

from mohole import keys
from mohole.config import Synthetic
from mohole.synthetic.directions import directions
from mohole.synthetic.tree import chances, drawn_chances, levels, parents

Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Bools = NDArray[np.bool_]

_BLOCK_ENTRIES = 1 << 22
_LEAST_OWN = 0.01  # of a feature's normal number, the part that is its own


@dataclass(frozen=True)
class Firings:
    """Which features fire in some rows, and how strongly; those of a row ascend."""

    row_starts: Int64
    features: Int64
    magnitudes: Float32

    @property
    def n_rows(self) -> int:
        return len(self.row_starts) - 1

    @property
    def rows(self) -> Int64:
        """The row of each entry."""
        return np.repeat(np.arange(self.n_rows), np.diff(self.row_starts))


class SyntheticWorld:
    """Features with directions, chances, parents and magnitudes; and rows made of them."""

    def __init__(self, settings: Synthetic, seed: int) -> None:
        self.settings, self._seed = settings, seed
        n, features = settings.n_features, np.arange(settings.n_features)
        self.directions: Float[Tensor, "feature d"] = directions(n, settings.d_model, settings.overlap, seed)
        drawn = keys.normal(seed, keys.Use.FEATURE_DIRECTION, np.array([n]), settings.d_model)[0]
        self.bias: Float[Tensor, " d"] = torch.from_numpy(drawn / np.linalg.norm(drawn) * settings.bias).float()
        self.chances = chances(settings)
        """How often each feature is meant to fire."""
        self.parents = parents(settings)
        self._levels = levels(self.parents)
        steps = np.linspace(settings.first_magnitude, settings.last_magnitude, n)
        self.mean_magnitudes: Float64 = steps
        spread = np.zeros(n)
        if settings.magnitude_spread:
            own = keys.normal(seed, keys.Use.FEATURE_SPREAD, features, 1)[:, 0]
            spread = np.abs(0.5 + settings.magnitude_spread * own)
        self._spread = spread
        drawn_at = drawn_chances(self.chances, self.parents, exclusive=settings.exclusive)
        self._factor, own_share = self._factors(features)
        self._own = np.sqrt(own_share).astype(np.float32)
        self._threshold = -ndtri(np.minimum(drawn_at, 1.0)).astype(np.float32)

    def _factors(self, features: Int64) -> tuple[Float32, Float64]:
        rank, scale = self.settings.correlation_rank, self.settings.correlation_scale
        if rank == 0:
            return np.zeros((len(features), 0), dtype=np.float32), np.ones(len(features))
        factor = scale * keys.normal(self._seed, keys.Use.FEATURE_FACTOR, features, rank)
        square = (factor**2).sum(1)
        factor *= np.sqrt(np.minimum(1.0, (1.0 - _LEAST_OWN) / square))[:, None]
        return factor.astype(np.float32), 1.0 - (factor**2).sum(1)

    def firings(self, ids: Int64) -> Firings:
        """What fires in the rows with these ids."""
        step = max(1, _BLOCK_ENTRIES // self.settings.n_features)
        parts = [self._block(ids[start : start + step]) for start in range(0, len(ids), step)]
        counts = np.concatenate([np.zeros(0, dtype=np.int64), *(np.diff(part.row_starts) for part in parts)])
        return Firings(
            np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            np.concatenate([np.zeros(0, dtype=np.int64), *(part.features for part in parts)]),
            np.concatenate([np.zeros(0, dtype=np.float32), *(part.magnitudes for part in parts)]),
        )

    def rows(self, firings: Firings) -> Float[Tensor, "row d"]:
        """The rows in which these features fire."""
        which = torch.from_numpy(firings.features)
        result: Tensor = torch.nn.functional.embedding_bag(
            which, self.directions, torch.from_numpy(firings.row_starts[:-1]),
            mode="sum", per_sample_weights=torch.from_numpy(firings.magnitudes),
        )  # fmt: skip
        return result + self.bias

    def _block(self, ids: Int64) -> Firings:
        fires = self._drawn(ids)
        for level in self._levels:
            fires[:, level] &= fires[:, self.parents[level]]
            if self.settings.exclusive:
                self._leave_one(fires, level, ids)
        row, feature = fires.nonzero()
        magnitudes = self._magnitudes(row, feature, ids)
        kept = magnitudes > 0
        row, feature, magnitudes = row[kept], feature[kept], magnitudes[kept]
        return Firings(np.searchsorted(row, np.arange(len(ids) + 1)), feature, magnitudes.astype(np.float32))

    def _drawn(self, ids: Int64) -> Bools:
        """Which features are drawn, whatever their parents and siblings do."""
        n = self.settings.n_features
        need = np.broadcast_to(self._threshold, (len(ids), n))
        if self.settings.correlation_rank:
            common = keys.normal(self._seed, keys.Use.ROW_FACTOR, ids, self.settings.correlation_rank)
            need = need - common.astype(np.float32) @ self._factor.T
        need = need / self._own
        words = np.stack([keys.stream(self._seed, keys.Use.ROW_FIRING, int(row), -(-n // 2)) for row in ids])
        words32 = words.view(np.uint32)[:, :n]
        # Most features are out by the first 16 bits of their word: the table holds the largest normal number that these allow.
        candidate = _LARGEST[(words32 >> np.uint32(16)).astype(np.uint16)] > need
        row, feature = candidate.nonzero()
        own = ndtri((words32[row, feature].astype(np.float64) + 0.5) / 2.0**32)
        candidate[row, feature] = own > need[row, feature]
        return candidate

    def _leave_one(self, fires: Bools, level: Int64, ids: Int64) -> None:
        """Of siblings of one level that fire in a row, all but one fall silent."""
        row, place = fires[:, level].nonzero()
        feature = level[place]
        group = row * np.int64(len(self.parents)) + self.parents[feature]
        rank = keys.words(self._seed, keys.Use.SIBLING, ids[row], feature)
        order = np.lexsort((rank, group))
        is_late = np.zeros(len(order), dtype=np.bool_)
        is_late[1:] = group[order][1:] == group[order][:-1]
        late = order[is_late]
        fires[row[late], feature[late]] = False

    def _magnitudes(self, row: Int64, feature: Int64, ids: Int64) -> Float64:
        columns = np.full(len(row), 0, dtype=np.int64)
        columns[:] = feature
        radius = np.sqrt(-2.0 * np.log1p(-keys.uniform(self._seed, keys.Use.ROW_MAGNITUDE, ids[row], columns * 2)))
        angle = 2.0 * np.pi * keys.uniform(self._seed, keys.Use.ROW_MAGNITUDE, ids[row], columns * 2 + 1)
        result = np.maximum(self.mean_magnitudes[feature] + self._spread[feature] * radius * np.cos(angle), 0.0)
        if not self.settings.scaled_by_parent:
            return np.asarray(result)
        n = len(self.parents)
        entry = row * np.int64(n) + feature  # ascending, as nonzero() gives it
        for level in self._levels:
            here = np.flatnonzero(np.isin(feature, level))
            parent = self.parents[feature[here]]
            of_parent = np.searchsorted(entry, row[here] * np.int64(n) + parent)
            result[here] *= result[of_parent] / self.mean_magnitudes[parent]
        return np.asarray(result)


_LARGEST = np.append(ndtri(np.arange(1, 1 << 16) / 2.0**16), np.inf).astype(np.float32) + np.float32(1e-5)
"""For the first 16 bits of a word, the largest normal number that the other bits can make of it (rounded up)."""
