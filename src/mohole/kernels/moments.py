"""Adam's moments in 16 or 8 bits for each number: how they are rounded, and a step with them. Weights stay as they are.

Both are rounded up or down by chance, so that the mean is what it was: x between neighbours a < b becomes b with probability
(x - a) / (b - a). To the nearest neighbour, the second moment would stand still: a step changes it by a thousandth (beta2 .999),
neighbours lie 1/128 or more apart, and a moment that once was large would stay large for ever. The chance is a hash of step,
tensor, latent and column, so a step can be repeated, by any number of threads, and from a checkpoint.

bfloat16: the upper half of a float32.
8bit: a row is a block (Dettmers et al. 2021, arXiv 2110.02861); its numbers are shares of its largest one, as floats with three
bits after the leading one (their table of codes is finer near one and coarser far below): for the mean a sign and 16 powers of
two, for squares 32. Means below the least are rounded to it or to zero by chance too. Squares are rounded up to it: a square of
zero under a mean that is not would be a step without bound.

Axes: L latents, T latents of a slab, D width. Codes of zero are zeros.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int, Int16, UInt8
from torch import Tensor

from mohole.kernels import HAS_NUMBA, dense
from mohole.kernels.dense import DenseBackward
from mohole.kernels.pairs import AdamStep, Moving

Bits = Literal["bfloat16", "8bit"]
Codes = Int16[Tensor, "T D"] | UInt8[Tensor, "T D"]
_WORD = 0xFFFFFFFF
_ONE = 127 << 3
"""The upper bits of 1.0: exponent, and three bits of the mantissa."""
_N_MEAN, _N_SQUARE = 127, 255
_SLAB_LATENTS = 256


def still(weight: Float[Tensor, "L D"], bits: Bits, *, salt: int, first: int = 0) -> Moving:
    """Moments of nothing yet.

    Args:
        salt: a number of the tensor's own, below 2^16.
        first: number of its first latent, where these are a rank's.
    """
    codes = torch.int16 if bits == "bfloat16" else torch.uint8
    mean, square = (torch.zeros_like(weight, dtype=codes) for _ in range(2))
    scales = torch.zeros(2, len(weight), device=weight.device)
    return Moving(weight, mean, square, scales, salt, first)


def adam(
    gradients: Callable[[int, int], tuple[Float[Tensor, "T D"], Float[Tensor, "T E"]]],
    encoder: Moving, decoder: Moving, step: AdamStep, *, is_unit: bool, shrink: float,
) -> Float[Tensor, " L"]:  # fmt: skip
    """As `plain.adam`, on packed moments: a slab of latents is unpacked, moved and packed again.

    Args:
        gradients: of both matrices, for latents from the first to before the last.
    """
    squares = []
    for first in range(0, len(decoder.weight), _SLAB_LATENTS):
        last = min(first + _SLAB_LATENTS, len(decoder.weight))
        d_enc, d_dec = gradients(first, last)
        own = unpacked(encoder, first, last), unpacked(decoder, first, last)
        back = DenseBackward(d_enc, d_dec, d_enc.new_zeros(last - first), is_unit)
        squares.append(dense.adam(back, *own, step, shrink=shrink))
        pack(own[0], encoder, first, step.n_steps)
        pack(own[1], decoder, first, step.n_steps)
    return torch.cat(squares)


def unpacked(moving: Moving, first: int, last: int) -> Moving:
    """Weights (the same memory) and moments (as floats) of some latents."""
    assert moving.scales is not None
    weight, here = moving.weight[first:last], slice(first, last)
    if moving.mean.dtype == torch.int16:
        mean, square = ((codes[here].int() << 16).view(torch.float32) for codes in (moving.mean, moving.square))
    else:
        mean_scale, square_scale = moving.scales[:, here, None]
        codes = moving.mean[here].int()
        mean = _decoded(codes & 127, _N_MEAN) * mean_scale * (1 - (codes >> 7) * 2)
        square = _decoded(moving.square[here].int(), _N_SQUARE) * square_scale
    return Moving(weight, mean.to(weight.dtype), square.to(weight.dtype))


def pack(own: Moving, moving: Moving, first: int, n_steps: int) -> None:
    """Write moments of some latents, from the first on, as codes."""
    assert moving.scales is not None
    here = slice(first, first + len(own.weight))
    mean, square = own.mean.float(), own.square.float()
    if HAS_NUMBA and mean.device.type == "cpu":
        from mohole.kernels import moment_loops

        arrays = (mean, square, moving.mean[here], moving.square[here], moving.scales[:, here])
        loop = moment_loops.pack_bfloat16 if moving.mean.dtype == torch.int16 else moment_loops.pack_8bit
        loop(*(array.numpy() for array in arrays), moving.first + first, np.uint32(_key(n_steps, moving.salt)))
        return
    noise = _noise(moving.first + first, mean, _key(n_steps, moving.salt))
    noises = noise & 0xFFFF, noise >> 16
    if moving.mean.dtype == torch.int16:
        for codes, values, own_noise in zip((moving.mean, moving.square), (mean, square), noises, strict=True):
            codes[here] = ((values.contiguous().view(torch.int32) + own_noise.int()) >> 16).to(torch.int16)
        return
    scales = torch.stack([mean.abs().amax(1), square.amax(1)])
    moving.scales[:, here] = scales
    shares = [each / scale.clamp_min(1e-38)[:, None] for each, scale in zip((mean.abs(), square), scales, strict=True)]
    codes = _coded(shares[0], noises[0], _N_MEAN, rises=False) | ((mean < 0).int() << 7)
    moving.mean[here] = codes.to(torch.uint8)
    moving.square[here] = _coded(shares[1], noises[1], _N_SQUARE, rises=True).to(torch.uint8)


def _coded(shares: Float[Tensor, "T D"], noise: Int[Tensor, "T D"], n_codes: int, *, rises: bool) -> Int[Tensor, "T D"]:
    """Codes of numbers in [0, 1]: 0 is zero, n_codes is one."""
    codes = ((shares.contiguous().view(torch.int32) + (noise.int() << 4)) >> 20) - (_ONE - n_codes)
    least = float(_decoded(torch.ones(1, dtype=torch.int32, device="cpu"), n_codes))
    small = shares > 0 if rises else shares * 65536.0 > noise.float() * least
    return torch.where(shares >= least, codes, small.int())


def _decoded(codes: Int[Tensor, "..."], n_codes: int) -> Float[Tensor, "..."]:
    found = ((codes + (_ONE - n_codes)) << 20).view(torch.float32)
    return torch.where(codes > 0, found, torch.zeros_like(found))


def _key(n_steps: int, salt: int) -> int:
    word = torch.tensor([(n_steps * 0x9E3779B1 + salt * 0x85EBCA77) & _WORD], device="cpu")
    return int(_mixed(word)[0])


def _noise(first: int, like: Float[Tensor, "T D"], key: int) -> Int[Tensor, "T D"]:
    """32 bits for each entry."""
    n_rows, width = like.shape
    places = torch.arange(first * width, (first + n_rows) * width, device=like.device).view(n_rows, width)
    return _mixed((places & _WORD) ^ key)


def _mixed(words: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
    """A 32-bit hash: two rounds of shift and multiplication (Wellons 2018, "Prospecting for Hash Functions", lowbias32)."""
    words = ((words ^ (words >> 16)) * 0x7FEB352D) & _WORD
    words = ((words ^ (words >> 15)) * 0x846CA68B) & _WORD
    return words ^ (words >> 16)
