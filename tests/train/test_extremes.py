"""Trainings at the edges: everything dead, rows that repeat, one row, more latents asked for than there are, tiny numbers."""

from typing import Any

import numpy as np
import pytest
import torch

from mohole.config import BatchTopK, Gated, JumpReLU, ReLU, TopK, Train, parse
from mohole.errors import ConfigError
from mohole.kernels import cpu, plain
from mohole.train.trainer import Trainer
from mohole.train.weights import Sites

SITES = Sites(("a",), (10,))
NONLINEARITIES = [TopK(k=3), BatchTopK(k=3), ReLU(), JumpReLU(), Gated()]


def rows_of(n: int, seed: int = 0, scale: float = 1.0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(n, 10)).astype(np.float32)) * scale + scale


def trainer(sample: torch.Tensor, **settings: Any) -> Trainer:
    config = Train(**({"n_latents": 50, "steps": 50, "warmup_steps": 0, "dead_after_rows": 64} | settings))
    return Trainer.start(config, sample, sample, SITES, SITES, seed=1)


@pytest.mark.parametrize("nonlinearity", NONLINEARITIES, ids=lambda each: each.kind)
def test_a_dictionary_that_is_all_dead_learns_its_centre_and_says_so(nonlinearity: Any) -> None:
    own = trainer(rows_of(500), nonlinearity=nonlinearity, auxk=20, auxk_weight=1.0, lr=0.05)
    own.weights.blocks[0].b_enc.fill_(-30.0)  # nothing fires, whatever the row
    dead = []
    for step in range(50):
        batch = rows_of(64, seed=step)
        stepped = own.step(batch, batch)
        dead.append(stepped.n_dead)
        assert stepped.terms.total == stepped.terms.total
    assert max(dead) == 50
    line = own.measure(stepped, batch)
    assert line["fvu"] < 1.1  # the mean alone gives 1
    if stepped.n_dead == 50 and not isinstance(nonlinearity, TopK | BatchTopK):
        assert line["auxk_loss"] == 0.0  # no dead latent reads anything positive, so AuxK has nothing to move
    assert all(tensor.isfinite().all() for _, tensor in own.weights.named())


@pytest.mark.parametrize("nonlinearity", NONLINEARITIES, ids=lambda each: each.kind)
def test_rows_that_repeat_are_rows(nonlinearity: Any) -> None:
    """A batch of one row many times over is that row: the same loss, and a gradient that moves the same way."""
    sample = rows_of(500)
    one, many = (trainer(sample, nonlinearity=nonlinearity, auxk=0) for _ in range(2))
    row = rows_of(1, seed=9)
    first, second = one.step(row, row), many.step(row.repeat(300, 1), row.repeat(300, 1))
    if not isinstance(nonlinearity, BatchTopK):  # of equal rows the batch keeps the first ones' codes
        assert first.terms.total == pytest.approx(second.terms.total, rel=1e-5)
        for (name, tensor), (_, other) in zip(one.weights.named(), many.weights.named(), strict=True):
            # Adam's first step is the sign of the gradient: compare where it is not rounding.
            torch.testing.assert_close(tensor, other, rtol=1e-3, atol=2e-2, msg=name)
    assert all(tensor.isfinite().all() for _, tensor in many.weights.named())


