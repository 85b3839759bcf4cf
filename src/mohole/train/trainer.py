"""One dictionary being learned: all that changes from step to step, and the step. No files, no stream.

Everything that decides the next step is in `state()`; a trainer given that state goes on to the same bits.
"""

from dataclasses import dataclass
from typing import Any, assert_never

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mohole.config import BatchTopK, Train
from mohole.config.train import CrosscoderOf, CrossLayerOf, Sae, TranscoderOf
from mohole.dictionary import AnyDictionary, Crosscoder, CrossLayerTranscoder, SparseAutoencoder, Transcoder
from mohole.metrics import fvu
from mohole.parallel import Mesh, joined, total_of
from mohole.train.activation import Active
from mohole.train.objective import Batch, Objective, Outcome, Terms
from mohole.train.optimiser import Optimiser, RunningMean, learning_rate
from mohole.train.resample import Candidates, When, begin_anew
from mohole.train.silence import Silence, fired
from mohole.train.start import autoencoder, transcoder
from mohole.train.statistics import Statistics
from mohole.train.tiled import Crowd
from mohole.train.weights import Sites, Units, Weights, layers_of

_THRESHOLD_KEPT = 0.999
"""Share that the running mean of batchtopk's threshold keeps at each step, as dictionary_learning's does."""


@dataclass(frozen=True)
class Stepped:
    """What a step found, before it moved the weights."""

    terms: Terms
    error: Float[Tensor, "row d_out"]
    """Reconstruction minus targets, in training units."""
    active: tuple[Active | Crowd, ...]
    """Of each block."""
    rate: float
    grad_norm: float
    n_dead: int

    @property
    def n_kept(self) -> int:
        """Pairs that it worked on, of this rank."""
        return sum(own.n_kept for own in self.active)

    @property
    def is_in_tiles(self) -> bool:
        """Was a block's step made in whole tiles of latents?"""
        return any(isinstance(own, Crowd) for own in self.active)


