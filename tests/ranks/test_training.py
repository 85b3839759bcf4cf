"""A dictionary whose latents and rows are spread over ranks is the one that a single rank learns, by the same trainer."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.ranks.processes import Found, Processes

from mohole.config import L1, BatchTopK, Gated, JumpReLU, ReLU, Tanh, TopK, Train
from mohole.config.train import Adam, CrosscoderOf, CrossLayerOf, Muon, Resample, Signum, TranscoderOf
from mohole.parallel import ALONE, Mesh
from mohole.train import objective
from mohole.train.trainer import Trainer
from mohole.train.weights import Sites, Units

N_LATENTS, N_ROWS, N_STEPS = 50, 24, 8
ONE, TWO, OTHER = Sites(("a",), (12,)), Sites(("a", "b"), (12, 7)), Sites(("m",), (9,))
LAYERS = Sites(("m", "n"), (9, 9))

CASES: dict[str, tuple[dict[str, Any], Sites, Sites]] = {
    "topk, AuxK": ({"nonlinearity": TopK(k=4), "auxk": 3, "dead_after_rows": 40, "clip_norm": 0.3}, ONE, ONE),
    "batchtopk, prefixes": ({"nonlinearity": BatchTopK(k=4), "prefixes": (7, 21), "average": 0.9}, ONE, ONE),
    "relu, l1, free": ({"nonlinearity": ReLU(), "sparsity": L1(weight=0.5), "decoder": "free"}, ONE, ONE),
    "jumprelu, pull": ({"nonlinearity": JumpReLU(bandwidth=0.5), "pre_act_weight": 0.3, "dead_after_rows": 30}, ONE, ONE),
    "gated": ({"nonlinearity": Gated(), "sparsity": L1(weight=0.5), "clip_norm": None}, ONE, ONE),
    "skip": ({"learns": TranscoderOf(reads="a", writes="m", skip=True), "nonlinearity": TopK(k=4)}, ONE, OTHER),
    "crosscoder": ({"learns": CrosscoderOf(hookpoints=("a", "b")), "nonlinearity": TopK(k=4)}, TWO, TWO),
    "cross-layer": (
        {"learns": CrossLayerOf(reads=("a", "b"), writes=("m", "n")), "nonlinearity": JumpReLU(bandwidth=0.5),
         "sparsity": Tanh(weight=0.5), "decoder": "free"},
        TWO, LAYERS,
    ),
    "resampled": (
        {"nonlinearity": TopK(k=2), "dead_after_rows": 30, "auxk": 0, "decay_share": 0.1,
         "resample": Resample(every=4, over_steps=3, most=6)},
        ONE, ONE,
    ),
    "muon": ({"nonlinearity": TopK(k=4), "optimiser": Muon(), "clip_norm": None}, ONE, ONE),
    "signum": ({"nonlinearity": TopK(k=4), "optimiser": Signum()}, ONE, ONE),
    "8bit": ({"nonlinearity": TopK(k=4), "optimiser": Adam(moments="8bit")}, ONE, ONE),
}  # fmt: skip
TILES = ("relu, l1, free", "jumprelu, pull", "gated", "cross-layer")


def rows_of(name: str, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch, the same in every process: few of some latents' directions, so that some die."""
    _, reads, writes = CASES[name]
    generator = torch.Generator().manual_seed(100 + step)
    hidden = torch.randn(N_ROWS, 5, generator=generator).relu()
    maps = torch.Generator().manual_seed(3)
    rows, targets = (hidden @ torch.randn(5, width, generator=maps) for width in (reads.width, writes.width))
    return rows + 0.2, targets - 0.1


