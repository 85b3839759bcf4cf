"""The kernels in torch operators alone: machines without numba, devices other than a CPU. Same names and laws as `cpu`.

Axes: B batch rows, L latents, N kept pairs, D width read, E width written, S sources.
"""

import warnings
from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.nn.functional import embedding_bag
from torch.optim.adam import adam as torch_adam

from mohole.kernels.pairs import AdamStep, Backward, ByLatent, Moving, Pairs, TooManyError, best, from_dense

MULTIPLIES_BFLOAT16 = False
_BLOCKS = 16
_CHUNK_NUMBERS = 1 << 22
"""Pre-activations held at a time, but of 512 rows at least: fewer make slow products."""
_CHUNK_ROWS = 512
_SLAB_LATENTS = 4096
_SLAB_LATENTS_CPU = 512
"""Of 512 numbers each: 1 MB of gradients, which stays in the second cache. With 4096 a step took 0.45 products more at 8192."""
_FADING = 1e-30


class Scratch:
    """Memory for pre-activations, kept between batches: fresh memory costs a page fault for every 4 KB."""

    def __init__(self) -> None:
        self._held: Tensor | None = None

    def __call__(self, shape: tuple[int, int], like: Tensor) -> Tensor:
        """A tensor of this shape, of any content, of the type and on the device of another."""
        n, held = shape[0] * shape[1], self._held
        if held is None or held.dtype != like.dtype or held.device != like.device or held.numel() < n:
            self._held = held = like.new_empty(n)
        return held[:n].view(shape)


def tiles(dtype: torch.dtype, device: torch.device) -> tuple[int, ...]:
    """torch chooses its own."""
    return ()


def top_k(
    rows: Float[Tensor, "B D"],
    W_enc: Float[Tensor, "L D"],
    b_enc: Float[Tensor, " L"],
    k: int,
    scratch: Scratch | None = None,
) -> Pairs:
    """Each row's k largest positive pre-activations, or all where there are fewer; among equals the lower latent is kept."""
    found = []
    for pre in _pre_activations(rows, W_enc, b_enc, scratch or Scratch()):
        values, latents = largest(pre, min(k, len(W_enc)))
        latents, order = latents.sort(dim=1)
        values = values.gather(1, order)
        keep = values > 0
        found.append((keep.sum(1), latents[keep].to(torch.int32), values[keep]))
    return _stacked(found, rows)


def batch_top(
    rows: Float[Tensor, "B D"],
    W_enc: Float[Tensor, "L D"],
    b_enc: Float[Tensor, " L"],
    n: int,
    scratch: Scratch | None = None,
) -> Pairs:
    """The batch's n largest positive pre-activations; among equals the lower row, then the lower latent is kept."""
    return best(above(rows, W_enc, b_enc, torch.zeros_like(b_enc), scratch), n)


def above(
    rows: Float[Tensor, "B D"],
    W_enc: Float[Tensor, "L D"],
    b_enc: Float[Tensor, " L"],
    thresholds: Float[Tensor, " L"],
    scratch: Scratch | None = None,
    most: int | None = None,
) -> Pairs:
    """All pre-activations that exceed their latent's threshold.

    Raises:
        TooManyError: more than `most`.
    """
    found, n_found = [], 0
    for pre in _pre_activations(rows, W_enc, b_enc, scratch or Scratch()):
        pairs = from_dense(pre > thresholds, pre)
        found.append((torch.diff(pairs.row_starts), pairs.latents, pairs.values))
        n_found += len(pairs.latents)
        if most is not None and n_found > most:
            raise TooManyError
    return _stacked(found, rows)


