"""How often and how strongly each latent fires, over the last steps of a training. Mergeable; travels with the weights."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mohole.train.activation import Totals


class Statistics:
    """Sums over rows, for the latents of all blocks one after the other."""

    def __init__(self, n_latents: int, device: torch.device) -> None:
        self.n_rows = 0
        self.n_active: Int[Tensor, " latent"] = torch.zeros(n_latents, dtype=torch.int64, device=device)
        self.total: Float[Tensor, " latent"] = torch.zeros(n_latents, dtype=torch.float64, device=device)
        self.largest: Float[Tensor, " latent"] = torch.zeros(n_latents, device=device)

    def add(self, blocks: Sequence[Totals], n_rows: int) -> None:
        """Take what each block's latents did in a batch."""
        n_own = len(self.n_active) // len(blocks)
        for number, own in enumerate(blocks):
            here = slice(number * n_own, (number + 1) * n_own)
            self.n_active[here] += own.n_active
            self.total[here] += own.total
            self.largest[here] = torch.maximum(self.largest[here], own.largest)
        self.n_rows += n_rows

    def tensors(self) -> dict[str, Tensor]:
        """The sums, by name."""
        return {"n_active": self.n_active, "total": self.total, "largest": self.largest}

    def in_units(self, scale: Float[Tensor, " latent"]) -> dict[str, Tensor]:
        """Density (share of rows), mean over the rows in which it fires, and maximum, activations divided by `scale`."""
        mean = self.total / self.n_active.clamp_min(1)
        return {
            "density": (self.n_active / max(self.n_rows, 1)).float(),
            "mean": (mean / scale).float(),
            "max": (self.largest / scale).float(),
        }
