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

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from types import ModuleType

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mohole.config import BatchTopK, Gated, TopK, Train
from mohole.kernels.choice import kernels_for
from mohole.kernels.dense import DenseBackward
from mohole.kernels.pairs import Backward, Pairs, TooManyError, side_by_side
from mohole.train import tiled
from mohole.train.activation import Active, activate, gathered, pull_back
from mohole.train.price import priced
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
    """The loss and its gradient for one kind of dictionary. Holds memory, no state: calls do not affect each other."""

    def __init__(self, settings: Train, writes: Sites, device: torch.device | None = None) -> None:
        self._settings, self._writes, self._nonlinearity = settings, writes, settings.nonlinearity
        self._kernels: ModuleType = kernels_for(device or torch.device("cpu"))
        self._scratch = self._kernels.Scratch()

    def forward(self, weights: Weights, batch: Batch) -> tuple[Active | Crowd, ...]:
        """The codes of a batch."""
        read = batch.rows - weights.b_dec if weights.is_tied else batch.rows
        return tuple(self._encode(block, _columns(read, block.reads)) for block in weights.blocks)

    def _encode(self, block: Block, read: Float[Tensor, "B D"]) -> Active | Crowd:
        """In pairs, or in tiles where more than `DENSE_SHARE` of them are kept. The guess only says what is tried first."""
        if isinstance(self._nonlinearity, TopK | BatchTopK):
            return activate(block, read, self._nonlinearity, self._kernels, self._scratch)
        most = int(DENSE_SHARE * len(read) * len(block.b_enc))
        cuts = prefix_cuts(self._settings)
        if not tiled.looks_dense(block, read, self._nonlinearity, DENSE_SHARE):
            try:
                return activate(block, read, self._nonlinearity, self._kernels, self._scratch, most)
            except TooManyError:
                return tiled.forward(block, read, self._nonlinearity, cuts)
        crowd = tiled.forward(block, read, self._nonlinearity, cuts)
        if crowd.n_kept > most:
            return crowd
        return activate(block, read, self._nonlinearity, self._kernels, self._scratch)

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
        self._settings, self._nonlinearity = objective._settings, objective._nonlinearity
        self._sites, self._kernels, self._scratch = objective._writes, objective._kernels, objective._scratch
        self._weights, self._batch, self._active, self._dead = weights, batch, active, dead
        self._warmth = warmth
        self.gate_source: Float[Tensor, "1 B E"] | None = None
        """Gated: gradient of the reconstruction from gates alone."""
        self._read = batch.rows - weights.b_dec if weights.is_tied else batch.rows
        n_rows, width = batch.targets.shape
        self._share = 1.0 / (n_rows * width)
        """Of one squared number in a mean over rows and dimensions."""

    def outcome(self) -> Outcome:
        weights, batch = self._weights, self._batch
        errors = self._errors()
        reconstruction = sum(_total(error.square()) for error in errors) * self._share / len(errors)
        # A prefix's error moves the latents of that prefix and of all smaller ones: sources[p] = sum of those from p on.
        per_prefix = torch.stack(errors).mul_(2.0 * self._share / len(errors))
        sources = per_prefix.flip(0).cumsum(0).flip(0).contiguous() if len(errors) > 1 else per_prefix
        d_b_dec = self._kernels.weighted_sum(torch.ones(len(batch.rows), dtype=batch.rows.dtype), sources[0])
        d_skip = None if weights.W_skip is None else _product(sources[0].T, batch.rows)
        surprise, auxk = self._auxk(errors[-1])
        sparsity = pre_act = 0.0
        gate = self._gates()
        backward, vectors = [], []
        for number, block in enumerate(weights.blocks):
            step = _BlockStep(self, block, self._active[number], self._dead[number])
            back, found, prices = step.run(sources, surprise, None if surprise is None else self._rescuers[number])
            backward.append(back)
            vectors.append(found)
            sparsity, pre_act = sparsity + prices[0], pre_act + prices[1]
            if weights.is_tied:  # b_dec moves the output, and every reading the other way
                d_b_dec = d_b_dec.clone()
                d_b_dec[block.reads] -= self._kernels.weighted_sum(back.pre_sums(), block.W_enc)
        terms = Terms(reconstruction, sparsity, auxk, pre_act, gate)
        return Outcome(terms, errors[-1], self._active, tuple(backward), tuple(vectors), d_b_dec, d_skip)

    def _errors(self) -> list[Float[Tensor, "B E"]]:
        """Reconstruction minus targets, with each prefix of the latents and with all."""
        weights, targets = self._weights, self._batch.targets
        out = weights.b_dec - targets
        if weights.W_skip is not None:
            out += self._batch.rows @ weights.W_skip.T
        errors = []
        for number, (first, last) in enumerate(self.groups):
            for block, active in zip(weights.blocks, self._active, strict=True):
                if isinstance(active, Crowd):
                    out[:, block.writes] += active.decoded[number]
                    continue
                pairs, values = active.pairs, active.values
                if len(self.groups) > 1:
                    here = (pairs.latents >= first) & (pairs.latents < last)
                    pairs, values = pairs.where(here), values[here]
                _add(self._kernels, pairs, values, block, out)
            errors.append(out if last == self.groups[-1][1] else out.clone())
        return errors

    @cached_property
    def groups(self) -> list[tuple[int, int]]:
        """Ranges of latents that a prefix adds to the one before."""
        return list(pairwise(prefix_cuts(self._settings)))

    def _auxk(self, error: Float[Tensor, "B E"]) -> tuple[Float[Tensor, "B E"] | None, float]:
        """Gradient at the reconstruction by dead latents, and the weighted loss; nothing where none is dead.

            e = y - y^ (held fixed)    e^ = top-k of the dead latents, decoded    loss = |e - e^|^2 / |e - mean(e)|^2

        Source: Gao et al. 2024 (arXiv 2406.04093), appendix A.2. They drop it, too, where there is nothing to explain (0 / 0).
        """
        settings = self._settings
        if settings.auxk == 0 or settings.auxk_weight == 0 or not any(len(dead) for dead in self._dead):
            return None, 0.0
        if not any(
            len(pairs.values) for pairs in self._rescuers
        ):  # dead latents that read nothing positive can explain nothing
            return None, 0.0
        surprise = error.clone()
        for block, pairs in zip(self._weights.blocks, self._rescuers, strict=True):
            _add(self._kernels, pairs, pairs.values, block, surprise)
        spread = _total((error - error.mean(0)).square())
        if spread == 0.0:
            return None, 0.0
        loss = settings.auxk_weight * _total(surprise.square()) / spread
        return surprise.mul_(2.0 * settings.auxk_weight / spread), loss

    def _gates(self) -> float:
        """Gated: how well the gates' own readings reconstruct, with decoder and b_dec held fixed. Leaves `gate_source`."""
        if not isinstance(self._nonlinearity, Gated):
            return 0.0
        out = self._weights.b_dec - self._batch.targets
        if self._weights.W_skip is not None:
            out += self._batch.rows @ self._weights.W_skip.T
        for block, active in zip(self._weights.blocks, self._active, strict=True):
            if isinstance(active, Crowd):
                assert active.gates is not None
                out[:, block.writes] += active.gates
            else:
                _add(self._kernels, active.pairs, active.pairs.values, block, out)
        loss = _total(out.square()) * self._share
        self.gate_source = out.mul_(2.0 * self._share)[None]
        return loss

    @cached_property
    def _rescuers(self) -> list[Pairs]:
        """Each row's strongest dead latents."""
        found = []
        for block, dead in zip(self._weights.blocks, self._dead, strict=True):
            if len(dead) == 0:
                found.append(_nothing(self._batch.rows))
                continue
            k = min(self._settings.auxk, len(dead))
            pairs = self._kernels.top_k(_columns(self._read, block.reads), block.W_enc[dead], block.b_enc[dead], k)
            found.append(pairs.numbered(dead))
        return found


