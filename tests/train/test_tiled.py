"""A batch in which many latents fire: in tiles the same numbers as in pairs; the exact count chooses; threads change nothing."""

from typing import Any

import pytest
import torch

from mohole.config import Gated, JumpReLU, ReLU, Tanh, Train
from mohole.config.train import Adam, Muon, Signum
from mohole.kernels import cpu, dense, plain
from mohole.kernels.pairs import TooManyError
from mohole.train import objective, tiled
from mohole.train.activation import Active
from mohole.train.objective import Batch, Objective
from mohole.train.silence import fired
from mohole.train.tiled import Crowd
from mohole.train.trainer import Trainer
from mohole.train.weights import Sites

D, N_LATENTS, N_ROWS = 24, 700, 96
SITES = Sites(("a",), (D,))


def rows_of(seed: int) -> torch.Tensor:
    return torch.randn(N_ROWS, D, generator=torch.Generator().manual_seed(seed))


def trainer(**settings: Any) -> Trainer:
    config = Train(
        **({"n_latents": N_LATENTS, "steps": 20, "warmup_steps": 0, "lr": 1e-3, "initial_l0": 350.0, "dead_after_rows": 150,
            "auxk": 8, "auxk_weight": 0.5} | settings)
    )  # fmt: skip
    sample = torch.cat([rows_of(seed) for seed in range(100, 110)])
    own = Trainer.start(config, sample, sample, SITES, SITES, seed=0)
    own.weights.blocks[0].b_enc[:40] = -20.0  # dead ones, too
    return own


VARIANTS: dict[str, dict[str, Any]] = {
    "relu": {"nonlinearity": ReLU()},
    "relu, prefixes, free": {"nonlinearity": ReLU(), "prefixes": (50, 300), "decoder": "free", "sparsity": Tanh()},
    "jumprelu": {"nonlinearity": JumpReLU(), "pre_act_weight": 0.01, "clip_norm": None},
    "gated": {"nonlinearity": Gated(), "average": 0.9},
    "signum": {"nonlinearity": ReLU(), "optimiser": Signum()},
    "16 bits": {"nonlinearity": ReLU(), "optimiser": Adam(moments="bfloat16")},
    "muon": {"nonlinearity": ReLU(), "optimiser": Muon()},
}


