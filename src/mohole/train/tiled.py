"""One block of a batch in which many latents are active: forward and backward in products of whole tiles of latents.

The same loss and gradient as kept pairs have (`objective`), entry by entry by the same formulas (`activation`, `price`), at five
products of rows, width and latents whatever is active: codes, what they decode; what reaches them, and the two gradients.
Pre-activations are held from the first to the third, a number for each row and latent; where those are too many (`holds`)
or there are gates, they are made again, which is one more product. A gate costs two more. Gradients are tensors of the weights'
size. With numba, what is done to entries of ReLU and JumpReLU under prices that are the same in every row is done in one sweep
each way (`mohole.kernels.thresholds`).
"""

from dataclasses import dataclass
from types import ModuleType
from typing import assert_never

import torch
from jaxtyping import Float
from torch import Tensor

from mohole.config import L0, L1, Gated, JumpReLU, Nonlinearity, ReLU, Tanh
from mohole.config.train import Sparsity
from mohole.kernels import dense, plain
from mohole.kernels.dense import DenseBackward, Lender, add_product, gradients_of_tile, held_tiles, tiles
from mohole.kernels.pairs import Backward
from mohole.train.activation import Totals, limits, pull_back, strengths, vectors_at
from mohole.train.price import priced
from mohole.train.products import Products, multiplied
from mohole.train.sums import whole_sum
from mohole.train.weights import Block

Threshold = ReLU | JumpReLU | Gated
_SAMPLED = 128
"""One latent in so many says whether tiles are worth trying first."""
_SLAB_LATENTS = 2048
HELD_TIMES_WEIGHTS = 4
"""Pre-activations of a batch that are held at most, times the weights of both matrices: as much as weights, moments and gradients
take together. More, as of many rows of a narrow model, are made twice."""


def holds(n_rows: int, d_in: int, d_out: int, nonlinearity: Nonlinearity) -> bool:
    """Whether pre-activations of so many rows are held from the forward to the backward pass. Gates take their place."""
    return not isinstance(nonlinearity, Gated) and n_rows <= HELD_TIMES_WEIGHTS * (d_in + d_out)


class Held:
    """Pre-activations between the passes, in memory that is lent for them. Of relu: codes."""

    def __init__(self, tensor: Tensor, lender: Lender) -> None:
        self._tensor: Tensor | None = tensor
        self._lender = lender

    def taken(self) -> Tensor | None:
        """They are there once: what is done to them is done in their place."""
        tensor, self._tensor = self._tensor, None
        return tensor

    def give_back(self, tensor: Tensor) -> None:
        """They are not needed any more."""
        self._lender.take_back(tensor)


@dataclass(frozen=True)
class Crowd:
    """The codes of a batch, summed up: there are too many to keep."""

    n_kept: int
    """Pairs that the loss or its gradient depends on."""
    decoded: Float[Tensor, "P B E"]
    """What the latents decode that each prefix adds to the one before."""
    gates: Float[Tensor, "B E"] | None
    """Gated: what the gates' own readings decode."""
    sums: Totals
    held: Held | None = None
    """None: pre-activations are made again."""

    @property
    def n_active(self) -> int:
        """Active pairs."""
        return int(self.sums.n_active.sum())

    def totals(self, n_latents: int) -> Totals:
        """What each latent did."""
        return self.sums


def looks_dense(block: Block, read: Float[Tensor, "B D"], nonlinearity: Threshold, share: float) -> bool:
    """Whether more than this share is kept of a few latents."""
    some = slice(None, None, min(_SAMPLED, len(block.b_enc)))
    pre = torch.addmm(block.b_enc[some], read, block.W_enc[some].T)
    return int((pre > limits(block, nonlinearity)[some]).sum()) > share * pre.numel()


