"""From gradients to new weights: clipping, Adam, unit decoder rows, the learning rate's course, a running mean."""

import math
from types import ModuleType

import torch
from torch import Tensor

from mohole.config import Train
from mohole.kernels import plain
from mohole.kernels.choice import kernels_for
from mohole.kernels.pairs import AdamStep, Moving
from mohole.train.objective import Outcome
from mohole.train.weights import Weights


def learning_rate(step: int, settings: Train) -> float:
    """The rate of the step with this number, counted from 0: a straight rise, flat, a straight fall towards zero at the end."""
    rise = (step + 1) / settings.warmup_steps if settings.warmup_steps else 1.0
    decay_steps = settings.decay_share * settings.steps
    fall = (settings.steps - step) / decay_steps if decay_steps else 1.0
    return settings.lr * min(rise, 1.0, fall)


class Optimiser:
    """Moves the weights in place. Gradients of the latents' matrices are summed and applied in one sweep, and never stored."""

    def __init__(self, weights: Weights, clip_norm: float | None) -> None:
        self.n_steps = 0
        self.moving = {name: Moving.still(tensor) for name, tensor in weights.named()}
        self._weights, self._clip_norm = weights, clip_norm
        self._kernels: ModuleType = kernels_for(weights.b_dec.device)

    def step(self, outcome: Outcome, rate: float) -> float:
        """Take a step, and return the gradient's length before clipping, without its part along unit decoder rows.

        With clip_norm the length must be known before the first latent moves, which costs one more sweep over the pairs.
        """
        self.n_steps += 1
        step = AdamStep(rate, self.n_steps)
        small = {"b_dec": outcome.d_b_dec} | ({} if outcome.d_skip is None else {"W_skip": outcome.d_skip})
        for number, vectors in enumerate(outcome.vectors):
            small |= {f"{name}.{number}": gradient for name, gradient in vectors.items()}
        square = sum(_square(gradient) for gradient in small.values())
        shrink = 1.0
        if self._clip_norm is not None:
            for number, back in enumerate(outcome.backward):
                W_dec = self._weights.blocks[number].W_dec
                square += _square(self._kernels.squared_lengths(back, W_dec), squared=True)
            if square > self._clip_norm**2:
                shrink = self._clip_norm / math.sqrt(square)
        for number, back in enumerate(outcome.backward):
            encoder, decoder = self.moving[f"W_enc.{number}"], self.moving[f"W_dec.{number}"]
            squares = self._kernels.adam(back, encoder, decoder, step, shrink=shrink)
            if self._clip_norm is None:
                square += _square(squares, squared=True)
        for name, gradient in small.items():
            plain.move(self.moving[name], gradient * shrink, step)
        return math.sqrt(square) if square >= 0 else math.nan


class RunningMean:
    """An exponential running mean of weights, without the pull of its start: sum of share^age * weights / sum of share^age."""

    def __init__(self, weights: Weights, share: float) -> None:
        self.tensors = {name: torch.zeros_like(tensor) for name, tensor in weights.named()}
        self.n_steps = 0
        self._weights, self._share = weights, share

    def update(self) -> None:
        """Take the weights as they are now."""
        self.n_steps += 1
        for name, tensor in self._weights.named():
            self.tensors[name].lerp_(tensor, 1.0 - self._share)

    def weights(self, *, is_unit: bool) -> Weights:
        """The mean; unit decoder rows brought back to length one."""
        scale = 1.0 / (1.0 - self._share**self.n_steps)
        tensors = {name: tensor * scale for name, tensor in self.tensors.items()}
        if is_unit:
            for name in tensors:
                if name.startswith("W_dec"):
                    tensors[name] /= tensors[name].norm(dim=1, keepdim=True)
        return self._weights.of(tensors)


def _square(gradient: Tensor, *, squared: bool = False) -> float:
    """Sum of squares; row sums first, so that it does not depend on the number of threads."""
    rows = gradient.reshape(len(gradient), -1)
    return float((rows if squared else rows.square()).sum(1).double().sum())
