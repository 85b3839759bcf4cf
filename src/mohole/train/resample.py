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
from mohole.parallel import ALONE, Axis, joined
from mohole.train.objective import Batch
from mohole.train.optimiser import Optimiser, RunningMean
from mohole.train.silence import Silence
from mohole.train.sums import whole_sum
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

    def __init__(self, n: int, d_in: int, d_out: int, device: torch.device) -> None:
        self.times: Float[Tensor, " n"] = torch.full((n,), torch.inf, dtype=torch.float64, device=device)
        """Ascending. Infinite: there is no such row."""
        self.rows: Float[Tensor, "n d_in"] = torch.zeros(n, d_in, device=device)
        self.targets: Float[Tensor, "n d_out"] = torch.zeros(n, d_out, device=device)

    def add(self, batch: Batch, losses: Float[Tensor, " B"], first: int, *, seed: int) -> None:
        """Take a batch, of rows that are the training's rows number `first` and so on; losses in double."""
        ids = np.arange(first, first + len(losses))
        draws = torch.from_numpy(-np.log1p(-keys.uniform(seed, keys.Use.RESAMPLED_ROWS, ids))).to(losses.device)
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
    candidates: Candidates,
    weights: Weights,
    silence: Sequence[Silence],
    optimiser: Optimiser,
    mean: RunningMean | None,
    latent: Axis = ALONE,
) -> int:
    """Give candidates to dead latents, those first that have been silent longest; returns how many there were for. In place.

    Ranks of the latent axis choose together: each gives its own latents what is theirs.
    """
    dead = [own.dead() for own in silence]
    silent_rows = [joined(latent, own.n_rows[latents]) for own, latents in zip(silence, dead, strict=True)]
    numbers = [joined(latent, own + block.first) for own, block in zip(dead, weights.blocks, strict=True)]
    blocks = torch.cat([torch.full_like(own, number) for number, own in enumerate(numbers)])
    order = torch.cat(silent_rows).argsort(descending=True, stable=True)[: len(candidates)]
    chosen = torch.cat(numbers)[order]
    for number, block in enumerate(weights.blocks):
        here = blocks[order] == number
        if not bool(here.any()):
            continue
        length = _first_length(block, dead[number], latent)
        mine = (here & (chosen >= block.first) & (chosen < block.first + len(block.b_enc))).nonzero()[:, 0]
        latents = chosen[mine] - block.first
        _restart(block, latents, candidates.rows[mine], candidates.targets[mine], weights, length)
        optimiser.forget(number, latents)
        if mean is not None:
            mean.restart(number, latents)
        silence[number].n_rows[latents] = 0
    return len(order)


def _first_length(block: Block, dead: Int[Tensor, " _"], latent: Axis) -> float:
    """Of an encoder row that begins anew: a share of the mean over living ones, of all where none is."""
    lengths = block.W_enc.norm(dim=1)
    is_living = torch.ones_like(lengths, dtype=torch.bool)
    is_living[dead] = False
    living = joined(latent, lengths[is_living])
    if not len(living):
        living = joined(latent, lengths)
    return _SHARE_OF_LENGTH * whole_sum(living) / len(living)


def _restart(
    block: Block, latents: Int[Tensor, " n"], rows: Float[Tensor, "n d_in"], targets: Float[Tensor, "n d_out"],
    weights: Weights, length: float,
) -> None:  # fmt: skip
    """New rows of both matrices for some dead latents of a block, and the vectors' entries."""
    read = ((rows - weights.b_dec) if weights.is_tied else rows)[:, block.reads].to(block.W_enc.dtype)
    target = (targets - weights.b_dec)[:, block.writes].to(block.W_dec.dtype)
    block.W_enc[latents] = _direction(read, block.W_enc[latents]) * length
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
