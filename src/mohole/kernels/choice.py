"""Which kernels run on a device."""

from types import ModuleType

import torch

from mohole.kernels import HAS_NUMBA, HAS_TRITON


def kernels_for(device: torch.device) -> ModuleType:
    """The module whose functions are fastest on a device."""
    if device.type == "cpu" and HAS_NUMBA:
        from mohole.kernels import cpu

        return cpu
    if device.type == "cuda" and HAS_TRITON:
        from mohole.kernels import gpu

        return gpu
    from mohole.kernels import plain

    return plain
