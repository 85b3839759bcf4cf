"""What is minimised, and its gradient: squared error, the price of sparsity, and what brings dead latents back.

    loss =   mean over prefixes, rows and dimensions of (y^ - y)^2
           + (weight * penalty of the activations, mean over rows) / d
           + auxk_weight * |e - e^|^2 / |e - mean(e)|^2
           + (pre_act_weight * how far dead latents lie below their threshold, mean over rows) / d
           + gated: mean over rows and dimensions of (y^ from the gates alone - y)^2, the decoder held fixed

In training units the first term is about 1 for a reconstruction by the mean, whatever the batch. The gradient is written out,
not left to autograd: only kept (row, latent) pairs contribute, so a step costs one product of rows and encoder
(field practice is four to twenty). It is tested against autograd of `kernels.reference`, for every variant.

Where thresholds let more than `DENSE_SHARE` of a block's latents through, pairs would cost more than products of everything:
that block's batch is then computed in tiles (`mohole.train.tiled`). The exact number of kept pairs decides, in every batch anew.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from types import ModuleType

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mohole.config import BatchTopK, Gated, TopK, Train
from mohole.device import busy_seconds, machine_name
from mohole.kernels.choice import kernels_for, screen_for
from mohole.kernels.dense import DenseBackward, Lender, gradients_of_tile
from mohole.kernels.pairs import Backward, Pairs, TooManyError
from mohole.kernels.tuning import cache_file, fastest, kernel_versions
from mohole.parallel import ALONE, Axis, Mesh, joined, total_of
from mohole.train import tiled
from mohole.train.activation import Active, activate
from mohole.train.block_step import BlockStep, OfRows, Shared, columns_read, no_pairs
from mohole.train.products import multiplied
from mohole.train.spread import strongest_of_rows
from mohole.train.sums import whole_sum
from mohole.train.tiled import Crowd
from mohole.train.weights import Block, Sites, Weights

DENSE_SHARE = 0.07
"""Of all latents. Pairs cost 5 products at 503 of 8192 active (6 %) and 9 at 1007, tiles cost 6 whatever is active."""


@dataclass(frozen=True)
class Batch:
    """Rows of a step, in training units. An autoencoder's targets are its rows."""

    rows: Float[Tensor, "B D"]
    targets: Float[Tensor, "B E"]


@dataclass(frozen=True)
class Terms:
    """The parts of the loss, each with its weight in it."""

    reconstruction: float
    sparsity: float
    auxk: float
    pre_act: float
    gate: float

    @property
    def total(self) -> float:
        return self.reconstruction + self.sparsity + self.auxk + self.pre_act + self.gate


@dataclass(frozen=True)
class Outcome:
    """What a batch says: losses, and gradients of their sum. Those of the two matrices may still be kept pairs (`Backward`)."""

    terms: Terms
    error: Float[Tensor, "B E"]
    """Reconstruction minus targets."""
    active: tuple[Active | Crowd, ...]
    backward: tuple[Backward | DenseBackward, ...]
    vectors: tuple[dict[str, Float[Tensor, " L"]], ...]
    """Gradients of each block's vectors."""
    d_b_dec: Float[Tensor, " E"]
    d_skip: Float[Tensor, "E D"] | None