@pytest.mark.parametrize("nonlinearity", NONLINEARITIES, ids=lambda each: each.kind)
def test_one_latent_and_one_row_are_enough(nonlinearity: Any) -> None:
    if isinstance(nonlinearity, TopK | BatchTopK):
        nonlinearity = type(nonlinearity)(k=1)
    own = trainer(rows_of(500), n_latents=1, nonlinearity=nonlinearity, initial_l0=0.5)
    for step in range(5):
        row = rows_of(1, seed=step)
        own.step(row, row)
    assert own.dictionary().n_latents == 1
    assert all(tensor.isfinite().all() for _, tensor in own.weights.named())


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e12, 1e30])
def test_rows_of_any_size_are_learned_from(scale: float) -> None:
    sample = rows_of(500, scale=scale)
    own = trainer(sample, nonlinearity=TopK(k=3))
    for step in range(20):
        batch = rows_of(64, seed=step, scale=scale)
        stepped = own.step(batch, batch)
    assert own.measure(stepped, batch)["fvu"] < 0.8
    sae: Any = own.dictionary()
    fresh = rows_of(64, seed=99, scale=scale)
    error = ((sae.decode(sae.encode(fresh)) - fresh) / scale).square().sum() / (
        (fresh - fresh.mean(0)) / scale
    ).square().sum()
    assert float(error) < 0.8


@pytest.mark.parametrize("kernels", [cpu, plain])
def test_values_that_bfloat16_has_rounded_to_nothing_are_no_codes(kernels: Any) -> None:
    rows = torch.tensor([[1e-39, 0.0], [1.0, 0.0]]).bfloat16().float()
    found = kernels.top_k(rows, torch.eye(2).repeat(100, 1), torch.zeros(200), 3)
    assert found.row_starts[-1] - found.row_starts[1] == 3
    assert (found.values > 0).all()


def test_batchtopks_threshold_is_a_mean_over_a_thousand_steps_freed_of_its_start() -> None:
    """Smallest kept activations of each batch, newest first weighing 1, .999, .998...: what the dictionary keeps afterwards."""
    own = trainer(rows_of(500), nonlinearity=BatchTopK(k=3), steps=30, lr=1e-2)
    least = []
    for step in range(25):
        batch = rows_of(
            64, seed=step, scale=1.0 + step / 10
        )  # it moves, so that a mean over other steps is another number
        (active,) = own.step(batch, batch).active
        least.append(float(active.values.min()))  # type: ignore[union-attr]

    def mean(kept: float) -> float:
        weights = [kept**age for age in range(24, -1, -1)]
        return sum(weight * value for weight, value in zip(weights, least, strict=True)) / sum(weights)

    expected = mean(0.999)
    sae: Any = own.dictionary()
    assert float(sae.threshold[0] * own.units.written[0]) == pytest.approx(expected, rel=1e-5)
    assert mean(0.9) != pytest.approx(expected, rel=1e-2)


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"n_latents": 8, "nonlinearity": {"kind": "batchtopk", "k": 9}}, "nonlinearity.k: 9 is more than n_latents"),
        ({"prefixes": [64, 32]}, "train.prefixes: [64, 32] must ascend and stay below n_latents, 1024"),
        ({"prefixes": [1024]}, "train.prefixes: [1024] must ascend and stay below n_latents, 1024"),
        ({"sparsity": {"kind": "l1"}}, "train.sparsity: l1 is not for topk; it takes none: k says how many are active"),
        ({"nonlinearity": {"kind": "gated"}, "sparsity": {"kind": "l0"}}, "train.sparsity: l0 is not for gated; it takes l1"),
        ({"nonlinearity": {"kind": "gated"}, "pre_act_weight": 0.1}, "pre_act_weight: gated has silent latents above"),
        ({"nonlinearity": {"kind": "relu"}, "initial_l0": 600.0}, "initial_l0: 600.0 is more than half of the latents"),
        ({"nonlinearity": {"kind": "rellu"}}, "train.nonlinearity: 'rellu' is not one of the choices; did you mean 'relu'?"),
        ({"nonlinearity": {"kind": "jumprelu", "k": 3}}, "train.nonlinearity.k: no such key in JumpReLU; it has bandwidth, kind"),
        ({"learns": {"kind": "transcoder", "reads": "mlp_in.0"}}, "train.learns.writes: needed, and not given"),
    ],
)  # fmt: skip
def test_what_cannot_be_learned_is_named_with_what_can(train: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse({"run": "x", "train": train})
    assert message in str(caught.value)
