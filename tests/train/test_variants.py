"""Every kind of dictionary and every nonlinearity finds what was planted, and follows the dense objective step for step."""

from typing import Any

import numpy as np
import pytest
import torch
from tests.train import dense

from mohole.config import L0, L1, BatchTopK, Gated, JumpReLU, ReLU, Tanh, TopK, Train
from mohole.config.train import CrosscoderOf, CrossLayerOf, Muon, Signum, TranscoderOf
from mohole.dictionary import Crosscoder, CrossLayerTranscoder, SparseAutoencoder, Transcoder
from mohole.train.objective import Batch
from mohole.train.trainer import Trainer
from mohole.train.weights import Sites

D, N_DIRECTIONS, ACTIVE = 24, 48, 3
STEPS = 350


class World:
    """Rows that are sums of a few unit directions; the same directions, seen through another random map, are the targets."""

    def __init__(self, seed: int = 0) -> None:
        random = np.random.default_rng(seed)
        self.directions, self.images = (self._unit(random, N_DIRECTIONS) for _ in range(2))
        # Some are used ten times as often as others.
        self._odds = np.geomspace(1.0, 10.0, N_DIRECTIONS)

    @staticmethod
    def _unit(random: np.random.Generator, n: int) -> torch.Tensor:
        found = torch.from_numpy(random.normal(size=(n, D)).astype(np.float32))
        return found / found.norm(dim=1, keepdim=True)

    def codes(self, step: int, n_rows: int = 256) -> torch.Tensor:
        random = np.random.default_rng([7, step])
        ranks = random.random((n_rows, N_DIRECTIONS)) ** (1.0 / self._odds)
        chosen = np.argpartition(-ranks, ACTIVE, axis=1)[:, :ACTIVE]
        codes = np.zeros((n_rows, N_DIRECTIONS), np.float32)
        np.put_along_axis(codes, chosen, random.uniform(1, 2, (n_rows, ACTIVE)).astype(np.float32), axis=1)
        return torch.from_numpy(codes)

    def batch(self, step: int, kind: str) -> tuple[torch.Tensor, torch.Tensor]:
        codes = self.codes(step)
        rows, images = codes @ self.directions + 0.5, codes @ self.images * 3.0 - 1.0
        match kind:
            case "sae":
                return rows, rows
            case "crosscoder":
                both = torch.cat([rows, images], 1)
                return both, both
            case "cross-layer":  # half of the directions appear at each layer's input, all of them at the last output
                first, second = codes.clone(), codes.clone()
                first[:, N_DIRECTIONS // 2 :], second[:, : N_DIRECTIONS // 2] = 0, 0
                reads = torch.cat([first @ self.directions, second @ self.directions], 1)
                return reads, torch.cat([first @ self.images, codes @ self.images], 1)
            case _:
                return rows, images


KINDS: dict[str, tuple[dict[str, Any], Sites, Sites]] = {
    "sae": ({}, Sites(("a",), (D,)), Sites(("a",), (D,))),
    "transcoder": ({"learns": TranscoderOf(reads="a", writes="b")}, Sites(("a",), (D,)), Sites(("b",), (D,))),
    "skip": ({"learns": TranscoderOf(reads="a", writes="b", skip=True)}, Sites(("a",), (D,)), Sites(("b",), (D,))),
    "crosscoder": ({"learns": CrosscoderOf(hookpoints=("a", "b"))}, Sites(("a", "b"), (D, D)), Sites(("a", "b"), (D, D))),
    "cross-layer": (
        {"learns": CrossLayerOf(reads=("a", "b"), writes=("c", "d"))}, Sites(("a", "b"), (D, D)), Sites(("c", "d"), (D, D)),
    ),
}  # fmt: skip
NONLINEARITIES: dict[str, dict[str, Any]] = {
    "topk": {"nonlinearity": TopK(k=ACTIVE)},
    "batchtopk": {"nonlinearity": BatchTopK(k=ACTIVE)},
    "relu": {"nonlinearity": ReLU(), "sparsity": L1(weight=1.2), "decoder": "unit"},
    "relu, tanh": {"nonlinearity": ReLU(), "sparsity": Tanh(weight=1.0, scale=1.0)},
    "jumprelu": {"nonlinearity": JumpReLU(bandwidth=1.0), "sparsity": L0(weight=0.6)},
    "jumprelu, tanh": {"nonlinearity": JumpReLU(bandwidth=1.0), "sparsity": Tanh(weight=0.6)},
    "gated": {"nonlinearity": Gated(), "sparsity": L1(weight=2.0)},
    "topk, signum": {"nonlinearity": TopK(k=ACTIVE), "optimiser": Signum(), "lr": 2e-3},
    "topk, muon": {"nonlinearity": TopK(k=ACTIVE), "optimiser": Muon(), "lr": 5e-3},
    "matryoshka": {"nonlinearity": BatchTopK(k=ACTIVE), "prefixes": (48,)},
}
SHRINKS = {"relu": 0.25, "relu, tanh": 0.16}
"""Where the penalty is on the activation itself, it makes all of them smaller: fvu at which the planted directions are found."""


def learn(kind: str, world: World, *, steps: int = STEPS, **settings: Any) -> tuple[Trainer, list[dict[str, Any]]]:
    extra, reads, writes = KINDS[kind]
    config = Train(
        **({"n_latents": 64, "batch_rows": 256, "steps": steps, "lr": 1e-2, "warmup_steps": 20, "dead_after_rows": 10_000,
            "initial_l0": 6.0} | extra | settings)
    )  # fmt: skip
    sample = [world.batch(1_000_000 + i, kind) for i in range(4)]
    trainer = Trainer.start(config, *(torch.cat(part) for part in zip(*sample, strict=True)), reads, writes, seed=3)
    lines = []
    for step in range(steps):
        rows, targets = world.batch(step, kind)
        targets = rows if kind in ("sae", "crosscoder") else targets
        stepped = trainer.step(rows, targets)
        lines.append(trainer.measure(stepped, targets) if step % 50 == 49 else {"loss": stepped.terms.total})
    return trainer, lines


def recall(found: torch.Tensor, world: World, planted: torch.Tensor) -> float:
    """Share of all firings whose planted direction some latent points along (cosine above .9)."""
    found = found / found.norm(dim=1, keepdim=True).clamp_min(1e-9)
    mass = world.codes(2_000_000, 4000).gt(0).float().mean(0)
    hit = (planted @ found.T).amax(1) > 0.9
    return float((mass * hit).sum() / mass.sum())


@pytest.mark.parametrize("name", NONLINEARITIES)
def test_every_nonlinearity_finds_the_planted_directions(name: str, no_shape_checks: None) -> None:
    world = World()
    trainer, lines = learn("sae", world, **NONLINEARITIES[name])
    sae = trainer.dictionary()
    assert isinstance(sae, SparseAutoencoder)
    rows, _ = world.batch(3_000_000, "sae")
    codes = sae.encode(rows)
    error = (sae.decode(codes) - rows).square().sum() / (rows - rows.mean(0)).square().sum()
    assert recall(sae.W_dec, world, world.directions) > 0.85
    assert float(error) < SHRINKS.get(name, 0.12)
    assert 2.0 < float(codes.n_active.float().mean()) < 6.0
    assert lines[-1]["fvu"] == pytest.approx(float(error), rel=0.4, abs=0.01)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "sae"])
