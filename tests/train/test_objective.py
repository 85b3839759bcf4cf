"""The written-out gradient is autograd's; AuxK reaches dead latents and nothing else; sizes of batches do not matter."""

import dataclasses

import pytest
import torch

from mohole.kernels import reference
from mohole.train.objective import Forward, Outcome, Silence, forward, objective
from mohole.train.weights import Weights

K, N_LATENTS, D = 4, 50, 12
NOBODY = torch.zeros(0, dtype=torch.int64)


def some_weights(seed: int = 0) -> Weights:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    W_dec = draw(N_LATENTS, D)
    return Weights(draw(N_LATENTS, D) * 0.5, draw(N_LATENTS) * 0.2, W_dec / W_dec.norm(dim=1, keepdim=True), draw(D))


def some_rows(n: int = 40, seed: int = 5) -> torch.Tensor:
    return torch.randn(n, D, generator=torch.Generator().manual_seed(seed)) * 2


def run(weights: Weights, rows: torch.Tensor, dead: torch.Tensor = NOBODY, **aux: float) -> tuple[Forward, Outcome]:
    batch = forward(weights, rows, K, torch.empty(len(rows), N_LATENTS))
    settings = {"auxk": 6, "auxk_weight": 0.25} | aux
    return batch, objective(weights, batch, dead, auxk=int(settings["auxk"]), auxk_weight=settings["auxk_weight"])


def silent(batch: Forward) -> torch.Tensor:
    return (~batch.fired()).nonzero()[:, 0]


def weights_with_dead_latents() -> Weights:
    """A third of the latents read too weakly ever to be kept."""
    weights = some_weights()
    weights.W_enc[::3] *= 0.001
    weights.b_enc[::3] = 0.0
    return weights


@pytest.mark.parametrize("n_dead_used", [0, 1, 3, 6, 100])
def test_the_gradient_is_autograds_of_the_dense_objective(n_dead_used: int) -> None:
    weights, rows = weights_with_dead_latents(), some_rows()
    batch = forward(weights, rows, K, torch.empty(len(rows), N_LATENTS))
    dead = silent(batch)
    assert len(dead) >= 10  # more dead latents than some of the numbers used
    outcome = objective(weights, batch, dead, auxk=n_dead_used, auxk_weight=0.25)
    mask = torch.zeros(N_LATENTS, dtype=torch.bool)
    mask[dead] = True
    expected = reference.gradients(
        rows.double(),
        *(tensor.double() for tensor in weights.tensors()),
        k=K,
        dead_L=mask,
        auxk=n_dead_used,
        auxk_weight=0.25,
    )
    for name, got, want in zip(
        ("W_enc", "b_enc", "W_dec", "b_dec"), outcome.gradients.tensors(), expected, strict=True
    ):
        torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=1e-7, msg=name)


def test_the_losses_are_those_of_the_dense_objective() -> None:
    weights, rows = weights_with_dead_latents(), some_rows()
    batch, outcome = run(weights, rows)
    pre = reference.pre_activations(rows, weights.W_enc, weights.b_enc, weights.b_dec)
    output = reference.decode(reference.codes(pre, K), weights.W_dec, weights.b_dec)
    torch.testing.assert_close(outcome.loss, reference.reconstruction_loss(rows, output))
    dead = silent(batch)
    mask = torch.zeros(N_LATENTS, dtype=torch.bool)
    mask[dead] = True
    _, with_aux = run(weights, rows, dead)
    torch.testing.assert_close(with_aux.aux_loss, reference.auxiliary_loss(rows, output, pre, weights.W_dec, mask, 6))


def test_auxk_gives_every_dead_encoder_row_a_gradient_and_leaves_the_living_alone() -> None:
    weights, rows = weights_with_dead_latents(), some_rows(400)
    batch, without = run(weights, rows)
    dead = silent(batch)
    assert len(dead) > 0
    assert (without.gradients.W_enc[dead] == 0).all()  # the reconstruction alone never reaches them
    _, outcome = run(weights, rows, dead)
    assert (outcome.gradients.W_enc[dead].norm(dim=1) > 0).all()
    assert (outcome.gradients.W_dec[dead].norm(dim=1) > 0).all()
    alive = batch.fired()
    for name in ("W_enc", "b_enc", "W_dec"):
        assert torch.equal(getattr(outcome.gradients, name)[alive], getattr(without.gradients, name)[alive]), name


def test_auxk_makes_dead_latents_explain_the_residual() -> None:
    weights, rows = weights_with_dead_latents(), some_rows(200)
    dead = silent(run(weights, rows)[0])
    _, outcome = run(weights, rows, dead)
    before, step = outcome.aux_loss, outcome.gradients
    moved = dataclasses.replace(weights, W_enc=weights.W_enc - 0.5 * step.W_enc, W_dec=weights.W_dec - 0.5 * step.W_dec)
    moved_batch = forward(moved, rows, K, torch.empty(len(rows), N_LATENTS))
    after = objective(moved, moved_batch, silent(moved_batch), auxk=6, auxk_weight=0.25).aux_loss
    assert after < before


def test_a_perfect_reconstruction_leaves_auxk_nothing_and_no_nan() -> None:
    weights = some_weights()
    rows = weights.b_dec.repeat(8, 1)  # rebuilt exactly when nothing fires
    weights.b_enc.fill_(-1.0)
    batch, outcome = run(weights, rows, torch.arange(N_LATENTS))
    assert batch.error.abs().max() == 0
    assert outcome.loss == 0
    assert outcome.aux_loss == 0
    assert all(torch.isfinite(tensor).all() for tensor in outcome.gradients.tensors())


def test_the_loss_and_its_gradient_are_means_over_rows_whatever_the_batch() -> None:
    weights, rows = some_weights(), some_rows(40)
    _, whole = run(weights, rows)
    halves = [run(weights, part)[1] for part in (rows[:20], rows[20:])]
    torch.testing.assert_close(whole.loss, (halves[0].loss + halves[1].loss) / 2)
    for tensors in zip(whole.gradients.tensors(), *(half.gradients.tensors() for half in halves), strict=True):
        torch.testing.assert_close(tensors[0], (tensors[1] + tensors[2]) / 2)
    _, repeated = run(weights, rows.repeat(3, 1))
    torch.testing.assert_close(whole.loss, repeated.loss)


def test_a_latent_is_dead_after_so_many_silent_rows_and_alive_once_it_fires() -> None:
    silence = Silence(3, dead_after_rows=100)
    fires_first, nobody = torch.tensor([True, False, False]), torch.zeros(3, dtype=torch.bool)
    silence.update(fires_first, 60)
    assert silence.dead().tolist() == []
    silence.update(fires_first, 40)
    assert silence.dead().tolist() == [1, 2]  # exactly 100 rows, however they were cut
    silence.update(nobody, 99)
    assert silence.dead().tolist() == [1, 2]
    silence.update(torch.tensor([False, True, False]), 1)
    assert silence.dead().tolist() == [0, 2]
