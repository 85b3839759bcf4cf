"""What a batch costs in which many latents fire: products of whole tiles of latents, in torch alone, on any device.

Axes: B batch rows, L latents, T latents of a tile, D width read, E width written.
Kept pairs (`cpu`, `plain`) cost their number times D, products the same whatever is kept. Pre-activations are held from the
forward to the backward pass where memory is there for all of them (`tiled`), and made again where it is not. Gradients are
tensors here, once the size of both matrices.
Sums over rows or latents are made in blocks of a fixed size, each on one thread: they do not depend on the number of threads.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from mohole.kernels import HAS_NUMBA, plain
from mohole.kernels.pairs import AdamStep, Moving

_TILE_LATENTS = 2048
_TILE_NUMBERS = 1 << 21
_BLOCK_ROWS = 512
_SLAB_LATENTS = 256
"""Latents that move at a time: gradient, weights and moments of so many stay in the cache from one operator to the next."""


@dataclass(frozen=True)
class DenseBackward:
    """What reaches the two matrices of latents from a batch, as tensors (see `Backward`)."""

    d_enc: Float[Tensor, "L D"]
    d_dec: Float[Tensor, "L E"]
    """Without the part along the row, where rows are unit vectors."""
    product_sums: Float[Tensor, " L"]
    """For each latent, the sum over rows of the gradient of what its encoder row makes of them."""
    is_unit: bool


def tiles(
    rows: Float[Tensor, "B D"], W_enc: Float[Tensor, "L D"], b_enc: Float[Tensor, " L"], cuts: tuple[int, ...],
    held: Float[Tensor, " B_times_L"] | None = None,
) -> Iterator[tuple[int, int, Float[Tensor, "B T"]]]:  # fmt: skip
    """Pre-activations of some latents at a time: (first latent, one past the last, values), in memory that is used again.

    Args:
        cuts: 0, ascending, L: no tile reaches over one of these.
        held: memory in which tiles stay, see `held_tiles`. None: there is one tile at a time.
    """
    n_rows = len(rows)
    room = rows.new_empty(n_rows * min(_width(n_rows), len(W_enc))) if held is None else held
    for first, last in _bounds(n_rows, cuts):
        place = 0 if held is None else n_rows * first
        out = room[place : place + n_rows * (last - first)].view(n_rows, last - first)
        yield first, last, torch.addmm(b_enc[first:last], rows, W_enc[first:last].T, out=out)


def held_tiles(
    held: Float[Tensor, " B_times_L"], n_rows: int, cuts: tuple[int, ...]
) -> Iterator[tuple[int, int, Float[Tensor, "B T"]]]:
    """The tiles that `tiles` has left in this memory."""
    for first, last in _bounds(n_rows, cuts):
        yield first, last, held[n_rows * first : n_rows * last].view(n_rows, last - first)


def _width(n_rows: int) -> int:
    return max(min(_TILE_LATENTS, _TILE_NUMBERS // max(n_rows, 1)) // 128 * 128, 128)


def _bounds(n_rows: int, cuts: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    width = _width(n_rows)
    for start, stop in pairwise(cuts):
        for first in range(start, stop, width):
            yield first, min(first + width, stop)


class Lender:
    """Memory that goes from a forward pass to its backward pass, and is used again: fresh memory costs a page fault for 4 KB.

    A loan that is never paid back is left to its borrower.
    """

    def __init__(self) -> None:
        self._free: list[Tensor] = []

    def lend(self, n: int, like: Tensor) -> Tensor:
        """A flat tensor of n numbers, of any content."""
        for place, tensor in enumerate(self._free):
            if tensor.numel() == n and (tensor.dtype, tensor.device) == (like.dtype, like.device):
                return self._free.pop(place)
        self._free.clear()  # of another batch, or other weights
        return like.new_empty(n)

    def take_back(self, tensor: Tensor) -> None:
        """It may be lent again."""
        self._free.append(tensor)


def add_product(
    out: Float[Tensor, "M N"], left: Float[Tensor, "M K"], right: Float[Tensor, "K N"], *, kept: float = 1.0
) -> None:
    """out = kept * out + left @ right."""

    def block(low: int) -> None:
        here = slice(low, low + _BLOCK_ROWS)
        out[here].addmm_(left[here], right, beta=kept)

    _each_on_one_thread(block, range(0, len(out), _BLOCK_ROWS))


def is_compiled(device: torch.device) -> bool:
    """Whether numba's loops may be used on tensors of this device."""
    return HAS_NUMBA and device.type == "cpu"


def gradients_of_tile(
    codes: Float[Tensor, "B T"], source: Float[Tensor, "B D"], out: Float[Tensor, "T D"]
) -> Float[Tensor, "T D"]:
    """out = codes^T source."""
    add_product(out, codes.T, source, kept=0.0)
    return out


def squared_lengths(back: DenseBackward) -> Float[Tensor, " L"]:
    """The squared length of each latent's gradients, both rows together."""
    return torch.cat(
        [
            back.d_enc[here].square().sum(1) + back.d_dec[here].square().sum(1)
            for here in _slabs(len(back.d_enc), _SLAB_LATENTS)
        ]
    )


def adam(
    back: DenseBackward, encoder: Moving, decoder: Moving, step: AdamStep, *, shrink: float = 1.0
) -> Float[Tensor, " L"]:
    """As `plain.adam`."""
    if is_compiled(back.d_enc.device):
        return _compiled_adam(back, encoder, decoder, step, shrink)
    for here in _slabs(len(decoder.weight), _SLAB_LATENTS):
        for moving, gradient in ((encoder, back.d_enc), (decoder, back.d_dec)):
            own = Moving(moving.weight[here], moving.mean[here], moving.square[here])
            plain.move(own, gradient[here] * shrink, step)
        if back.is_unit:
            decoder.weight[here] /= decoder.weight[here].norm(dim=1, keepdim=True)
    return squared_lengths(back)


def _compiled_adam(
    back: DenseBackward, encoder: Moving, decoder: Moving, step: AdamStep, shrink: float
) -> Float[Tensor, " L"]:
    """In one sweep, with numba: 0.1 of a product at 8192 latents, where torch's operators took 0.6."""
    from mohole.kernels import loops

    squares = torch.empty_like(back.product_sums)
    tensors = (
        back.d_enc, back.d_dec, encoder.weight, encoder.mean, encoder.square, decoder.weight, decoder.mean, decoder.square,
        squares,
    )  # fmt: skip
    arrays = [tensor.numpy() for tensor in tensors]
    numbers = (step.beta1, step.beta2, step.step_size, step.root_scale, step.epsilon)

    def slab(low: int) -> None:
        factor = arrays[0].dtype.type(shrink)
        loops.move_latents(*arrays, factor, back.is_unit, *numbers, low, min(low + _SLAB_LATENTS, len(squares)))

    _each_on_one_thread(slab, range(0, len(squares), _SLAB_LATENTS))
    return squares


def _slabs(n: int, size: int) -> list[slice]:
    return [slice(first, min(first + size, n)) for first in range(0, n, size)]


def _each_on_one_thread(work: Callable[[int], None], items: range) -> None:
    n_threads = torch.get_num_threads()
    if n_threads == 1:
        for item in items:
            work(item)
        return
    torch.set_num_threads(1)
    try:
        for done in [_threads(n_threads).submit(work, item) for item in items]:
            done.result()
    finally:
        torch.set_num_threads(n_threads)


@cache
def _threads(n: int) -> ThreadPoolExecutor:
    """Threads in which torch has only ever been told of one thread."""
    return ThreadPoolExecutor(n, thread_name_prefix="mohole-dense")