def forward(
    block: Block,
    read: Float[Tensor, "B D"],
    nonlinearity: Threshold,
    cuts: tuple[int, ...],
    products: Products = "float32",
    lender: Lender | None = None,
) -> Crowd:
    """Encode and decode a batch.

    Args:
        cuts: 0, the sizes of prefixes, ascending, and the number of latents.
        lender: of memory, for pre-activations to be held in.
    """
    n_kept, limit, held = 0, limits(block, nonlinearity), None
    if lender is not None and holds(len(read), read.shape[1], block.W_dec.shape[1], nonlinearity):
        held = lender.lend(len(read) * len(block.b_enc), read)
    take = _Taken(block, nonlinearity, limit)
    decoded = read.new_zeros(len(cuts) - 1, len(read), block.W_dec.shape[1])
    gates = torch.zeros_like(decoded[0]) if isinstance(nonlinearity, Gated) else None
    counts, totals, largest = [], [], []
    for first, last, pre in tiles(*multiplied(read, block.W_enc, products), block.b_enc, cuts, held):
        here = slice(first, last)
        codes, n_here, sums = take(pre, here)
        add_product(decoded[_group(first, cuts)], codes, block.W_dec[here])
        if gates is not None:
            add_product(gates, pre.clamp_min_(0.0), block.W_dec[here])
        n_kept += n_here
        counts.append(sums.n_active)
        totals.append(sums.total)
        largest.append(sums.largest)
    sums = Totals(torch.cat(counts), torch.cat(totals), torch.cat(largest))
    return Crowd(n_kept, decoded, gates, sums, None if held is None or lender is None else Held(held, lender))


class _Taken:
    """Codes of tiles, and sums over rows. In a class because tiles share what they are compared with, and memory."""

    def __init__(self, block: Block, nonlinearity: Threshold, limit: Float[Tensor, " L"]) -> None:
        self._block, self._nonlinearity, self._limit = block, nonlinearity, limit
        self._is_kept, self._room = _Mask(), _Room()
        self._thresholds = _thresholds(block, nonlinearity) if dense.is_compiled(limit.device) else None

    def __call__(self, pre: Float[Tensor, "B T"], here: slice) -> tuple[Float[Tensor, "B T"], int, Totals]:
        """(codes, how many entries exceed their limit, what each latent did)"""
        limit, nonlinearity = self._limit[here], self._nonlinearity
        if self._thresholds is not None:
            from mohole.kernels import thresholds

            into = None if isinstance(nonlinearity, ReLU) else self._room(pre)
            found = thresholds.settle(pre, self._thresholds[here], limit, into)
            return found.codes, found.n_kept, Totals(found.n_active.long(), found.totals, found.largest.float())
        keep = self._is_kept(pre, limit)
        n_of_each = keep.sum(0)
        codes = strengths(vectors_at(self._block, here, nonlinearity), pre, nonlinearity)[0].mul_(keep)
        n_kept = int(n_of_each.sum(dtype=torch.float64))
        if not isinstance(nonlinearity, ReLU):  # what is kept may be inactive
            n_of_each = self._is_kept(codes, torch.zeros_like(limit)).sum(0)
        return codes, n_kept, Totals(n_of_each.long(), codes.sum(0).double(), codes.amax(0).float())


