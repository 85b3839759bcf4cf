"""What a latent's score is held against: a linear probe (what could be had), principal components and random latents (free)."""

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from mohole import keys
from mohole.dictionary import Autoencoder, NormalisedAutoencoder, SparseAutoencoder
from mohole.dictionary.normalised import own_rows

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Bools = NDArray[np.bool_]

_MAX_ITERATIONS = 1000
_BLOCK_ROWS = 8192


def random_like(like: Autoencoder, rows: Float[Tensor, "row d"], seed: int) -> Autoencoder:
    """`random_dictionary` about the mean of these rows; of one that normalises each row, about that of the normalised ones."""
    mean = own_rows(like, rows).double().mean(0).numpy()
    if isinstance(like, NormalisedAutoencoder):
        return replace(like, own=random_dictionary(like.own, mean, seed))
    return random_dictionary(like, mean, seed)


def random_dictionary(like: SparseAutoencoder, mean: Float64, seed: int) -> SparseAutoencoder:
    """Same shapes and nonlinearity; decoder and encoder are the same random unit directions, keyed by latent, about `mean`."""
    drawn = keys.normal(seed, keys.Use.RANDOM_DICTIONARY, np.arange(like.n_latents), like.d_model)
    directions = torch.from_numpy(drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).float()
    centre = torch.from_numpy(mean).float()
    return replace(like, W_enc=directions, b_enc=torch.zeros(like.n_latents), W_dec=directions, b_dec=centre)


class PrincipalComponents:
    """The directions of greatest variance of some rows, the greatest first: what a dictionary must beat to be worth training.

    Of each, the entry of the greatest size is positive, so that the same rows give the same signs.
    """

    def __init__(self, rows: Float32) -> None:
        self._mean = rows.mean(axis=0, dtype=np.float64)
        spread = np.zeros((rows.shape[1], rows.shape[1]))
        for start in range(0, len(rows), _BLOCK_ROWS):
            centred = rows[start : start + _BLOCK_ROWS] - self._mean
            spread += centred.T @ centred
        _, vectors = np.linalg.eigh(spread)
        largest = np.abs(vectors).argmax(axis=0)
        signs = np.where(vectors[largest, np.arange(len(largest))] < 0, -1.0, 1.0)
        self.directions: Float64 = (vectors * signs)[:, ::-1].T
        """Unit vectors [component, dimension]."""

    def scores(self, rows: Float32) -> Float32:
        """Every row's place along every component."""
        return np.asarray((rows - self._mean) @ self.directions.T, dtype=np.float32)

    def score(self, rows: Float32, component: int) -> Float64:
        """Every row's place along one component."""
        return np.asarray((rows - self._mean) @ self.directions[component], dtype=np.float64)


class Probe:
    """Logistic regression on standardised rows: what a linear reading of the activation can tell. L2, scikit-learn's C = 1."""

    def __init__(self, rows: Float32, positive: Bools) -> None:
        from sklearn.linear_model import LogisticRegression  # here: it takes a second to import

        mean, spread = rows.mean(axis=0, dtype=np.float64), rows.std(axis=0, dtype=np.float64)
        scale = np.where(spread > 0, spread, 1.0)
        model = LogisticRegression(C=1.0, tol=1e-3, max_iter=_MAX_ITERATIONS)
        model.fit(((rows - mean) / scale).astype(np.float32), positive)
        self._weights: Float64 = model.coef_[0].astype(np.float64) / scale
        self._mean = mean

    def scores(self, rows: Float32) -> Float64:
        """The log-odds of each row, up to a constant."""
        return np.asarray((rows - self._mean) @ self._weights)
