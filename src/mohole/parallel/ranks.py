"""A mesh of processes that talk through torch.distributed. The only place that calls it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh

from mohole.errors import ConfigError
from mohole.parallel.mesh import Mesh


class Ranks:
    """One axis: a group of processes. Satisfies `Axis`."""

    def __init__(self, group: dist.ProcessGroup, device: torch.device) -> None:
        self.size, self.rank = dist.get_world_size(group), dist.get_rank(group)
        self._group, self._device = group, device

    def total(self, tensor: Tensor) -> Tensor:
        """The sum of all ranks' tensors."""
        if self.size == 1:
            return tensor
        moved = tensor.to(self._device, copy=True).contiguous()  # the collective writes into what it is given
        dist.all_reduce(moved, group=self._group)
        return moved.to(tensor.device)

    def gathered(self, tensor: Tensor) -> list[Tensor]:
        """All ranks' tensors. Those that are shorter are sent at the length of the longest one."""
        if self.size == 1:
            return [tensor]
        moved = tensor.to(self._device)
        lengths = [torch.zeros(1, dtype=torch.int64, device=self._device) for _ in range(self.size)]
        dist.all_gather(lengths, torch.tensor([len(moved)], device=self._device), group=self._group)
        n_of_each = [int(length) for length in lengths]
        padded = moved.new_zeros(max(n_of_each), *moved.shape[1:])
        padded[: len(moved)] = moved
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(parts, padded, group=self._group)
        return [part[:n].to(tensor.device) for part, n in zip(parts, n_of_each, strict=True)]


@contextmanager
def mesh_of_ranks(
    n_latent: int,
    n_data: int,
    *,
    backend: str = "gloo",
    meet: str = "env://",
    rank: int = -1,
) -> Iterator[Mesh]:
    """This process as a rank of a mesh of n_latent x n_data, while it lasts. Waits until all have come.

    Args:
        backend: of torch.distributed: `gloo` between CPUs, `nccl` between GPUs (not measured: no GPU has run it yet).
        meet: where ranks find each other, as torch.distributed has it: `env://` is what torchrun sets, or `file://PATH`.
        rank: of this process; only where `meet` does not say it.

    Raises:
        ConfigError: another number of processes has come than the mesh has ranks.
    """
    world = -1 if rank < 0 else n_latent * n_data
    dist.init_process_group(backend, init_method=meet, rank=rank, world_size=world)
    try:
        if dist.get_world_size() != n_latent * n_data:
            raise ConfigError(
                f"a mesh of {n_latent} x {n_data} has {n_latent * n_data} ranks, and {dist.get_world_size()} processes were "
                "started; start as many"
            )
        kind = "cuda" if backend == "nccl" else "cpu"
        axes = init_device_mesh(kind, (n_latent, n_data), mesh_dim_names=("latent", "data"))  # takes torchrun's own GPU
        device = torch.device(kind, torch.cuda.current_device()) if kind == "cuda" else torch.device(kind)
        yield Mesh(Ranks(axes.get_group("latent"), device), Ranks(axes.get_group("data"), device))
    finally:
        dist.destroy_process_group()
