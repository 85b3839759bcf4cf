"""A training on Triton's kernels, in their interpreter, goes as one on torch's alone."""

from importlib.util import find_spec
from types import ModuleType
from typing import Any

import pytest
import torch
from tests.kernels.interpreter import interpreted

from mohole.config import BatchTopK, JumpReLU, TopK, Train
from mohole.kernels import plain
from mohole.train import objective, optimiser, start
from mohole.train.trainer import Trainer
from mohole.train.weights import Sites

if find_spec("triton") is None:
    pytest.skip("needs triton: pip install 'mohole[gpu]'", allow_module_level=True)
pytestmark = pytest.mark.skipif(
    torch.cuda.is_available(), reason="Triton's programs are compiled where there is a device"
)

SITES = Sites(("rows",), (8,))


def course(kernels: ModuleType, patch: pytest.MonkeyPatch, **settings: Any) -> list[tuple[float, float]]:
    """Loss and length of the gradient at each step."""
    for module in (objective, optimiser, start):
        patch.setattr(module, "kernels_for", lambda device: kernels)
    rows = torch.randn(64, 8, generator=torch.Generator().manual_seed(0)) + 1.0
    trainer = Trainer.start(
        Train(n_latents=20, warmup_steps=0, lr=0.02, steps=9, **settings), rows, rows, SITES, SITES, seed=0
    )
    found = []
    for step in range(5):
        batch = rows[16 * (step % 4) :][:16]
        stepped = trainer.step(batch, batch)
        found.append((stepped.terms.total, stepped.grad_norm))
    return found


@pytest.mark.parametrize(
    "settings",
    [
        {"nonlinearity": TopK(k=3), "dead_after_rows": 20, "auxk": 4},
        {"nonlinearity": BatchTopK(k=3), "prefixes": (5,), "clip_norm": None},
        {"nonlinearity": JumpReLU(), "initial_l0": 4.0, "decoder": "free"},
    ],
    ids=["topk, AuxK", "batchtopk, prefixes", "jumprelu, free decoder"],
)
def test_losses_are_those_of_plain(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    with interpreted() as gpu:
        ours = course(gpu, monkeypatch, **settings)
    theirs = course(plain, monkeypatch, **settings)
    assert theirs[-1][0] < theirs[0][0]
    for one, other in zip(ours, theirs, strict=True):
        assert one == pytest.approx(other, rel=1e-4)