def course(mesh: Mesh, name: str, *, dtype: torch.dtype = torch.float32, tiles: bool = False) -> dict[str, Any]:
    """A short training: of each step what it found, and the dictionary at the end."""
    extra, reads, writes = CASES[name]
    settings = Train(
        **({"n_latents": N_LATENTS, "batch_rows": N_ROWS, "steps": N_STEPS, "lr": 0.01, "warmup_steps": 2} | extra)
    )
    is_tied = reads is writes
    sample = [torch.cat(part) for part in zip(*(rows_of(name, 1000 + i) for i in range(8)), strict=True)]
    objective.DENSE_SHARE = 0.0 if tiles else 1.0
    trainer = Trainer.start(settings, sample[0], sample[0] if is_tied else sample[1], reads, writes, seed=2, mesh=mesh)
    if dtype != torch.float32:
        weights = trainer.weights.of({each: tensor.to(dtype) for each, tensor in trainer.weights.named()})
        old = trainer.units
        units = Units(old.read.to(dtype), old.written.to(dtype), old.origin.to(dtype))
        trainer = Trainer(settings, reads, writes, weights, units, seed=2, mesh=mesh)
    own = slice(N_ROWS // mesh.data.size * mesh.data.rank, N_ROWS // mesh.data.size * (mesh.data.rank + 1))
    lines, losses = [], []
    for step in range(N_STEPS):
        rows, targets = (each[own].to(dtype) for each in rows_of(name, step))
        targets = rows if is_tied else targets
        stepped = trainer.step(rows, targets)
        losses.append((stepped.outcome.terms.total, stepped.grad_norm))
        lines.append(trainer.measure(stepped, targets))
    learned = trainer.dictionary()
    tensors = {f"{i}": each for i, each in enumerate(vars(learned).values()) if isinstance(each, torch.Tensor)}
    for number, latents in enumerate(getattr(learned, "layers", None) or [getattr(learned, "latents", None)]):
        tensors |= {
            f"{each}.{number}": found
            for each, found in vars(latents or object).items()
            if isinstance(found, torch.Tensor)
        }
    assert tensors.keys() - {"b_dec"}
    n_active = trainer.statistics.n_active.clone()
    return {
        "losses": losses,
        "lines": lines,
        "tensors": tensors,
        "n_active": n_active,
        "largest": trainer.statistics.largest,
    }


def single(mesh: Mesh) -> dict[str, Any]:
    """Every case in float32."""
    return {name: course(mesh, name) for name in CASES}


def double(mesh: Mesh) -> dict[str, Any]:
    """Every case in float64, where the order of sums does not matter; those with thresholds also in tiles."""
    found = {name: course(mesh, name, dtype=torch.float64) for name in CASES}
    return found | {f"{name}, tiles": course(mesh, name, dtype=torch.float64, tiles=True) for name in TILES}


@pytest.fixture(scope="module")
def alone() -> Iterator[dict[Any, Any]]:
    """Of both, what one rank learns."""
    share = objective.DENSE_SHARE
    yield {work: work(Mesh()) for work in (single, double)}
    objective.DENSE_SHARE = share


@pytest.fixture(scope="module")
def in_rows(ranks: Processes) -> Found:
    return ranks.on_mesh(single, 1, 2)


@pytest.fixture(scope="module")
def in_both(ranks: Processes) -> Found:
    return ranks.on_mesh(double, 2, 2)


@pytest.mark.parametrize("name", CASES)
def test_ranks_that_share_rows_learn_the_same_bits(name: str, alone: dict[Any, Any], in_rows: Found) -> None:
    expected = alone[single][name]
    for courses in in_rows.values():
        found = courses[name]
        assert found["losses"] == expected["losses"]
        assert all(torch.equal(found["tensors"][each], tensor) for each, tensor in expected["tensors"].items())
        assert torch.equal(found["n_active"], expected["n_active"])
        assert torch.equal(found["largest"], expected["largest"])


@pytest.mark.parametrize("name", [*CASES, *(f"{name}, tiles" for name in TILES)])
def test_ranks_that_share_rows_and_latents_learn_the_same(name: str, alone: dict[Any, Any], in_both: Found) -> None:
    expected = alone[double][name]
    for courses in in_both.values():
        found = courses[name]
        torch.testing.assert_close(
            torch.tensor(found["losses"]), torch.tensor(expected["losses"]), rtol=1e-7, atol=1e-9
        )
        for line, other in zip(found["lines"], expected["lines"], strict=True):
            assert line == pytest.approx(other, rel=1e-5, abs=1e-9)
        assert found["tensors"].keys() == expected["tensors"].keys()
        for each, tensor in expected["tensors"].items():
            torch.testing.assert_close(found["tensors"][each], tensor, rtol=1e-6, atol=1e-8, msg=each)


def test_every_rank_has_the_same_dictionary(in_both: Found) -> None:
    first, *others = in_both.values()
    for other in others:
        for name in first:
            for each, tensor in first[name]["tensors"].items():
                assert torch.equal(tensor, other[name]["tensors"][each]), f"{name}: {each}"


def test_the_cases_are_what_they_say(alone: dict[Any, Any]) -> None:
    lines = {name: course["lines"] for name, course in alone[double].items()}
    assert lines["topk, AuxK"][-1]["auxk_loss"] > 0
    assert lines["topk, AuxK"][-1]["dead"] > 3
    assert lines["topk, AuxK"][-1]["grad_norm"] > 0.3  # clipped
    assert lines["jumprelu, pull"][-1]["pre_act_loss"] != 0
    assert lines["relu, l1, free"][-1]["sparsity_loss"] > 0
    assert lines["gated"][-1]["gate_loss"] > 0
    assert lines["resampled"][-1]["resampled"] >= 6


def test_rows_that_cannot_be_shared_are_refused() -> None:
    settings = Train(n_latents=20, batch_rows=32, steps=3)
    rows = torch.randn(64, 12)
    three = replace(ALONE, size=3)  # type: ignore[type-var]
    with pytest.raises(ValueError, match="32 rows cannot be shared by 3 ranks"):
        Trainer.start(settings, rows, rows, ONE, ONE, seed=0, mesh=Mesh(data=three))
