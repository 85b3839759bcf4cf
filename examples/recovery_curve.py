"""How many dimensions does it take to read k active features of n? A dictionary's encoder against compressed sensing.

    python examples/recovery_curve.py [OUT.svg]

n random unit directions in m dimensions; k of them are active with magnitudes from 1 to 2. The dictionary is the true one, so
that nothing is lost in training: what is asked is whether a code can be read. The encoder reads each feature by one product
and keeps the k largest (TopK). Orthogonal matching pursuit (OMP; Tropp & Gilbert 2007) explains one feature away after the
other. Theory: a number of dimensions proportional to k log(n / k) is enough and needed (Donoho 2006; Candes & Tao 2006), with
OMP near 2 k log n.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mohole.config import TopK
from mohole.dictionary import SparseAutoencoder
from mohole.drawing import SMALL, Series, plot, write_drawing


def problem(n: int, m: int, k: int, n_rows: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Directions [n, m], active features [row, k] ascending, rows [row, m]."""
    random = torch.Generator().manual_seed(seed)
    directions = torch.nn.functional.normalize(torch.randn(n, m, generator=random), dim=1)
    active = torch.rand(n_rows, n, generator=random).topk(k, dim=1).indices.sort(dim=1).values
    magnitudes = 1 + torch.rand(n_rows, k, generator=random)
    return directions, active, torch.einsum("rk,rkm->rm", magnitudes, directions[active])


def encoded(directions: Tensor, rows: Tensor, k: int) -> Tensor:
    """The k features that a TopK dictionary with these directions reads in each row [row, k]; -1 where it reads fewer."""
    n, m = directions.shape
    sae = SparseAutoencoder("rows", TopK(k=k), directions, torch.zeros(n), directions, torch.zeros(m))
    codes = sae.encode(rows)
    result = torch.full((len(rows), k), -1)
    place = torch.arange(len(codes.latents)) - codes.row_starts[codes.rows]
    result[codes.rows, place] = codes.latents
    return result


def pursued(directions: Tensor, rows: Tensor, k: int) -> Tensor:
    """The k features that orthogonal matching pursuit finds in each row [row, k]."""
    chosen = torch.zeros(len(rows), 0, dtype=torch.int64)
    left = rows
    for _ in range(k):
        reading = (left @ directions.T).abs()
        reading.scatter_(1, chosen, -1.0)
        chosen = torch.cat([chosen, reading.argmax(dim=1, keepdim=True)], dim=1)
        basis = directions[chosen]
        gram = basis @ basis.mT + 1e-7 * torch.eye(chosen.shape[1])
        weights = torch.linalg.solve(gram, torch.einsum("rkm,rm->rk", basis, rows))
        left = rows - torch.einsum("rk,rkm->rm", weights, basis)
    return chosen.sort(dim=1).values


def support_found(found: Tensor, active: Tensor) -> float:
    """Share of rows of which exactly the active features were found."""
    return float((found.sort(dim=1).values == active).all(dim=1).float().mean())


def curve(n: int, k: int, dimensions: list[int], *, n_rows: int, seed: int = 0) -> dict[str, list[float]]:
    """For each number of dimensions the share of rows read exactly, by the encoder and by OMP."""
    result: dict[str, list[float]] = {"encoder": [], "omp": []}
    for m in dimensions:
        directions, active, rows = problem(n, m, k, n_rows, seed)
        result["encoder"].append(support_found(encoded(directions, rows, k), active))
        result["omp"].append(support_found(pursued(directions, rows, k), active))
    return result


def crossing(dimensions: list[int], shares: list[float], level: float = 0.5) -> float | None:
    """Where a curve first reaches a level, between its points; None where it never does."""
    for i, share in enumerate(shares):
        if share >= level:
            if i == 0:
                return float(dimensions[0])
            below = shares[i - 1]
            return dimensions[i - 1] + (level - below) / (share - below) * (dimensions[i] - dimensions[i - 1])
    return None


def theory(n: int, k: int) -> float:
    return k * float(np.log(n / k))


def main(out: Path) -> None:
    torch.set_num_threads(1)
    n, ks = 512, (2, 4, 8, 16)
    dimensions = [8, 12, 16, 24, 32, 48, 64, 80, 96, 128, 160, 192, 256, 384, 512]
    curves = {k: curve(n, k, dimensions, n_rows=200) for k in ks}
    needed = {}
    for k, found in curves.items():
        needed[k] = {name: crossing(dimensions, shares) for name, shares in found.items()}
        told = ", ".join(
            f"{name} {'more than 512' if at is None else f'{at:.0f} = {at / theory(n, k):.1f} k ln(n/k)'}"
            for name, at in needed[k].items()
        )
        sys.stdout.write(f"k {k:>2}: half of the rows are read exactly from so many dimensions on: {told}\n")
    lines = [
        Series(
            f"{name}, k {k}",
            line=tuple((float(m), share) for m, share in zip(dimensions, found[name], strict=True)),
            is_law=name == "encoder",
        )
        for k, found in curves.items()
        for name in ("omp", "encoder")
    ]
    shares = plot(
        "Rows read exactly (dashed: encoder)",
        "dimensions",
        "share of rows",
        lines,
        y_scale="linear",
        size=SMALL,
        has_legend=False,
        has_zero=True,
    )
    points = [
        Series(name, tuple((theory(n, k), at, f"k {k}: {at:.0f}") for k in ks if (at := needed[k][name]) is not None))
        for name in ("omp", "encoder")
    ]
    law = Series("2 k ln(n / k)", line=tuple((theory(n, k), 2 * theory(n, k)) for k in ks), is_law=True)
    thresholds = plot("Dimensions for half of the rows", "k ln(n / k)", "dimensions", [*points, law], size=SMALL)
    write_drawing(
        out,
        "Reading k of 512 features",
        ["The true dictionary, no noise. Encoder: one product and TopK. OMP: orthogonal matching pursuit."],
        [shares, thresholds],
    )


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "recovery_curve.svg"))
