"""Several dictionaries of one stream and different sizes: what more latents would still explain, and what none would."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mohole.dictionary import AnyDictionary
from mohole.errors import StageError
from mohole.evaluate.rows.choice import CENTRE, COUNTED, Rows, chunks, take
from mohole.evaluate.standin import StandIn, stand_in
from mohole.metrics import Masks, Measure, Reconstruction
from mohole.metrics.growth import fitted_law
from mohole.metrics.measure import Reading
from mohole.store import Store

Float64 = NDArray[np.float64]


def measure_growth(
    store: Store, rows: Rows, dictionaries: Sequence[AnyDictionary], *, seed: int
) -> tuple[tuple[Measure, ...], tuple[Measure, ...]]:
    """(each dictionary's FVU on the same rows, in the order given; floor, exponent, and the floor as a share of the best FVU).

    The last is dark matter in Engels et al. 2024's sense: the part of what is unexplained that no number of latents explains.
    Undefined with fewer than four sizes.

    Raises:
        StageError: no dictionary, or dictionaries that write different places.
    """
    ready = [stand_in(dictionary) for dictionary in dictionaries]
    if len({each.writes for each in ready}) != 1:
        raise StageError("growth: needs dictionaries that all write one place, of different numbers of latents")
    sums = _sums(store, rows, ready)
    sizes = np.array([each.n_latents for each in ready], dtype=np.float64)
    documents, masks = sums[0].documents, Masks(counted=COUNTED)
    each_fvu = tuple(
        _reading(own, size).of(documents, seed=seed, n=len(rows), n_of="rows", masks=masks)
        for own, size in zip(sums, sizes, strict=True)
    )
    return each_fvu, fitted_law(sizes, each_fvu)


def _reading(sums: Reconstruction, n_latents: float) -> Reading:
    definition = f"sum |x - x^|^2 / sum |x - mean(x)|^2 with {n_latents:.0f} latents"
    return Reading("fvu", sums.fvu, "share of variance", CENTRE, definition, "rows without variance")


def _sums(store: Store, rows: Rows, ready: Sequence[StandIn]) -> list[Reconstruction]:
    """Of each dictionary, over all rows. Each place has a mean row of its own, so the columns stand side by side."""
    sums = [Reconstruction() for _ in ready]
    names = [name for each in ready for name in (*each.reads, *each.writes)]
    for part in chunks(len(rows), max(each.n_latents for each in ready)):
        stored = take(store, names, rows.tokens[part], f"from row {part.start} of the held-out ones")
        for each, own in zip(ready, sums, strict=True):
            own.add(*each.compared(stored), rows.documents[part], place=", ".join(each.writes))
    return sums