def backward(
    block: Block, read: Float[Tensor, "B D"], sources: Float[Tensor, "P B E"], active: Crowd, nonlinearity: Threshold,
    cuts: tuple[int, ...], *, gate_source: Float[Tensor, "B E"] | None, penalty: Sparsity | None, each: float,
    lengths: Float[Tensor, " L"] | None, sites: tuple[int, ...], products: Products = "float32",
) -> tuple[DenseBackward, dict[str, Float[Tensor, " L"]], float]:  # fmt: skip
    """Gradients of both matrices, of the vectors, and the weighted price of sparsity.

    Args:
        sources: gradient of the reconstruction, for the latents that each prefix adds.
        active: what `forward` has found; what it holds is used up.
        gate_source: gated: gradient of the reconstruction by gates alone.
        each: weight of a penalty of one, in the loss.
        lengths: of decoder rows, where they are free. None: they are unit vectors.
    """
    d_enc, d_dec = torch.empty_like(block.W_enc), torch.empty_like(block.W_dec)
    product_sums = torch.zeros_like(block.b_enc)
    d_vectors = {name: torch.zeros_like(vector) for name, vector in block.vectors().items()}
    steady = _SteadyPrice.of(penalty, each, lengths, active.sums, block.b_enc)
    level = _thresholds(block, nonlinearity) if dense.is_compiled(read.device) and steady is not None else None
    pull, room = _Pulled(block, nonlinearity, penalty, each, lengths), _Room()
    total = 0.0 if level is None or steady is None else steady.total
    held = None if active.held is None else active.held.taken()
    if held is None:
        found = tiles(*multiplied(read, block.W_enc, products), block.b_enc, cuts)
    else:
        found = held_tiles(held, len(read), cuts)
    for first, last, pre in found:
        here, source, directions = slice(first, last), sources[_group(first, cuts)], block.W_dec[first:last]
        d_codes = torch.mm(source, directions.T, out=room(pre))
        if level is not None and steady is not None:
            codes, d_product, own = _pulled_in_one(pre, d_codes, level[here], steady, nonlinearity, here)
            d_lengths = steady.d_lengths[here]
        else:
            d_gate = None if gate_source is None else gate_source @ directions.T
            codes, d_product, own, price, d_lengths = pull(pre, d_codes, d_gate, here)
            total += price
        product_sums[here] = own.pop(_PRODUCT)
        for name, numbers in own.items():
            d_vectors[name][here] = numbers
        gradients_of_tile(d_product, read, d_enc[here])
        gradients_of_tile(codes, source, d_dec[here])
        d_dec[here] = plain.with_lengths(d_dec[here], directions, None if lengths is None else d_lengths, sites)
    if held is not None and active.held is not None:
        active.held.give_back(held)
    return DenseBackward(d_enc, d_dec, product_sums, is_unit=lengths is None), d_vectors, total


_PRODUCT = "product"


@dataclass(frozen=True)
class _SteadyPrice:
    """A penalty whose slope is the same in every row: what sums over rows say is all there is to know."""

    total: float
    """Weighted, of the whole batch."""
    slopes: Float[Tensor, " L"]
    """Of the loss in a code."""
    d_active: float
    """What being active costs, whatever the value."""
    d_lengths: Float[Tensor, " L"]

    @classmethod
    def of(
        cls, penalty: Sparsity | None, each: float, lengths: Tensor | None, sums: Totals, like: Tensor
    ) -> "_SteadyPrice | None":
        """None: the slope depends on the code."""
        nothing = torch.zeros_like(like)
        match penalty:
            case None:
                return cls(0.0, nothing, 0.0, nothing)
            case L1():
                size = torch.ones_like(like) if lengths is None else lengths
                total = whole_sum(sums.total * size.double()) * each
                return cls(total, size * each, 0.0, (sums.total * each).to(like.dtype))
            case L0():
                return cls(whole_sum(sums.n_active) * each, nothing, each, nothing)
            case Tanh():
                return None
            case _:
                assert_never(penalty)


def _thresholds(block: Block, nonlinearity: Threshold) -> Float[Tensor, " L"] | None:
    """What a pre-activation must exceed to be its own activation; None: that is not all there is to it."""
    match nonlinearity:
        case ReLU():
            return torch.zeros_like(block.b_enc)
        case JumpReLU():
            assert block.log_threshold is not None
            return block.log_threshold.exp()
        case Gated():
            return None
        case _:
            assert_never(nonlinearity)


