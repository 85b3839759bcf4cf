"""Wrong ways to tell two models apart."""

import numpy as np
import torch
from torch import Tensor

from mohole.metrics.codes import Codes
from mohole.metrics.definitions import Array
from mohole.metrics.diffing import LatentScaling
from mohole.metrics.mutants.mutant import Mutant, mutant


def _share_of_the_sum(one: Tensor, other: Tensor) -> Tensor:
    """The sum of both lengths stands where the larger belongs.

    Seen in: two published definitions of one name.
    """
    return other.double() / (one.double() + other.double())


def _half_if_dead(one: Tensor, other: Tensor) -> Tensor:
    """A latent in neither model is called shared.

    Seen in: denominators with an epsilon.
    """
    return (1 + (other - one).double() / torch.maximum(one, other).double().clamp(min=1e-8)) / 2


class _HardWired(LatentScaling):
    """The second model's direction is asked for, whichever model the latent is of.

    Seen in: diffing-toolkit #85.
    """

    def __init__(self, decoders: tuple[Tensor, Tensor]) -> None:
        super().__init__(decoders)
        self._direction = decoders[1].double()
        self._own = torch.stack([(self._direction * decoder.double()).sum(1) for decoder in decoders])
        self._size = self._direction.square().sum(1)


class _OwnPartForgotten(LatentScaling):
    """The error without the latent's own part: a latent that is rebuilt well looks absent.

    Seen in: latent scaling on plain reconstruction errors.
    """

    @property
    def error(self) -> Array:
        return self._per_square(self.errors)


class _OwnPartInTheRest(LatentScaling):
    """The whole reconstruction stands for the other latents' part.

    Seen in: a latent that was not removed.
    """

    @property
    def rest(self) -> Array:
        return self._per_square(self.outputs)


class _SumsForSquares(LatentScaling):
    """Divided by the sum of activations, not of their squares.

    Seen in: a mean for a least-squares slope.
    """

    def add(self, codes: Codes, targets: tuple[Tensor, Tensor], outputs: tuple[Tensor, Tensor]) -> None:
        before = self.squares
        super().add(codes, targets, outputs)
        self.squares = before.index_add(0, codes.latents, codes.values.double())


class _OneRank(LatentScaling):
    """The sums of one rank over the squares of all.

    Seen in: sparsify #119.
    """

    def merge(self, other: LatentScaling) -> None:
        self.squares = self.squares + other.squares


class _NeverFiredIsShared(LatentScaling):
    """A latent that never fired has nu 1.

    Seen in: ratios filled in where they are undefined.
    """

    @property
    def nu_rest(self) -> Array:
        return np.nan_to_num(super().nu_rest, nan=1.0, posinf=np.inf)


MUTANTS: tuple[Mutant, ...] = (
    mutant("relative_norm", _share_of_the_sum),
    mutant("relative_norm", _half_if_dead),
    mutant("latent_scaling", _HardWired),
    mutant("latent_scaling", _OwnPartForgotten),
    mutant("latent_scaling", _OwnPartInTheRest),
    mutant("latent_scaling", _SumsForSquares),
    mutant("latent_scaling", _OneRank),
    mutant("latent_scaling", _NeverFiredIsShared),
)