def test_every_kind_of_dictionary_finds_the_planted_directions(kind: str, no_shape_checks: None) -> None:
    world = World()
    trainer, lines = learn(kind, world, nonlinearity=TopK(k=ACTIVE), steps=450)
    found = trainer.dictionary()
    assert lines[-1]["fvu"] < 0.15
    match found:
        case Transcoder():
            rows, targets = world.batch(3_000_000, kind)
            error = found.decode(found.encode(rows), rows) - targets
            assert float(error.square().sum() / (targets - targets.mean(0)).square().sum()) < 0.15
            if found.W_skip is None:
                assert recall(found.latents.W_dec, world, world.images) > 0.9
        case Crosscoder():
            rows, _ = world.batch(3_000_000, kind)
            error = found.decode(found.encode(rows)) - rows
            for site in (slice(0, D), slice(D, 2 * D)):
                assert float(error[:, site].square().sum() / (rows - rows.mean(0))[:, site].square().sum()) < 0.15
            assert recall(found.latents.W_dec[:, :D], world, world.directions) > 0.9
            assert recall(found.latents.W_dec[:, D:], world, world.images) > 0.9
            used = found.norms()[(world.directions @ found.latents.W_dec[:, :D].T).argmax(1)]
            # In the model's units the images are three times as long as the directions.
            assert float((used[:, 1] / used[:, 0]).median()) == pytest.approx(3.0, rel=0.1)
        case CrossLayerTranscoder():
            half = N_DIRECTIONS // 2
            first, second = found.layers
            assert recall(first.W_dec[:, :D], world, world.images[:half].repeat(2, 1)) > 0.9
            assert recall(second.W_dec, world, world.images[half:].repeat(2, 1)) > 0.9
            rows, targets = world.batch(3_000_000, kind)
            stacked = rows.view(-1, 2, D).transpose(0, 1)
            error = found.decode(found.encode(stacked)) - targets.view(-1, 2, D).transpose(0, 1)
            assert float(error.square().sum() / (targets - targets.mean(0)).square().sum()) < 0.15


