"""Which kernels run on a device, and what screens codes there."""

from types import ModuleType
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from mohole.kernels import HAS_NUMBA, HAS_TRITON
from mohole.kernels.pairs import Pairs


@runtime_checkable
class Screening(Protocol):
    """Encoding by screening: the codes of the device's kernels, but for the order of float32 sums."""

    n_rows: int
    """Rows encoded."""
    n_again: int
    """Those of them that had to be encoded again, because screening left them in doubt."""

    def top_k(
        self, rows: Float[Tensor, "B D"], W_enc: Float[Tensor, "L D"], b_enc: Float[Tensor, " L"], k: int,
        scratch: object = None,
    ) -> Pairs:  # fmt: skip
        """As the kernels' own."""

    def above(
        self, rows: Float[Tensor, "B D"], W_enc: Float[Tensor, "L D"], b_enc: Float[Tensor, " L"],
        thresholds: Float[Tensor, " L"], scratch: object = None, most: int | None = None,
    ) -> Pairs:  # fmt: skip
        """As the kernels' own."""


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


def why_not_screened(device: torch.device) -> str | None:
    """What screening needs and this machine has not; None: it can be done."""
    if device.type == "cuda":
        return None if HAS_TRITON else "Triton (pip install 'mohole[gpu]')"
    from mohole.kernels.screen import best_rounding

    return None if best_rounding() else "numba and an x86 processor with AVX2"


def screen_for(device: torch.device) -> Screening:
    """What finds codes by screening on a device; see `why_not_screened`."""
    if device.type == "cuda":
        from mohole.kernels import gpu_screen

        return gpu_screen.Screen()
    from mohole.kernels import screen

    return screen.Screen()