class Trainer:
    """Learns one dictionary from batches in the model's units, where its weights are: on a CPU or on another device.

    On a mesh every rank has a trainer: for its own latents, and fed its own share of each batch's rows. They step together, and
    what they learn is what one alone learns, but for the order of sums; to the same bits for any number of data ranks, where no
    batch is computed in tiles and each has four rows or more (torch multiplies fewer in another order).
    """

    def __init__(
        self,
        settings: Train,
        reads: Sites,
        writes: Sites,
        weights: Weights,
        units: Units,
        *,
        seed: int = 0,
        mesh: Mesh | None = None,
    ) -> None:
        self.settings, self.weights, self.units = settings, weights, units
        self._mesh = mesh = mesh or Mesh()
        mesh.check(settings.n_latents, settings.batch_rows)
        self._reads, self._writes = reads, writes
        device, n_own = weights.b_dec.device, len(mesh.own_latents(settings.n_latents))
        self._n_own = n_own
        self._objective = Objective(settings, writes, device, mesh)
        self.n_steps = 0
        self.optimiser = Optimiser(weights, settings.clip_norm, settings.optimiser, mesh.latent)
        self.silence = [Silence(n_own, settings.dead_after_rows, device) for _ in weights.blocks]
        self.statistics = Statistics(n_own * len(weights.blocks), device)
        self._mean = RunningMean(weights, settings.average) if settings.average else None
        self._seed, self._when, self._n_resampled = seed, When.of(settings), 0
        n_candidates = min(settings.resample.most, settings.n_latents * len(weights.blocks)) if settings.resample else 0
        self._candidates = Candidates(n_candidates, reads.width, writes.width, device)
        self._threshold = torch.zeros(len(weights.blocks), 2, dtype=torch.float64, device=device)
        """batchtopk: for each block the weighted sum of the smallest kept activations of batches, and of the weights."""

    @classmethod
    def start(
        cls,
        settings: Train,
        rows: Float[Tensor, "row d_in"],
        targets: Float[Tensor, "row d_out"],
        reads: Sites,
        writes: Sites,
        *,
        seed: int,
        mesh: Mesh | None = None,
    ) -> "Trainer":
        """A trainer at its first step, with units and first weights from a sample of rows in the model's units.

        Every rank is given the same sample, on the device that it trains on.
        """
        (mesh or Mesh()).check(settings.n_latents, settings.batch_rows)
        units = Units.of(rows, targets, reads, writes, is_tied=isinstance(settings.learns, Sae | CrosscoderOf))
        x, y = units.rows(rows), targets * units.written
        l0 = settings.first_l0()
        n_latents, nonlinearity = settings.n_latents, settings.nonlinearity
        match settings.learns:
            case Sae() | CrosscoderOf():
                weights = autoencoder(x, n_latents, nonlinearity, initial_l0=l0, seed=seed, mesh=mesh)
            case TranscoderOf(skip=skip):
                columns = layers_of(settings.learns, reads, writes)
                weights = transcoder(
                    x, y, columns, n_latents, nonlinearity, skip=skip, initial_l0=l0, seed=seed, mesh=mesh
                )
            case CrossLayerOf():
                columns = layers_of(settings.learns, reads, writes)
                weights = transcoder(
                    x, y, columns, n_latents, nonlinearity, skip=False, initial_l0=l0, seed=seed, mesh=mesh
                )
            case _:
                assert_never(settings.learns)
        return cls(settings, reads, writes, weights, units, seed=seed, mesh=mesh)

    def tune(self, rows: Float[Tensor, "row d_in"]) -> str:
        """Find the tile in which rows like these, in the model's units, are encoded fastest here; says which. Changes no bits."""
        n_rows = self.settings.batch_rows // self._mesh.data.size
        rows = rows[torch.arange(n_rows, device=rows.device) % len(rows)]
        return self._objective.tune(self.weights, self.units.rows(rows))

    def step(self, rows: Float[Tensor, "row d_in"], targets: Float[Tensor, "row d_out"]) -> Stepped:
        """Learn from a batch: from this rank's share of its rows, on the weights' device."""
        settings, mesh = self.settings, self._mesh
        n_rows = len(rows) * mesh.data.size
        x = self.units.rows(rows)
        batch = Batch(x, x if targets is rows else targets * self.units.written)
        active = self._objective.forward(self.weights, batch)
        for own, silence in zip(active, self.silence, strict=True):
            silence.update(fired(own, self._n_own, mesh.data), n_rows)
        dead = tuple(silence.dead() for silence in self.silence)
        penalty = settings.penalty()
        warmth = min((self.n_steps + 1) / penalty.warmup_steps, 1.0) if penalty and penalty.warmup_steps else 1.0
        outcome = self._objective(self.weights, batch, active, dead, warmth=warmth)
        rate = learning_rate(self.n_steps, settings)
        if self.n_steps >= self._statistics_from:
            self.statistics.add([own.totals(self._n_own).of_all_rows(mesh.data) for own in active], n_rows)
        self._follow_threshold(active)
        grad_norm = self.optimiser.step(outcome, rate)
        if self._mean is not None:
            self._mean.update()
        self.n_steps += 1
        self._resample(batch, outcome)
        n_dead = int(total_of(sum(map(len, dead)), mesh.latent))
        return Stepped(outcome.terms, outcome.error, active, rate, grad_norm, n_dead)

    def _resample(self, batch: Batch, outcome: Outcome) -> None:
        """Remember rows that are reconstructed badly, and let dead latents begin anew at them when it is time."""
        if self._when is None:
            return
        if self._when.collects(self.n_steps):
            data = self._mesh.data
            losses = joined(data, outcome.error.double().square().sum(1))
            whole = Batch(joined(data, batch.rows), joined(data, batch.targets))
            self._candidates.add(whole, losses, (self.n_steps - 1) * self.settings.batch_rows, seed=self._seed)
        if self._when.resamples(self.n_steps):
            self._n_resampled += begin_anew(
                self._candidates, self.weights, self.silence, self.optimiser, self._mean, self._mesh.latent
            )
            self._candidates.clear()

    @property
    def _statistics_from(self) -> int:
        """Statistics are of the last tenth of the steps, in which the weights hardly move any more."""
        return self.settings.steps - -(-self.settings.steps // 10)

    def _follow_threshold(self, active: tuple[Active | Crowd, ...]) -> None:
        if not isinstance(self.settings.nonlinearity, BatchTopK):
            return
        for number, own in enumerate(active):
            assert isinstance(own, Active)
            least = own.values.min() if len(own.values) else own.values.new_tensor(torch.inf)
            least = self._mesh.joined(least[None]).min().double()
            if least < torch.inf:
                self._threshold[number] *= _THRESHOLD_KEPT
                self._threshold[number] += torch.stack([least, torch.ones_like(least)]) * (1 - _THRESHOLD_KEPT)

    def measure(self, stepped: Stepped, targets: Float[Tensor, "row d_out"]) -> dict[str, Any]:
        """What a line of the record says about a step. A batch of equal rows has no variance, and so no fvu.

        `loss` is the sum of the five terms after it, each with its weight in it; mse_loss is the mean over prefixes. fvu is over
        all columns in training units, where every site counts by its width; `fvu/SITE` is of one site, the same in any units.
        All ranks call it together, and get the same.
        """
        data, latent = self._mesh.data, self._mesh.latent
        y = joined(data, targets * self.units.written)
        error, terms = joined(data, stepped.error), stepped.terms
        n_active = total_of(sum(own.n_active for own in stepped.active), data, latent)
        names, bounds = self._writes.names, self._writes.bounds
        sites = zip(names, bounds, bounds[1:], strict=False) if len(names) > 1 else ()
        return {
            "loss": _short(terms.total),
            "mse_loss": _short(terms.reconstruction),
            "sparsity_loss": _short(terms.sparsity),
            "auxk_loss": _short(terms.auxk),
            "pre_act_loss": _short(terms.pre_act),
            "gate_loss": _short(terms.gate),
            "fvu": _fvu(y, error),
            **{f"fvu/{name}": _fvu(y[:, low:high], error[:, low:high]) for name, low, high in sites},
            "l0": _short(n_active / len(y)),
            "dead": stepped.n_dead,
            "lr": _short(stepped.rate),
            "grad_norm": _short(stepped.grad_norm),
            "encoder_norm": self._mean_length([block.W_enc for block in self.weights.blocks]),
            "decoder_norm": self._mean_length([block.W_dec for block in self.weights.blocks]),
        } | ({} if self._when is None else {"resampled": self._n_resampled})

    def _mean_length(self, matrices: list[Tensor]) -> float:
        """Of the rows of some matrices, one for each latent. Summed by numpy: torch's threads would share a sum of many."""
        lengths = [joined(self._mesh.latent, matrix.norm(dim=1)).cpu().numpy() for matrix in matrices]
        return _short(float(np.concatenate(lengths).mean(dtype=np.float64)))

    def doubts(self) -> str:
        """How often screening was not enough, for people; nothing where nothing was screened."""
        screen = self._objective.screen
        if screen is None or not screen.n_rows:
            return ""
        return f", {screen.n_again / screen.n_rows:.2%} of the rows encoded again after screening"

    def dictionary(self) -> AnyDictionary:
        """What has been learned so far, in the model's units, in main memory. Of all ranks, which call it together."""
        weights, units = self.weights, self.units.cpu()
        if self._mean is not None and self._mean.n_steps:
            weights = self._mean.weights(is_unit=self.settings.decoder == "unit")
        whole = {
            name: tensor if name in ("b_dec", "W_skip") else joined(self._mesh.latent, tensor)
            for name, tensor in weights.named()
        }
        weights = weights.of({name: tensor.cpu() for name, tensor in whole.items()})
        nonlinearity, learns = self.settings.nonlinearity, self.settings.learns
        means = self._threshold[:, 0] / self._threshold[:, 1].clamp_min(1e-300)
        layers = tuple(
            units.to_model(block, nonlinearity, float(means[number])) for number, block in enumerate(weights.blocks)
        )
        b_dec = weights.b_dec / units.written
        match learns:
            case Sae():
                own = layers[0]
                matrices = own.W_enc, own.b_enc, own.W_dec, b_dec
                optional = own.threshold, own.b_mag, own.r_mag
                return SparseAutoencoder(self._reads.names[0], nonlinearity, *matrices, *optional)
            case TranscoderOf(reads=reads, writes=writes):
                skip = weights.W_skip
                W_skip = None if skip is None else skip * units.read / units.written[:, None]
                if W_skip is not None:
                    b_dec = (b_dec.double() - W_skip.double() @ units.origin.double()).float()
                return Transcoder(reads, writes, layers[0], b_dec, W_skip)
            case CrosscoderOf(hookpoints=hookpoints):
                return Crosscoder(hookpoints, self._reads.widths, layers[0], b_dec)
            case CrossLayerOf(reads=several, writes=targets):
                return CrossLayerTranscoder(several, targets, layers, b_dec.view(len(targets), -1))
            case _:
                assert_never(learns)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """(tensors, numbers) from which a trainer goes on to the same bits. Tensors are its own: copy them before a step.

        On a mesh each rank has a state, of its own latents.
        """
        tensors = dict(self.weights.named())
        for name, moving in self.optimiser.moving.items():
            tensors |= {f"adam.mean.{name}": moving.mean, f"adam.square.{name}": moving.square}
            if moving.scales is not None:
                tensors[f"adam.scales.{name}"] = moving.scales
        for number, silence in enumerate(self.silence):
            tensors[f"silent_rows.{number}"] = silence.n_rows
        if self._mean is not None:
            tensors |= {f"average.{name}": tensor for name, tensor in self._mean.tensors.items()}
        tensors |= {"threshold": self._threshold, "scale.read": self.units.read, "scale.written": self.units.written}
        tensors["origin"] = self.units.origin
        tensors |= {f"statistics.{name}": tensor for name, tensor in self.statistics.tensors().items()}
        if self._when is not None:
            tensors |= {f"resample.{name}": tensor for name, tensor in self._candidates.tensors().items()}
        numbers = {"n_resampled": self._n_resampled, "n_steps": self.n_steps, "statistics_rows": self.statistics.n_rows}
        return tensors, numbers

    def restore(self, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
        """Go on from a state.

        Raises:
            ValueError: it is of other shapes, or of another kind of dictionary.
        """
        own, _ = self.state()
        if {name: (tensor.shape, tensor.dtype) for name, tensor in own.items()} != {
            name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()
        }:
            different = sorted(set(own) ^ set(tensors)) or sorted(n for n in own if own[n].shape != tensors[n].shape)
            raise ValueError(f"a state of another dictionary: {', '.join(different[:4]) or 'other types of numbers'}")
        for name, tensor in own.items():
            tensor.copy_(tensors[name])
        self.n_steps = self.optimiser.n_steps = int(numbers["n_steps"])
        self.statistics.n_rows = int(numbers["statistics_rows"])
        self._n_resampled = int(numbers["n_resampled"])
        if self._mean is not None:
            self._mean.n_steps = self.n_steps


def _fvu(targets: Float[Tensor, "row d"], error: Float[Tensor, "row d"]) -> float | None:
    """None where the rows do not differ."""
    return _short(float(fvu(targets, targets + error))) if bool((targets != targets[0]).any()) else None


def _short(value: float) -> float:
    """Six digits: what differs beyond them is rounding."""
    return float(f"{value:.6g}")
