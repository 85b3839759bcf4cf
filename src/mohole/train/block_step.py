"""The gradients of one block of latents, from what reaches the columns it writes.

Each data rank takes the pairs of its own rows this far; then every one of them has those of all rows, in the order of rows, and
sums over rows are made in the same order for any number of data ranks. Sums of tiles alone are made rank by rank.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from types import ModuleType

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from mohole.config import BatchTopK, Gated, JumpReLU, Nonlinearity, TopK, Train
from mohole.kernels.dense import DenseBackward
from mohole.kernels.pairs import Backward, Pairs, places_side_by_side
from mohole.parallel import Axis, Mesh, joined
from mohole.train import tiled
from mohole.train.activation import Active, pull_back, vectors_at
from mohole.train.price import priced
from mohole.train.spread import pairs_of_all
from mohole.train.sums import whole_sum
from mohole.train.tiled import Crowd
from mohole.train.weights import Block, Sites

_PRODUCT, _LENGTH = "product", "length"
"""Among what belongs to pairs: the gradient of the product of row and encoder, of the length of the latent's decoder row."""


@dataclass(frozen=True)
class OfRows:
    """Something that each row has: of this rank's rows, and of all rows of the batch."""

    own: Tensor
    everyone: Tensor

    @classmethod
    def of(cls, own: Tensor, axis: Axis, dim: int) -> "OfRows":
        return cls(own, joined(axis, own, dim))

    def part(self, take: Callable[[Tensor], Tensor]) -> "OfRows":
        """Some columns of both."""
        own = take(self.own)
        return OfRows(own, own if self.everyone is self.own else take(self.everyone))


@dataclass(frozen=True, kw_only=True)
class Shared:
    """What all blocks of a batch have in common."""

    settings: Train
    kernels: ModuleType
    mesh: Mesh
    sites: Sites
    """That are written."""
    cuts: tuple[int, ...]
    """Where among this rank's latents those begin that a prefix adds to the one before, and their number."""
    warmth: float
    share: float
    """Of one squared number in a mean over rows and dimensions."""
    read: OfRows
    """[row, d_in]"""
    sources: OfRows
    """[prefix, row, d_out]: gradients of the reconstruction, for the latents that each prefix adds."""
    surprise: OfRows | None
    """[1, row, d_out]: gradient of the reconstruction of the error by dead latents. None: there is none."""
    gate_source: Float[Tensor, "1 B E"] | None
    """Gated: gradient of the reconstruction from gates alone, of this rank's rows."""


@dataclass(frozen=True)
class BlockGradient:
    """What a batch says to one block."""

    backward: Backward | DenseBackward
    product_sums: Float[Tensor, " L"]
    """For each latent, the sum over rows of the gradient of what its encoder row makes of them."""
    vectors: dict[str, Float[Tensor, " L"]]
    sparsity: float
    """The weighted price of what is active, of this rank's rows and latents."""
    pre_act: float
    """The weighted price of dead latents' silence, of all rows and this rank's latents."""


@dataclass(frozen=True)
class _Entries:
    """Kept pairs, and what belongs to each of them."""

    pairs: Pairs
    values: Float[Tensor, " N"]
    """Activations."""
    d_product: Float[Tensor, " N"]
    """Gradient of what the encoder's matrix made of the row."""
    d_vectors: dict[str, Float[Tensor, " N"]]
    """Gradient of each vector's entry at the latent, and of the length of its decoder row, if that has a price."""

    @classmethod
    def none(cls, block: Block, read: Tensor) -> "_Entries":
        pairs = no_pairs(read)
        return cls(pairs, pairs.values, pairs.values, dict.fromkeys(block.vectors(), pairs.values))

    def and_rescuers(self, others: Pairs, d_others: Float[Tensor, " M"]) -> "_Entries":
        """Those of both. The others' gradient reaches b_enc, as through a plain ReLU."""
        starts, (own_places, other_places) = places_side_by_side([self.pairs, others])

        def together(first: Tensor, second: Tensor) -> Tensor:
            both = torch.empty_like(torch.cat([first, second]))
            both[own_places], both[other_places] = first, second
            return both

        nothing = torch.zeros_like(d_others)
        vectors = {
            name: together(each, d_others if name == "b_enc" else nothing) for name, each in self.d_vectors.items()
        }
        latents, values = together(self.pairs.latents, others.latents), together(self.pairs.values, others.values)
        pairs = Pairs(starts, latents, values)  # a row's latents do not ascend: the dead ones stand last
        return _Entries(pairs, together(self.values, others.values), together(self.d_product, d_others), vectors)

    def and_row(self, latents: Int[Tensor, " M"], d_each: Float[Tensor, " M"], more: dict[str, Tensor]) -> "_Entries":
        """With one row after the last: pairs that are not active, with a gradient of the product and of some vectors."""
        pairs, nothing = self.pairs, torch.zeros_like(d_each)
        starts = torch.cat([pairs.row_starts, pairs.row_starts[-1:] + len(latents)])
        latents = torch.cat([pairs.latents, latents.to(pairs.latents.dtype)])
        return _Entries(
            Pairs(starts, latents, torch.cat([pairs.values, nothing])),
            torch.cat([self.values, nothing]),
            torch.cat([self.d_product, d_each]),
            {name: torch.cat([each, more.get(name, nothing)]) for name, each in self.d_vectors.items()},
        )

    def moving(self, nonlinearity: Nonlinearity) -> Bool[Tensor, " N"] | None:
        """Those that move the matrices; None: all. Those of jumprelu below their threshold move that alone."""
        return (self.values != 0) | (self.d_product != 0) if isinstance(nonlinearity, JumpReLU) else None

    def sums(self, n_latents: int, kernels: ModuleType) -> dict[str, Float[Tensor, " L"]]:
        """Over rows: of each vector's gradients, and of the product's."""
        of_each = {_PRODUCT: self.d_product} | self.d_vectors
        distinct = list({id(each): each for each in of_each.values()}.values())
        found = kernels.sums_by_latent(self.pairs, distinct, n_latents)
        return {name: found[[each is one for one in distinct].index(True)] for name, each in of_each.items()}

    def of_all_rows(self, axis: Axis) -> "_Entries":
        """Those of all data ranks, in the order of rows."""
        if axis.size == 1:
            return self
        return _Entries(
            pairs_of_all(self.pairs, axis),
            joined(axis, self.values),
            joined(axis, self.d_product),
            {name: joined(axis, each) for name, each in self.d_vectors.items()},
        )


