"""All tensors move as torch's Adam moves them; the decoder stays on the sphere; clipping keeps direction; running means."""

import math

import pytest
import torch
from tests.train import dense
from tests.train.test_objective import KINDS, N_LATENTS, run, settings_of, some_batch, some_weights

from mohole.config import Gated, JumpReLU, TopK, Train, parse
from mohole.config.train import Adam, Muon, Signum
from mohole.errors import ConfigError
from mohole.train.optimiser import Optimiser, RunningMean, learning_rate, orthogonal
from mohole.train.weights import Weights


def test_the_rate_rises_straight_stays_flat_and_falls_straight() -> None:
    settings = Train(steps=100, lr=1.0, warmup_steps=10, decay_share=0.2)
    rates = [learning_rate(step, settings) for step in range(100)]
    assert rates[:10] == pytest.approx([i / 10 for i in range(1, 11)])
    assert rates[10:81] == [1.0] * 71
    assert rates[80:] == pytest.approx([i / 20 for i in range(20, 0, -1)])
    flat = Train(steps=5, lr=0.3, warmup_steps=0, decay_share=0.0)
    assert [learning_rate(step, flat) for step in range(5)] == [0.3] * 5
    assert all(0 < learning_rate(step, Train(steps=7, decay_share=1.0)) <= Train().lr for step in range(7))


def test_the_automatic_rate_goes_as_one_over_the_root_of_the_width_and_leaves_numbers_alone() -> None:
    for optimiser, at_16384, exponent in ((Adam(), 2e-4, -0.5), (Signum(), 5e-3, -0.5), (Muon(), 2e-3, 0.0)):
        for n_latents in (1024, 16384, 65536):
            settings = Train(lr="auto", n_latents=n_latents, optimiser=optimiser, steps=100, warmup_steps=0)
            expected = at_16384 * (n_latents / 16384) ** exponent
            assert settings.rate() == pytest.approx(expected)
            assert learning_rate(50, settings) == pytest.approx(expected)
    assert Train(lr=0.123, n_latents=65536).rate() == 0.123
    assert Train().rate() == Train().lr == 5e-3
    for wrong in ("automatic", 0.0, True, math.nan):
        with pytest.raises(
            ConfigError, match=rf"train.lr: {wrong!r}: input should be a valid number above 0 .*, or 'auto'"
        ):
            parse({"run": "x", "train": {"lr": wrong}})


@pytest.mark.parametrize("clip_norm", [None, 1e9, 0.3])
@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("sae", {"nonlinearity": TopK(k=4), "auxk": 5}),
        ("sae", {"nonlinearity": JumpReLU(), "decoder": "free", "prefixes": (10,)}),
        ("crosscoder", {"nonlinearity": Gated(), "decoder": "free"}),
        ("skip", {"nonlinearity": TopK(k=4), "auxk": 0}),
        ("cross-layer", {"nonlinearity": TopK(k=4), "auxk": 3}),
    ],
)
def test_weights_move_as_torchs_adam_on_the_dense_gradient_moves_them(
    kind: str, settings: dict[str, object], clip_norm: float | None
) -> None:
    """Ten steps of the whole trainer's arithmetic against autograd, clip_grad_norm_ and torch.optim.Adam, in float64."""
    config = settings_of(kind, **settings)
    weights = some_weights(kind, config)
    theirs = {name: tensor.clone() for name, tensor in weights.named()}
    adam = torch.optim.Adam(theirs.values(), lr=0.01, eps=6.25e-10)
    optimiser = Optimiser(weights, clip_norm)
    for step in range(10):
        batch = some_batch(kind, seed=step)
        outcome, dead = run(kind, config, weights, batch)
        norm = optimiser.step(outcome, 0.01)
        _, gradients = dense.gradients(weights.of(theirs), batch, config, KINDS[kind][2], dead)
        for name, tensor in theirs.items():
            tensor.grad = gradients[name]
        length = torch.nn.utils.clip_grad_norm_(theirs.values(), clip_norm or 1e30)
        assert norm == pytest.approx(float(length), rel=1e-6)
        adam.step()
        if config.decoder == "unit":
            for name in theirs:
                if name.startswith("W_dec"):
                    theirs[name] /= theirs[name].norm(dim=1, keepdim=True)
        for name, tensor in weights.named():
            # Adam is the sign of a gradient that is all rounding, so tiny ones may differ: by no more than a step.
            torch.testing.assert_close(tensor, theirs[name], rtol=1e-6, atol=1e-7, msg=f"{name}, step {step}")


