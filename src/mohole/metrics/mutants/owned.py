"""Wrong ways to hold a dictionary against features that are known."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mohole.metrics.definitions import OURS
from mohole.metrics.known_features import Detection, Pairs
from mohole.metrics.mutants.mutant import Mutant, mutant

Int64 = NDArray[np.int64]
Bools = NDArray[np.bool_]


def _products_for_cosines(latents: Tensor, features: Tensor) -> Tensor:
    """Products, not cosines: a long latent is near to everything.

    Seen in: decoder rows taken to be of length 1.
    """
    return latents.float() @ features.float().T


def _nearest_for_matched(cosine: Tensor) -> float:
    """Each latent takes its best feature, and many the same one.

    Seen in: mean max cosine, printed as a matching.
    """
    return float(cosine.abs().amax(1).mean())


def _of_all_features(cosine: Tensor) -> float:
    """Distinct features are divided by the number of features.

    Seen in: a change of the denominator.
    """
    return len(np.unique(cosine.abs().argmax(dim=1).numpy())) / cosine.shape[1]


def _either_way(cosine: Tensor) -> Tensor:
    """A latent that points the other way owns the feature.

    Seen in: SAELens, mean_correlation_coefficient.
    """
    return OURS.own_latents(cosine.abs())


def _any_near_one(cosine: Tensor) -> Tensor:
    """A feature is owned by whatever is nearest, were it another's.

    Seen in: an argmax over latents.
    """
    return cosine.argmax(0)


def _every_feature_counts(best: Int64, latents: Pairs, features: Pairs) -> Detection:
    """A latent is right wherever any feature fires.

    Seen in: rows compared, and not pairs.
    """
    hits = np.isin(latents.rows, features.rows)
    both = np.bincount(latents.columns[hits], minlength=latents.n_columns).astype(np.int64)
    return Detection(both, latents.counts, features.counts[best])


def _feature_by_its_number(best: Int64, latents: Pairs, features: Pairs) -> Detection:
    """Features are counted in their own order, not in that of the latents.

    Seen in: an index that is forgotten.
    """
    own = OURS.detection(best, latents, features)
    return Detection(own.both, own.latent, np.resize(features.counts, len(best)))


def _any_latent(own: Int64, latents: Pairs, features: Pairs) -> Bools:
    """A feature is found where any latent fires.

    Seen in: rows compared, and not pairs.
    """
    return np.isin(features.rows, latents.rows)


MUTANTS: tuple[Mutant, ...] = (
    mutant("feature_cosines", _products_for_cosines),
    mutant("mcc", _nearest_for_matched),
    mutant("uniqueness", _of_all_features),
    mutant("own_latents", _either_way),
    mutant("own_latents", _any_near_one),
    mutant("detection", _every_feature_counts),
    mutant("detection", _feature_by_its_number),
    mutant("found_firings", _any_latent),
)
