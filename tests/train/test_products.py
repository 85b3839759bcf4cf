"""Products of bfloat16: codes are those of rounded rows and encoder, all else is as it was. A tuned training changes no byte."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from tests.train import dense, test_objective
from tests.train.test_objective import KINDS, N_LATENTS, NONLINEARITIES, WAYS, B

from mohole.config import BatchTopK, Gated, JumpReLU, Nonlinearity, ReLU, TopK, Train
from mohole.kernels import cpu, plain, reference
from mohole.kernels.screen import best_rounding
from mohole.store.stream import Stream
from mohole.train import objective, train
from mohole.train.cost import training_bytes
from mohole.train.products import multiplied
from mohole.train.trainer import Trainer
from mohole.train.weights import Sites

ONE = Sites(("a",), (12,))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("nonlinearity", NONLINEARITIES)
def test_loss_and_gradient_are_those_of_rounded_products(
    nonlinearity: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the dense objective in double, straight through the rounding; and far from those without it."""
    if "topk" in nonlinearity and "tiles" in way:
        pytest.skip("k says how many latents are active: always pairs")
    kernels, share = WAYS[way]
    monkeypatch.setattr(objective, "kernels_for", lambda device: kernels)
    monkeypatch.setattr(objective, "DENSE_SHARE", share)
    for kind in ("sae", "cross-layer"):
        extra: dict[str, Any] = {"auxk": 3, "auxk_weight": 0.25, "prefixes": (7,), "decoder": "free"}
        settings = test_objective.settings_of(kind, products="bfloat16", **NONLINEARITIES[nonlinearity], **extra)
        weights, batch = test_objective.some_weights(kind, settings), test_objective.some_batch(kind)
        outcome, dead = test_objective.run(kind, settings, weights, batch)
        assert all(len(own) >= 3 for own in dead)
        total, expected = dense.gradients(weights, batch, settings, KINDS[kind][2], dead)
        assert outcome.terms.total == pytest.approx(total, rel=1e-12)
        for tensor, gradient in test_objective.named(outcome, weights).items():
            torch.testing.assert_close(gradient, expected[tensor], rtol=1e-9, atol=1e-12, msg=f"{kind}: {tensor}")
        exact, _ = dense.gradients(
            weights, batch, settings.model_copy(update={"products": "float32"}), KINDS[kind][2], dead
        )
        assert total != pytest.approx(exact, rel=1e-7)


@pytest.mark.parametrize("kernels", [cpu, plain], ids=["numba", "torch"])
def test_codes_are_those_of_rounded_numbers(kernels: ModuleType) -> None:
    """Numbers of eight bits have exact products: the values are their sums."""
    generator = torch.Generator().manual_seed(0)
    read, W_enc = (torch.randn(n, 30, generator=generator) for n in (B, N_LATENTS))
    found = kernels.top_k(*multiplied(read, W_enc, "bfloat16", kernels), torch.zeros(N_LATENTS), 4)
    expected = reference.codes(read.bfloat16().double() @ W_enc.bfloat16().double().T, 4)
    at = found.rows, found.latents.long()
    torch.testing.assert_close(found.values.double(), expected[at], rtol=1e-5, atol=1e-6)
    assert len(found.values) == (expected > 0).sum()


def test_numbers_that_are_not_rounded_are_not_copied() -> None:
    read, W_enc = torch.ones(3, 2), torch.ones(4, 2)
    found = multiplied(read, W_enc, "float32")
    assert found[0] is read
    assert found[1] is W_enc


def test_weights_and_moments_keep_32_bits() -> None:
    """A step so small that 16 bits would not show it moves the weights."""
    settings = Train(n_latents=40, nonlinearity=TopK(k=3), lr=1e-6, warmup_steps=0, steps=5, products="bfloat16")
    rows = torch.randn(200, 12, generator=torch.Generator().manual_seed(0))
    trainer = Trainer.start(settings, rows, rows, ONE, ONE, seed=0)
    before = trainer.weights.blocks[0].W_enc.clone()
    stepped = trainer.step(rows[:64], rows[:64])
    after = trainer.weights.blocks[0].W_enc
    assert (before.bfloat16() != after.bfloat16()).float().mean() < 0.01
    assert (before != after).float().mean() > 0.3
    assert {tensor.dtype for tensor in trainer.state()[0].values() if tensor.is_floating_point()} <= {
        torch.float32, torch.float64,
    }  # fmt: skip
    assert stepped.error.dtype == torch.float32


@pytest.mark.parametrize(("device", "more"), [("cpu", 6), ("cuda", 2)])
def test_the_estimate_counts_the_copies(device: str, more: int) -> None:
    settings = Train(n_latents=4096, device=device)
    rounded = settings.model_copy(update={"products": "bfloat16"})
    found = training_bytes(rounded, ONE, ONE).device - training_bytes(settings, ONE, ONE).device
    assert found == more * 4096 * 12
    screened = settings.model_copy(update={"screening": True})
    assert training_bytes(screened, ONE, ONE).device - training_bytes(settings, ONE, ONE).device == 2 * 4096 * 12


@pytest.mark.skipif(best_rounding() is None, reason="screening needs numba and a processor with AVX2")
@pytest.mark.parametrize(
    "nonlinearity", [TopK(k=5), ReLU(), JumpReLU(bandwidth=0.2), Gated()], ids=lambda given: given.kind
)
def test_a_screened_training_on_a_cpu_goes_as_one_that_is_not(nonlinearity: Nonlinearity) -> None:
    batches = [torch.randn(64, 40, generator=torch.Generator().manual_seed(seed)) for seed in range(6)]
    losses, sites = [], Sites(("a",), (40,))
    for screening in (False, True):
        settings = Train(
            n_latents=600, nonlinearity=nonlinearity, screening=screening, lr=1e-3, warmup_steps=0, steps=9,
            initial_l0=None if isinstance(nonlinearity, TopK) else 9.0, batch_rows=64,
        )  # fmt: skip
        own = Trainer.start(settings, torch.cat(batches), torch.cat(batches), sites, sites, seed=0)
        losses.append([own.step(rows, rows).terms.total for rows in batches])
        said = own.doubts()
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert said == ", 0.00% of the rows encoded again after screening"


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(ValueError, match=r"screening: products of bfloat16 cost what would screen them .*; leave one"):
        Train(screening=True, products="bfloat16")
    with pytest.raises(ValueError, match=r"screening: on cuda it is for topk; relu is screened on a CPU alone"):
        Train(screening=True, nonlinearity=ReLU(), device="cuda")
    with pytest.raises(ValueError, match=r"screening: batchtopk goes without"):
        Train(screening=True, nonlinearity=BatchTopK())
    assert Train(screening=True, nonlinearity=ReLU()).screening
    assert Train(screening=True, device="cuda").screening


def test_a_tuned_training_leaves_the_same_bytes_and_says_what_it_chose(
    planted: Callable[..., Any], make_store: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    stream = Stream(make_store(planted(600).rows), "resid_post.1")
    found = []
    for tune in (False, True, True):
        out = tmp_path / f"{len(found)}"
        out.mkdir()
        train(out, stream, Train(n_latents=300, batch_rows=64, steps=6, evaluate_every=0, tune=tune), seed=3)
        found.append({file.name: file.read_bytes() for file in sorted(out.iterdir())})
    assert found[0] == found[1] == found[2]
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("tile: ")]
    assert len(lines) == 2
    assert "measured" in lines[0]
    assert lines[1].endswith(f"as was measured before ({tmp_path / 'cache' / 'mohole' / 'tiles.json'})")
