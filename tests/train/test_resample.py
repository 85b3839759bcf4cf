"""Dead latents begin anew where the loss is: drawn in proportion to its square, as long as the source says, and they learn."""

from typing import Any

import numpy as np
import pytest
import torch

from mohole.config import Gated, JumpReLU, ReLU, TopK, Train, parse
from mohole.config.train import Resample
from mohole.errors import ConfigError
from mohole.train.objective import Batch
from mohole.train.resample import Candidates, When
from mohole.train.trainer import Trainer
from mohole.train.weights import Sites

D, SITES = 10, Sites(("a",), (10,))


def rows_of(n: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(n, D)).astype(np.float32)) + 1.0


def trainer(**settings: Any) -> Trainer:
    config = Train(
        **({"n_latents": 50, "steps": 100, "warmup_steps": 0, "dead_after_rows": 64, "auxk": 0, "batch_rows": 32, "lr": 1e-2,
            "resample": Resample(every=10, over_steps=2, most=7)} | settings)
    )  # fmt: skip
    return Trainer.start(config, rows_of(300), rows_of(300), SITES, SITES, seed=1)


def test_rows_are_drawn_in_proportion_to_their_squared_loss() -> None:
    """Four rows of loss 1, 2, 3, 4: over many seeds the first is each of them 1, 4, 9 and 16 times of 30; no row comes twice."""
    rows, losses = torch.eye(4, D), torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    firsts = torch.zeros(4)
    for seed in range(1500):
        found = Candidates(3, D, D, torch.device("cpu"))
        for half in (slice(0, 2), slice(2, 4)):  # the batches are cut anywhere
            found.add(Batch(rows[half], rows[half]), losses[half], first=half.start, seed=seed)
        drawn = found.rows[:, :4].argmax(1).tolist()
        firsts[drawn[0]] += 1
        assert len(set(drawn)) == 3
    expected = torch.tensor([1.0, 4.0, 9.0, 16.0]) * 50
    assert ((firsts - expected).abs() < 4.5 * expected.sqrt()).all()


def test_where_batches_are_cut_changes_nothing_and_rows_without_loss_are_never_drawn() -> None:
    rows, losses = rows_of(40), torch.rand(40, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    losses[5:] *= losses[5:] > 0.5
    found = []
    for size in (1, 7, 40):
        own = Candidates(30, D, D, torch.device("cpu"))
        for first in range(0, 40, size):
            here = slice(first, first + size)
            own.add(Batch(rows[here], rows[here] * 2), losses[here], first=first, seed=3)
        found.append(own.tensors())
        assert len(own) == min(int((losses > 0).sum()), 30)
    for each in found[1:]:
        assert all(torch.equal(tensor, found[0][name]) for name, tensor in each.items())


@pytest.mark.parametrize("nonlinearity", [TopK(k=3), ReLU(), JumpReLU(), Gated()], ids=lambda each: each.kind)
def test_dead_latents_become_the_rows_of_large_loss(nonlinearity: Any) -> None:
    own = trainer(nonlinearity=nonlinearity, initial_l0=3.0, average=0.9)
    block = own.weights.blocks[0]
    block.W_enc[::2] *= 1e-3
    block.b_enc[::2] = -5.0
    dead = torch.arange(0, 50, 2)
    for step in range(9):
        own.step(rows_of(32, step), rows_of(32, step))
    before = {name: tensor.clone() for name, tensor in own.state()[0].items()}
    assert int((before["resample.times"] < torch.inf).sum()) == 7
    batch = rows_of(32, 9)
    stepped = own.step(batch, batch)
    after = own.state()[0]
    changed = (own.silence[0].n_rows == 0) & (before["silent_rows.0"] >= 64)
    assert int(changed.sum()) == own.measure(stepped, batch)["resampled"] == 7  # the most
    assert changed[dead].sum() == 7
    direction = block.W_dec[changed]
    torch.testing.assert_close(direction.norm(dim=1), torch.ones(7))
    torch.testing.assert_close(torch.nn.functional.cosine_similarity(direction, block.W_enc[changed]), torch.ones(7))
    still_dead = before["silent_rows.0"] + 32 >= 64
    mean = block.W_enc[~(still_dead & (own.silence[0].n_rows >= 64)) & ~changed].norm(dim=1).mean()
    torch.testing.assert_close(block.W_enc[changed].norm(dim=1), (0.2 * mean).expand(7), rtol=1e-5, atol=0.0)
    x = torch.cat([own.units.rows(rows_of(32, step)) for step in (8, 9)]) - own.weights.b_dec
    nearest = torch.nn.functional.cosine_similarity(direction[:, None], x[None], dim=2).amax(1)
    assert (nearest > 0.9999).all()  # rows of the last two steps, and of no others
    for name in ("W_enc.0", "b_enc.0", "W_dec.0"):
        assert (after[f"adam.mean.{name}"][changed] == 0).all()
        assert (after[f"adam.square.{name}"][changed] == 0).all()
        assert (after[f"adam.mean.{name}"][~changed] != 0).any()
    own_x = x[torch.nn.functional.cosine_similarity(direction[:, None], x[None], dim=2).argmax(1)]
    pre = (block.W_enc[changed] * own_x).sum(1) + block.b_enc[changed]
    threshold = block.log_threshold[changed].exp() if block.log_threshold is not None else 0.0
    assert (pre > threshold).all()  # each fires on its own row where a threshold decides
    assert own._mean is not None
    torch.testing.assert_close(own._mean.weights(is_unit=True).blocks[0].W_dec[changed], direction)
    assert (after["resample.times"] == torch.inf).all()


def test_resampled_latents_come_to_life_and_without_it_they_do_not(no_shape_checks: None) -> None:
    dead = {}
    for resample in (None, Resample(every=20, over_steps=5)):
        own = trainer(nonlinearity=ReLU(), initial_l0=3.0, resample=resample)
        own.weights.blocks[0].b_enc[::2] = -30.0
        for step in range(69):
            batch = rows_of(32, step)
            stepped = own.step(batch, batch)
        dead[resample is None] = stepped.n_dead
    assert dead[True] >= 25
    assert dead[False] <= 10


def test_it_happens_every_so_many_steps_and_never_while_the_rate_falls() -> None:
    when = When.of(Train(steps=100, decay_share=0.3, resample=Resample(every=20, over_steps=3)))
    assert when is not None
    assert [step for step in range(1, 101) if when.resamples(step)] == [20, 40, 60]
    assert [step for step in range(1, 101) if when.collects(step)] == [18, 19, 20, 38, 39, 40, 58, 59, 60]
    assert When.of(Train()) is None


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"resample": {"every": 10, "over_steps": 11}}, "over_steps: 11 is more than every, 10"),
        ({"steps": 1000, "resample": {"every": 800}}, "resample.every: 800 steps would be never; the rate begins to fall"),
    ],
)  # fmt: skip
def test_what_could_never_happen_is_refused(train: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse({"run": "x", "train": train})
    assert message in str(caught.value)
