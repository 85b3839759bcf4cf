"""Named axes of ranks that share one job: `latent` (each rank has some of the latents) and `data` (each has some of the rows).

A mesh of one by one is the default: its collectives give back what they are given, so there is one code path for one rank and for
many. Every rank of an axis calls the same collectives in the same order; what decides whether one is called must be the same
on all of them.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class Axis(Protocol):
    """Ranks along one axis, as one of them sees it."""

    @property
    def size(self) -> int:
        """How many ranks there are."""
        ...

    @property
    def rank(self) -> int:
        """Which one this is, counted from 0."""
        ...

    def total(self, tensor: Tensor) -> Tensor:
        """The sum of all ranks' tensors, of one shape: the same bits on every rank. `tensor` stays as it is."""
        ...

    def gathered(self, tensor: Tensor) -> list[Tensor]:
        """All ranks' tensors in the order of ranks. They may differ in the length of their first dim."""
        ...


@dataclass(frozen=True)
class _Alone:
    """The axis of one rank. Satisfies `Axis`."""

    size: int = 1
    rank: int = 0

    def total(self, tensor: Tensor) -> Tensor:
        return tensor

    def gathered(self, tensor: Tensor) -> list[Tensor]:
        return [tensor]


ALONE: Axis = _Alone()


@dataclass(frozen=True)
class Mesh:
    """The two axes. Rank (l, d) has the l-th share of the latents and the d-th share of a batch's rows."""

    latent: Axis = ALONE
    data: Axis = ALONE

    def check(self, n_latents: int, n_rows: int) -> None:
        """Raises: ValueError: latents or rows of a batch that its ranks cannot share."""
        if n_latents < self.latent.size:
            raise ValueError(f"{n_latents} latents cannot be shared by {self.latent.size} ranks")
        if n_rows % self.data.size:
            raise ValueError(f"{n_rows} rows cannot be shared by {self.data.size} ranks")

    def own_latents(self, n_latents: int) -> range:
        """The latents of this rank: a range, those of a higher rank come after."""
        size, rank = self.latent.size, self.latent.rank
        return range(n_latents * rank // size, n_latents * (rank + 1) // size)

    def total(self, tensor: Tensor) -> Tensor:
        """The sum over both axes."""
        return self.data.total(self.latent.total(tensor))

    def joined(self, tensor: Tensor) -> Tensor:
        """All ranks' tensors one after the other: data rank by data rank, within one by latent ranks."""
        return joined(self.data, joined(self.latent, tensor))


def joined(axis: Axis, tensor: Tensor, dim: int = 0) -> Tensor:
    """All ranks' tensors one after the other, in the order of ranks, along a dim."""
    if axis.size == 1:
        return tensor
    if dim == 0:
        return torch.cat(axis.gathered(tensor.contiguous()))
    return torch.cat(axis.gathered(tensor.transpose(0, dim).contiguous())).transpose(0, dim).contiguous()


def total_of(number: float, *axes: Axis) -> float:
    """The sum of all ranks' numbers, over one axis or several. In double."""
    for axis in axes:
        if axis.size > 1:
            number = float(axis.total(torch.tensor([number], dtype=torch.float64))[0])
    return number