@pytest.mark.parametrize("has_numba", [True, False], ids=["numba", "torch"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_training_in_tiles_is_the_training_in_pairs(
    variant: str, has_numba: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dense, "_TILE_LATENTS", 128)  # six tiles, and more where prefixes cut them
    monkeypatch.setattr(dense, "HAS_NUMBA", has_numba)
    in_tiles, in_pairs = trainer(**VARIANTS[variant]), trainer(**VARIANTS[variant])
    for step in range(6):
        lines = []
        for own, share, kind in ((in_tiles, 0.0, Crowd), (in_pairs, 1.0, Active)):
            monkeypatch.setattr(objective, "DENSE_SHARE", share)
            rows = rows_of(step)
            stepped = own.step(rows, rows)
            assert isinstance(stepped.active[0], kind)
            lines.append(own.measure(stepped, rows) | {"loss": stepped.terms.total})
        assert lines[0].keys() == lines[1].keys()
        for name, value in lines[0].items():
            assert value == pytest.approx(lines[1][name], rel=2e-3 if variant == "muon" else 2e-4), (step, name)
        assert lines[0]["dead"] >= (40 if step > 2 else 0)
    own_state, other_state = in_tiles.state()[0], in_pairs.state()[0]
    for name in own_state:
        if own_state[name].numel() and own_state[name].is_floating_point() and not name.startswith("statistics"):
            # Adam's first steps are the signs of gradients, some of which are all rounding.
            difference = (own_state[name].double() - other_state[name].double()).abs()
            assert float(difference.mean()) < 1e-4, name


def test_statistics_of_tiles_are_those_of_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    own, batch = trainer(nonlinearity=JumpReLU()), Batch(rows_of(0), rows_of(0))
    found = []
    for share in (0.0, 1.0):
        monkeypatch.setattr(objective, "DENSE_SHARE", share)
        (active,) = own._objective.forward(own.weights, batch)
        found.append(active.totals(N_LATENTS))
        assert active.n_active == int(found[-1].n_active.sum())
        assert torch.equal(fired(active, N_LATENTS), found[-1].n_active > 0)
    assert torch.equal(found[0].n_active, found[1].n_active)
    torch.testing.assert_close(found[0].total, found[1].total, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found[0].largest, found[1].largest, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kernels", [cpu, plain])
@pytest.mark.parametrize("guess", [True, False])
def test_the_exact_number_of_kept_pairs_decides_whatever_was_guessed(
    kernels: Any, guess: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiled, "looks_dense", lambda *arguments: guess)
    monkeypatch.setattr(objective, "kernels_for", lambda device: kernels)
    own, batch = trainer(nonlinearity=ReLU()), Batch(rows_of(0), rows_of(0))
    read = batch.rows - own.weights.b_dec
    n_kept = int((read @ own.weights.blocks[0].W_enc.T + own.weights.blocks[0].b_enc > 0).sum())
    calculate = Objective(own.settings, SITES, torch.device("cpu"))
    for n_most, kind in ((n_kept - 1, Crowd), (n_kept, Active), (n_kept + 1, Active)):
        monkeypatch.setattr(objective, "DENSE_SHARE", (n_most + 0.5) / (N_ROWS * N_LATENTS))
        (active,) = calculate.forward(own.weights, batch)
        assert isinstance(active, kind), n_most - n_kept
        assert active.n_active == n_kept


def test_a_guess_is_made_of_a_few_latents_and_right_where_they_are_alike() -> None:
    for l0, is_dense in ((350.0, True), (5.0, False)):
        own = trainer(nonlinearity=JumpReLU(bandwidth=1e-3), initial_l0=l0)
        read = rows_of(0) - own.weights.b_dec
        assert tiled.looks_dense(own.weights.blocks[0], read, own.settings.nonlinearity, 0.07) == is_dense  # type: ignore[arg-type]


@pytest.mark.parametrize("kernels", [cpu, plain])
def test_more_pairs_than_asked_for_are_an_error_and_not_one_fewer(
    kernels: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "_TILE_LATENTS", 128)
    W_enc, zeros = torch.ones(300, 1), torch.zeros(300)
    assert len(kernels.above(torch.ones(2, 1), W_enc, zeros, zeros, most=600).values) == 600
    with pytest.raises(TooManyError):
        kernels.above(torch.ones(2, 1), W_enc, zeros, zeros, most=599)


@pytest.mark.parametrize("has_numba", [True, False], ids=["numba", "torch"])
@pytest.mark.parametrize("variant", ["relu", "jumprelu", "gated", "relu, prefixes, free"])
def test_what_is_held_between_the_passes_is_what_would_be_made_again(
    variant: str, has_numba: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two batches one after the other, each used twice: memory that is lent is nobody else's; nothing is held twice."""
    monkeypatch.setattr(dense, "_TILE_LATENTS", 128)
    monkeypatch.setattr(dense, "HAS_NUMBA", has_numba)
    monkeypatch.setattr(objective, "DENSE_SHARE", 0.0)
    own = trainer(**VARIANTS[variant])
    found = []
    for n_held in (4, 0):
        monkeypatch.setattr(tiled, "HELD_TIMES_WEIGHTS", n_held)
        for _ in range(2):  # the second time in memory that has been given back
            batches = [Batch(rows_of(seed), rows_of(seed)) for seed in (0, 1)]
            crowds = [own._objective.forward(own.weights, batch) for batch in batches]
            assert all((crowd.held is not None) == (n_held > 0 and variant != "gated") for (crowd,) in crowds)
            nobody = (torch.zeros(0, dtype=torch.int64),)
            for _ in range(2):
                for batch, crowd in zip(batches, crowds, strict=True):
                    outcome = own._objective(own.weights, batch, crowd, nobody)
                    found.append(
                        (outcome.terms.total, *vars(outcome.backward[0]).values(), *outcome.vectors[0].values())
                    )
    for later in range(2, len(found), 2):
        for before, after in ((found[0], found[later]), (found[1], found[later + 1])):
            assert all(torch.equal(torch.as_tensor(a), torch.as_tensor(b)) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("has_numba", [True, False], ids=["numba", "torch"])
def test_tiles_give_the_same_bits_on_any_number_of_threads(has_numba: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dense, "HAS_NUMBA", has_numba)
    monkeypatch.setattr(dense, "_BLOCK_ROWS", 64)
    found = []
    for n_threads in (1, 2):
        torch.set_num_threads(n_threads)
        try:
            own = trainer(nonlinearity=ReLU())
            for step in range(3):
                own.step(rows_of(step), rows_of(step))
        finally:
            torch.set_num_threads(1)
        found.append(own.state()[0])
    assert all(torch.equal(tensor, found[1][name]) for name, tensor in found[0].items())
    assert isinstance(own.settings.optimiser, Adam)
