"""sparsify writes sparse coders for mohole to read (`write PLACE`), or loads those that mohole wrote (`check PLACE`)."""

import sys
from pathlib import Path
from typing import Any

D, F, K = 16, 48, 5


def write(place: str) -> None:
    from exchange import fill, leave, some_rows
    from sparsify import SparseCoder
    from sparsify.config import SparseCoderConfig

    cases = {
        "layers.3": SparseCoderConfig(num_latents=F, k=K),
        "layers.4": SparseCoderConfig(expansion_factor=3, num_latents=0, k=K),
        "layers.5.mlp": SparseCoderConfig(num_latents=F, k=K, transcode=True),
        "layers.6.mlp": SparseCoderConfig(num_latents=F, k=K, transcode=True, skip_connection=True),
        "layers.7": SparseCoderConfig(num_latents=F, k=K, skip_connection=True),
    }
    rows = some_rows(20, D)
    for seed, (name, config) in enumerate(cases.items()):
        coder = fill(SparseCoder(D, config), seed)
        coder.save_to_disk(Path(place) / name)
        leave(Path(place) / name, rows, *_compute(coder, rows))


def check(place: str) -> None:
    from exchange import compare, folders
    from sparsify import SparseCoder

    for folder in folders(place):
        coder = SparseCoder.load_from_disk(folder)
        compare(folder, lambda rows, coder=coder: _compute(coder, rows))


def _compute(coder: Any, rows: Any) -> Any:
    import torch

    values, latents, _ = coder.encode(rows)
    return torch.zeros(len(rows), coder.num_latents).scatter(1, latents, values), coder(rows).sae_out


if __name__ == "__main__":
    {"write": write, "check": check}[sys.argv[1]](sys.argv[2])
