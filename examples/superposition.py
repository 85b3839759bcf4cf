"""Toy models of superposition: when does a model keep more features than it has dimensions, and can a dictionary take them apart?

    python examples/superposition.py [OUT.svg]

A toy model squeezes n features into m < n dimensions and rebuilds them: x' = relu(W^T W x + b), loss sum_i I_i (x_i - x'_i)^2.
Features are uniform in [0, 1] where they are present, with chance `density` each. Source: Elhage et al. 2022, "Toy models of
superposition" (arXiv 2209.10652). Dense features are kept m at a time, the most important ones, each with a dimension of its own.
Sparse ones are kept many more than m, and get in each other's way. A dictionary trained on the m hidden numbers finds them again.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor

from mohole import artifact
from mohole.config import TopK, Train
from mohole.dictionary.files import open_sae
from mohole.drawing import SMALL, Figure, Series, plot, write_drawing
from mohole.metrics.known_features import cosines, mcc, own_latents
from mohole.store import Store, write_store
from mohole.store.order import Documents
from mohole.store.stream import Stream
from mohole.train import train

KEPT = 0.5
"""A feature is kept where its direction is longer than this; lengths are near 0 or near 1."""


@dataclass(frozen=True)
class Toys:
    """Trained toy models, many at once."""

    W: Tensor
    """[model, dimension, feature]"""
    loss: Tensor

    @property
    def lengths(self) -> Tensor:
        """How much of each feature is kept [model, feature]."""
        return self.W.norm(dim=1)

    @property
    def n_kept(self) -> Tensor:
        return (self.lengths > KEPT).sum(dim=1)

    @property
    def crowding(self) -> Tensor:
        """How much others are in a feature's way [model, feature]: sum of squared projections of the others on its direction."""
        unit = self.W / self.lengths[:, None].clamp_min(1e-9)
        onto = torch.einsum("bmi,bmj->bij", unit, self.W) ** 2
        return onto.sum(2) - onto.diagonal(dim1=1, dim2=2)


def train_toys(
    n: int, m: int, density: Tensor, importance: Tensor, *, steps: int, rows: int = 512, seed: int = 0
) -> Toys:
    """Train one toy model for each density [model] and importance [model, feature], side by side."""
    random = torch.Generator().manual_seed(seed)
    W = (torch.randn(len(density), m, n, generator=random) / n**0.5).requires_grad_()
    b = torch.zeros(len(density), 1, n, requires_grad=True)
    optimiser = torch.optim.Adam([W, b], lr=1e-2)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = 1e-2 * min(1.0, 2 * (1 - step / steps))
        is_there = torch.rand(len(density), rows, n, generator=random) < density[:, None, None]
        x = torch.rand(len(density), rows, n, generator=random) * is_there
        rebuilt = torch.relu(x @ W.mT @ W + b)
        loss = (importance[:, None] * (x - rebuilt) ** 2).sum(2).mean(1)
        optimiser.zero_grad()
        (loss / density).sum().backward()  # so that sparse models, whose losses are small, learn as fast
        optimiser.step()
    return Toys(W.detach(), loss.detach())


@dataclass(frozen=True)
class Phases:
    """What becomes of two features in one dimension, for each density of both and importance of the second beside the first."""

    densities: np.ndarray
    importances: np.ndarray
    phase: np.ndarray
    """[importance, density]: 0 the second is not kept, 1 it alone is kept, 2 both share the dimension."""


def phase_diagram(n_each: int, *, steps: int, seed: int = 0) -> Phases:
    """The paper's phase diagram for n = 2, m = 1: of three starts the model with the lowest loss counts."""
    densities, importances = np.geomspace(0.01, 1.0, n_each), np.geomspace(0.1, 10.0, n_each)
    grid_i, grid_d = (
        torch.tensor(part.ravel(), dtype=torch.float32) for part in np.meshgrid(importances, densities, indexing="ij")
    )
    importance = torch.stack([torch.ones_like(grid_i), grid_i], dim=1)
    starts = [train_toys(2, 1, grid_d, importance, steps=steps, rows=256, seed=seed + start) for start in range(3)]
    best = torch.stack([start.loss for start in starts]).argmin(0)
    kept = torch.stack([start.lengths > KEPT for start in starts])[best, torch.arange(len(best))]
    phase = torch.where(kept.all(1), 2, torch.where(kept[:, 1], 1, 0))
    return Phases(densities, importances, phase.reshape(n_each, n_each).numpy())


