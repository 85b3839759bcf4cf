"""What a few latents of some rows are, and what moves the rows: where calling torch's operators takes longer than what they do.

A pass of 16 tokens through a small model takes 3 ms. Behind it, out of the caches, each of torch's operators takes 8 microseconds
whatever it does, and steering was some twenty of them. On the CPU each of these functions is one loop (`few_loops`), in float32;
elsewhere their callers do the same with operators.

Axes: N row, K latent that is read, T term, L latent, D column; B text of a batch and P position, where N is both.
"""

from dataclasses import dataclass
from functools import cache, cached_property
from types import ModuleType

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mohole.kernels import HAS_NUMBA

Wanted = Bool[np.ndarray, "N K"] | None
_N_LOOPED = 16
"""Latents of a row that a loop reads; more are read by a product, which takes less for each."""
_SHARE, _LEAST = 8, 1024
"""Among how many latents a loop looks for k that stand before one: this part of them, or so many where that is more. A product
of all takes a third for each, but most latents of most rows are found to be silent within the first hundred."""
_ROWS_OF_THREAD = 256
_ALL = np.zeros((0, 0), np.bool_)
_EVERYWHERE = np.zeros((0, 0, 0), np.bool_)
_ONE = np.zeros((0, 0), np.float32)


def is_looped(numbers: Tensor) -> bool:
    """Can a loop read it: float32, in this machine's memory, and nobody wants its gradient?"""
    return HAS_NUMBA and numbers.is_cpu and numbers.dtype is torch.float32 and not numbers.requires_grad


def is_few(n_latents: int, wanted: Wanted) -> bool:
    """Are so few read of each row that a loop is the faster way?"""
    return n_latents <= _N_LOOPED or (wanted is not None and int(wanted.sum()) <= _N_LOOPED * len(wanted))


@dataclass(frozen=True, eq=False)
class FewLatents:
    """Latents that their own encoder rows decide on: f = max(gain p + offset, floor) where p + bias > threshold, else 0, of
    p = (row - origin) . way."""

    ways: Float[np.ndarray, "K D"]
    origin: Float[np.ndarray, " D"]
    law: Float[np.ndarray, "4 K"]
    """bias, threshold, gain, offset."""
    floor: np.float32

    def __call__(self, rows: Float[Tensor, "N D"], wanted: Wanted = None) -> Float[Tensor, "N K"]:
        """Those that are wanted, all where nothing is said; 0 for the others."""
        found = np.empty((len(rows), len(self.ways)), np.float32)
        _over(len(rows), _loops().read_few, _array(rows), *self.arrays(wanted), found)
        return torch.from_numpy(found)

    def arrays(self, wanted: Wanted) -> tuple[object, ...]:
        """As loops take them."""
        return self.ways, self.origin, self.law, self.floor, _ALL if wanted is None else wanted


@dataclass(frozen=True, eq=False)
class TopLatents:
    """Latents that a row keeps where they are positive and fewer than k stand before them: larger ones, and equal ones of lower
    number. Pre-activations are (row - origin) W_enc^T + b_enc."""

    W_enc: Float[np.ndarray, "L D"]
    b_enc: Float[np.ndarray, " L"]
    origin: Float[np.ndarray, " D"]
    k: int
    latents: Int[np.ndarray, " K"]
    """The ones that are read."""

    def __call__(
        self, rows: Float[Tensor, "N D"], wanted: Wanted = None
    ) -> tuple[Float[Tensor, "N K"], Bool[Tensor, " N"]]:
        """As `FewLatents`; and the rows in which too few latents were looked at to say, whose numbers mean nothing."""
        found, is_open = np.empty((len(rows), len(self.latents)), np.float32), np.empty(len(rows), np.bool_)
        _over(len(rows), _loops().read_top, _array(rows), *self.arrays(wanted), found, is_open)
        return torch.from_numpy(found), torch.from_numpy(is_open)

    @cached_property
    def _most(self) -> int:
        return min(max(len(self.W_enc) // _SHARE, _LEAST), len(self.W_enc))

    def arrays(self, wanted: Wanted) -> tuple[object, ...]:
        """As loops take them."""
        which = _ALL if wanted is None else wanted
        return self.W_enc, self.b_enc, self.origin, self.k, self.latents, self._most, which


@dataclass(frozen=True, eq=False)
class Movements:
    """Terms: x' = x + sum of factor (constant + slope r + clip(r, low, high) - r) along, of those that are held at the row and
    whose condition is above their bound."""

    places: Int[np.ndarray, "2 T"]
    """Columns, of what is read of a row, of r and of the condition. Below 0: r is 0; there is no condition."""
    numbers: Float[np.ndarray, "5 T"]
    """constant, slope, low, high, bound."""
    along: Float[np.ndarray, "T D"]

    def __call__(
        self,
        rows: Float[Tensor, "B P D"],
        found: Float[Tensor, "N K"] | None,
        factor: Float[Tensor, "N T"] | None,
        held: Bool[Tensor, "B P_or_1 T_or_1"] | None,
    ) -> tuple[Float[Tensor, "B P D"], Bool[Tensor, "B P"]]:
        """The rows in memory of their own, and which of them moved. Those that did not keep their bits.

        Args:
            factor: None: 1.
            held: None: all terms everywhere.
        """
        moved, has_moved = _room(rows)
        read = _ONE if found is None else _array(found)
        _over(has_moved.size, _loops().move, _array(rows), read, *self._arrays(factor, held), moved, has_moved)
        return torch.from_numpy(moved), torch.from_numpy(has_moved)

    def reading(
        self,
        reader: FewLatents | TopLatents,
        rows: Float[Tensor, "B P D"],
        wanted: Wanted,
        factor: Float[Tensor, "N T"] | None,
        held: Bool[Tensor, "B P_or_1 T_or_1"] | None,
    ) -> tuple[Float[Tensor, "B P D"], Bool[Tensor, "B P"]] | None:
        """As both calls, in one loop: for the few rows of most passes. None: the reader cannot say for some row."""
        moved, has_moved = _room(rows)
        arrays = _array(rows), *reader.arrays(wanted), *self._arrays(factor, held), moved, has_moved
        if isinstance(reader, FewLatents):
            _loops().read_few_and_move(*arrays)
        elif not _loops().read_top_and_move(*arrays):
            return None
        return torch.from_numpy(moved), torch.from_numpy(has_moved)

    def _arrays(self, factor: Tensor | None, held: Tensor | None) -> tuple[object, ...]:
        where = _EVERYWHERE if held is None else _array(held.expand(-1, -1, len(self.along)))
        return _ONE if factor is None else _array(factor), self.places, self.numbers, self.along, where


def is_in_one_thread(n_rows: int) -> bool:
    """Are rows so few that another thread's waking takes longer than the loop?"""
    return n_rows <= _ROWS_OF_THREAD or torch.get_num_threads() == 1


def _room(rows: Tensor) -> tuple[np.ndarray, np.ndarray]:
    return np.empty(rows.shape, np.float32), np.empty(
        rows.shape[:2], np.bool_
    )  # torch's `empty` takes four times as long


@cache
def _loops() -> ModuleType:
    from mohole.kernels import few_loops  # numba takes 0.3 s to import: only where rows are read

    return few_loops


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.numpy() if tensor.is_contiguous() else tensor.contiguous().numpy()


def _over(n_rows: int, loop: object, *arrays: object) -> None:
    if is_in_one_thread(n_rows):
        loop(*arrays, 0, n_rows)  # type: ignore[operator]
        return
    from mohole.kernels.cpu import over

    over(n_rows, loop, *arrays)  # type: ignore[arg-type]