@dataclass(frozen=True)
class _Price:
    """What the active latents of a batch cost, weights included."""

    total: float = 0.0
    d_values: Float[Tensor, " N"] | float | None = None
    """Gradient of each activation; of each gate's reading, where latents are gated."""
    d_active: float = 0.0
    """What being active costs, whatever the value."""
    d_lengths: Float[Tensor, " L"] | None = None
    """Gradient of each decoder row's length."""


class _BlockStep:
    """The gradients of one block."""

    def __init__(self, step: _Step, block: Block, active: Active | Crowd, dead: Int[Tensor, " dead"]) -> None:
        self._step, self._block, self._active, self._dead = step, block, active, dead
        self._settings, self._kernels = step._settings, step._kernels
        self._nonlinearity = step._nonlinearity

    def run(
        self, sources: Float[Tensor, "P B E"], surprise: Float[Tensor, "B E"] | None, rescuers: Pairs | None
    ) -> tuple[Backward | DenseBackward, dict[str, Float[Tensor, " L"]], tuple[float, float]]:
        """Its share of the gradient, and the weighted prices of sparsity and of dead latents' silence."""
        block, active, step = self._block, self._active, self._step
        n_latents = len(block.b_enc)
        own = _writes(sources, block)
        source_of = torch.zeros(n_latents, dtype=torch.uint8)
        for number, (first, last) in enumerate(step.groups):
            source_of[first:last] = number
        read = _columns(step._read, block.reads)
        in_tiles = None
        if isinstance(active, Crowd):  # what follows is then of dead latents alone
            in_tiles = self._in_tiles(read, own)
            price, (pairs, values, d_product, d_vectors) = _Price(in_tiles[2]), _no_entries(block, read)
        else:
            price, (pairs, values, d_product, d_vectors) = self._in_pairs(active, own, source_of)
        if surprise is not None and rescuers is not None and len(rescuers.values):
            own = torch.cat([own, _writes(surprise[None], block)])
            source_of[self._dead] = len(own) - 1
            d_rescue = self._kernels.dots(rescuers, own, source_of, block.W_dec)
            pairs, values, d_product, d_vectors = _joined(
                pairs, rescuers, values, rescuers.values, d_product, d_rescue, d_vectors
            )
        pre_act = 0.0
        if self._settings.pre_act_weight and len(self._dead):
            pre_act, pairs, values, d_product, d_vectors, read, own = self._pull_up(
                pairs, values, d_product, d_vectors, read, own
            )
        by_latent = self._kernels.by_latent(pairs, n_latents)
        d_length = torch.zeros_like(block.b_enc) if price.d_lengths is None else price.d_lengths.to(block.b_enc.dtype)
        back = Backward(
            by_latent, d_product, values, read, own, source_of, d_length,
            sites=_sites(step._sites, block), is_unit=self._settings.decoder == "unit",
        )  # fmt: skip
        vectors = {name: by_latent.sums(each) for name, each in d_vectors.items()}
        if in_tiles is not None:
            whole = tiled.with_pairs(in_tiles[0], back, block.W_dec, self._kernels)
            return whole, {name: each + vectors[name] for name, each in in_tiles[1].items()}, (price.total, pre_act)
        return back, vectors, (price.total, pre_act)

    def _in_pairs(
        self, active: Active, own: Float[Tensor, "P B E"], source_of: Tensor
    ) -> tuple["_Price", tuple[Pairs, Tensor, Tensor, dict[str, Tensor]]]:
        """The price of what is active, and the kept pairs with activations, and gradients of products and vectors."""
        block, step = self._block, self._step
        d_values = self._kernels.dots(active.pairs, own, source_of, block.W_dec)
        price = self._price(active)
        d_gate = None
        if step.gate_source is not None:
            d_gate = self._kernels.dots(active.pairs, _writes(step.gate_source, block), source_of * 0, block.W_dec)
        if price.d_values is not None:  # gated: the penalty counts gates
            d_values, d_gate = (
                (d_values + price.d_values, d_gate) if d_gate is None else (d_values, d_gate + price.d_values)
            )
        pulled = pull_back(
            gathered(block, active.latents), active.pairs.values, active.values, active.near, self._nonlinearity,
            d_values, d_active=price.d_active, d_gate=d_gate,
        )  # fmt: skip
        return price, (active.pairs, active.values, pulled.d_product, pulled.d_vectors)

    def _in_tiles(
        self, read: Float[Tensor, "B D"], own: Float[Tensor, "P B E"]
    ) -> tuple[DenseBackward, dict[str, Tensor], float]:
        block, step, settings = self._block, self._step, self._settings
        assert not isinstance(self._nonlinearity, TopK | BatchTopK)
        return tiled.backward(
            block, read, own, self._nonlinearity, prefix_cuts(settings),
            gate_source=None if step.gate_source is None else _writes(step.gate_source, block)[0],
            penalty=settings.penalty(), each=self._each_price(),
            lengths=self._lengths if settings.decoder == "free" else None, sites=_sites(step._sites, block),
        )  # fmt: skip

    def _each_price(self) -> float:
        """What a penalty of one costs the loss, for one latent at one row."""
        penalty = self._settings.penalty()
        return 0.0 if penalty is None else penalty.weight * self._step._warmth * self._step._share

    def _price(self, active: Active) -> "_Price":
        """The penalty of this block's activations, with its gradients."""
        penalty, each = self._settings.penalty(), self._each_price()
        if penalty is None:
            return _Price()
        lengths = self._lengths[active.latents] if self._settings.decoder == "free" else None
        values = active.pairs.values if isinstance(self._nonlinearity, Gated) else active.values
        found = priced(penalty, values, lengths)
        total = float(found.total.double().sum()) * each
        if found.d_values is None:
            return _Price(total, d_active=each)
        sums = None
        if lengths is not None and found.d_lengths is not None:
            sums = torch.bincount(active.latents, weights=each * found.d_lengths, minlength=len(self._block.b_enc))
        return _Price(total, each * found.d_values, d_lengths=sums)

    @cached_property
    def _lengths(self) -> Float[Tensor, " L"]:
        """Of each decoder row: the sum of its lengths at the sites it writes."""
        bounds = _sites(self._step._sites, self._block)
        parts = [self._block.W_dec[:, low:high].norm(dim=1) for low, high in pairwise(bounds)]
        return torch.stack(parts).sum(0)

    def _pull_up(
        self, pairs: Pairs, values: Tensor, d_product: Tensor, d_vectors: dict[str, Tensor], read: Tensor, own: Tensor
    ) -> tuple[float, Pairs, Tensor, Tensor, dict[str, Tensor], Tensor, Tensor]:
        """Dead latents are pulled up: weight * sum over rows of (threshold - pre) * length of the decoder row.

        They are silent in all rows, so the gradient of each row is the same: one more row, the mean of all, carries it.
        Source: Conerly et al., Circuits Updates January 2025 (there for all latents; SAELens, too, for dead ones only).
        """
        block, dead = self._block, self._dead
        n_rows = len(read)
        price = self._settings.pre_act_weight * self._step._share
        lengths = self._lengths[dead] if self._settings.decoder == "free" else torch.ones(len(dead), dtype=read.dtype)
        mean = read.mean(0, keepdim=True)
        threshold = block.log_threshold[dead].exp() if block.log_threshold is not None else torch.zeros_like(lengths)
        below = threshold - (mean @ block.W_enc[dead].T)[0] - block.b_enc[dead]
        loss = float((below * lengths).double().sum()) * price * n_rows
        more = -price * n_rows * lengths
        starts = torch.cat([pairs.row_starts, pairs.row_starts[-1:] + len(dead)])
        nothing = torch.zeros_like(more)
        pairs = Pairs(
            starts, torch.cat([pairs.latents, dead.to(pairs.latents.dtype)]), torch.cat([pairs.values, nothing])
        )
        extra = {name: more if name == "b_enc" else nothing for name in d_vectors}
        if "log_threshold" in extra:
            extra["log_threshold"] = -more * threshold
        grown = {name: torch.cat([each, extra[name]]) for name, each in d_vectors.items()}
        own = torch.cat([own, torch.zeros_like(own[:, :1])], dim=1)
        return (
            loss,
            pairs,
            torch.cat([values, nothing]),
            torch.cat([d_product, more]),
            grown,
            torch.cat([read, mean]),
            own,
        )


