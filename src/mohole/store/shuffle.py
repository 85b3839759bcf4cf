"""The shuffled order: rows sorted by a keyed pseudo-random function of (document, position). In memory, one pass.

The order depends on the seed and the ids alone (law 2), so any prefix is a uniform sample and a later, multi-pass
shuffle of a larger store gives the same order.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mohole import keys
from mohole.progress import track
from mohole.store.store import Store, StoreWriter

_CHUNK_ROWS = 16_384


def shuffled_order(
    seed: int, document: NDArray[np.int64], position: NDArray[np.int64], *, epoch: int = 0
) -> NDArray[np.int64]:
    """The permutation that sorts rows by key. Equal keys (chance N^2 / 2^65) keep the order of their ids."""
    order = keys.row_keys(seed, document, position, epoch=epoch)
    return np.lexsort((position, document, order))


def shuffle(
    out: Path, store: Store, document: NDArray[np.int64], position: NDArray[np.int64], *, seed: int, epoch: int = 0
) -> None:
    """Write the rows of `store` in shuffled order into `out`.

    Args:
        document: each row's document.
        position: each row's token's place in that document.
    """
    order = shuffled_order(seed, document, position, epoch=epoch)
    widths = {hookpoint: store.d_model(hookpoint) for hookpoint in store.hookpoints}
    with (
        StoreWriter(out, store.tokens[order], store.held_out[order], widths, store.dtype) as writer,
        track("shuffle", len(widths) * store.n_rows, "rows") as tracker,
    ):
        for hookpoint in widths:
            for start in range(0, store.n_rows, _CHUNK_ROWS):
                chosen = order[start : start + _CHUNK_ROWS]
                writer.write(hookpoint, start, store.take_raw(hookpoint, chosen))
                tracker.advance(len(chosen))
