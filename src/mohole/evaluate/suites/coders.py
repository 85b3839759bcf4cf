"""A dictionary, and what it is held against, all as codes with directions: random directions, neurons, PCA, a probe's own."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array, vstack  # type: ignore[import-untyped]

from mohole.dictionary import Autoencoder, NormalisedAutoencoder
from mohole.evaluate.recovery.floors import random_like
from mohole.evaluate.rows.choice import chunks

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

SIZES = (1, 2, 5, 10, 20, 50)
"""How many latents are edited together where the best number is looked for."""


@dataclass(frozen=True)
class Coder:
    """Rows into codes, and what one unit of each latent adds to a row.

    A dictionary that normalises each row adds its decoder row as many times as the row's own unit is long: `parts` has that in,
    and is what edits of rows take. `encode` says how strongly a latent fires, and is what is read.
    """

    name: str
    encode: Callable[[Float32], Any]
    """Rows [row, d] to a CSR array [row, latent]."""
    decoder: NDArray[np.floating]
    """[latent, d]"""
    bias: Float64
    """What the row is where every latent is silent; of a dictionary that normalises rows, in the row's own units."""
    is_sparse: bool
    normalises: NormalisedAutoencoder | None = None

    def scale(self, rows: Float32) -> Float64 | None:
        """Model units in one of each row's own [row]. None: they are the same."""
        units = None if self.normalises is None else self.normalises.units_of(_tensor(rows))
        return None if units is None else units.scale[:, 0].double().numpy()

    def silent(self, rows: Float32) -> Float64:
        """What each row is, in model units, where every latent is silent: [d], or [row, d] where rows have units of their own."""
        if self.normalises is None:
            return self.bias
        units = self.normalises.units_of(_tensor(rows))
        return np.asarray(units.origin.double().numpy() + units.scale.double().numpy() * self.bias)

    def parts(self, rows: Float32) -> Any:
        """Codes in model units: what latent j adds to a row is this times its decoder row."""
        return scaled(self.encode(rows), self.scale(rows))


def coders_for(dictionary: Autoencoder, rows: Float32, seed: int) -> list[Coder]:
    """The dictionary and its floors. `rows` are selection rows, for their mean and principal axes."""
    mean = rows.mean(axis=0, dtype=np.float64)
    centred = rows - mean
    axes = np.linalg.eigh(centred.T @ centred)[1][:, ::-1].T
    return [
        _of_dictionary("dictionary", dictionary),
        _of_dictionary("random", random_like(dictionary, _tensor(rows), seed)),
        along("neurons", np.eye(len(mean)), mean),
        along("pca", np.ascontiguousarray(axes), mean),
    ]


def scaled(codes: Any, scale: Float64 | None) -> Any:
    """Each row of codes times its own number."""
    return codes if scale is None else codes.multiply(scale[:, None]).tocsr()


def along(name: str, axes: Float64, mean: Float64) -> Coder:
    """Orthonormal axes as latents, counted from the mean row: each fires everywhere, either way."""
    return Coder(name, lambda rows: csr_array((rows - mean) @ axes.T), axes, mean, is_sparse=False)


def span(directions: Float64) -> Float64:
    """Orthonormal axes [axis, d] of the space of these directions [direction, d]; those that add nothing are dropped."""
    _, sizes, axes = np.linalg.svd(directions / np.linalg.norm(directions, axis=1, keepdims=True), full_matrices=False)
    return np.asarray(axes[sizes > 1e-6 * sizes[0]])


def _of_dictionary(name: str, dictionary: Autoencoder) -> Coder:
    def encode(rows: Float32) -> Any:
        parts = []
        for part in chunks(len(rows), dictionary.n_latents):
            codes = dictionary.encode(_tensor(rows[part]))
            entries = (codes.values.numpy(), codes.latents.numpy(), codes.row_starts.numpy())
            parts.append(csr_array(entries, shape=(codes.n_rows, dictionary.n_latents)))
        return vstack(parts, format="csr") if parts else csr_array((0, dictionary.n_latents))

    normalises = dictionary if isinstance(dictionary, NormalisedAutoencoder) else None
    own = dictionary.own if isinstance(dictionary, NormalisedAutoencoder) else dictionary
    return Coder(name, encode, own.W_dec.numpy(), own.b_dec.double().numpy(), is_sparse=True, normalises=normalises)


def _tensor(rows: Float32) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(rows, dtype=np.float32))
