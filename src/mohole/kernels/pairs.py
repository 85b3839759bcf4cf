"""What a batch of sparse codes is while it is being computed: kept (row, latent) pairs, and what flows back through them.

Axes: B batch rows, L latents, N kept pairs, D width read, E width written, S sources.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int, Shaped, UInt8
from torch import Tensor


@dataclass(frozen=True)
class Pairs:
    """Kept pairs in compressed rows. Latents of a row ascend and are distinct."""

    row_starts: Int[Tensor, " B_plus_one"]
    latents: Int[Tensor, " N"]
    values: Float[Tensor, " N"]
    """Pre-activations."""

    @property
    def rows(self) -> Int[Tensor, " N"]:
        """The row of each pair."""
        n_rows = len(self.row_starts) - 1
        return torch.repeat_interleave(
            torch.arange(n_rows, device=self.latents.device), torch.diff(self.row_starts), output_size=len(self.latents)
        )

    def where(self, keep: Tensor) -> "Pairs":
        """The pairs for which `keep` [N] is true."""
        sums = torch.cat([torch.zeros_like(self.row_starts[:1]), keep.cumsum(0)])
        return Pairs(sums[self.row_starts], self.latents[keep], self.values[keep])

    def numbered(self, latents: Int[Tensor, " L"]) -> "Pairs":
        """The same pairs, with latent i called latents[i] (ascending)."""
        return replace(self, latents=latents[self.latents.long()].to(self.latents.dtype))


class TooManyError(Exception):
    """More pairs than the caller has a use for: they are cheaper as products of whole tiles (`kernels.dense`)."""


def side_by_side(parts: Sequence[Pairs]) -> Pairs:
    """Pairs of the same rows together: in every row those of the first part before those of the second."""
    if len(parts) == 1:
        return parts[0]
    starts, places = places_side_by_side(parts)
    latents = parts[0].latents.new_empty(int(starts[-1]))
    values = parts[0].values.new_empty(int(starts[-1]))
    for part, own in zip(parts, places, strict=True):
        latents[own], values[own] = part.latents, part.values
    return Pairs(starts, latents, values)


def places_side_by_side(parts: Sequence[Pairs]) -> tuple[Int[Tensor, " B_plus_one"], list[Int[Tensor, " _"]]]:
    """Where rows begin when pairs of the same rows stand together, and the places of each part's pairs then."""
    sizes = torch.stack([torch.diff(part.row_starts) for part in parts], dim=1)
    starts = torch.cat([torch.zeros_like(parts[0].row_starts[:1]), sizes.flatten().cumsum(0)])
    places = []
    for number, part in enumerate(parts):
        shift = starts[number : -1 : len(parts)] - part.row_starts[:-1]
        places.append(torch.arange(len(part.latents), device=part.latents.device) + shift[part.rows])
    return starts[:: len(parts)].contiguous(), places


def from_dense(keep: Tensor, pre: Float[Tensor, "B L"]) -> Pairs:
    """The entries of `pre` for which `keep` [B, L] is true."""
    starts = torch.cat([torch.zeros(1, dtype=torch.int64, device=pre.device), keep.sum(1).cumsum(0)])
    return Pairs(starts, keep.nonzero()[:, 1].to(torch.int32), pre[keep])


def best(pairs: Pairs, n: int) -> Pairs:
    """The n pairs with the largest values; among those that equal the n-th the first ones."""
    if len(pairs.values) <= n:
        return pairs
    least = torch.topk(pairs.values, n, sorted=False).values.min()
    more, equal = pairs.values > least, pairs.values == least
    return pairs.where(more | (equal & (equal.cumsum(0) <= n - more.sum())))


@dataclass(frozen=True)
class ByLatent:
    """The same pairs in the order of latents, rows ascending within one: what belongs to a latent is summed in one sweep."""

    starts: Int[Tensor, " L_plus_one"]
    order: Int[Tensor, " N"]
    """Number of the pair."""
    rows: Int[Tensor, " N"]

    def sums(self, per_pair: Float[Tensor, " N"]) -> Float[Tensor, " L"]:
        """For each latent, the sum over its pairs."""
        ordered = per_pair[self.order.long()]
        if ordered.is_cuda:  # bincount adds with atomics there: in another order every time
            sums: Tensor = torch.segment_reduce(ordered.double(), "sum", offsets=self.starts, initial=0.0)
            return sums.to(per_pair.dtype)
        latents = torch.repeat_interleave(torch.diff(self.starts), output_size=len(self.order))
        return torch.bincount(latents, weights=ordered, minlength=len(self.starts) - 1).to(per_pair.dtype)