def _joined(
    pairs: Pairs,
    others: Pairs,
    values: Tensor,
    other_values: Tensor,
    d_product: Tensor,
    d_other: Tensor,
    d_vectors: dict[str, Tensor],
) -> tuple[Pairs, Tensor, Tensor, dict[str, Tensor]]:
    """Pairs of both, with what belongs to each. The others' gradient reaches b_enc, as through a plain ReLU."""
    n, n_others = len(pairs.latents), len(others.latents)
    numbers = [torch.arange(n, dtype=torch.float64), torch.arange(n, n + n_others, dtype=torch.float64)]
    both = side_by_side([replace(pairs, values=numbers[0]), replace(others, values=numbers[1])])
    order = both.values.long()

    def together(first: Tensor, second: Tensor) -> Tensor:
        return torch.cat([first, second])[order]

    found = {
        name: together(each, d_other if name == "b_enc" else torch.zeros_like(d_other))
        for name, each in d_vectors.items()
    }
    joined = Pairs(both.row_starts, both.latents, together(pairs.values, others.values))
    return joined, together(values, other_values), together(d_product, d_other), found


def _add(kernels: ModuleType, pairs: Pairs, values: Tensor, block: Block, out: Float[Tensor, "B E"]) -> None:
    """Add what a block decodes to its columns of `out`."""
    if block.writes == slice(0, out.shape[1]):
        kernels.decode(pairs, values, block.W_dec, out)
    else:
        own = torch.zeros(len(out), block.W_dec.shape[1], dtype=out.dtype)
        out[:, block.writes] += kernels.decode(pairs, values, block.W_dec, own)


