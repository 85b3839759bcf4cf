"""How well a dictionary's directions and firings are those of known features. Pure; what fires comes as pairs.

The field's scores, and what they hide. MCC and uniqueness are means over latents or over matched pairs, so a dictionary of ten
latents that are ten of ten thousand features scores 1; and they take |cosine|, so a latent that points the other way counts.
`found_mass` is asked of the features, each by how much it fires, and has signs.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]


def cosines(
    latents: Float[Tensor, "latent d"], features: Float[Tensor, "feature d"]
) -> Float[Tensor, "latent feature"]:
    """The cosine of every latent with every feature; 0 with a direction that has no length."""
    return (
        torch.nn.functional.normalize(latents.float(), dim=1) @ torch.nn.functional.normalize(features.float(), dim=1).T
    )


def mcc(cosine: Float[Tensor, "latent feature"]) -> float:
    """Mean correlation coefficient: mean |cosine| over the best one-to-one matching of latents and features.

    Over the smaller side: of fewer latents than features, the features left over do not count. Source: Song et al. 2025
    (arXiv 2505.20254); matching by the Hungarian method.
    """
    from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]  # here: it takes a while to import

    size = cosine.abs().numpy()
    rows, columns = linear_sum_assignment(size, maximize=True)
    return float(size[rows, columns].mean())


def uniqueness(cosine: Float[Tensor, "latent feature"]) -> float:
    """Distinct features that are some latent's best by |cosine|, of the number of latents."""
    return len(np.unique(cosine.abs().argmax(dim=1).numpy())) / len(cosine)


def own_latents(cosine: Float[Tensor, "latent feature"]) -> Int[Tensor, " feature"]:
    """For each feature the latent that is it: of those whose best feature (highest cosine, above 0) it is, the nearest. -1: none.

    So a latent is one feature at most, and one that points the other way is none.
    """
    best, feature = cosine.max(dim=1)
    result = torch.full((cosine.shape[1],), -1, dtype=torch.int64)
    order = best.argsort(stable=True)  # ascending, so that the nearest is written last
    order = order[best[order] > 0]
    result[feature[order]] = order
    return result


@dataclass(frozen=True)
class Pairs:
    """What fires: the row and the column (latent or feature) of each entry, each pair once."""

    rows: Int64
    columns: Int64
    n_columns: int

    @property
    def counts(self) -> Int64:
        """In how many rows each column fires."""
        return np.bincount(self.columns, minlength=self.n_columns).astype(np.int64)

    def holds(self, rows: Int64, columns: Int64) -> NDArray[np.bool_]:
        """Does this column fire in this row? A column of -1 never does."""
        return np.isin(rows * self.n_columns + columns, self.rows * self.n_columns + self.columns) & (columns >= 0)


@dataclass(frozen=True)
class Detection:
    """Counts for every latent, as a detector of its best feature by |cosine|: mergeable by adding."""

    both: Int64
    latent: Int64
    feature: Int64

    def __add__(self, other: "Detection") -> "Detection":
        return Detection(self.both + other.both, self.latent + other.latent, self.feature + other.feature)

    @property
    def precision(self) -> Float64:
        """Of the rows in which a latent fires, the share in which its feature does; 0 for one that never fires."""
        return _share(self.both, self.latent)

    @property
    def recall(self) -> Float64:
        """Of the rows in which its feature fires, the share in which the latent does."""
        return _share(self.both, self.feature)

    @property
    def f1(self) -> Float64:
        return _share(2 * self.both, self.latent + self.feature)


def detection(best: Int64, latents: Pairs, features: Pairs) -> Detection:
    """Count one batch of rows. `best`: each latent's feature."""
    hits = features.holds(latents.rows, best[latents.columns])
    return Detection(
        np.bincount(latents.columns[hits], minlength=latents.n_columns).astype(np.int64),
        latents.counts,
        features.counts[best],
    )


def found(own: Int64, latents: Pairs, features: Pairs) -> NDArray[np.bool_]:
    """For each firing of a feature: does its own latent fire there?"""
    return latents.holds(features.rows, own[features.columns])


def _share(part: Int64, whole: Int64) -> Float64:
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)
