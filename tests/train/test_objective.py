"""The written-out gradient is autograd's for every kind of dictionary and every nonlinearity; each term moves what it should."""

import dataclasses
import itertools
from types import ModuleType
from typing import Any

import pytest
import torch
from tests.train import dense

from mohole.config import L1, BatchTopK, Gated, JumpReLU, ReLU, Tanh, TopK, Train
from mohole.config.train import CrosscoderOf, CrossLayerOf, Sae, TranscoderOf
from mohole.kernels import cpu, plain
from mohole.kernels.dense import DenseBackward
from mohole.kernels.pairs import Backward
from mohole.train import objective as module
from mohole.train.activation import Active
from mohole.train.objective import Batch, Objective, Outcome
from mohole.train.silence import Silence, fired
from mohole.train.weights import Block, Sites, Weights

N_LATENTS, B = 50, 40
ONE, TWO = Sites(("a",), (12,)), Sites(("a", "b"), (12, 7))
PAIR, LAYERS = Sites(("m",), (9,)), Sites(("m", "n"), (9, 9))

KINDS: dict[str, tuple[Any, Sites, Sites]] = {
    "sae": (Sae(), ONE, ONE),
    "transcoder": (TranscoderOf(reads="a", writes="m"), ONE, PAIR),
    "skip": (TranscoderOf(reads="a", writes="m", skip=True), ONE, PAIR),
    "crosscoder": (CrosscoderOf(hookpoints=("a", "b")), TWO, TWO),
    "cross-layer": (CrossLayerOf(reads=("a", "b"), writes=("m", "n")), Sites(("a", "b"), (12, 12)), LAYERS),
}
NONLINEARITIES: dict[str, dict[str, Any]] = {
    "topk": {"nonlinearity": TopK(k=4)},
    "batchtopk": {"nonlinearity": BatchTopK(k=4)},
    "relu, l1": {"nonlinearity": ReLU(), "sparsity": L1(weight=3.0)},
    "relu, tanh": {"nonlinearity": ReLU(), "sparsity": Tanh(weight=2.0, scale=1.5)},
    "jumprelu, l0": {"nonlinearity": JumpReLU(bandwidth=0.9)},
    "jumprelu, tanh": {"nonlinearity": JumpReLU(bandwidth=0.9), "sparsity": Tanh(weight=2.0)},
    "jumprelu, l1": {"nonlinearity": JumpReLU(bandwidth=0.9), "sparsity": L1(weight=2.0)},
    "gated": {"nonlinearity": Gated(), "sparsity": L1(weight=2.0)},
}
EXTRAS: dict[str, dict[str, Any]] = {
    "alone": {"auxk": 0},
    "free decoder": {"auxk": 0, "decoder": "free"},
    "prefixes": {"auxk": 0, "prefixes": (7, 21)},
    "auxk": {"auxk": 3, "auxk_weight": 0.25},
    "everything": {"auxk": 60, "prefixes": (10,), "decoder": "free", "pre_act_weight": 0.3},
}


