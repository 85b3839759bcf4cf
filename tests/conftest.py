"""What every test shares: one thread, hypothesis without deadlines, and the way to real data beside the checkout."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a test that reaches for the network is a wrong test

import hypothesis
import torch

torch.set_num_threads(1)
hypothesis.settings.register_profile("mohole", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("mohole")

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of real models and texts beside the checkout, or the one named by MOHOLE_SHARED."""
    place = Path(os.environ.get("MOHOLE_SHARED", REPOSITORY.parent / "shared"))
    if not (place / "data").is_dir():
        pytest.skip(f"real models and texts are not there ({place}/data); set MOHOLE_SHARED to a folder that has them")
    return place