class Objective:
    """The loss and its gradient for one kind of dictionary. Holds memory, no state: calls do not affect each other.

    Ranks of a mesh call it together. Each has the whole objective for its own rows and latents; losses and gradients that it
    returns are those of all rows, for its own latents and for what all latents share.
    """

    def __init__(self, settings: Train, writes: Sites, device: torch.device, mesh: Mesh | None = None) -> None:
        self.settings, self.writes, self.mesh = settings, writes, mesh or Mesh()
        self.kernels: ModuleType = kernels_for(device)
        self._scratch, self._lender = self.kernels.Scratch(), Lender()
        self.screen = screen_for(device) if settings.screening else None
        own = self.mesh.own_latents(settings.n_latents)
        bounds = (0, *settings.prefixes, settings.n_latents)
        self.cuts = tuple(min(max(bound - own.start, 0), len(own)) for bound in bounds)
        """Where among this rank's latents those begin that a prefix adds to the one before, and their number."""

    def forward(self, weights: Weights, batch: Batch) -> tuple[Active | Crowd, ...]:
        """The codes of a batch: of this rank's rows and latents."""
        read = batch.rows - weights.b_dec if weights.is_tied else batch.rows
        return tuple(self._encode(block, columns_read(read, block)) for block in weights.blocks)

    def tune(self, weights: Weights, rows: Float[Tensor, "B D"]) -> str:
        """Encode in the tile that is fastest here for such rows, in training units, and the first block; says which. Not in tiles
        of a dense start, which are torch's."""
        block, settings, device = weights.blocks[0], self.settings, rows.device
        read = columns_read(rows - weights.b_dec if weights.is_tied else rows, block)
        near, W_enc = multiplied(read, block.W_enc, settings.products, self.kernels)
        own, screens = block.of({"W_enc": W_enc}), self.screen is not None
        tiles = self.kernels.tiles(torch.float16 if screens else near.dtype, device)
        if not tiles or (screens and device.type == "cpu"):
            return "tile: nothing to choose here"

        def encode(tile: object) -> Pairs:
            scratch, screen = self.kernels.Scratch(tile), screen_for(device) if screens else None
            return activate(own, near, settings.nonlinearity, self.kernels, scratch, Mesh(), screen=screen).pairs

        key = {
            "encoding": settings.nonlinearity.model_dump(), "screening": screens, "numbers": str(near.dtype),
            "rows": len(near), "latents": len(W_enc), "width": near.shape[1], "machine": machine_name(device),
            "versions": kernel_versions(),
        }  # fmt: skip
        chosen, line = fastest(encode, tiles, key, lambda: busy_seconds(device), cache_file())
        self._scratch = self.kernels.Scratch(chosen)
        return line

    def _encode(self, block: Block, read: Float[Tensor, "B D"]) -> Active | Crowd:
        """In pairs, or in tiles where more than `DENSE_SHARE` of them are kept. The guess only says what is tried first.

        Data ranks decide together, by the number of pairs of all rows: their gradients are added up.
        """
        nonlinearity, mesh, kernels, scratch = self.settings.nonlinearity, self.mesh, self.kernels, self._scratch
        products = self.settings.products
        near, W_enc = multiplied(read, block.W_enc, products, kernels)
        own = block.of({"W_enc": W_enc})
        if isinstance(nonlinearity, TopK | BatchTopK):
            return activate(own, near, nonlinearity, kernels, scratch, mesh, screen=self.screen)
        most = int(DENSE_SHARE * len(read) * mesh.data.size * len(block.b_enc))
        found: Active | Crowd | None = None
        if tiled.looks_dense(block, read, nonlinearity, DENSE_SHARE):
            found = tiled.forward(block, read, nonlinearity, self.cuts, products, self._lender)
            n_kept = found.n_kept
        else:
            try:
                found = activate(own, near, nonlinearity, kernels, scratch, mesh, most, self.screen)
                n_kept = len(found.values)
            except TooManyError:
                n_kept = most + 1
        if total_of(n_kept, mesh.data) > most:
            if isinstance(found, Crowd):
                return found
            return tiled.forward(block, read, nonlinearity, self.cuts, products, self._lender)
        if isinstance(found, Active):
            return found
        return activate(own, near, nonlinearity, kernels, scratch, mesh, screen=self.screen)

    def __call__(
        self,
        weights: Weights,
        batch: Batch,
        active: tuple[Active | Crowd, ...],
        dead: tuple[Int[Tensor, " _"], ...],
        *,
        warmth: float = 1.0,
    ) -> Outcome:
        """Loss and gradient of a batch whose codes are `active`.

        Args:
            dead: latents of each block that AuxK may use and `pre_act_weight` pulls at; they must be silent in this batch.
            warmth: share of the sparsity penalty that is in force (its warm-up).
        """
        return _Step(self, weights, batch, active, dead, warmth).outcome()