@dataclass(frozen=True)
class Backward:
    """What reaches the two matrices of latents from a batch.

    d W_enc[l] = sum over the latent's pairs of d_product * read[row]
    d W_dec[l] = sum over the latent's pairs of value * sources[source_of[l], row]  +  norm_gradient[l] * d |W_dec[l]|
    """

    by_latent: ByLatent
    d_product: Float[Tensor, " N"]
    """Gradient of each pair's product of row and encoder; a bias may get another one (gated)."""
    values: Float[Tensor, " N"]
    """Activations."""
    read: Float[Tensor, "B D"]
    """What the encoder reads."""
    sources: Float[Tensor, "S B E"]
    """Gradients of reconstructions. Most objectives have one; nested prefixes have one each, AuxK one of its own."""
    source_of: UInt8[Tensor, " L"]
    """Which of them moves a latent's decoder row."""
    norm_gradient: Float[Tensor, " L"]
    """Gradient of the length of each decoder row, over the sites it writes: a penalty's part."""
    sites: tuple[int, ...]
    """Where the sites begin among the columns of W_dec, and the width. A row's length is the sum of its lengths at the sites."""
    is_unit: bool
    """Decoder rows are unit vectors: the gradient along them is left out, and they are brought back to length one."""

    def lengths(self) -> tuple[Float[Tensor, " B"], Float[Tensor, "S B"]]:
        """Of rows that are read, and of sources. In double."""
        read, sources = (torch.linalg.vector_norm(rows, dim=-1) for rows in (self.read, self.sources))
        return read.double(), sources.double()

    def pulls(self) -> Float[Tensor, " L"]:
        """The most that the gradient of its length adds to a decoder row's: a unit vector for each site. In double."""
        n_sites = 0 if self.is_unit else len(self.sites) - 1
        return self.norm_gradient.double().abs() * math.sqrt(n_sites)

    @property
    def rounding(self) -> float:
        """What squared lengths of sums over rows, computed in whatever order, may exceed exact ones by: a factor."""
        n, eps = len(self.read) + self.read.shape[1] + self.sources.shape[2], torch.finfo(self.read.dtype).eps
        return 1.0 + 4.0 * n * eps


@dataclass(frozen=True)
class AdamStep:
    """The numbers of one step of Adam (Kingma & Ba 2014), in the form of torch.optim.Adam."""

    rate: float
    n_steps: int
    """Counted from 1."""
    beta1: float = 0.9
    beta2: float = 0.999
    # A gradient here is a mean over rows and dimensions, so it is small; torch's default of 1e-8 would damp rare latents.
    # Gao et al. 2024 use this value.
    epsilon: float = 6.25e-10

    @property
    def step_size(self) -> float:
        return self.rate / (1.0 - self.beta1**self.n_steps)

    @property
    def root_scale(self) -> float:
        return float((1.0 - self.beta2**self.n_steps) ** -0.5)


@dataclass(frozen=True)
class Moving:
    """A tensor and its two moments, moved in place."""

    weight: Float[Tensor, "..."]
    mean: Shaped[Tensor, "..."]
    """Of gradients. Whole numbers: codes, which `kernels.moments` reads and writes."""
    square: Shaped[Tensor, "..."]
    scales: Float[Tensor, "2 L"] | None = None
    """Of codes: the largest mean and square of each row, where they are shares of it."""
    salt: int = 0
    """Of codes: the tensor's own number, for the chance by which they are rounded."""
    first: int = 0
    """Of codes: the number of the first latent, for the same chance whichever rank has it."""

    @classmethod
    def still(cls, weight: Float[Tensor, "..."]) -> "Moving":
        return cls(weight, torch.zeros_like(weight), torch.zeros_like(weight))
