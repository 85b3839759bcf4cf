"""From gradients to new weights: clipping, Adam, unit decoder rows, the learning rate's course, a running mean."""

import math
from types import ModuleType
from typing import assert_never

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mohole.config import Train
from mohole.config.train import Adam, AnyOptimiser, Muon, Signum
from mohole.kernels import dense, moments, plain
from mohole.kernels.choice import kernels_for
from mohole.kernels.dense import DenseBackward
from mohole.kernels.pairs import AdamStep, Backward, Moving
from mohole.parallel import ALONE, Axis, joined, total_of
from mohole.train.objective import Outcome
from mohole.train.sums import whole_sum
from mohole.train.weights import Weights

_SLAB_LATENTS = 4096
_SURE = 1e-6
"""A gradient that is so much shorter than what it is clipped to is not clipped, in whatever order its squares are summed."""


def learning_rate(step: int, settings: Train) -> float:
    """The rate of the step with this number, counted from 0: a straight rise, flat, a straight fall towards zero at the end."""
    rise = (step + 1) / settings.warmup_steps if settings.warmup_steps else 1.0
    decay_steps = settings.decay_share * settings.steps
    fall = (settings.steps - step) / decay_steps if decay_steps else 1.0
    return settings.rate() * min(rise, 1.0, fall)


class Optimiser:
    """Moves the weights in place. Adam sums and applies the latents' gradients in one sweep, and never stores them.

    Ranks of the latent axis move their own latents, and each of them b_dec and W_skip by the same gradient; what they must agree
    on is the length of the whole gradient.
    """

    def __init__(
        self,
        weights: Weights,
        clip_norm: float | None,
        optimiser: AnyOptimiser | None = None,
        latent: Axis = ALONE,
    ) -> None:
        self.n_steps = 0
        self._latent = latent
        self._weights, self._clip_norm, self._optimiser = weights, clip_norm, optimiser or Adam()
        self._kernels: ModuleType = kernels_for(weights.b_dec.device)
        self.moving = {name: self._still(name, tensor, number) for number, (name, tensor) in enumerate(weights.named())}

    def _still(self, name: str, tensor: Tensor, number: int) -> Moving:
        """Moments of nothing yet; without squares where they are not used."""
        if isinstance(self._optimiser, Adam) and self._optimiser.moments != "float32" and _is_matrix(name):
            first = self._weights.blocks[int(name.rpartition(".")[2])].first
            return moments.still(tensor, self._optimiser.moments, salt=number, first=first)
        if isinstance(self._optimiser, Adam) or (isinstance(self._optimiser, Muon) and not _is_matrix(name)):
            return Moving.still(tensor)
        return Moving(tensor, torch.zeros_like(tensor), torch.zeros(0, dtype=tensor.dtype))

    def step(self, outcome: Outcome, rate: float) -> float:
        """Take a step, and return the gradient's length before clipping, without its part along unit decoder rows.

        With clip_norm it must be known before the first latent moves whether the gradient is longer. Mostly the lengths of what
        it is a sum of say that it is not; where they do not, one more sweep over the pairs finds its length first.
        """
        self.n_steps += 1
        small = {"b_dec": outcome.d_b_dec} | ({} if outcome.d_skip is None else {"W_skip": outcome.d_skip})
        square = sum(_square(gradient) for gradient in small.values())
        own = 0.0
        for number, vectors in enumerate(outcome.vectors):
            own += sum(_square(gradient) for gradient in vectors.values())
            small |= {f"{name}.{number}": gradient for name, gradient in vectors.items()}
        shrink, length = 1.0, None if self._clip_norm is None else self._length_if_long(outcome, square, own)
        if length is not None and self._clip_norm is not None and length > self._clip_norm:
            shrink = self._clip_norm / length
        for number, back in enumerate(outcome.backward):
            squares = self._move_block(number, back, rate, shrink)
            if length is None:
                own += _square(squares, squared=True)
        for name, gradient in small.items():
            self._move(name, gradient * shrink, rate)
        if length is None:
            length = _root(square + total_of(own, self._latent))
        return length

    def _length_if_long(self, outcome: Outcome, shared: float, own: float) -> float | None:
        """The gradient's length, or None where it cannot be longer than clip_norm.

        Args:
            shared: squared length of what all ranks have; own: of this rank's vectors.
        """
        assert self._clip_norm is not None
        most, sums = (
            own,
            [
                _square(dense.squared_lengths(back), squared=True) if isinstance(back, DenseBackward) else None
                for back in outcome.backward
            ],
        )
        for back, found in zip(outcome.backward, sums, strict=True):
            most += _square(self._kernels.squares_at_most(back), squared=True) if found is None else found
        if _root(shared + total_of(most, self._latent)) <= self._clip_norm * (1.0 - _SURE):
            return None
        for number, (back, found) in enumerate(zip(outcome.backward, sums, strict=True)):
            W_dec = self._weights.blocks[number].W_dec
            own += _square(self._kernels.squared_lengths(back, W_dec), squared=True) if found is None else found
        return _root(shared + total_of(own, self._latent))

    def forget(self, block: int, latents: Int[Tensor, " _"]) -> None:
        """No moments of some latents of a block: they have begun anew."""
        for name, moving in self.moving.items():
            if name.endswith(f".{block}"):
                moving.mean[latents] = 0.0
                if len(moving.square):
                    moving.square[latents] = 0.0

    def _move_block(self, number: int, back: Backward | DenseBackward, rate: float, shrink: float) -> Tensor:
        """Move one block's matrices. Returns the squared length of each latent's gradients before shrinking."""
        encoder, decoder = self.moving[f"W_enc.{number}"], self.moving[f"W_dec.{number}"]
        if isinstance(self._optimiser, Adam):
            if encoder.scales is not None:
                return self._move_packed(back, encoder, decoder, rate, shrink)
            if isinstance(back, DenseBackward):
                return dense.adam(back, encoder, decoder, self._adam_step(rate), shrink=shrink)
            squares: Tensor = self._kernels.adam(back, encoder, decoder, self._adam_step(rate), shrink=shrink)
            return squares
        n_latents, found = len(decoder.weight), []
        slab = n_latents if isinstance(self._optimiser, Muon) else _SLAB_LATENTS
        for first in range(0, n_latents, slab):
            here = slice(first, min(first + slab, n_latents))
            if isinstance(back, DenseBackward):
                d_enc, d_dec = back.d_enc[here], back.d_dec[here]
            else:
                d_enc, d_dec = self._kernels.gradients(back, decoder.weight, here.start, here.stop)
            found.append(d_enc.square().sum(1) + d_dec.square().sum(1))
            for moving, gradient in ((encoder, d_enc), (decoder, d_dec)):
                self._move_rows(moving, here, gradient * shrink, rate)
            if back.is_unit:
                decoder.weight[here] /= decoder.weight[here].norm(dim=1, keepdim=True)
        return torch.cat(found)

    def _move_packed(
        self, back: Backward | DenseBackward, encoder: Moving, decoder: Moving, rate: float, shrink: float
    ) -> Tensor:
        def gradients(first: int, last: int) -> tuple[Tensor, Tensor]:
            if isinstance(back, DenseBackward):
                return back.d_enc[first:last], back.d_dec[first:last]
            d_enc, d_dec = self._kernels.gradients(back, decoder.weight, first, last)
            return d_enc, d_dec

        step = self._adam_step(rate)
        return moments.adam(gradients, encoder, decoder, step, is_unit=back.is_unit, shrink=shrink)

    def _move_rows(self, moving: Moving, here: slice, gradient: Tensor, rate: float) -> None:
        match self._optimiser:
            case Signum(momentum=momentum):
                mean = moving.mean[here].lerp_(gradient, 1.0 - momentum)
                moving.weight[here] -= rate * mean.sign()
            case Muon(momentum=momentum):
                mean = moving.mean[here].lerp_(gradient, 1.0 - momentum)
                update = gradient.lerp(mean, momentum)
                n_all = int(total_of(len(update), self._latent))
                # As large as Adam's steps: each entry about the rate (Liu et al. 2025, arXiv 2502.16982).
                size = rate * max(n_all, update.shape[1]) ** 0.5
                moving.weight[here] -= size * orthogonal(update, self._latent)
            case Adam():
                raise AssertionError("Adam moves both matrices in one sweep")
            case _:
                assert_never(self._optimiser)

    def _move(self, name: str, gradient: Tensor, rate: float) -> None:
        """Move a tensor that is no matrix of latents."""
        if isinstance(self._optimiser, Signum):
            self._move_rows(self.moving[name], slice(None), gradient, rate)
        else:
            plain.move(self.moving[name], gradient, self._adam_step(rate))

    def _adam_step(self, rate: float) -> AdamStep:
        if isinstance(self._optimiser, Adam):
            return AdamStep(rate, self.n_steps, self._optimiser.beta1, self._optimiser.beta2)
        return AdamStep(rate, self.n_steps)