class _Step:
    """One batch through the objective. In a class because the parts share the batch, not because they keep anything."""

    def __init__(
        self, objective: Objective, weights: Weights, batch: Batch, active: tuple[Active | Crowd, ...],
        dead: tuple[Int[Tensor, " _"], ...], warmth: float,
    ) -> None:  # fmt: skip
        self._objective, self._settings, self._mesh = objective, objective.settings, objective.mesh
        self._weights, self._batch, self._active, self._dead = weights, batch, active, dead
        self._kernels = objective.kernels
        self._groups = list(pairwise(objective.cuts))
        self._warmth = warmth
        self._read = batch.rows - weights.b_dec if weights.is_tied else batch.rows
        n_rows, width = batch.targets.shape
        self._share = 1.0 / (n_rows * objective.mesh.data.size * width)
        """Of one squared number in a mean over all ranks' rows and dimensions."""

    def outcome(self) -> Outcome:
        weights, latent, data = self._weights, self._mesh.latent, self._mesh.data
        errors = self._errors()
        reconstruction = sum(_total(error.square(), data) for error in errors) * self._share / len(errors)
        # A prefix's error moves the latents of that prefix and of all smaller ones: sources[p] = sum of those from p on.
        per_prefix = torch.stack(errors).mul_(2.0 * self._share / len(errors))
        sources = per_prefix.flip(0).cumsum(0).flip(0).contiguous() if len(errors) > 1 else per_prefix
        surprise, auxk = self._auxk(errors[-1])
        gate_source, gate = self._gates()
        shared = Shared(
            settings=self._settings, kernels=self._kernels, mesh=self._mesh, sites=self._objective.writes,
            cuts=self._objective.cuts, warmth=self._warmth, share=self._share,
            read=OfRows.of(self._read, data, 0), sources=OfRows.of(sources, data, 1),
            surprise=None if surprise is None else OfRows.of(surprise[None], data, 1), gate_source=gate_source,
        )  # fmt: skip
        reaches = shared.sources.everyone[0]
        d_b_dec = self._kernels.weighted_sum(torch.ones_like(reaches[:, 0]), reaches)
        d_skip = (
            None
            if weights.W_skip is None
            else gradients_of_tile(reaches, shared.read.everyone, torch.empty_like(weights.W_skip))
        )
        sparsity = pre_act = 0.0
        backward, vectors = [], []
        for number, block in enumerate(weights.blocks):
            rescuers = no_pairs(self._read) if surprise is None else self._rescuers[number]
            found = BlockStep(shared, block, self._active[number], self._dead[number], rescuers).run()
            backward.append(found.backward)
            vectors.append(found.vectors)
            sparsity, pre_act = sparsity + found.sparsity, pre_act + found.pre_act
            if weights.is_tied:  # b_dec moves the output, and every reading the other way
                d_b_dec = d_b_dec.clone()
                d_b_dec[block.reads] -= latent.total(self._kernels.weighted_sum(found.product_sums, block.W_enc))
        terms = Terms(reconstruction, total_of(sparsity, latent, data), auxk, total_of(pre_act, latent), gate)
        return Outcome(terms, errors[-1], self._active, tuple(backward), tuple(vectors), d_b_dec, d_skip)

    def _errors(self) -> list[Float[Tensor, "B E"]]:
        """Reconstruction minus targets, with each prefix of the latents and with all."""
        out = self._without_codes()
        errors = []
        for number, (first, last) in enumerate(self._groups):
            for block, active in zip(self._weights.blocks, self._active, strict=True):
                if isinstance(active, Crowd):
                    out[:, block.writes] += active.decoded[number]
                    continue
                pairs, values = active.pairs, active.values
                if len(self._groups) > 1:
                    here = (pairs.latents >= first) & (pairs.latents < last)
                    pairs, values = pairs.where(here), values[here]
                _add(self._kernels, pairs, values, block, out)
            is_last = number + 1 == len(self._groups)
            errors.append(self._mesh.latent.total(out if is_last else out.clone()))
        return errors

    def _without_codes(self) -> Float[Tensor, "B E"]:
        """What all latents are added to: the reconstruction without them, minus targets. The first latent rank has it."""
        weights, batch = self._weights, self._batch
        if self._mesh.latent.rank:
            return torch.zeros_like(batch.targets)
        out = weights.b_dec - batch.targets
        if weights.W_skip is not None:
            out += batch.rows @ weights.W_skip.T
        return out

    def _auxk(self, error: Float[Tensor, "B E"]) -> tuple[Float[Tensor, "B E"] | None, float]:
        """Gradient at the reconstruction by dead latents, and the weighted loss; nothing where none is dead.

            e = y - y^ (held fixed)    e^ = top-k of the dead latents, decoded    loss = |e - e^|^2 / |e - mean(e)|^2

        Source: Gao et al. 2024 (arXiv 2406.04093), appendix A.2. They drop it, too, where there is nothing to explain (0 / 0).
        """
        settings, mesh = self._settings, self._mesh
        if settings.auxk == 0 or settings.auxk_weight == 0 or not any(self._n_dead):
            return None, 0.0
        if total_of(sum(len(pairs.values) for pairs in self._rescuers), mesh.latent, mesh.data) == 0:
            return None, 0.0  # dead latents that read nothing positive can explain nothing
        surprise = torch.zeros_like(error) if mesh.latent.rank else error.clone()
        for block, pairs in zip(self._weights.blocks, self._rescuers, strict=True):
            _add(self._kernels, pairs, pairs.values, block, surprise)
        surprise = mesh.latent.total(surprise)
        everyone = joined(mesh.data, error)
        spread = _total((everyone - everyone.mean(0)).square())
        if spread == 0.0:
            return None, 0.0
        loss = settings.auxk_weight * _total(surprise.square(), mesh.data) / spread
        return surprise.mul_(2.0 * settings.auxk_weight / spread), loss

    @cached_property
    def _n_dead(self) -> list[int]:
        """Of each block, over all ranks."""
        return [int(total_of(len(dead), self._mesh.latent)) for dead in self._dead]

    @cached_property
    def _rescuers(self) -> list[Pairs]:
        """Each row's strongest dead latents."""
        found = []
        for block, dead, n_dead in zip(self._weights.blocks, self._dead, self._n_dead, strict=True):
            if n_dead == 0:
                found.append(no_pairs(self._read))
                continue
            k = min(self._settings.auxk, n_dead)
            pairs = no_pairs(self._read)
            if len(dead):
                read = columns_read(self._read, block)
                operands = multiplied(read, block.W_enc[dead], self._settings.products, self._kernels)
                best = self._kernels.top_k(*operands, block.b_enc[dead], min(k, len(dead)))
                pairs = best.numbered(dead)
            found.append(strongest_of_rows(pairs, k, self._mesh.latent))
        return found

    def _gates(self) -> tuple[Float[Tensor, "1 B E"] | None, float]:
        """Gated: how well the gates' own readings reconstruct, with decoder and b_dec held fixed: gradient and loss."""
        if not isinstance(self._settings.nonlinearity, Gated):
            return None, 0.0
        out = self._without_codes()
        for block, active in zip(self._weights.blocks, self._active, strict=True):
            if isinstance(active, Crowd):
                assert active.gates is not None
                out[:, block.writes] += active.gates
            else:
                _add(self._kernels, active.pairs, active.pairs.values, block, out)
        out = self._mesh.latent.total(out)
        loss = _total(out.square(), self._mesh.data) * self._share
        return out.mul_(2.0 * self._share)[None], loss


def _add(kernels: ModuleType, pairs: Pairs, values: Tensor, block: Block, out: Float[Tensor, "B E"]) -> None:
    """Add what a block decodes to its columns of `out`."""
    if block.writes == slice(0, out.shape[1]):
        kernels.decode(pairs, values, block.W_dec, out)
    else:
        own = out.new_zeros(len(out), block.W_dec.shape[1])
        out[:, block.writes] += kernels.decode(pairs, values, block.W_dec, own)


def _total(squares: Float[Tensor, "B E"], axis: Axis = ALONE) -> float:
    """Sum over all ranks' rows, in double: each row first: neither threads nor ranks matter."""
    return whole_sum(joined(axis, squares.sum(1).double()))
