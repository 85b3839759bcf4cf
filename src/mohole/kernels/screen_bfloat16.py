"""Near pre-activations from bfloat16 numbers: for processors with matrix units, which multiply them faster than float32.

Of one float32 product, 2048 x 512 by 512 x 16384, on a Xeon with AMX: the product 0.14, its tiles as float32 0.04, rounding 0.03.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import BFloat16, Float
from torch import Tensor

from mohole.kernels.screen import slack_of

if TYPE_CHECKING:  # numba is loaded when it is needed
    from mohole.kernels.cpu import Scratch

_TILE_LATENTS = 1024
"""With all rows: fewer rows and the product packs the latents again for each part of them (0.21 for 256 rows)."""
_TILE_NUMBERS = 1 << 23
_ROUNDING = 2.0**-8
"""Of a number written as bfloat16, which has 8 significant bits: the most, of its size."""


class NearBfloat16:
    """See `screen.Near`."""

    rounding = _ROUNDING

    def __init__(
        self, rows: Float[Tensor, "B D"], W_enc: Float[Tensor, "L D"], b_enc: Float[Tensor, " L"], room: "Scratch"
    ) -> None:
        self._room, self.n_latents = room, len(W_enc)
        self._x, self._w = Rounded.of(rows, room, "rows"), Rounded.of(W_enc, room, "latents")
        longest, worst = float(self._w.lengths.max()), float(self._w.errors.max())
        largest_bias = float(b_enc.abs().max())
        slack = slack_of(self._x.lengths, self._x.errors, longest, worst, rows.shape[1], largest_bias)
        # What is written down as bfloat16 is without the bias: as large as the pre-activation and the bias together.
        self.slack = slack + _ROUNDING * largest_bias

    def n_held(self, k: int) -> int:
        """Rounding is coarse: with half of k more, a quarter of the rows of 32768 latents were left in doubt."""
        return k + max(k, 24)

    def tiles(self) -> Iterator[tuple[int, int, np.ndarray]]:
        """All rows, some latents at a time."""
        n_rows = len(self.slack)
        width = min(self.n_latents, _TILE_LATENTS, max(_TILE_NUMBERS // n_rows // 64 * 64, 64))
        short = self._room("near, short", (n_rows * width,), torch.bfloat16)
        long = self._room("near", (n_rows * width,), torch.float32)
        for first in range(0, self.n_latents, width):
            last = min(first + width, self.n_latents)
            shape = n_rows, last - first
            n = n_rows * (last - first)
            product = torch.mm(self._x.numbers, self._w.numbers[first:last].T, out=short[:n].view(shape))
            yield 0, first, long[:n].view(shape).copy_(product).numpy()


@dataclass(frozen=True)
class Rounded:
    """The rows of a matrix as bfloat16, with their lengths, and those of what rounding missed.

    A row with a number that is not finite, or that bfloat16 cannot hold, is written as zeros, and has an infinite error.
    """

    numbers: BFloat16[Tensor, "n D"]
    lengths: np.ndarray
    errors: np.ndarray

    @classmethod
    def of(cls, matrix: Float[Tensor, "n D"], room: "Scratch", name: str) -> "Rounded":
        """Rounded to the nearest, ties to even; kept in memory of this name."""
        from mohole.kernels import cpu, screen_loops

        numbers = room(f"short {name}", tuple(matrix.shape), torch.bfloat16)
        lengths, errors = np.empty(len(matrix)), np.empty(len(matrix))
        values, bits = matrix.numpy(), matrix.view(torch.int32).numpy().view(np.uint32)
        cpu.over(
            len(matrix), screen_loops.round_rows, values, bits, numbers.view(torch.int16).numpy().view(np.uint16), lengths,
            errors,
        )  # fmt: skip
        return cls(numbers, lengths, errors)
