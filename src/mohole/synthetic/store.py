"""Synthetic rows as a finished store, which training reads like any other."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mohole import keys
from mohole.artifact import Inputs
from mohole.progress import Tracker, track
from mohole.store import write_store
from mohole.store.columns import RowType
from mohole.store.order import Documents
from mohole.synthetic.world import SyntheticWorld

Float32 = NDArray[np.float32]

HOOKPOINT = "synthetic"
_DOCUMENT_ROWS = 64
_SHARD_ROWS = 65_536


def write_rows(
    out: Path | str,
    world: SyntheticWorld,
    *,
    seed: int,
    dtype: RowType = "bfloat16",
    inputs: Inputs | None = None,
    replace: bool = False,
) -> None:
    """Write rows 0 to n_rows of a world as a store at `out`; the hookpoint is "synthetic".

    Rows are made shard by shard, so memory does not grow with their number. Documents are 64 rows each.

    Raises:
        ArtifactError: `out` is taken.
    """
    settings = world.settings
    starts = np.append(np.arange(0, settings.n_rows, _DOCUMENT_ROWS), settings.n_rows)
    held_out = keys.held_out(seed, np.arange(len(starts) - 1), settings.held_out)
    with track("synthesize: rows", settings.n_rows, "rows") as tracker:
        write_store(
            out,
            {HOOKPOINT: _Made(world, tracker)},
            Documents(starts, held_out),
            seed=seed,
            dtype=dtype,
            shard_rows=_SHARD_ROWS,
            inputs=inputs,
            replace=replace,
        )


@dataclass(frozen=True)
class _Made:
    """The rows of a world, made when they are asked for."""

    world: SyntheticWorld
    tracker: Tracker

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self), self.world.settings.d_model)

    def __len__(self) -> int:
        return self.world.settings.n_rows

    def __getitem__(self, part: slice) -> Float32:
        ids = np.arange(len(self))[part]
        made: Float32 = self.world.rows(self.world.firings(ids)).numpy()
        self.tracker.advance(len(ids))
        return made
