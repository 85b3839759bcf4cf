"""Runs a function in several processes that are the ranks of a mesh, over gloo."""

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from mohole.parallel import Mesh
from mohole.parallel.ranks import mesh_of_ranks

MOST = 4
Found = dict[tuple[int, int], Any]
"""What each rank has returned, by (latent rank, data rank)."""


class Processes:
    """Some processes that have loaded torch, which takes longer than what they are for. Satisfied by one mesh at a time."""

    def __init__(self, pool: ProcessPoolExecutor, folder: Path) -> None:
        self._pool, self._folder, self._n_meetings = pool, folder, 0

    def on_mesh(self, work: Callable[..., Any], n_latent: int, n_data: int, *arguments: Any) -> Found:
        """What `work(mesh, *arguments)` returns. A mesh of one is the one that is the default, in this process."""
        if n_latent == n_data == 1:
            return {(0, 0): work(Mesh(), *arguments)}
        self._n_meetings += 1
        meeting = self._folder / f"meeting-{self._n_meetings}"
        # Each waits for all others before it begins, so no process gets two of them.
        futures = [
            self._pool.submit(_rank, work, n_latent, n_data, meeting, rank, arguments)
            for rank in range(n_latent * n_data)
        ]
        return dict(future.result(timeout=240) for future in futures)


@contextmanager
def processes(folder: Path) -> Iterator[Processes]:
    """Up to `MOST` of them, which start when they are needed."""
    with ProcessPoolExecutor(MOST, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield Processes(pool, folder)


def _rank(
    work: Callable[..., Any], n_latent: int, n_data: int, meeting: Path, rank: int, arguments: tuple[Any, ...]
) -> tuple[tuple[int, int], Any]:
    torch.set_num_threads(1)
    with mesh_of_ranks(n_latent, n_data, meet=f"file://{meeting}", rank=rank) as mesh:
        return (mesh.latent.rank, mesh.data.rank), work(mesh, *arguments)
