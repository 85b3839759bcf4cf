"""Rows as bfloat16 are what torch makes of them, and what is missed is what is said."""

import numpy as np
import pytest
import torch
from tests.kernels.laws import draw

pytest.importorskip("numba", reason="screening needs numba")

from mohole.kernels import cpu
from mohole.kernels.screen_bfloat16 import Rounded


def test_rounding_is_torchs_own() -> None:
    """Ties to even among them, and numbers of every size."""
    generator = torch.Generator().manual_seed(0)
    sign, fraction = (torch.randint(0, end, (64, 40), generator=generator).int() for end in (2, 1 << 23))
    exponent = torch.randint(80, 180, (64, 40), generator=generator).int()
    bits = (exponent << 23) | fraction | (sign << 31)
    bits[::2] &= ~0xFFFF  # exact
    bits[::4] |= 0x8000  # half way
    numbers = bits.view(torch.float32)
    rounded = Rounded.of(numbers, cpu.Scratch(), "rows")
    assert torch.equal(rounded.numbers, numbers.bfloat16())
    small = draw(50, 40, seed=1)
    rounded = Rounded.of(small, cpu.Scratch(), "rows")
    missed = (small.double() - small.bfloat16().double()).norm(dim=1).numpy()
    assert (missed <= rounded.errors).all()
    np.testing.assert_allclose(rounded.errors, missed, rtol=1e-5)
    np.testing.assert_allclose(rounded.lengths, small.double().norm(dim=1).numpy(), rtol=1e-5)