@pytest.mark.parametrize("kind", ["sae", "cross-layer"])
def test_a_gradient_is_swept_twice_only_where_it_might_be_clipped(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Far from what it is clipped to, near it from below, and beyond: the same length each time, and steps of the shrunk one."""
    config = settings_of(kind, nonlinearity=TopK(k=4), auxk=0)
    outcome, _ = run(kind, config, some_weights(kind, config), some_batch(kind, seed=0))
    length, sweeps, moved = Optimiser(some_weights(kind, config), None).step(outcome, 0.01), [], []
    for clip_norm in (1e6, 1.001 * length, 0.5 * length):
        weights = some_weights(kind, config)
        optimiser = Optimiser(weights, clip_norm)
        kernels, n = optimiser._kernels, len(sweeps)
        swept = kernels.squared_lengths
        with monkeypatch.context() as patch:
            patch.setattr(kernels, "squared_lengths", lambda *given, swept=swept: sweeps.append(1) or swept(*given))
            assert optimiser.step(outcome, 0.01) == pytest.approx(length, rel=1e-12)
        assert len(sweeps) - n == (0 if clip_norm > 1e5 else len(weights.blocks))
        moved.append([moving.mean.clone() for moving in optimiser.moving.values()])
    for free, whole, half in zip(*moved, strict=True):
        assert torch.equal(free, whole)
        torch.testing.assert_close(half, 0.5 * whole, rtol=1e-9, atol=0.0)


def test_decoder_rows_stay_unit_vectors_and_a_gradient_along_them_does_nothing() -> None:
    config = settings_of("sae", nonlinearity=TopK(k=4), auxk=0)
    weights = some_weights("sae", config)
    before = weights.blocks[0].W_dec.clone()
    optimiser = Optimiser(weights, 1.0)
    for step in range(5):
        outcome, _ = run("sae", config, weights, some_batch("sae", seed=step))
        optimiser.step(outcome, 0.1)
    torch.testing.assert_close(weights.blocks[0].W_dec.norm(dim=1), torch.ones(N_LATENTS, dtype=torch.float64))
    assert not torch.allclose(weights.blocks[0].W_dec, before, atol=0.1)


def test_a_running_mean_weighs_steps_by_their_age() -> None:
    config = settings_of("sae", nonlinearity=TopK(k=4), decoder="free")
    weights = some_weights("sae", config)
    mean = RunningMean(weights, 0.9)
    seen = []
    for step in range(6):
        for _, tensor in weights.named():
            tensor.add_(step)
        seen.append(weights.b_dec.clone())
        mean.update()
    shares = [0.9**age for age in range(5, -1, -1)]
    expected = sum(share * tensor for share, tensor in zip(shares, seen, strict=True)) / math.fsum(shares)
    torch.testing.assert_close(mean.weights(is_unit=False).b_dec, expected)
    unit = mean.weights(is_unit=True).blocks[0].W_dec
    torch.testing.assert_close(unit.norm(dim=1), torch.ones(N_LATENTS, dtype=torch.float64))
    assert isinstance(mean.weights(is_unit=False), Weights)


@pytest.mark.parametrize("optimiser", [Signum(momentum=0.9), Muon(momentum=0.9), Adam(beta1=0.8, beta2=0.95)])
@pytest.mark.parametrize("kind", ["sae", "skip"])
def test_other_optimisers_follow_their_rules_on_the_dense_gradient(kind: str, optimiser: Adam | Signum | Muon) -> None:
    config = settings_of(kind, nonlinearity=TopK(k=4), auxk=3, decoder="free")
    weights = some_weights(kind, config)
    theirs = {name: tensor.clone() for name, tensor in weights.named()}
    means = {name: torch.zeros_like(tensor) for name, tensor in theirs.items()}
    betas = (0.8, 0.95) if isinstance(optimiser, Adam) else (0.9, 0.999)
    adams = {name: torch.optim.Adam([tensor], lr=0.01, eps=6.25e-10, betas=betas) for name, tensor in theirs.items()}
    own = Optimiser(weights, None, optimiser)
    for step in range(6):
        batch = some_batch(kind, seed=step)
        outcome, dead = run(kind, config, weights, batch)
        own.step(outcome, 0.01)
        _, gradients = dense.gradients(weights.of(theirs), batch, config, KINDS[kind][2], dead)
        for name, tensor in theirs.items():
            gradient, mean = gradients[name], means[name]
            mean.mul_(0.9).add_(gradient, alpha=0.1)
            is_matrix = name.startswith(("W_enc", "W_dec"))
            if isinstance(optimiser, Signum):
                tensor -= 0.01 * mean.sign()
            elif isinstance(optimiser, Muon) and is_matrix:
                tensor -= 0.01 * max(tensor.shape) ** 0.5 * orthogonal(0.1 * gradient + 0.9 * mean)
            else:
                tensor.grad = gradient
                adams[name].step()
        for name, tensor in weights.named():
            torch.testing.assert_close(tensor, theirs[name], rtol=1e-6, atol=1e-8, msg=f"{name}, step {step}")


def test_muons_steps_have_singular_values_near_one() -> None:
    for shape in ((40, 12), (12, 40), (9, 9)):
        matrix = torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        found = torch.linalg.svdvals(orthogonal(matrix))
        assert 0.5 < float(found.min()) <= float(found.max()) < 1.3
        left, _, right = torch.linalg.svd(matrix, full_matrices=False)
        alike = torch.nn.functional.cosine_similarity(orthogonal(matrix).flatten(), (left @ right).flatten(), 0)
        assert float(alike) > 0.95
    assert (orthogonal(torch.zeros(3, 4)) == 0).all()
