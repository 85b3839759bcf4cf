"""Dead latents begin anew, at rows that are reconstructed badly, a few of which are kept as training goes on. No loss, no step.

Source: Bricken et al. 2023, "Towards Monosemanticity", appendix "Neuron Resampling": a row is drawn with probability in
proportion to its squared loss; the latent's decoder row becomes the row's direction, its encoder row the same direction at a
fifth of the mean length of living encoder rows, its bias zero, and Adam forgets what it knew of both.

They draw from a subset of rows that is held; here rows pass by. Row i, of weight w = loss^2, gets the time -log(1 - u_i) / w, u_i
uniform by its number in the training: the first of all has been row i with probability w_i / sum w, and so on without
replacement (Efraimidis & Spirakis 2006). So the rows with the least times are all that is kept, and no latent gets another's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mohole import keys
from mohole.config import Train
from mohole.config.train import Resample
from mohole.train.objective import Batch, Silence
from mohole.train.optimiser import Optimiser, RunningMean
from mohole.train.weights import Block, Weights

_SHARE_OF_LENGTH = 0.2


@dataclass(frozen=True)
class When:
    """At which steps (counted from 1) latents begin anew, and which rows are drawn from."""

    resample: Resample
    last: int
    """The last step at which they may: afterwards the rate falls, and they could not learn."""

    @classmethod
    def of(cls, settings: Train) -> "When | None":
        """None: never."""
        return None if settings.resample is None else cls(settings.resample, settings.last_flat_step())

    def resamples(self, step: int) -> bool:
        """Whether dead latents begin anew after this step."""
        return step % self.resample.every == 0 and step <= self.last

    def collects(self, step: int) -> bool:
        """Whether this step's rows are among those that are drawn from."""
        coming = -(-step // self.resample.every) * self.resample.every
        return coming <= self.last and step > coming - self.resample.over_steps


class Candidates:
    """The rows whose turn comes first, of those seen since the last resampling, in training units."""

    def __init__(self, n: int, d_in: int, d_out: int) -> None:
        self.times: Float[Tensor, " n"] = torch.full((n,), torch.inf, dtype=torch.float64)
        """Ascending. Infinite: there is no such row."""
        self.rows: Float[Tensor, "n d_in"] = torch.zeros(n, d_in)
        self.targets: Float[Tensor, "n d_out"] = torch.zeros(n, d_out)

    def add(self, batch: Batch, losses: Float[Tensor, " B"], first: int, *, seed: int) -> None:
        """Take a batch, of rows that are the training's rows number `first` and so on; losses in double."""
        ids = np.arange(first, first + len(losses))
        draws = torch.from_numpy(-np.log1p(-keys.uniform(seed, keys.Use.RESAMPLED_ROWS, ids)))
        times = torch.cat([self.times, draws / losses.square()])  # of rows without loss: infinite
        best = times.argsort(stable=True)[: len(self.times)]
        self.times = times[best]
        self.rows = torch.cat([self.rows, batch.rows.to(self.rows.dtype)])[best]
        self.targets = torch.cat([self.targets, batch.targets.to(self.targets.dtype)])[best]

    def __len__(self) -> int:
        return int(self.times.isfinite().sum())

    def clear(self) -> None:
        """Forget all."""
        self.times.fill_(torch.inf)
        self.rows.zero_()
        self.targets.zero_()

    def tensors(self) -> dict[str, Tensor]:
        """What the next resampling depends on."""
        return {"times": self.times, "rows": self.rows, "targets": self.targets}


def begin_anew(
    candidates: Candidates, weights: Weights, silence: Sequence[Silence], optimiser: Optimiser, mean: RunningMean | None
) -> int:
    """Give candidates to dead latents, those first that have been silent longest; returns how many there were for. In place."""
    dead = [own.dead() for own in silence]
    silent_rows = torch.cat([own.rows[latents] for own, latents in zip(silence, dead, strict=True)])
    blocks = torch.cat([torch.full_like(latents, number) for number, latents in enumerate(dead)])
    order = silent_rows.argsort(descending=True, stable=True)[: len(candidates)]
    chosen = torch.cat(dead)[order]
    for number, block in enumerate(weights.blocks):
        own = (blocks[order] == number).nonzero()[:, 0]
        if len(own):
            _restart(number, block, chosen[own], candidates.rows[own], candidates.targets[own], weights, dead[number])
            optimiser.forget(number, chosen[own])
            if mean is not None:
                mean.restart(number, chosen[own])
            silence[number].rows[chosen[own]] = 0
    return len(order)


def _restart(
    number: int, block: Block, latents: Int[Tensor, " n"], rows: Float[Tensor, "n d_in"],
    targets: Float[Tensor, "n d_out"], weights: Weights, dead: Int[Tensor, " _"],
) -> None:  # fmt: skip
    """New rows of both matrices for some dead latents of a block, and the vectors' entries."""
    read = ((rows - weights.b_dec) if weights.is_tied else rows)[:, block.reads].to(block.W_enc.dtype)
    target = (targets - weights.b_dec)[:, block.writes].to(block.W_dec.dtype)
    lengths = block.W_enc.norm(dim=1)
    living = torch.ones(len(lengths), dtype=torch.bool)
    living[dead] = False
    living_lengths = lengths[living] if bool(living.any()) else lengths
    # By numpy: torch's order of sums is the threads'.
    scale = _SHARE_OF_LENGTH * float(living_lengths.double().cpu().numpy().mean())
    block.W_enc[latents] = _direction(read, block.W_enc[latents]) * scale
    block.W_dec[latents] = _direction(target, block.W_dec[latents])
    for vector in block.vectors().values():
        vector[latents] = 0.0
    if block.log_threshold is not None:  # not in the source: half of what the latent reads of its own row
        own = (block.W_enc[latents] * read).sum(1)
        block.log_threshold[latents] = (own / 2).clamp_min(1e-6).log()


def _direction(rows: Float[Tensor, "n d"], otherwise: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Rows at length one; those of length zero have no direction, and stay as they were."""
    found = torch.where((rows != 0).any(1, keepdim=True), rows, otherwise)
    unit: Tensor = found / found.norm(dim=1, keepdim=True)
    return unit