def orthogonal(update: Float[Tensor, "row column"], ranks: Axis = ALONE) -> Float[Tensor, "row column"]:
    """Nearly the nearest matrix whose singular values are all one: five Newton-Schulz steps, which leave them in [.7, 1.2].

    Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks".

    Args:
        ranks: that have the matrix together, each some rows. Of a tall matrix only the product of its columns is exchanged.
    """
    n_of_each = [len(update)] if ranks.size == 1 else [int(n) for n in joined(ranks, torch.tensor([len(update)]))]
    is_tall = sum(n_of_each) > update.shape[1]
    if ranks.size > 1 and not is_tall:
        return torch.split(orthogonal(joined(ranks, update)), n_of_each)[ranks.rank]
    length = update.norm() if ranks.size == 1 else ranks.total(update.square().sum()[None])[0].sqrt()
    x: Tensor = (update.T if is_tall else update) / (length + 1e-30)
    for _ in range(5):
        square = ranks.total(x @ x.T)
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x.T if is_tall else x


def _is_matrix(name: str) -> bool:
    return name.startswith(("W_enc", "W_dec"))


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

    def restart(self, block: int, latents: Int[Tensor, " _"]) -> None:
        """Of some latents of a block only what they are now: they have begun anew."""
        for name, tensor in self._weights.named():
            if name.endswith(f".{block}"):
                self.tensors[name][latents] = tensor[latents] * (1.0 - self._share**self.n_steps)

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
    """Sum of squares, each row first."""
    rows = gradient.reshape(len(gradient), -1)
    return whole_sum((rows if squared else rows.square()).sum(1))


def _root(square: float) -> float:
    """A length. Of what is no number: no number."""
    return math.sqrt(square) if square >= 0 else math.nan
