"""A worker's model is on a device of its own, and loaded once."""

import pytest
import torch

from mohole import config
from mohole.execute import environment
from mohole.model.shared import own_device, shared_model


def test_one_model_in_a_process() -> None:
    assert shared_model(config.Model()) is shared_model(config.Model())


def test_workers_take_gpus_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    found = []
    for number in range(3):
        with environment({"MOHOLE_WORKER": str(number)}):
            found.append((own_device("cuda"), own_device("cuda:1"), own_device("cpu")))
    assert found == [("cuda:0", "cuda:1", "cpu"), ("cuda:1", "cuda:1", "cpu"), ("cuda:0", "cuda:1", "cpu")]