def some_weights(kind: str, settings: Train, *, seed: int = 0) -> Weights:
    """Random weights in float64; a third of the latents read too weakly ever to be kept."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    _, reads, writes = KINDS[kind]
    if kind == "cross-layer":
        columns = [(slice(0, 12), slice(0, 18)), (slice(12, 24), slice(9, 18))]
    else:
        columns = [(slice(0, reads.width), slice(0, writes.width))]
    blocks = []
    for own_reads, own_writes in columns:
        W_enc = draw(N_LATENTS, own_reads.stop - own_reads.start) * 0.5
        b_enc, W_dec = draw(N_LATENTS) * 0.2, draw(N_LATENTS, own_writes.stop - own_writes.start)
        W_enc[::3] *= 0.001
        b_enc[::3] = -0.5
        if settings.decoder == "unit":
            W_dec /= W_dec.norm(dim=1, keepdim=True)
        block = Block(own_reads, own_writes, W_enc, b_enc, W_dec)
        if isinstance(settings.nonlinearity, JumpReLU):
            threshold = (draw(N_LATENTS) * 0.1 + 0.8).clamp_min(0.1)
            block = dataclasses.replace(block, log_threshold=threshold.log())
        if isinstance(settings.nonlinearity, Gated):
            block = dataclasses.replace(block, b_mag=draw(N_LATENTS) * 0.3, r_mag=draw(N_LATENTS) * 0.2)
        blocks.append(block)
    is_tied = kind in ("sae", "crosscoder")
    skip = draw(writes.width, reads.width) * 0.1 if kind == "skip" else None
    return Weights(tuple(blocks), draw(writes.width), skip, is_tied)


def some_batch(kind: str, seed: int = 5) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    _, reads, writes = KINDS[kind]
    rows = torch.randn(B, reads.width, generator=generator, dtype=torch.float64) * 2
    if kind in ("sae", "crosscoder"):
        return Batch(rows, rows)
    return Batch(rows, torch.randn(B, writes.width, generator=generator, dtype=torch.float64))


def settings_of(kind: str, **settings: Any) -> Train:
    return Train(learns=KINDS[kind][0], n_latents=N_LATENTS, **settings)


def run(
    kind: str, settings: Train, weights: Weights, batch: Batch, *, use_dead: bool = True, warmth: float = 1.0
) -> tuple[Outcome, list[torch.Tensor]]:
    calculate = Objective(settings, KINDS[kind][2], torch.device("cpu"))
    active = calculate.forward(weights, batch)
    silent = [(~fired(own, N_LATENTS)).nonzero()[:, 0] for own in active]
    dead = [own if use_dead else own[:0] for own in silent]
    return calculate(weights, batch, active, tuple(dead), warmth=warmth), dead


def named(outcome: Outcome, weights: Weights) -> dict[str, torch.Tensor]:
    """All gradients as tensors."""
    found: dict[str, torch.Tensor] = {}
    for number, (back, block) in enumerate(zip(outcome.backward, weights.blocks, strict=True)):
        matrices = (back.d_enc, back.d_dec) if isinstance(back, DenseBackward) else cpu.gradients(back, block.W_dec)
        found[f"W_enc.{number}"], found[f"W_dec.{number}"] = matrices
        found |= {f"{name}.{number}": gradient for name, gradient in outcome.vectors[number].items()}
    found["b_dec"] = outcome.d_b_dec
    return found if outcome.d_skip is None else found | {"W_skip": outcome.d_skip}


WAYS: dict[str, tuple[ModuleType, float]] = {
    "pairs, numba": (cpu, 1.0), "pairs, torch": (plain, 1.0), "tiles, numba": (cpu, 0.0), "tiles, torch": (plain, 0.0)
}  # fmt: skip
"""How a batch may be computed: kernels, and the share of latents above which it is done in tiles."""


@pytest.mark.parametrize(
    ("kind", "nonlinearity", "way"),
    [
        case
        for case in itertools.product(KINDS, NONLINEARITIES, WAYS)
        if not ("topk" in case[1] and "tiles" in case[2])  # k says how many latents are active: always pairs
    ],
)
def test_loss_and_gradient_are_those_of_the_dense_objective(
    kind: str, nonlinearity: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernels, share = WAYS[way]
    monkeypatch.setattr(module, "kernels_for", lambda device: kernels)
    monkeypatch.setattr(module, "DENSE_SHARE", share)
    for name, extra in EXTRAS.items():
        if not nonlinearity.startswith(("relu", "jump")):
            extra = {key: value for key, value in extra.items() if key != "pre_act_weight"}
        settings = settings_of(kind, **NONLINEARITIES[nonlinearity], **extra)
        weights, batch = some_weights(kind, settings), some_batch(kind)
        outcome, dead = run(kind, settings, weights, batch, warmth=0.7)
        assert all(len(own) >= 10 for own in dead), name
        assert all(isinstance(back, DenseBackward) == way.startswith("tiles") for back in outcome.backward)
        total, expected = dense.gradients(weights, batch, settings, KINDS[kind][2], dead, 0.7)
        assert outcome.terms.total == pytest.approx(total, rel=1e-12), name
        found = named(outcome, weights)
        assert set(found) == set(expected)
        for tensor, gradient in expected.items():
            torch.testing.assert_close(found[tensor], gradient, rtol=1e-9, atol=1e-12, msg=f"{name}: {tensor}")
            moves = tensor not in ("r_mag.0", "r_mag.1") or nonlinearity == "gated"
            assert not moves or gradient.abs().max() > 0, f"{name}: nothing moves {tensor}"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("nonlinearity", NONLINEARITIES)
def test_without_the_price_of_thresholds_the_gradient_is_the_slope_of_the_loss(kind: str, nonlinearity: str) -> None:
    """Finite differences, of what is smooth. Straight-through thresholds are not slopes, by design, nor is what reaches the
    decoder of gated, whose gates reconstruct with a decoder that they do not move."""
    settings = settings_of(kind, **NONLINEARITIES[nonlinearity], auxk=0, decoder="free", prefixes=(20,))
    weights, batch = some_weights(kind, settings), some_batch(kind)
    outcome, _ = run(kind, settings, weights, batch)
    by_design = ("log_threshold", *(("W_dec", "b_dec", "W_skip") if nonlinearity == "gated" else ()))
    smooth = {name: each for name, each in named(outcome, weights).items() if not name.startswith(by_design)}
    assert {name.split(".")[0] for name in smooth} >= {"W_enc", "b_enc"}
    for name, gradient in smooth.items():
        at = int(gradient.abs().flatten().argmax())
        totals = []
        for sign in (1.0, -1.0):
            tensors = {other: tensor.clone() for other, tensor in weights.named()}
            tensors[name].view(-1)[at] += sign * 1e-6
            totals.append(run(kind, settings, weights.of(tensors), batch)[0].terms.total)
        assert (totals[0] - totals[1]) / 2e-6 == pytest.approx(float(gradient.view(-1)[at]), rel=1e-4), name


# Gradient paths


def outcome_of(**extra: Any) -> tuple[Outcome, Weights, torch.Tensor]:
    settings = settings_of("sae", **({"nonlinearity": TopK(k=4)} | extra))
    weights = some_weights("sae", settings)
    outcome, dead = run("sae", settings, weights, some_batch("sae"))
    return outcome, weights, dead[0]


def test_auxk_gives_every_dead_encoder_row_a_gradient_and_leaves_the_living_alone() -> None:
    alone, weights, dead = outcome_of(auxk=0)
    without = named(alone, weights)
    assert (without["W_enc.0"][dead] == 0).all()  # the reconstruction alone never reaches them
    # Biased up, so that every dead latent has something to give.
    weights.blocks[0].b_enc[dead] += 0.6
    settings = settings_of("sae", nonlinearity=TopK(k=4), auxk=50)
    calculate, batch = Objective(settings, ONE, torch.device("cpu")), some_batch("sae")
    active = calculate.forward(weights, batch)
    still_dead = dead[~fired(active[0], N_LATENTS)[dead]]
    assert len(still_dead) >= 10
    with_aux = named(calculate(weights, batch, active, (still_dead,)), weights)
    plain_ones = named(calculate(weights, batch, active, (still_dead[:0],)), weights)
    assert (with_aux["W_enc.0"][still_dead].norm(dim=1) > 0).all()
    assert (with_aux["W_dec.0"][still_dead].norm(dim=1) > 0).all()
    living = torch.ones(N_LATENTS, dtype=torch.bool)
    living[still_dead] = False
    for name in ("W_enc.0", "b_enc.0", "W_dec.0"):
        assert torch.equal(with_aux[name][living], plain_ones[name][living])
    assert not torch.equal(with_aux["b_dec"], plain_ones["b_dec"])  # through the encoder only: see the dense objective


def test_pre_act_pulls_dead_latents_up_and_no_one_else() -> None:
    plain_one, weights, dead = outcome_of(auxk=0, nonlinearity=JumpReLU())
    pulled, _, _ = outcome_of(auxk=0, nonlinearity=JumpReLU(), pre_act_weight=0.5)
    difference = named(pulled, weights)["b_enc.0"] - named(plain_one, weights)["b_enc.0"]
    assert (difference[dead] < 0).all()  # a step against the gradient raises them
    difference[dead] = 0
    assert (difference == 0).all()
    assert torch.equal(named(pulled, weights)["W_dec.0"], named(plain_one, weights)["W_dec.0"])


def test_the_price_of_being_active_moves_thresholds_only() -> None:
    free = settings_of("sae", nonlinearity=JumpReLU(), auxk=0, decoder="unit")
    weights, batch = some_weights("sae", free), some_batch("sae")
    priced, _ = run("sae", free, weights, batch, warmth=1.0)
    unpriced, _ = run("sae", free, weights, batch, warmth=0.0)
    for name, gradient in named(priced, weights).items():
        assert torch.equal(gradient, named(unpriced, weights)[name]) == (name != "log_threshold.0"), name
    rise = named(priced, weights)["log_threshold.0"] - named(unpriced, weights)["log_threshold.0"]
    assert (rise <= 0).all()  # a step against the gradient raises thresholds
    assert (rise < 0).any()


def test_a_prefix_is_a_dictionary_of_its_own() -> None:
    """Latents beyond the first prefix do not see its error: with the smaller sizes weighted in, their gradient is their share."""
    whole = settings_of("sae", nonlinearity=ReLU(), sparsity=L1(weight=0.0), auxk=0)
    nested = settings_of("sae", nonlinearity=ReLU(), sparsity=L1(weight=0.0), auxk=0, prefixes=(10,))
    weights, batch = some_weights("sae", whole), some_batch("sae")
    alone, both = (named(run("sae", each, weights, batch)[0], weights) for each in (whole, nested))
    torch.testing.assert_close(both["W_dec.0"][10:], alone["W_dec.0"][10:] / 2)
    assert not torch.allclose(both["W_dec.0"][:10], alone["W_dec.0"][:10] / 2)


def test_a_perfect_reconstruction_leaves_auxk_nothing_and_no_nan() -> None:
    settings = settings_of("sae", nonlinearity=TopK(k=4), auxk=5)
    weights = some_weights("sae", settings)
    weights.blocks[0].b_enc.fill_(-1.0)
    rows = weights.b_dec.repeat(8, 1)  # rebuilt exactly when nothing fires
    outcome, dead = run("sae", settings, weights, Batch(rows, rows))
    assert len(dead[0]) == N_LATENTS
    assert outcome.terms.total == 0.0
    assert all((gradient == 0).all() for gradient in named(outcome, weights).values())


def test_the_loss_and_its_gradient_are_means_over_rows_whatever_the_batch() -> None:
    settings = settings_of("sae", nonlinearity=JumpReLU(), auxk=0)
    weights, batch = some_weights("sae", settings), some_batch("sae")
    twice = Batch(batch.rows.repeat(2, 1), batch.rows.repeat(2, 1))
    one, two = (run("sae", settings, weights, each, use_dead=False)[0] for each in (batch, twice))
    assert one.terms.total == pytest.approx(two.terms.total, rel=1e-12)
    for name, gradient in named(one, weights).items():
        torch.testing.assert_close(gradient, named(two, weights)[name], rtol=1e-9, atol=1e-15)


def test_rows_without_codes_and_a_batch_of_one_are_batches() -> None:
    settings = settings_of("sae", nonlinearity=TopK(k=4), auxk=3)
    weights = some_weights("sae", settings)
    for n_rows in (1, 2):
        rows = some_batch("sae").rows[:n_rows]
        outcome, dead = run("sae", settings, weights, Batch(rows, rows))
        assert all(gradient.isfinite().all() for gradient in named(outcome, weights).values())
    weights.blocks[0].b_enc.fill_(-100.0)
    outcome, dead = run("sae", settings, weights, Batch(rows, rows))
    assert len(dead[0]) == N_LATENTS
    assert (named(outcome, weights)["W_enc.0"] == 0).all()


def test_a_latent_is_dead_after_so_many_silent_rows_and_alive_once_it_fires() -> None:
    silence = Silence(3, 20, torch.device("cpu"))
    silence.update(torch.tensor([True, False, False]), 10)
    assert silence.dead().tolist() == []
    silence.update(torch.tensor([False, True, False]), 10)
    assert silence.dead().tolist() == [2]
    silence.update(torch.tensor([False, False, True]), 10)
    assert silence.dead().tolist() == [0]


def test_latents_near_their_threshold_move_it_and_no_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DENSE_SHARE", 1.0)
    settings = settings_of("sae", nonlinearity=JumpReLU(bandwidth=0.9), auxk=0)
    weights, batch = some_weights("sae", settings), some_batch("sae")
    block = weights.blocks[0]
    largest = ((batch.rows - weights.b_dec) @ block.W_enc[1] + block.b_enc[1]).max()
    assert block.log_threshold is not None
    block.log_threshold[1] = (largest + 0.1).log()
    outcome, _ = run("sae", settings, weights, batch)
    (active,), (back,) = outcome.active, outcome.backward
    assert isinstance(active, Active)
    assert isinstance(back, Backward)
    assert len(back.by_latent.order) == active.n_active < active.n_kept
    assert outcome.vectors[0]["log_threshold"][1] != 0
    assert back.by_latent.starts[1] == back.by_latent.starts[2]
