"""Short trainings of every kind, for what must not change them: ranks, devices."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from mohole.config import L1, BatchTopK, Gated, JumpReLU, ReLU, Tanh, TopK, Train
from mohole.config.train import Adam, CrosscoderOf, CrossLayerOf, Muon, Resample, Signum, TranscoderOf
from mohole.parallel import Mesh
from mohole.train import objective
from mohole.train.trainer import Trainer
from mohole.train.weights import Sites, Units

N_LATENTS, N_ROWS, N_STEPS = 50, 24, 8
ONE, TWO, OTHER = Sites(("a",), (12,)), Sites(("a", "b"), (12, 7)), Sites(("m",), (9,))
EQUAL, LAYERS = Sites(("a", "b"), (12, 12)), Sites(("m", "n"), (9, 9))

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
        EQUAL, LAYERS,
    ),
    "resampled": (
        {"nonlinearity": TopK(k=2), "dead_after_rows": 30, "auxk": 0, "decay_share": 0.1,
         "resample": Resample(every=4, over_steps=3, most=40)},
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
    generator = torch.Generator("cpu").manual_seed(100 + step)
    hidden = torch.randn(N_ROWS, 5, generator=generator, device="cpu").relu()
    maps = torch.Generator("cpu").manual_seed(3)
    rows, targets = (
        hidden @ torch.randn(5, width, generator=maps, device="cpu") for width in (reads.width, writes.width)
    )
    return rows + 0.2, targets - 0.1


def course(
    mesh: Mesh,
    name: str,
    *,
    dtype: torch.dtype = torch.float32,
    tiles: bool = False,
    training: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> dict[str, Any]:
    """A short training: of each step what it found, and the dictionary at the end.

    Args:
        training: entered where weights are made or moved.
    """
    extra, reads, writes = CASES[name]
    settings = Train(
        **({"n_latents": N_LATENTS, "batch_rows": N_ROWS, "steps": N_STEPS, "lr": 0.01, "warmup_steps": 2} | extra)
    )
    is_tied = reads is writes
    sample, images = (torch.cat(part) for part in zip(*(rows_of(name, 1000 + i) for i in range(8)), strict=True))
    objective.DENSE_SHARE = 0.0 if tiles else 1.0
    with training():
        trainer = Trainer.start(settings, sample, sample if is_tied else images, reads, writes, seed=2, mesh=mesh)
    if dtype != torch.float32:
        weights = trainer.weights.of({each: tensor.to(dtype) for each, tensor in trainer.weights.named()})
        units = Units(*(each.to(dtype) for each in vars(trainer.units).values()))
        trainer = Trainer(settings, reads, writes, weights, units, seed=2, mesh=mesh)
    n_own = N_ROWS // mesh.data.size
    own = slice(n_own * mesh.data.rank, n_own * (mesh.data.rank + 1))
    lines, losses = [], []
    for step in range(N_STEPS):
        rows, targets = (each[own].to(dtype) for each in rows_of(name, step))
        targets = rows if is_tied else targets
        with training():
            stepped = trainer.step(rows, targets)
        losses.append((stepped.terms.total, stepped.grad_norm))
        lines.append(trainer.measure(stepped, targets))
    statistics = trainer.statistics.tensors()
    tensors = _tensors(trainer.dictionary())
    return {"losses": losses, "lines": lines, "tensors": tensors, **statistics}


def _tensors(dictionary: Any) -> dict[str, torch.Tensor]:
    parts = [dictionary, *getattr(dictionary, "layers", [getattr(dictionary, "latents", None)])]
    return {
        f"{name}.{number}": found
        for number, part in enumerate(part for part in parts if part is not None)
        for name, found in vars(part).items()
        if isinstance(found, torch.Tensor)
    }