def _pre_activations(
    rows: Tensor, W_enc: Tensor, b_enc: Tensor, scratch: Scratch
) -> Iterator[Float[Tensor, "chunk L"]]:
    """Of some rows at a time, all in the same memory: fresh memory for each costs a fifth of its product."""
    chunks = torch.split(rows, max(_CHUNK_NUMBERS // len(W_enc), _CHUNK_ROWS))
    room = scratch((len(chunks[0]), len(W_enc)), rows)
    for chunk in chunks:
        yield torch.addmm(b_enc, chunk, W_enc.T, out=room[: len(chunk)])


def decode(
    pairs: Pairs, values: Float[Tensor, " N"], W_dec: Float[Tensor, "L E"], out: Float[Tensor, "B E"]
) -> Float[Tensor, "B E"]:
    """Add each row's decoder directions, weighted by its values, to `out`."""
    out += embedding_bag(pairs.latents.long(), W_dec, pairs.row_starts[:-1], mode="sum", per_sample_weights=values)
    return out


def dots(
    pairs: Pairs, sources: Float[Tensor, "S B E"], source_of: UInt8[Tensor, " L"], W_dec: Float[Tensor, "L E"]
) -> Float[Tensor, " N"]:
    """For each pair: its latent's source, at its row, along its decoder direction."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")
        shape = len(pairs.row_starts) - 1, len(W_dec)
        places = torch.sparse_csr_tensor(
            pairs.row_starts,
            pairs.latents.to(torch.int64),
            torch.zeros_like(pairs.values),
            shape,
            device=pairs.values.device,
            check_invariants=False,
        )
        found = [torch.sparse.sampled_addmm(places, source, W_dec.T, beta=0.0).values() for source in sources]
    dots: Tensor = found[0]
    return dots if len(found) == 1 else torch.stack(found).gather(0, source_of[pairs.latents.long()].long()[None])[0]


def by_latent(pairs: Pairs, n_latents: int, which: Bool[Tensor, " N"] | None = None) -> ByLatent:
    """The pairs in the order of latents: all, or those that are wanted."""
    latents = pairs.latents.long()
    order = latents.argsort(stable=True)
    if which is not None:
        order = order[which[order]]
    counts = torch.bincount(latents[order], minlength=n_latents)
    starts = torch.cat([torch.zeros_like(counts[:1]), counts.cumsum(0)])
    return ByLatent(starts, order.to(torch.int32), pairs.rows[order].to(torch.int32))


def sums_by_latent(pairs: Pairs, per_pair: Sequence[Float[Tensor, " N"]], n_latents: int) -> list[Float[Tensor, " L"]]:
    """For each latent, the sum over its pairs, in double and in the order of rows: of each of several numbers that pairs have."""
    latents = pairs.latents
    if latents.is_cuda:  # bincount adds with atomics there: in another order every time
        ordered = by_latent(pairs, n_latents)
        return [ordered.sums(numbers) for numbers in per_pair]
    return [torch.bincount(latents, weights=each, minlength=n_latents).to(each.dtype) for each in per_pair]


def gradients(
    back: Backward, W_dec: Float[Tensor, "L E"], first: int = 0, last: int | None = None
) -> tuple[Float[Tensor, "slab D"], Float[Tensor, "slab E"]]:
    """The gradients of W_enc and W_dec as tensors, of all latents or of a range of them."""
    return _gradients(back, W_dec, first, len(W_dec) if last is None else last)


def squared_lengths(back: Backward, W_dec: Float[Tensor, "L E"]) -> Float[Tensor, " L"]:
    """The squared length of each latent's gradients, both rows together. A slab of gradients is held at a time."""
    found, step = [], _slab(W_dec)
    for first in range(0, len(W_dec), step):
        d_enc, d_dec = _gradients(back, W_dec, first, min(first + step, len(W_dec)))
        found.append(_squares(d_enc) + _squares(d_dec))
    return torch.cat(found)


def squares_at_most(back: Backward) -> Float[Tensor, " L"]:
    """What `squared_lengths` cannot exceed, however its sums are rounded, at a twentieth of its price. In double."""
    pairs, (read, sources) = back.by_latent, back.lengths()
    order, rows = pairs.order.long(), pairs.rows.long()
    source = back.source_of.long().repeat_interleave(torch.diff(pairs.starts), output_size=len(order))
    enc, dec = torch.empty_like(back.d_product, dtype=torch.float64), torch.empty_like(back.values, dtype=torch.float64)
    enc[order] = back.d_product[order].double().abs() * read[rows]
    dec[order] = back.values[order].double().abs() * sources[source, rows]
    return (pairs.sums(enc).square() + (pairs.sums(dec) + back.pulls()).square()) * back.rounding


def adam(
    back: Backward, encoder: Moving, decoder: Moving, step: AdamStep, *, shrink: float = 1.0
) -> Float[Tensor, " L"]:
    """Move both matrices by their gradients times `shrink`, a slab of gradients at a time. Returns `squared_lengths`."""
    squares, step_latents = [], _slab(decoder.weight)
    for first in range(0, len(decoder.weight), step_latents):
        here = slice(first, min(first + step_latents, len(decoder.weight)))
        d_enc, d_dec = _gradients(back, decoder.weight, here.start, here.stop)
        squares.append(_squares(d_enc) + _squares(d_dec))
        if shrink != 1.0:
            d_enc, d_dec = d_enc.mul_(shrink), d_dec.mul_(shrink)
        move(Moving(encoder.weight[here], encoder.mean[here], encoder.square[here]), d_enc, step)
        rows = decoder.weight[here]
        move(Moving(rows, decoder.mean[here], decoder.square[here]), d_dec, step)
        if back.is_unit:
            rows /= rows.norm(dim=1, keepdim=True)
    return torch.cat(squares)


def weighted_sum(weights: Float[Tensor, " L"], matrix: Float[Tensor, "L D"]) -> Float[Tensor, " D"]:
    """weights @ matrix, in blocks, so that the order of sums does not depend on the number of threads."""
    n = _slab(matrix)
    blocks = [
        (weights[first : first + n, None] * matrix[first : first + n]).sum(0) for first in range(0, len(matrix), n)
    ]
    return torch.stack(blocks).sum(0)


def move(moving: Moving, gradient: Tensor, step: AdamStep) -> None:
    """Adam on one tensor. Moments that are fading away become zero: as denormal numbers they would be slow for ever.

    torch's fused operator, in one pass: operators for each part of the formula took 0.08 products more.
    """
    before = torch.tensor(step.n_steps - 1.0, dtype=torch.float32, device=gradient.device)
    torch_adam(
        [moving.weight], [gradient], [moving.mean], [moving.square], [], [before],
        fused=True, amsgrad=False, beta1=step.beta1, beta2=step.beta2, lr=step.rate, weight_decay=0.0, eps=step.epsilon,
        maximize=False,
    )  # fmt: skip
    torch.hardshrink(moving.mean, _FADING, out=moving.mean)
    torch.threshold_(moving.square, _FADING, 0.0)


def largest(pre: Float[Tensor, "B L"], k: int) -> tuple[Float[Tensor, "B K"], Int[Tensor, "B K"]]:
    """Each row's k largest entries, largest first, and their places; among equal positive entries the lower place is kept.

    torch.topk leaves ties to chance, and a tie broken differently on another machine is another code. One entry more than
    asked for tells whether the k-th was tied; only such rows are sorted stably. Ties at zero or below do not matter: those
    entries are never kept.
    """
    if k == pre.shape[1]:
        return pre.topk(k, dim=1)
    values, places = _in_blocks(pre, k + 1)
    tied = (values[:, k - 1] == values[:, k]) & (values[:, k] > 0)
    values, places = values[:, :k].contiguous(), places[:, :k].contiguous()
    if tied.any():
        order = pre[tied].argsort(dim=1, descending=True, stable=True)[:, :k]
        values[tied], places[tied] = pre[tied].gather(1, order), order
    return values, places


def _in_blocks(pre: Float[Tensor, "B L"], k: int) -> tuple[Float[Tensor, "B K"], Int[Tensor, "B K"]]:
    """torch.topk in two stages. The k largest entries lie in the k blocks with the largest maxima, so only those are searched.

    A block is every `width`-th latent: taking the maximum over them runs along contiguous memory. Of one encoder product:
    0.32 instead of 0.45 at 8192 latents, 0.15 instead of 0.4 at 32768.
    """
    n_rows, n_latents = pre.shape
    width = n_latents // _BLOCKS
    if width <= k:
        return pre.topk(k, dim=1)
    blocks = pre[:, : width * _BLOCKS].view(n_rows, _BLOCKS, width)
    _, best = blocks.amax(1).topk(k, dim=1, sorted=False)
    candidates = blocks.gather(2, best[:, None].expand(n_rows, _BLOCKS, k)).flatten(1)
    n_rest = n_latents - width * _BLOCKS
    if n_rest:
        candidates = torch.cat([candidates, pre[:, -n_rest:]], dim=1)
    values, chosen = candidates.topk(k, dim=1)
    places = chosen // k * width + best.gather(1, chosen % k)
    return values, torch.where(chosen < _BLOCKS * k, places, chosen - _BLOCKS * k + n_latents - n_rest)


def _gradients(back: Backward, W_dec: Tensor, first: int, last: int) -> tuple[Tensor, Tensor]:
    """Of some latents' rows of both matrices."""
    pairs = back.by_latent
    start, stop = int(pairs.starts[first]), int(pairs.starts[last])
    order, rows = pairs.order[start:stop].long(), pairs.rows[start:stop].long()
    starts = pairs.starts[first:last] - start

    def sums(factors: Tensor, source: Tensor, rows: Tensor) -> Tensor:
        return embedding_bag(rows, source, starts, mode="sum", per_sample_weights=factors[order])

    d_enc = sums(back.d_product, back.read, rows)
    source = back.source_of[first:last].long().repeat_interleave(torch.diff(pairs.starts[first : last + 1]))
    d_dec = sums(back.values, back.sources.flatten(0, 1), source * back.sources.shape[1] + rows)
    own = None if back.is_unit else back.norm_gradient[first:last]
    return d_enc, with_lengths(d_dec, W_dec[first:last], own, back.sites)


def _slab(matrix: Tensor) -> int:
    """Latents whose gradients are held at a time."""
    return _SLAB_LATENTS_CPU if matrix.device.type == "cpu" else _SLAB_LATENTS


def _squares(rows: Float[Tensor, "n D"]) -> Float[Tensor, " n"]:
    """Squared length of each row. Without a tensor of squares."""
    lengths: Tensor = torch.linalg.vector_norm(rows, dim=1)
    return lengths.square()


def with_lengths(
    d_dec: Float[Tensor, "T E"],
    directions: Float[Tensor, "T E"],
    norm_gradient: Float[Tensor, " T"] | None,
    sites: tuple[int, ...],
) -> Float[Tensor, "T E"]:
    """Gradient of decoder rows with that of their lengths at the sites. None: of unit rows, so without the part along them."""
    if norm_gradient is None:
        return d_dec.addcmul_(directions, torch.linalg.vecdot(d_dec, directions)[:, None], value=-1.0)
    for left, right in pairwise(sites):
        length = directions[:, left:right].norm(dim=1, keepdim=True)
        factor = norm_gradient[:, None] / length
        d_dec[:, left:right] += torch.where(length > 0, factor, torch.zeros_like(factor)) * directions[:, left:right]
    return d_dec


def _stacked(found: list[tuple[Tensor, Tensor, Tensor]], rows: Tensor) -> Pairs:
    """Counts, latents and values of the rows of each chunk, put together."""
    counts, latents, values = (torch.cat(parts) for parts in zip(*found, strict=True))
    return Pairs(torch.cat([torch.zeros_like(counts[:1]), counts.cumsum(0)]), latents, values)
