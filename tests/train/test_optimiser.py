"""Adam is torch's Adam; the decoder stays on the sphere; clipping keeps direction; denormals do not linger."""

import pytest
import torch

from mohole.config import Train
from mohole.train.optimiser import Adam, Optimiser, learning_rate
from mohole.train.weights import Weights


def draw(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_adam_moves_as_torchs_adam_does() -> None:
    start = draw(1500, 3, seed=0)  # more rows than one slab
    mine, theirs = start.clone(), start.clone()
    adam, adam_of_torch = Adam(mine), torch.optim.Adam([theirs], lr=0.01, eps=6.25e-10)
    for step in range(20):
        gradient = draw(1500, 3, seed=step) * 10.0 ** (step % 5 - 4)
        adam.step(gradient, 0.01)
        theirs.grad = gradient.clone()
        adam_of_torch.step()
    torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


def test_the_rate_rises_straight_stays_flat_and_falls_straight() -> None:
    settings = Train(steps=100, lr=1.0, warmup_steps=10, decay_share=0.2)
    rates = [learning_rate(step, settings) for step in range(100)]
    assert rates[:10] == pytest.approx([i / 10 for i in range(1, 11)])
    assert rates[10:81] == [1.0] * 71
    assert rates[80:] == pytest.approx([i / 20 for i in range(20, 0, -1)])
    flat = Train(steps=5, lr=0.3, warmup_steps=0, decay_share=0.0)
    assert [learning_rate(step, flat) for step in range(5)] == [0.3] * 5
    assert all(0 < learning_rate(step, Train(steps=7, decay_share=1.0)) <= Train().lr for step in range(7))


def some_weights() -> Weights:
    W_dec = draw(30, 8, seed=1)
    return Weights(draw(30, 8, seed=2), draw(30, seed=3), W_dec / W_dec.norm(dim=1, keepdim=True), draw(8, seed=4))


def gradients(scale: float) -> Weights:
    return Weights(*(draw(*tensor.shape, seed=i) * scale for i, tensor in enumerate(some_weights().tensors())))


def test_decoder_rows_stay_unit_vectors() -> None:
    weights = some_weights()
    optimiser = Optimiser(weights, clip_norm=1.0)
    for _ in range(5):
        optimiser.step(gradients(1.0), 0.1)
    torch.testing.assert_close(weights.W_dec.norm(dim=1), torch.ones(30))
    assert not torch.allclose(weights.W_dec, some_weights().W_dec, atol=0.1)


def test_a_gradient_along_the_decoder_rows_does_nothing() -> None:
    weights = some_weights()
    along = Weights(torch.zeros(30, 8), torch.zeros(30), 3.0 * weights.W_dec, torch.zeros(8))
    norm = Optimiser(weights, clip_norm=1.0).step(along, 0.1)
    assert norm < 1e-5


def test_clipping_counts_all_weights_as_one_vector_and_only_shortens() -> None:
    flat = Weights(draw(30, 8, seed=0), draw(30, seed=1), torch.zeros(30, 8), draw(8, seed=3))
    length = float(torch.cat([tensor.flatten() for tensor in flat.tensors()]).norm())
    for clip_norm in (length / 4, length * 4):
        weights = some_weights()
        optimiser = Optimiser(weights, clip_norm)
        assert optimiser.step(flat, 0.1) == pytest.approx(length, rel=1e-5)
        shrink = min(1.0, clip_norm / length)
        torch.testing.assert_close(optimiser._adams[0].mean, 0.1 * shrink * flat.W_enc)


def test_the_moments_of_a_silent_latent_do_not_become_denormal() -> None:
    weight = torch.ones(4, 2)
    adam = Adam(weight)
    adam.step(torch.full((4, 2), 1e-3), 0.01)
    for _ in range(1200):
        adam.step(torch.zeros(4, 2), 0.01)
    tiny = torch.finfo(torch.float32).tiny
    for moment in (adam.mean, adam.square):
        assert ((moment == 0) | (moment.abs() >= tiny)).all()
    assert (adam.mean == 0).all()