def prefix_cuts(settings: Train) -> tuple[int, ...]:
    """Where the latents begin that a prefix adds to the one before, and their number."""
    return (0, *settings.prefixes, settings.n_latents)


def _no_entries(block: Block, read: Tensor) -> tuple[Pairs, Tensor, Tensor, dict[str, Tensor]]:
    pairs = _nothing(read)
    return pairs, pairs.values, pairs.values, dict.fromkeys(block.vectors(), pairs.values)


def _columns(rows: Float[Tensor, "B D"], columns: slice) -> Float[Tensor, "B own"]:
    return rows[:, columns].contiguous()


def _writes(sources: Float[Tensor, "S B E"], block: Block) -> Float[Tensor, "S B own"]:
    return sources[:, :, block.writes].contiguous()


def _sites(sites: Sites, block: Block) -> tuple[int, ...]:
    """Where the sites begin among the columns a block writes, and its width."""
    start, stop = block.writes.start, block.writes.stop
    return tuple(bound - start for bound in sites.bounds if start <= bound <= stop)


def _nothing(rows: Tensor) -> Pairs:
    return Pairs(
        torch.zeros(len(rows) + 1, dtype=torch.int64),
        torch.zeros(0, dtype=torch.int32),
        torch.zeros(0, dtype=rows.dtype),
    )


