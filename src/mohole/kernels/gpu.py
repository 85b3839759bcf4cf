"""The kernels on a CUDA device: Triton's programs for what torch has no operator for. Names and laws of `cpu` and `plain`."""

from mohole.kernels.gpu_encode import Scratch, Tile, above, batch_top, tiles, top_k
from mohole.kernels.gpu_sums import adam, by_latent, decode, dots, gradients, squared_lengths, weighted_sum
from mohole.kernels.plain import move, squares_at_most, sums_by_latent

__all__ = [
    "MULTIPLIES_BFLOAT16", "Scratch", "Tile", "above", "adam", "batch_top", "by_latent", "decode", "dots", "gradients", "move",
    "squared_lengths", "squares_at_most", "sums_by_latent", "tiles", "top_k", "weighted_sum",
]  # fmt: skip

MULTIPLIES_BFLOAT16 = True
"""At many times the speed of float32 numbers. The others take them for what they are not."""