@pytest.mark.parametrize("name", [name for name in NONLINEARITIES if "optimiser" not in NONLINEARITIES[name]])
def test_the_loss_curve_is_that_of_dense_training_in_double(name: str) -> None:
    """Sixty steps: autograd of the dense objective and torch.optim.Adam from the same start. Within 1e-4 relative."""
    world, steps = World(), 60
    config = {"auxk": 0, "clip_norm": None} | NONLINEARITIES[name] | ({"decoder": "free"} if name == "relu" else {})
    trainer, _ = learn("sae", world, steps=1, lr=1e-30, **config)
    settings = trainer.settings.model_copy(update={"lr": 2e-3, "steps": steps, "warmup_steps": 0, "decay_share": 0.0})
    own = Trainer(settings, KINDS["sae"][1], KINDS["sae"][1], trainer.weights, trainer.units)
    theirs = {name: tensor.double().clone() for name, tensor in trainer.weights.named()}
    adam = torch.optim.Adam(theirs.values(), lr=2e-3, eps=6.25e-10)
    for step in range(steps):
        rows, _ = world.batch(step, "sae")
        x = rows.double() * trainer.units.read.double()
        penalty = settings.penalty()
        warmth = min((step + 1) / penalty.warmup_steps, 1.0) if penalty else 1.0
        nobody = [torch.zeros(0, dtype=torch.int64)]
        total, gradients = dense.gradients(
            trainer.weights.of(theirs), Batch(x, x), settings, KINDS["sae"][2], nobody, warmth
        )
        loss = own.step(rows, rows).terms.total
        assert loss == pytest.approx(total, rel=1e-4), step
        for tensor_name, tensor in theirs.items():
            tensor.grad = gradients[tensor_name]
        adam.step()
        if settings.decoder == "unit":
            theirs["W_dec.0"] /= theirs["W_dec.0"].norm(dim=1, keepdim=True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["topk", "jumprelu", "gated"])
def test_where_the_origin_lies_changes_nothing_but_the_biases(kind: str, name: str) -> None:
    """Rows and targets moved by ten times their spread: the same matrices, and the same function of the moved rows."""
    world, found = World(), []
    _, reads, writes = KINDS[kind]
    for offset in (0.0, 8.0):
        settings = Train(
            **(
                KINDS[kind][0]
                | NONLINEARITIES[name]
                | {"n_latents": 32, "steps": 10, "initial_l0": 4.0, "batch_rows": 256}
            )
        )
        sample = [part + offset for part in world.batch(77, kind)]
        trainer = Trainer.start(settings, sample[0], sample[1], reads, writes, seed=3)
        for step in range(10):
            rows, targets = (part + offset for part in world.batch(step, kind))
            trainer.step(rows, rows if kind in ("sae", "crosscoder") else targets)
        learned: Any = trainer.dictionary()
        rows, _ = (part + offset for part in world.batch(99, kind))
        given = rows.view(-1, 2, D).transpose(0, 1) if kind == "cross-layer" else rows
        codes = learned.encode(given)
        output = learned.decode(codes, given) if kind in ("transcoder", "skip") else learned.decode(codes)
        found.append((trainer.weights.blocks[0].W_enc, output - offset))
    torch.testing.assert_close(found[1][0], found[0][0], rtol=1e-2, atol=2e-3)
    error = (found[1][1] - found[0][1]).square().sum() / found[0][1].square().sum()
    assert float(error) < 1e-2
