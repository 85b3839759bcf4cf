"""A training on Triton's kernels, in their interpreter, goes as one on torch's alone."""

from importlib.util import find_spec
from pathlib import Path
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


def course(
    kernels: ModuleType, patch: pytest.MonkeyPatch, lines: list[str] | None = None, **settings: Any
) -> list[tuple[float, float]]:
    """Loss and length of the gradient at each step.

    Args:
        lines: where a tuned training says what it chose.
    """
    for module in (objective, optimiser, start):
        patch.setattr(module, "kernels_for", lambda device: kernels)
    rows = torch.randn(64, 8, generator=torch.Generator().manual_seed(0)) + 1.0
    trainer = Trainer.start(
        Train(n_latents=20, warmup_steps=0, lr=0.02, steps=9, **settings), rows, rows, SITES, SITES, seed=0
    )
    if lines is not None:
        lines.append(trainer.tune(rows))
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
        {"nonlinearity": TopK(k=3), "dead_after_rows": 20, "auxk": 4, "products": "bfloat16"},
    ],
    ids=["topk, AuxK", "batchtopk, prefixes", "jumprelu, free decoder", "topk, bfloat16"],
)
def test_losses_are_those_of_plain(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    with interpreted() as gpu:
        ours = course(gpu, monkeypatch, **settings)
    theirs = course(plain, monkeypatch, **settings)
    assert theirs[-1][0] < theirs[0][0]
    for one, other in zip(ours, theirs, strict=True):
        assert one == pytest.approx(other, rel=1e-4)


def test_a_screened_training_goes_as_one_that_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    with interpreted() as gpu:
        from mohole.kernels.gpu_screen import Screen

        monkeypatch.setattr(objective, "screen_for", lambda device: Screen())
        ours = course(gpu, monkeypatch, nonlinearity=TopK(k=3), screening=True)
    theirs = course(plain, monkeypatch, nonlinearity=TopK(k=3))
    for one, other in zip(ours, theirs, strict=True):
        assert one == pytest.approx(other, rel=1e-4)


def test_the_kernels_are_given_16_bits_and_everything_else_keeps_32(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.dtype] = []
    with interpreted() as gpu:
        top_k = gpu.top_k

        def watched(rows: torch.Tensor, W_enc: torch.Tensor, *others: Any) -> Any:
            seen.extend([rows.dtype, W_enc.dtype])
            found = top_k(rows, W_enc, *others)
            assert found.values.dtype == torch.float32
            return found

        monkeypatch.setattr(gpu, "top_k", watched)
        course(gpu, monkeypatch, nonlinearity=TopK(k=3), products="bfloat16")
    at_the_start = 2  # the first magnitude is found with the numbers as they are
    assert set(seen[:at_the_start]) == {torch.float32}
    assert set(seen[at_the_start:]) == {torch.bfloat16}


def test_a_tuned_training_goes_to_the_same_bits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(objective, "busy_seconds", lambda device: next(clock))
    clock = iter(range(100))  # all tiles take as long
    found = []
    with interpreted() as gpu:
        monkeypatch.setattr("mohole.kernels.gpu_encode._OTHERS", ((16, 32, 8),))  # blocks that numpy multiplies alike
        for is_tuned in (False, True):
            lines: list[str] = []
            found.append(course(gpu, monkeypatch, lines if is_tuned else None, nonlinearity=TopK(k=3), batch_rows=16))
    assert found[0] == found[1]
    assert lines == [f"tile: {gpu.Tile(16, 32, 16, 4, 1)}, the usual one, the best of 2 measured"]
    assert (tmp_path / "mohole" / "tiles.json").exists()