def kept_by_density(densities: list[float], *, n: int, m: int, steps: int, seed: int = 0) -> Toys:
    """Toy models of n features, each 0.9 times as important as the one before."""
    importance = (0.9 ** torch.arange(n)).expand(len(densities), n)
    return train_toys(n, m, torch.tensor(densities), importance, steps=steps, seed=seed)


def solve(W: Tensor, density: float, *, n_rows: int, steps: int, seed: int = 0) -> tuple[float, float]:
    """Train a dictionary on the hidden numbers of a toy model. Returns the share of its kept features that have a latent of
    their own nearer than a cosine of 0.9, by sign too, and the MCC."""
    kept = W[:, W.norm(dim=0) > KEPT].T
    random = torch.Generator().manual_seed(seed)
    x = torch.rand(n_rows, W.shape[1], generator=random) * (torch.rand(n_rows, W.shape[1], generator=random) < density)
    x = x[(x > 0).any(1)]
    with TemporaryDirectory() as folder:
        documents = Documents(np.arange(0, len(x) + 1), np.arange(len(x)) % 50 == 0)
        write_store(Path(folder) / "rows", {"hidden": (x @ W.T).numpy()}, documents, dtype="float32")
        settings = Train(n_latents=len(kept), nonlinearity=TopK(k=2), steps=steps, batch_rows=1024, lr=1e-2)
        with artifact.create(
            Path(folder) / "dictionary", artifact.Inputs(kind="dictionary", config={}, seed=seed)
        ) as out:
            train(out, Stream(Store.open(Path(folder) / "rows"), "hidden"), settings, seed=seed)
        cosine = cosines(open_sae(Path(folder) / "dictionary").W_dec, kept)
    own = own_latents(cosine)
    near = (own >= 0) & (cosine[own.clamp_min(0), torch.arange(len(kept))] > 0.9)
    return float(near.float().mean()), mcc(cosine)


def phase_figure(phases: Phases) -> Figure:
    """The phase diagram as coloured squares."""
    width, height, left, bottom = *SMALL, 64, 46
    n = len(phases.densities)
    step_x, step_y = (width - left - 14) / n, (height - bottom - 14) / n
    colours = ("#e7e3d8", "#c25e00", "#0a6a70")
    parts = [
        f'<rect x="{left + j * step_x:.1f}" y="{14 + (n - 1 - i) * step_y:.1f}" width="{step_x + 0.3:.1f}" '
        f'height="{step_y + 0.3:.1f}" fill="{colours[phase]}"/>'
        for (i, j), phase in np.ndenumerate(phases.phase)
    ]
    for text, x, y in (
        ("0.01", left, height - 28),
        ("density 1", width - 70, height - 28),
        ("10", 36, 24),
        ("0.1", 36, height - bottom),
    ):
        parts.append(f'<text class="tick" x="{x}" y="{y}">{text}</text>')
    parts.append(
        f'<text class="tick" x="{left}" y="{height - 10}">grey: not kept, orange: alone, green: both (superposition)</text>'
    )
    title = "The second of two features in one dimension, by its importance"
    return Figure(title, title, SMALL, "".join(parts))


def main(out: Path) -> None:
    torch.set_num_threads(1)
    phases = phase_diagram(16, steps=600)
    densities = [1.0, 0.5, 0.25, 0.1, 0.05, 0.02, 0.01]
    toys = kept_by_density(densities, n=40, m=10, steps=1500)
    own, matched = solve(toys.W[-2], densities[-2], n_rows=120_000, steps=600)
    counts = [int(n) for n in toys.n_kept]
    for density, n in zip(densities, counts, strict=True):
        sys.stdout.write(f"density {density:<5} {n:>3} of 40 features kept in 10 dimensions\n")
    sys.stdout.write(
        f"a dictionary trained on the hidden numbers at density {densities[-2]} finds {own:.0%} of the features kept, "
        f"MCC {matched:.3f}\n"
    )
    points = tuple(
        (density, float(n), f"density {density}: {n} features") for density, n in zip(densities, counts, strict=True)
    )
    line = tuple(sorted((x, y) for x, y, _ in points))
    kept = plot(
        "Features kept of 40, in 10 dimensions", "density", "features kept", [Series("kept", points, line)],
        y_scale="linear", size=SMALL, has_legend=False, has_zero=True,
    )  # fmt: skip
    note = (
        "Dense features get a dimension each; sparse ones share. Toy models of superposition, after Elhage et al. 2022."
    )
    write_drawing(
        out,
        "Superposition",
        [note, f"A dictionary finds {own:.0%} of the features kept at density {densities[-2]}."],
        [phase_figure(phases), kept],
    )


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "superposition.svg"))