def _total(squares: Tensor) -> float:
    """Sum in double, rows first and the last one by numpy, in an order that does not depend on the number of threads."""
    return float(squares.sum(1).double().cpu().numpy().sum())


def _product(left: Float[Tensor, "E B"], right: Float[Tensor, "B D"]) -> Float[Tensor, "E D"]:
    """left @ right on one thread: a sum over rows that threads share is another sum."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return left @ right
    finally:
        torch.set_num_threads(n_threads)


class Silence:
    """For how many rows each latent has been silent, counted over all rows of training."""

    def __init__(self, n_latents: int, dead_after_rows: int) -> None:
        self.rows: Int[Tensor, " latent"] = torch.zeros(n_latents, dtype=torch.int64)
        self._dead_after_rows = dead_after_rows

    def update(self, fired: Bool[Tensor, " latent"], n_rows: int) -> None:
        self.rows += n_rows
        self.rows[fired] = 0

    def dead(self) -> Int[Tensor, " dead"]:
        """Latents that have been silent for too long, ascending."""
        return (self.rows >= self._dead_after_rows).nonzero()[:, 0]


def fired(active: Active | Crowd, n_latents: int) -> Bool[Tensor, " latent"]:
    """Which latents were active in at least one row."""
    if isinstance(active, Crowd):
        return active.totals(n_latents).n_active > 0
    found = torch.zeros(n_latents, dtype=torch.bool)
    found[active.latents[active.values > 0]] = True
    return found
