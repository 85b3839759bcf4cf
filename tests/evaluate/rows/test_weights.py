"""What weights say, recomputed latent by latent in double."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mohole.config import TopK
from mohole.dictionary import SparseAutoencoder
from mohole.evaluate.rows.weights import measure_weights

N, D = 30, 7


def random_sae() -> SparseAutoencoder:
    generator = torch.Generator().manual_seed(3)
    encoder, decoder = (torch.randn(N, D, generator=generator) for _ in range(2))
    decoder *= torch.linspace(0.2, 3.0, N)[:, None]
    return SparseAutoencoder("resid_post.0", TopK(k=3), encoder, torch.zeros(N), decoder, torch.zeros(D))


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def test_each_number_is_the_one_by_hand() -> None:
    sae, mean = random_sae(), np.linspace(-1.0, 2.0, D)
    found = {measure.name: measure for measure in measure_weights(sae, mean)}
    encoder, decoder = sae.W_enc.double().numpy(), sae.W_dec.double().numpy()
    latents = range(N)
    expected = {
        "decoder_norm": np.mean([np.linalg.norm(decoder[j]) for j in latents]),
        "encoder_decoder_cosine": np.mean([cosine(encoder[j], decoder[j]) for j in latents]),
        "nearest_decoder_cosine": np.mean(
            [max(cosine(decoder[j], decoder[k]) for k in latents if k != j) for j in latents]
        ),
        "mean_direction_cosine": max(abs(cosine(decoder[j], mean)) for j in latents),
    }
    assert {name: measure.value for name, measure in found.items()} == pytest.approx(expected, rel=1e-5)
    assert 0.5 < expected["nearest_decoder_cosine"] < 0.99


def test_a_latent_against_the_mean_leans_on_it_as_one_along_it_does() -> None:
    sae, mean = random_sae(), np.linspace(-1.0, 2.0, D)
    upside_down = sae.W_dec.clone()
    upside_down[4] = -torch.from_numpy(mean).float()
    found = {measure.name: measure.value for measure in measure_weights(replace(sae, W_dec=upside_down), mean)}
    assert found["mean_direction_cosine"] == pytest.approx(1.0, abs=1e-6)
