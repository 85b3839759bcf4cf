"""Which latents have been silent, and for how many rows of the training."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from mohole.parallel import ALONE, Axis
from mohole.train.activation import Active
from mohole.train.tiled import Crowd


class Silence:
    """For how many rows each latent has been silent, counted over all rows of training."""

    def __init__(self, n_latents: int, dead_after_rows: int, device: torch.device) -> None:
        self.n_rows: Int[Tensor, " latent"] = torch.zeros(n_latents, dtype=torch.int64, device=device)
        self._dead_after_rows = dead_after_rows

    def update(self, fired: Bool[Tensor, " latent"], n_rows: int) -> None:
        self.n_rows += n_rows
        self.n_rows[fired] = 0

    def dead(self) -> Int[Tensor, " dead"]:
        """Latents that have been silent for too long, ascending."""
        return (self.n_rows >= self._dead_after_rows).nonzero()[:, 0]


def fired(active: Active | Crowd, n_latents: int, data: Axis = ALONE) -> Bool[Tensor, " latent"]:
    """Which latents were active in at least one row, of any data rank."""
    if isinstance(active, Crowd):
        found = active.totals(n_latents).n_active > 0
    else:
        found = torch.zeros(n_latents, dtype=torch.bool, device=active.values.device)
        found[active.latents[active.values > 0]] = True
    return found if data.size == 1 else data.total(found.int()) > 0
