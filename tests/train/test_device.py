"""A training keeps to one device: nothing is made where torch makes things by default."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.train.courses import CASES, TILES, course

from mohole.config import Train
from mohole.errors import ConfigError
from mohole.kernels import dense, moments, plain
from mohole.parallel import Mesh
from mohole.train import objective, optimiser, start, train


@pytest.fixture
def torch_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels as another device than a CPU has them."""
    for module in (objective, optimiser, start):
        monkeypatch.setattr(module, "kernels_for", lambda device: plain)
    for module in (dense, moments):
        monkeypatch.setattr(module, "HAS_NUMBA", False)
    monkeypatch.setattr(objective, "DENSE_SHARE", objective.DENSE_SHARE)


@pytest.mark.parametrize(("name", "tiles"), [*((name, False) for name in CASES), *((name, True) for name in TILES)])
def test_a_training_stays_on_the_device_of_its_rows(
    name: str, tiles: bool, torch_alone: None, no_shape_checks: None
) -> None:
    """By default tensors are now on a device that computes nothing: one that is made there meets the others, and fails."""
    expected = course(Mesh(), name, tiles=tiles)
    found = course(Mesh(), name, tiles=tiles, training=lambda: torch.device("meta"))
    assert found["losses"] == expected["losses"]
    for each, tensor in expected["tensors"].items():
        assert torch.equal(found["tensors"][each], tensor)
    assert torch.equal(found["n_active"], expected["n_active"])


@pytest.mark.parametrize("device", ["cuda:77", "abacus"])
def test_a_device_that_is_not_there_is_named(device: str, tmp_path: Path) -> None:
    class Stream:
        hookpoint, d_model, n_rows = "resid_post.0", 4, 32

        def rows(self, first: int, n_rows: int) -> Any:
            raise AssertionError("asked for rows before the device was known")

        def batch(self, step: int, n_rows: int, *, rank: int = 0, world: int = 1) -> Any:
            raise AssertionError("asked for rows before the device was known")

    with pytest.raises(ConfigError, match=rf"train.device: '{device}' cannot be used here: .*; give .cpu., or"):
        train(tmp_path, Stream(), Train(device=device), seed=0)