def _pulled_in_one(
    pre: Float[Tensor, "B T"], d_codes: Float[Tensor, "B T"], level: Float[Tensor, " T"], price: _SteadyPrice,
    nonlinearity: Threshold, here: slice,
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:  # fmt: skip
    """(codes, gradients of products, sums over rows), as `activation.pull_back` makes them: in the place of what is given."""
    from mohole.kernels import thresholds

    bandwidth = nonlinearity.bandwidth if isinstance(nonlinearity, JumpReLU) else None
    found = thresholds.pull(pre, d_codes, level, price.slopes[here], None if bandwidth is None else bandwidth / 2)
    own = {_PRODUCT: found.product_sums, "b_enc": found.product_sums}
    if bandwidth is not None:
        own["log_threshold"] = -(level * found.near_sums + price.d_active * found.n_near) / bandwidth * level
    return pre, d_codes, own


class _Pulled:
    """Gradients of tiles, operator by operator. In a class because tiles share what they are compared with, and memory."""

    def __init__(
        self, block: Block, nonlinearity: Threshold, penalty: Sparsity | None, each: float, lengths: Tensor | None
    ) -> None:
        self._block, self._nonlinearity, self._penalty = block, nonlinearity, penalty
        self._each, self._lengths, self._limit = each, lengths, limits(block, nonlinearity)
        self._is_kept = _Mask()

    def __call__(
        self, pre: Float[Tensor, "B T"], d_codes: Float[Tensor, "B T"], d_gate: Float[Tensor, "B T"] | None, here: slice
    ) -> tuple[Tensor, Tensor, dict[str, Tensor], float, Tensor]:
        """(codes, gradients of products, sums over rows, the price, gradients of lengths)"""
        own, nonlinearity = vectors_at(self._block, here, self._nonlinearity), self._nonlinearity
        keep = self._is_kept(pre, self._limit[here])
        values, near = strengths(own, pre, nonlinearity)
        codes = values.mul_(keep)
        d_active, total, d_lengths = 0.0, 0.0, torch.zeros_like(self._limit[here])
        lengths = None if self._lengths is None else self._lengths[here]
        if self._penalty is not None:
            price = priced(self._penalty, codes if d_gate is None else pre.clamp_min(0.0), lengths)
            total = whole_sum(price.total.sum(1)) * self._each
            if price.d_values is None:
                d_active = self._each
            else:
                (d_codes if d_gate is None else d_gate).add_(price.d_values, alpha=self._each)
            if lengths is not None and price.d_lengths is not None:
                d_lengths = price.d_lengths.sum(0) * self._each
        pulled = pull_back(own, pre, values, near, nonlinearity, d_codes, d_active=d_active, d_gate=d_gate)
        d_product = pulled.d_product.mul_(keep)
        sums = {_PRODUCT: d_product.sum(0)}
        for name, found in pulled.d_vectors.items():
            sums[name] = sums[_PRODUCT] if found is pulled.d_product else found.mul_(keep).sum(0)
        return codes, d_product, sums, total, d_lengths


def with_pairs(
    whole: DenseBackward, pairs: Backward, product_sums: Float[Tensor, " L"], W_dec: Float[Tensor, "L E"],
    kernels: ModuleType,
) -> DenseBackward:  # fmt: skip
    """With the gradients of some kept pairs added, in place: what dead latents get. And the sums of their products'."""
    if not len(pairs.values):
        return whole
    for first in range(0, len(W_dec), _SLAB_LATENTS):
        last = min(first + _SLAB_LATENTS, len(W_dec))
        d_enc, d_dec = kernels.gradients(pairs, W_dec, first, last)
        whole.d_enc[first:last] += d_enc
        whole.d_dec[first:last] += d_dec
    return DenseBackward(whole.d_enc, whole.d_dec, whole.product_sums + product_sums, whole.is_unit)


class _Room:
    """Memory for a tile at a time."""

    def __init__(self) -> None:
        self._held: Tensor | None = None

    def __call__(self, like: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        """As large as a tile, of any content."""
        if self._held is None or self._held.numel() < like.numel():
            self._held = torch.empty_like(like).flatten()
        return self._held[: like.numel()].view_as(like)


class _Mask:
    """Which entries exceed a limit, as zeros and ones in memory that is used again. Sums over 2^24 rows are exact.

    Of one product of everything: 0.04 so, 0.05 to multiply by it; 0.12 as truth values, 0.3 for `torch.where`.
    """

    def __init__(self) -> None:
        self._room = _Room()

    def __call__(self, values: Float[Tensor, "B T"], limit: Float[Tensor, " T"]) -> Float[Tensor, "B T"]:
        return torch.gt(values, limit, out=self._room(values))


def _group(first: int, cuts: tuple[int, ...]) -> int:
    """Which prefix adds this latent."""
    return sum(first >= cut for cut in cuts[1:])
