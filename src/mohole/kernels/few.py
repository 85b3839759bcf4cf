"""A few latents read of rows, and rows moved by terms, each in one compiled loop: for steering, behind a model's pass on a CPU.

A pass of 16 tokens through a small model takes 3 ms. Behind it, out of the caches, each of torch's operators takes 8 microseconds
whatever it does, and steering was some twenty of them. A loop (`few_loops`) reads float32 in this machine's memory; of anything
else the callers do the same with torch's operators.

A loop does not look where an array ends, and would read or write what lies behind: so what goes together is compared here.

Axes: N row, K latent that is read, T term, L latent, D column; B text of a batch and P position, where N is both.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from types import ModuleType

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mohole.kernels import HAS_NUMBA
from mohole.kernels.eight_bits import NOT_ROUNDED, EightBits

Wanted = Bool[np.ndarray, "N K"] | None
"""Which latents are read of which row; None: all of every row."""
_Argument = np.ndarray | np.float32 | int | tuple[np.ndarray, ...]
_Tabled = tuple[str, tuple[np.ndarray, ...]]
"""Arrays in the order of a loop's table, and as what it reads each of them, in numpy's letters."""
_MOST_LATENTS = 16
"""Latents of a row that a loop reads; more are read by torch's product, which takes less for each."""
_SHARE, _LEAST = 8, 1024
"""Among how many latents a loop looks for k that stand before one: this part of them, or so many where that is more. Only of few
rows it looks at all: for many, a product takes a third for each."""
MOST_LOOKED_ON = 16
"""Rows with which a loop goes on to the last latent: for more, a product reads the encoder once for all of them."""
_ROWS_OF_THREAD = 256
"""Rows up to which waking another thread takes longer than the loop."""
_PASSES = 64
"""For so many, memory of a few bytes is made at once."""
_IN_MEMORY = (Tensor, torch.nn.Parameter)
"""Kinds of tensors whose address is where their numbers are. That of another kind, as a `DTensor`, may be 0."""
# What loops take for what is not given: arrays of no rows.
_ALL_WANTED = np.zeros((0, 0), np.bool_)
_ALL_HELD = np.zeros((0, 0, 0), np.bool_)
_NO_NUMBERS = np.zeros((0, 0), np.float32)


def is_looped(numbers: Tensor) -> bool:
    """Can a loop read it: float32 on the CPU, of which nobody wants a gradient, where numba is installed?"""
    if not HAS_NUMBA or type(numbers) not in _IN_MEMORY or numbers.is_neg():  # is_neg: its memory holds the negatives
        return False
    return numbers.is_cpu and numbers.dtype is torch.float32 and not numbers.requires_grad


def is_few(n_latents: int, wanted: Wanted) -> bool:
    """Are so few read of each row, in the mean, that a loop is faster than a product?"""
    return n_latents <= _MOST_LATENTS or (wanted is not None and int(wanted.sum()) <= _MOST_LATENTS * len(wanted))


@dataclass(frozen=True, eq=False)
class FewLatents:
    """Latents that their own encoder rows decide on, or projections, which have no threshold.

    f = max(gain p + offset, floor) where p + bias > threshold, else 0        p = (row - origin) . direction
    """

    directions: Float[np.ndarray, "K D"]
    origin: Float[np.ndarray, " D"]
    coefficients: Float[np.ndarray, "4 K"]
    """bias, threshold, gain, offset."""
    floor: np.float32

    def __call__(self, rows: Float[Tensor, "N D"], wanted: Wanted = None) -> Float[Tensor, "N K"]:
        """f of those that are wanted; 0 for the others.

        Raises:
            ValueError: rows of another width, or `wanted` of other rows or latents.
        """
        self.check(rows.shape, wanted)
        found = np.empty((len(rows), len(self.directions)), np.float32)
        _over(len(rows), _loops().read_few, _array(rows), *self.arguments(wanted), found)
        return torch.from_numpy(found)

    def check(self, shape: Sequence[int], wanted: Wanted) -> None:
        """Args: shape: of the rows. Raises: ValueError: as the call."""
        _check_rows(shape, wanted, len(self.origin), len(self.directions))

    def settles(self, n_rows: int) -> bool:
        """Is none of so many rows left open? See `TopLatents`."""
        return True

    def arguments(self, wanted: Wanted) -> tuple[_Argument, ...]:
        """What a loop takes of it."""
        return self.directions, self.origin, self.coefficients, self.floor, _ALL_WANTED if wanted is None else wanted

    def tabled(self, wanted: Wanted) -> _Tabled:
        """The same for a loop that takes a table."""
        which = _ALL_WANTED if wanted is None else wanted
        return "?ffff", (which, self.origin, self.directions, self.coefficients, np.array([self.floor]))