class BlockStep:
    """The gradients of one block. In a class because the parts share the batch, not because they keep anything."""

    def __init__(
        self, shared: Shared, block: Block, active: Active | Crowd, dead: Int[Tensor, " dead"], rescuers: Pairs
    ) -> None:
        self._shared, self._block, self._active, self._dead, self._rescuers = shared, block, active, dead, rescuers
        self._settings, self._kernels, self._nonlinearity = (
            shared.settings, shared.kernels, shared.settings.nonlinearity
        )  # fmt: skip

    def run(self) -> BlockGradient:
        """Its share of the gradient, and what it costs."""
        shared, block, active = self._shared, self._block, self._active
        n_latents, axis = len(block.b_enc), shared.mesh.data
        sources = shared.sources.part(lambda whole: columns_written(whole, block))
        read = shared.read.part(lambda whole: columns_read(whole, block))
        source_of = torch.zeros(n_latents, dtype=torch.uint8, device=block.b_enc.device)
        for number, (first, last) in enumerate(pairwise(shared.cuts)):
            source_of[first:last] = number
        in_tiles = None
        if isinstance(active, Crowd):  # what follows is then of dead latents alone
            in_tiles = self._in_tiles(active, read.own, sources.own)
            sparsity, entries = in_tiles[2], _Entries.none(block, read.own)
        else:
            sparsity, entries = self._in_pairs(active, sources.own, source_of)
        if shared.surprise is not None:
            surprise = shared.surprise.part(lambda whole: columns_written(whole, block))
            source_of[self._dead] = len(sources.own)
            own = torch.cat([sources.own, surprise.own])
            sources = OfRows(own, own if axis.size == 1 else torch.cat([sources.everyone, surprise.everyone]))
            entries = entries.and_rescuers(
                self._rescuers, self._kernels.dots(self._rescuers, own, source_of, block.W_dec)
            )
        entries = entries.of_all_rows(axis)
        rows, reaches, pre_act = read.everyone, sources.everyone, 0.0
        if self._settings.pre_act_weight and len(self._dead):
            pre_act, entries, rows = self._pull_up(entries, rows)
            reaches = torch.cat([reaches, torch.zeros_like(reaches[:, :1])], dim=1)
        vectors = entries.sums(n_latents, self._kernels)
        product_sums, pull = vectors.pop(_PRODUCT), vectors.pop(_LENGTH, torch.zeros_like(block.b_enc))
        back = Backward(
            self._kernels.by_latent(entries.pairs, n_latents, entries.moving(self._nonlinearity)),
            entries.d_product, entries.values, rows, reaches, source_of, pull,
            sites=sites_written(shared.sites, block), is_unit=self._settings.decoder == "unit",
        )  # fmt: skip
        if in_tiles is None:
            return BlockGradient(back, product_sums, vectors, sparsity, pre_act)
        whole = tiled.with_pairs(in_tiles[0], back, product_sums, block.W_dec, self._kernels)
        vectors = {name: each + vectors[name] for name, each in in_tiles[1].items()}
        return BlockGradient(whole, whole.product_sums, vectors, sparsity, pre_act)

    def _in_pairs(
        self, active: Active, own: Float[Tensor, "P B E"], source_of: UInt8[Tensor, " L"]
    ) -> tuple[float, _Entries]:
        """The price of what is active; kept pairs with activations, and gradients of products and vectors."""
        block, gate_source = self._block, self._shared.gate_source
        d_values = self._kernels.dots(active.pairs, own, source_of, block.W_dec)
        d_gate = None
        if gate_source is not None:
            d_gate = self._kernels.dots(active.pairs, columns_written(gate_source, block), source_of * 0, block.W_dec)
        penalty, each = self._settings.penalty(), self._each_price()
        total, d_active, of_lengths = 0.0, 0.0, {}
        if penalty is not None:
            lengths = self._lengths[active.latents] if self._settings.decoder == "free" else None
            values = active.pairs.values if isinstance(self._nonlinearity, Gated) else active.values
            found = priced(penalty, values, lengths)
            total = whole_sum(found.total) * each
            if found.d_values is None:
                d_active = each
            elif d_gate is None:
                d_values = d_values + each * found.d_values
            else:  # gated: the penalty counts gates
                d_gate = d_gate + each * found.d_values
            if lengths is not None and found.d_lengths is not None:
                of_lengths = {_LENGTH: each * found.d_lengths}
        pulled = pull_back(
            vectors_at(block, active.latents, self._nonlinearity), active.pairs.values, active.values, active.near,
            self._nonlinearity, d_values, d_active=d_active, d_gate=d_gate,
        )  # fmt: skip
        return total, _Entries(active.pairs, active.values, pulled.d_product, pulled.d_vectors | of_lengths)

    def _in_tiles(
        self, active: Crowd, read: Float[Tensor, "B D"], own: Float[Tensor, "P B E"]
    ) -> tuple[DenseBackward, dict[str, Tensor], float]:
        """Gradients of both matrices and of the vectors, over all rows; the price, of this rank's."""
        block, shared, settings = self._block, self._shared, self._settings
        assert not isinstance(self._nonlinearity, TopK | BatchTopK)
        back, vectors, price = tiled.backward(
            block, read, own, active, self._nonlinearity, shared.cuts,
            gate_source=None if shared.gate_source is None else columns_written(shared.gate_source, block)[0],
            penalty=settings.penalty(), each=self._each_price(),
            lengths=self._lengths if settings.decoder == "free" else None, sites=sites_written(shared.sites, block),
            products=settings.products,
        )  # fmt: skip
        total = shared.mesh.data.total
        back = DenseBackward(total(back.d_enc), total(back.d_dec), total(back.product_sums), back.is_unit)
        return back, {name: total(each) for name, each in vectors.items()}, price

    def _each_price(self) -> float:
        """What a penalty of one costs the loss, for one latent at one row."""
        penalty = self._settings.penalty()
        return 0.0 if penalty is None else penalty.weight * self._shared.warmth * self._shared.share

    @cached_property
    def _lengths(self) -> Float[Tensor, " L"]:
        """Of each decoder row: the sum of its lengths at the sites it writes."""
        bounds = sites_written(self._shared.sites, self._block)
        parts = [self._block.W_dec[:, low:high].norm(dim=1) for low, high in pairwise(bounds)]
        return torch.stack(parts).sum(0)

    def _pull_up(self, entries: _Entries, read: Float[Tensor, "B D"]) -> tuple[float, _Entries, Tensor]:
        """Dead latents are pulled up: weight * sum over rows of (threshold - pre) * length of the decoder row.

        They are silent in all rows, so the gradient of each row is the same: one more row, the mean of all, carries it.
        Source: Conerly et al., Circuits Updates January 2025 (there for all latents; SAELens, too, for dead ones only).
        """
        block, dead = self._block, self._dead
        n_rows = len(read)
        price = self._settings.pre_act_weight * self._shared.share
        lengths = self._lengths[dead] if self._settings.decoder == "free" else torch.ones_like(block.b_enc[dead])
        mean = read.mean(0, keepdim=True)
        threshold = block.log_threshold[dead].exp() if block.log_threshold is not None else torch.zeros_like(lengths)
        below = threshold - (mean @ block.W_enc[dead].T)[0] - block.b_enc[dead]
        loss = whole_sum(below * lengths) * price * n_rows
        pull = -price * n_rows * lengths
        entries = entries.and_row(dead, pull, {"b_enc": pull, "log_threshold": -pull * threshold})
        return loss, entries, torch.cat([read, mean])


def columns_read(rows: Float[Tensor, "B D"], block: Block) -> Float[Tensor, "B own"]:
    """The columns of rows that a block reads."""
    return rows[:, block.reads].contiguous()


def columns_written(sources: Float[Tensor, "S B E"], block: Block) -> Float[Tensor, "S B own"]:
    """The columns of gradients that a block writes to."""
    return sources[:, :, block.writes].contiguous()


def sites_written(sites: Sites, block: Block) -> tuple[int, ...]:
    """Where the sites begin among the columns a block writes, and its width."""
    start, stop = block.writes.start, block.writes.stop
    return tuple(bound - start for bound in sites.bounds if start <= bound <= stop)


def no_pairs(rows: Tensor) -> Pairs:
    """Of so many rows, none."""
    return Pairs(
        torch.zeros(len(rows) + 1, dtype=torch.int64, device=rows.device),
        torch.zeros(0, dtype=torch.int32, device=rows.device),
        rows.new_zeros(0),
    )
