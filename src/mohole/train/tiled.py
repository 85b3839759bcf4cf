"""One block of a batch in which many latents are active: forward and backward in products of whole tiles of latents.

The same loss and gradient as kept pairs have (`objective`), entry by entry by the same formulas (`activation`, `price`), at six
products of rows, width and latents whatever is active: codes, what they decode; codes again, what reaches them, and the two
gradients. A gate costs two more. Nothing of [batch, latents] is kept, gradients are tensors of the weights' size.
"""

from dataclasses import dataclass
from types import ModuleType

import torch
from jaxtyping import Float
from torch import Tensor

from mohole.config import Gated, JumpReLU, ReLU
from mohole.config.train import Sparsity
from mohole.kernels import plain
from mohole.kernels.dense import DenseBackward, add_product, gradients_of_tile, tiles
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
) -> Crowd:
    """Encode and decode a batch.

    Args:
        cuts: 0, the sizes of prefixes, ascending, and the number of latents.
    """
    n_kept, limit, is_kept = 0, limits(block, nonlinearity), _Mask()
    decoded = read.new_zeros(len(cuts) - 1, len(read), block.W_dec.shape[1])
    gates = torch.zeros_like(decoded[0]) if isinstance(nonlinearity, Gated) else None
    counts, totals, largest = [], [], []
    for first, last, pre in tiles(*multiplied(read, block.W_enc, products), block.b_enc, cuts):
        here = slice(first, last)
        keep = is_kept(pre, limit[here])
        n_of_each = keep.sum(0)
        codes = strengths(vectors_at(block, here, nonlinearity), pre, nonlinearity)[0].mul_(keep)
        add_product(decoded[_group(first, cuts)], codes, block.W_dec[here])
        if gates is not None:
            add_product(gates, pre.clamp_min_(0.0), block.W_dec[here])
        n_kept += int(n_of_each.sum(dtype=torch.float64))
        if not isinstance(nonlinearity, ReLU):  # what is kept may be inactive
            n_of_each = is_kept(codes, torch.zeros_like(limit[here])).sum(0)
        counts.append(n_of_each.long())
        totals.append(codes.sum(0).double())
        largest.append(codes.amax(0).float())
    return Crowd(n_kept, decoded, gates, Totals(torch.cat(counts), torch.cat(totals), torch.cat(largest)))


def backward(
    block: Block, read: Float[Tensor, "B D"], sources: Float[Tensor, "P B E"], nonlinearity: Threshold,
    cuts: tuple[int, ...], *, gate_source: Float[Tensor, "B E"] | None, penalty: Sparsity | None, each: float,
    lengths: Float[Tensor, " L"] | None, sites: tuple[int, ...], products: Products = "float32",
) -> tuple[DenseBackward, dict[str, Float[Tensor, " L"]], float]:  # fmt: skip
    """Gradients of both matrices, of the vectors, and the weighted price of sparsity.

    Args:
        sources: gradient of the reconstruction, for the latents that each prefix adds.
        gate_source: gated: gradient of the reconstruction by gates alone.
        each: weight of a penalty of one, in the loss.
        lengths: of decoder rows, where they are free. None: they are unit vectors.
    """
    limit, is_kept = limits(block, nonlinearity), _Mask()
    d_enc, d_dec = torch.empty_like(block.W_enc), torch.empty_like(block.W_dec)
    product_sums = torch.zeros_like(block.b_enc)
    d_vectors = {name: torch.zeros_like(vector) for name, vector in block.vectors().items()}
    total = 0.0
    for first, last, pre in tiles(*multiplied(read, block.W_enc, products), block.b_enc, cuts):
        here, source = slice(first, last), sources[_group(first, cuts)]
        own, directions = vectors_at(block, here, nonlinearity), block.W_dec[here]
        keep = is_kept(pre, limit[here])
        values, near = strengths(own, pre, nonlinearity)
        codes = values.mul_(keep)
        d_values = source @ directions.T
        d_gate = None if gate_source is None else gate_source @ directions.T
        d_active, d_lengths = 0.0, torch.zeros_like(limit[here])
        if penalty is not None:
            counted = codes if d_gate is None else pre.clamp_min(0.0)
            price = priced(penalty, counted, None if lengths is None else lengths[here])
            total += whole_sum(price.total.sum(1)) * each
            if price.d_values is None:
                d_active = each
            else:
                (d_values if d_gate is None else d_gate).add_(price.d_values, alpha=each)
            if lengths is not None and price.d_lengths is not None:
                d_lengths = price.d_lengths.sum(0) * each
        pulled = pull_back(own, pre, values, near, nonlinearity, d_values, d_active=d_active, d_gate=d_gate)
        d_product = pulled.d_product.mul_(keep)
        product_sums[here] = d_product.sum(0)
        for name, found in pulled.d_vectors.items():
            d_vectors[name][here] = product_sums[here] if found is pulled.d_product else found.mul_(keep).sum(0)
        gradients_of_tile(d_product, read, d_enc[here])
        gradients_of_tile(codes, source, d_dec[here])
        d_dec[here] = plain.with_lengths(d_dec[here], directions, None if lengths is None else d_lengths, sites)
    return DenseBackward(d_enc, d_dec, product_sums, is_unit=lengths is None), d_vectors, total


def with_pairs(
    dense: DenseBackward, pairs: Backward, product_sums: Float[Tensor, " L"], W_dec: Float[Tensor, "L E"],
    kernels: ModuleType,
) -> DenseBackward:  # fmt: skip
    """With the gradients of some kept pairs added, in place: what dead latents get. And the sums of their products'."""
    if not len(pairs.values):
        return dense
    for first in range(0, len(W_dec), _SLAB_LATENTS):
        last = min(first + _SLAB_LATENTS, len(W_dec))
        d_enc, d_dec = kernels.gradients(pairs, W_dec, first, last)
        dense.d_enc[first:last] += d_enc
        dense.d_dec[first:last] += d_dec
    return DenseBackward(dense.d_enc, dense.d_dec, dense.product_sums + product_sums, dense.is_unit)


class _Mask:
    """Which entries exceed a limit, as zeros and ones in memory that is used again. Sums over 2^24 rows are exact.

    Of one product of everything: 0.04 so, 0.05 to multiply by it; 0.12 as truth values, 0.3 for `torch.where`.
    """

    def __init__(self) -> None:
        self._room: Tensor | None = None

    def __call__(self, values: Float[Tensor, "B T"], limit: Float[Tensor, " T"]) -> Float[Tensor, "B T"]:
        if self._room is None or self._room.numel() < values.numel():
            self._room = torch.empty_like(values).flatten()
        return torch.gt(values, limit, out=self._room[: values.numel()].view_as(values))


def _group(first: int, cuts: tuple[int, ...]) -> int:
    """Which prefix adds this latent."""
    return sum(first >= cut for cut in cuts[1:])
