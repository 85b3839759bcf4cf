"""Moments in fewer bits: right on average, never standing still, never a square of zero, the same codes from both kernels."""

from typing import get_args

import pytest
import torch

from mohole.kernels import moments, plain
from mohole.kernels.moments import Bits
from mohole.kernels.pairs import AdamStep, Moving

BITS = get_args(Bits)
SPACING = {"bfloat16": 1 / 128, "8bit": 1 / 8}
"""Of neighbours, of a number's size."""


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    """Numbers over seven powers of ten, zeros and negative ones among them."""
    generator = torch.Generator().manual_seed(seed)
    found = torch.randn(*shape, generator=generator) * 10.0 ** (torch.rand(*shape, generator=generator) * 7 - 9)
    return found * (torch.rand(*shape, generator=generator) > 0.1)


def packed(mean: torch.Tensor, square: torch.Tensor, bits: Bits, n_steps: int = 1, slab: int = 1000) -> Moving:
    own = moments.still(torch.zeros_like(mean), bits, salt=5)
    for first in range(0, len(mean), slab):
        here = slice(first, first + slab)
        moments.pack(Moving(own.weight[here], mean[here], square[here]), own, first, n_steps)
    return own


@pytest.mark.parametrize("bits", BITS)
def test_both_kernels_write_the_same_codes_wherever_slabs_are_cut(bits: Bits, monkeypatch: pytest.MonkeyPatch) -> None:
    mean, square = draw(37, 19), draw(37, 19, seed=1).square()
    mean[3], square[3] = 0.0, 0.0
    found = [packed(mean, square, bits), packed(mean, square, bits, slab=7)]
    monkeypatch.setattr(moments, "HAS_NUMBA", False)
    found += [packed(mean, square, bits), packed(mean, square, bits, slab=7)]
    for other in found[1:]:
        assert torch.equal(other.mean, found[0].mean)
        assert torch.equal(other.square, found[0].square)
        assert other.scales is not None
        assert torch.equal(other.scales, found[0].scales)  # type: ignore[arg-type]
    assert not torch.equal(packed(mean, square, bits, n_steps=2).square, found[0].square)
    assert (moments.unpacked(found[0], 3, 4).mean == 0).all()
    assert (moments.unpacked(found[0], 3, 4).square == 0).all()


@pytest.mark.parametrize("bits", BITS)
def test_what_is_read_is_near_what_was_written_and_right_on_average(bits: Bits) -> None:
    mean, square, n = draw(5, 300), draw(5, 300, seed=1).square(), 400
    sums = [torch.zeros(5, 300, dtype=torch.float64) for _ in range(2)]
    least = 1.25 * 2.0**-16 if bits == "8bit" else 0.0  # of the row's largest: below it the mean is all or nothing
    for step in range(n):
        found = moments.unpacked(packed(mean, square, bits, n_steps=step + 1), 0, 5)
        assert (found.mean.sign() * mean.sign() >= 0).all()
        large = mean.abs() > least * mean.abs().amax(1, keepdim=True)
        assert ((found.mean - mean).abs()[large] <= SPACING[bits] * 1.001 * mean.abs()[large]).all()
        sums[0] += found.mean / n
        sums[1] += found.square / n
        assert (found.square[square > 0] > 0).all()
    bound = 5 * SPACING[bits] / 2 / n**0.5
    assert ((sums[0] - mean).abs()[large] <= bound * mean.abs()[large] + 1e-30).all()
    not_least = square > 1.25 * 2.0**-32 * square.amax(1, keepdim=True)
    assert ((sums[1] - square).abs()[not_least] <= bound * square[not_least]).all()
    if bits == "8bit":
        small = ~large & (mean != 0)
        bias = (sums[0] - mean)[small].sum() / mean[small].abs().sum()
        assert abs(float(bias)) < 0.05


@pytest.mark.parametrize("bits", BITS)
def test_the_second_moment_fades_and_does_not_stand_still(bits: Bits) -> None:
    """After 2000 steps without gradient it is exp(-2) of what it was; rounded to the nearest bfloat16 it would be all of it."""
    own = moments.still(torch.zeros(4, 512), bits, salt=0)
    moments.pack(Moving(own.weight, torch.zeros(4, 512), torch.ones(4, 512)), own, 0, 1)
    for step in range(2000):
        floats = moments.unpacked(own, 0, 4)
        plain.move(floats, torch.zeros(4, 512), AdamStep(0.0, step + 2))
        moments.pack(floats, own, 0, step + 2)
    assert float(moments.unpacked(own, 0, 4).square.mean()) == pytest.approx(0.999**2000, rel=0.1)
    nearest = torch.ones(1, dtype=torch.bfloat16)
    assert float((nearest.float() * 0.999).bfloat16()) == float(nearest)
