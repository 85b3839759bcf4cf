"""Triton's kernels as tests get them: in the interpreter on a machine without a CUDA device, on the device where there is one."""

from collections.abc import Iterator
from types import ModuleType

import pytest
import torch
from tests.kernels.interpreter import interpreted

HAS_DEVICE = torch.cuda.is_available()


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("interpreter", marks=pytest.mark.skipif(HAS_DEVICE, reason="runs on the CUDA device instead")),
        pytest.param("device", marks=pytest.mark.skipif(not HAS_DEVICE, reason="no CUDA device here")),
    ],
)
def gpu(request: pytest.FixtureRequest) -> Iterator[ModuleType]:
    if request.param == "interpreter":
        with interpreted() as module:
            yield module
        return
    from mohole.kernels import gpu

    with torch.device("cuda"):
        yield gpu
