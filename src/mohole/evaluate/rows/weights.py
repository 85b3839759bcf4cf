"""What a dictionary's weights say without any row: lengths, encoder against decoder, near duplicates, a stand-in for the bias."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from mohole.dictionary import Autoencoder, NormalisedAutoencoder
from mohole.metrics import (
    Masks,
    Measure,
    cosine_with,
    expected_max_cosine,
    nearest_other,
    paired_cosine,
    row_norms,
)

_MOST = 512
"""Latents whose nearest neighbour is looked for, evenly over all: the cost grows with the dictionary, not with its square."""


def measure_weights(dictionary: Autoencoder, mean: NDArray[np.float64]) -> Iterator[Measure]:
    """Means over latents. They are of all latents, or of a known part: no interval."""
    own, n, d = dictionary.latents, dictionary.n_latents, dictionary.d_model
    decoder, by_row = own.W_dec, isinstance(dictionary, NormalisedAutoencoder)
    length = "the row's own scale per unit of a latent" if by_row else "model units per unit of a latent"
    chosen = torch.linspace(0, n - 1, min(n, _MOST), dtype=torch.float64).long()
    nearest = nearest_other(decoder, chosen)[0]
    chance = f"{expected_max_cosine(d, n):.3f}, the mean largest cosine with {n} random directions" if d > 1 else ""
    bias = cosine_with(decoder, torch.from_numpy(mean)).abs()
    for name, values, reduced, unit, baseline, definition in (
        ("decoder_norm", row_norms(decoder), "mean", length, "", "mean over latents of |d_j|"),
        ("encoder_decoder_cosine", paired_cosine(own.W_enc, decoder), "mean", "cosine", "",
         "mean over latents of cos(e_j, d_j)"),
        ("nearest_decoder_cosine", nearest, "mean", "cosine", chance,
         "mean over latents of the largest cosine with another latent's decoder row; 1 is a duplicate"),
        ("mean_direction_cosine", bias, "largest", "cosine", chance,
         "largest over latents of |cos(d_j, mean(x))|; near 1, a latent stands in for the bias"),
    ):  # fmt: skip
        known = values[~values.isnan()]
        value = float(known.mean() if reduced == "mean" else known.max()) if len(known) else None
        yield Measure(
            name=name,
            value=value,
            unit=unit,
            low=None,
            high=None,
            n=len(known),
            n_of="latents",
            n_documents=0,
            masks=Masks(),
            baseline=baseline,
            definition=definition,
            undefined="" if len(known) else "no latent has a length to compare by",
        )