@dataclass(frozen=True, eq=False)
class TopLatents:
    """Latents of TopK: one is active where its pre-activation is positive and those of fewer than k latents stand before it:
    larger ones, and equal ones of lower latents.

        pre = (row - origin) W_enc^T + b_enc
    """

    W_enc: Float[np.ndarray, "L D"]
    b_enc: Float[np.ndarray, " L"]
    origin: Float[np.ndarray, " D"]
    k: int
    latents: Int[np.ndarray, " K"]
    """The ones that are read."""
    rounded: EightBits = NOT_ROUNDED
    """Of W_enc: where a row is looked at to the last latent, most comparisons are decided by it."""

    def __post_init__(self) -> None:
        """Raises: ValueError: a latent that there is not, encoder rows that lie apart, or rounded ones of another shape."""
        if not self.W_enc.flags.c_contiguous:  # products go by addresses
            raise ValueError(
                f"W_enc: numbers of stride {list(self.W_enc.strides)}, where rows lie one behind the other; copy it"
            )
        if self.rounded is not NOT_ROUNDED and self.rounded.codes.shape != self.W_enc.shape:
            raise ValueError(
                f"rounded: shape {list(self.rounded.codes.shape)}, where {list(self.W_enc.shape)} is needed"
            )
        _check_latents(self.latents, len(self.W_enc))

    def __call__(
        self, rows: Float[Tensor, "N D"], wanted: Wanted = None
    ) -> tuple[Float[Tensor, "N K"], Bool[Tensor, " N"]]:
        """(activations of those that are wanted, 0 for the others; which rows are open). Of an open row too few latents were
        looked at to say what it keeps: its numbers mean nothing.

        Raises:
            ValueError: rows of another width, or `wanted` of other rows or latents.
        """
        self.check(rows.shape, wanted)
        found, is_open = np.empty((len(rows), len(self.latents)), np.float32), np.empty(len(rows), np.bool_)
        _over(len(rows), _top_loops().read_top, _array(rows), *self.arguments(wanted), found, is_open)
        return torch.from_numpy(found), torch.from_numpy(is_open)

    def check(self, shape: Sequence[int], wanted: Wanted) -> None:
        """Args: shape: of the rows. Raises: ValueError: as the call."""
        _check_rows(shape, wanted, len(self.origin), len(self.latents))

    def settles(self, n_rows: int) -> bool:
        """Is none of so many rows left open, whatever they are?"""
        return n_rows <= MOST_LOOKED_ON or self._room == len(self.W_enc)

    @cached_property
    def _room(self) -> int:
        """Latents that are looked at in each row."""
        return min(max(len(self.W_enc) // _SHARE, _LEAST), len(self.W_enc))

    def arguments(self, wanted: Wanted) -> tuple[_Argument, ...]:
        """What a loop takes of it."""
        which = _ALL_WANTED if wanted is None else wanted
        near = self.rounded.codes, self.rounded.units, self.rounded.errors
        return self.W_enc, self.b_enc, near, self.origin, self.k, self.latents, self._room, which

    def tabled(self, wanted: Wanted) -> _Tabled:
        """The same for a loop that takes a table."""
        which, near = _ALL_WANTED if wanted is None else wanted, self.rounded
        own = which, self.origin, self.W_enc, self.b_enc, self.latents, np.array([self.k, self._room], np.int64)
        return "?fffqqbff", (*own, near.codes, near.units, near.errors)


LatentLoop = FewLatents | TopLatents


def kept_of(pre: Float[Tensor, "N L"], k: int, latents: Sequence[int]) -> Float[Tensor, "N K"]:
    """Activations of some latents of TopK, of pre-activations of all, which a loop can read: see `TopLatents`.

    Raises:
        ValueError: a latent that there is not.
    """
    which = np.array(latents, np.int64)
    _check_latents(which, pre.shape[1])
    found = np.empty((len(pre), len(which)), np.float32)
    _over(len(pre), _top_loops().keep_top, _array(pre), k, which, found)
    return torch.from_numpy(found)


@dataclass(frozen=True, eq=False)
class Movements:
    """Terms that move rows. The sum is over those that are held at the row and whose condition is above their bound.

    x' = x + sum of factor (constant + slope r + clip(r, low, high) - r) along        r: what is read, 0 where nothing is
    """

    columns: Int[np.ndarray, "2 T"]
    """Where r and the condition stand among what is read of a row. Below 0: nothing is read; there is no condition."""
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
        """(the rows in memory of their own, which of them moved). Those that did not move keep their bits.

        Args:
            found: what is read of each row; None: nothing is.
            factor: how long one unit of each term is at each row; None: 1.
            held: which terms act at which rows; None: all terms at every row.

        Raises:
            ValueError: rows of another width, or the others of other rows, readings or terms.
        """
        self._check(rows.shape, factor, held, 0 if found is None else found.shape[1])
        if found is not None and len(found) != rows.shape[:-1].numel():
            raise ValueError(f"found: of {len(found)} rows, where {rows.shape[:-1].numel()} are moved")
        moved, has_moved = np.empty(rows.shape, np.float32), np.empty(rows.shape[:2], np.bool_)
        read = _NO_NUMBERS if found is None else _array(found)
        _over(has_moved.size, _loops().move, _array(rows), read, *self._arguments(factor, held), moved, has_moved)
        return torch.from_numpy(moved), torch.from_numpy(has_moved)

    def after_reading(
        self,
        reader: LatentLoop,
        shape: torch.Size,
        wanted: Wanted,
        factor: Float[Tensor, "N T"] | None,
        held: Bool[Tensor, "B P_or_1 T_or_1"] | None,
    ) -> "ReadAndMove":
        """What is read and moved of rows of this shape [B, P, D], ready to be called with them.

        Raises:
            ValueError: as both calls; or so many rows that the reader may leave one open.
        """
        if not reader.settles(shape[:-1].numel()):
            raise ValueError(f"rows: {shape[:-1].numel()}, of which some may be left open; read them first")
        reader.check(shape, wanted)
        self._check(shape, factor, held, len(reader.directions if isinstance(reader, FewLatents) else reader.latents))
        loops = _loops()
        loop = loops.read_few_and_move if isinstance(reader, FewLatents) else loops.read_top_and_move
        kinds, read = reader.tabled(wanted)
        return ReadAndMove(shape, loop, ("fqff?" + kinds, (*self._arguments(factor, held), *read)))

    @cached_property
    def _n_needed(self) -> int:
        """Columns that what is read must have."""
        return int(self.columns.max(initial=-1)) + 1

    def _check(self, shape: Sequence[int], factor: Tensor | None, held: Tensor | None, n_read: int) -> None:
        n_texts, n_positions, width = shape
        if width != self.along.shape[1]:
            raise ValueError(_of_another_width(width, self.along.shape[1]))
        if factor is not None:
            _check_shape("factor", factor, (n_texts * n_positions, len(self.along)))
        if n_read < self._n_needed:
            raise ValueError(f"found: {n_read} readings, where terms ask for {self._n_needed}")
        if held is not None and (len(held) != n_texts or held.shape[1] not in (1, n_positions)):
            raise ValueError(f"held: shape {list(held.shape)}, where rows are {[n_texts, n_positions]}")

    def _arguments(self, factor: Tensor | None, held: Tensor | None) -> tuple[np.ndarray, ...]:
        where = _ALL_HELD if held is None else _array(held.expand(-1, -1, len(self.along)))
        return _NO_NUMBERS if factor is None else _array(factor), self.columns, self.numbers, self.along, where


class ReadAndMove:
    """Rows of one shape read and moved in one loop and one thread, for the few rows of most passes. What else it takes stays
    from pass to pass, and was compared and gathered once: each pass, that took as long as the loop.
    """

    def __init__(self, shape: torch.Size, loop: Callable[[int, int, int, int], bool], given: _Tabled) -> None:
        """Args: given: what stands in the loop's table.

        Raises:
            ValueError: an array of another type, which the loop would not see.
        """
        self.shape, self.loop = shape, loop
        for kind, array in zip(*given, strict=True):
            if array.dtype != np.dtype(kind):
                raise ValueError(f"an array of {array.dtype}, where a loop reads {np.dtype(kind)}")
        self._given = [np.ascontiguousarray(array) for array in given[1]]
        table = [(0, *shape), *((array.ctypes.data, *((1,) * (3 - array.ndim)), *array.shape) for array in self._given)]
        self._table = np.array(table, np.int64)
        self._table_at = self._table.ctypes.data
        self._unused: list[Tensor] = []

    def takes(self, rows: Tensor) -> bool:
        return rows.shape == self.shape and is_looped(rows)

    def __call__(self, rows: Float[Tensor, "B P D"]) -> tuple[Float[Tensor, "B P D"], Bool[Tensor, "B P"], bool]:
        """As `Movements`, and whether all numbers of the rows that moved are finite.

        Raises:
            ValueError: rows of another shape, or that no loop reads.
        """
        if not self.takes(rows):  # the loop would read, and write, what is not theirs
            raise ValueError(
                f"rows: {rows.dtype} of shape {list(rows.shape)}, where float32 of {list(self.shape)} is needed"
            )
        rows = rows.contiguous()
        moved, has_moved = torch.empty_like(rows), self._fresh()
        return moved, has_moved, self.loop(rows.data_ptr(), moved.data_ptr(), has_moved.data_ptr(), self._table_at)

    def _fresh(self) -> Bool[Tensor, "B P"]:
        """Memory for which rows moved, of one pass alone. Made for many at once: behind a pass, that takes 13 microseconds."""
        if not self._unused:
            self._unused.extend(torch.empty((_PASSES, *self.shape[:2]), dtype=torch.bool).unbind())
        return self._unused.pop()


def is_in_one_thread(n_rows: int) -> bool:
    """Does a loop over so many rows run in the thread that calls it?"""
    return n_rows <= _ROWS_OF_THREAD or torch.get_num_threads() == 1


def _check_latents(latents: Int[np.ndarray, " K"], n_latents: int) -> None:
    if len(latents) and not 0 <= latents.min() <= latents.max() < n_latents:
        raise ValueError(f"latents: {latents.tolist()}, where there are {n_latents}")


def _check_rows(shape: Sequence[int], wanted: Wanted, width: int, n_read: int) -> None:
    if shape[-1] != width:
        raise ValueError(_of_another_width(shape[-1], width))
    if wanted is not None:
        _check_shape("wanted", wanted, (math.prod(shape[:-1]), n_read))


def _of_another_width(found: int, needed: int) -> str:
    return f"rows: {found} columns, where {needed} are needed; they are of another model or place"


def _check_shape(what: str, given: np.ndarray | Tensor, shape: tuple[int, int]) -> None:
    if tuple(given.shape) != shape:
        raise ValueError(f"{what}: shape {list(given.shape)}, where {list(shape)} is needed")


@cache
def _loops() -> ModuleType:
    from mohole.kernels import few_loops  # numba takes 0.3 s to import: only where rows are read

    return few_loops


@cache
def _top_loops() -> ModuleType:
    from mohole.kernels import top_loops

    return top_loops


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.numpy() if tensor.is_contiguous() else tensor.contiguous().numpy()


def _over(n_rows: int, loop: Callable[..., None], *arguments: _Argument) -> None:
    if is_in_one_thread(n_rows):
        loop(*arguments, 0, n_rows)
        return
    from mohole.kernels.cpu import over

    over(n_rows, loop, *arguments)
