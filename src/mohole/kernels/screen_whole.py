"""Near pre-activations from 16-bit whole numbers: for processors with AVX2 and no faster products."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mohole.kernels.screen import slack_of

if TYPE_CHECKING:  # numba is loaded when it is needed
    from mohole.kernels.cpu import Scratch

_TILE_ROWS, _TILE_LATENTS = 256, 1024
"""Of what is multiplied and searched at a time: rows that stay in the second cache while latents pass by. With all 2048 rows of
a batch they came from the third one, and products took 0.82 of float32's instead of 0.71."""


class NearWhole:
    """See `screen.Near`."""

    rounding = 0.0

    def __init__(
        self, rows: Float[Tensor, "B D"], W_enc: Float[Tensor, "L D"], b_enc: Float[Tensor, " L"], room: "Scratch"
    ) -> None:
        from mohole.kernels import screen_loops

        self._room = room
        self._x = Whole.of(rows, screen_loops.ROWS, room, "rows")
        self._w = w = Whole.of(W_enc, screen_loops.LATENTS, room, "latents")
        self.n_latents = len(w.units)
        n = len(W_enc)
        longest, worst = float(w.lengths[:n].max(initial=0.0)), float(w.errors[:n].max(initial=0.0))
        slack = slack_of(self._x.lengths, self._x.errors, longest, worst, rows.shape[1], float(b_enc.abs().max()))
        self.slack = slack[: len(rows)]

    def n_held(self, k: int) -> int:
        """Rounding is fine: a quarter more than k."""
        return k + max(k // 4, 8)

    def tiles(self) -> Iterator[tuple[int, int, np.ndarray]]:
        """Rows in blocks within latents in blocks."""
        from mohole.kernels import cpu, screen_loops

        x, w, n_rows = self._x, self._w, len(self.slack)
        row_width = x.packed[0].size // screen_loops.ROWS
        packed, packed_latents = x.packed.reshape(-1), w.packed.reshape(-1)
        tile = self._room("near", (_TILE_ROWS * _TILE_LATENTS,), torch.float32).numpy()
        for first in range(0, self.n_latents, _TILE_LATENTS):
            width = min(_TILE_LATENTS, self.n_latents - first)
            for low in range(0, len(x.units), _TILE_ROWS):
                n = min(_TILE_ROWS, len(x.units) - low)
                near = tile[: n * width].reshape(n, width)
                own = packed[low * row_width : (low + n) * row_width], x.units[low : low + n]
                cpu.over(n // screen_loops.ROWS, screen_loops.products, *own, packed_latents, w.units, first, near)
                yield low, first, near[: n_rows - low]


@dataclass(frozen=True)
class Whole:
    """The rows of a matrix as whole numbers times a unit of each, with their lengths, and those of what rounding missed."""

    packed: np.ndarray
    units: np.ndarray
    lengths: np.ndarray
    errors: np.ndarray

    @classmethod
    def of(cls, matrix: Float[Tensor, "n D"], group: int, room: "Scratch", name: str) -> "Whole":
        """Rounded, and packed in groups of rows."""
        from mohole.kernels import cpu, screen_loops

        n_groups, d = -(-len(matrix) // group), matrix.shape[1]
        n_parts = -(-d // screen_loops.STEP) * screen_loops.STEP // screen_loops.LANES
        shape = n_groups, n_parts, group, screen_loops.LANES
        packed = room(f"whole {name}", shape, torch.int16).numpy()
        units = np.empty(n_groups * group, np.float32)
        lengths, errors = np.empty(len(units)), np.empty(len(units))
        cpu.over(n_groups, screen_loops.quantise, matrix.numpy(), group, packed, units, lengths, errors)
        return cls(packed, units, lengths, errors)
