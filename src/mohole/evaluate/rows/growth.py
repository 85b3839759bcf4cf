"""Several dictionaries of one stream and different sizes: what more latents would still explain, and what none would."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from mohole.dictionary import AnyDictionary
from mohole.errors import StageError
from mohole.evaluate.rows.choice import COUNTED, Rows, chunks, take
from mohole.evaluate.standin import StandIn, stand_in
from mohole.metrics import Masks, Measure, Reconstruction, measured
from mohole.metrics.growth import fitted_law
from mohole.metrics.measure import Statistic
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

    def about(statistic: Statistic, name: str, unit: str, definition: str) -> Measure:
        return measured(
            statistic,
            sums[0].documents,
            seed=seed,
            name=name,
            unit=unit,
            n=len(rows),
            n_of="rows",
            masks=Masks(counted=COUNTED),
            baseline="the mean row over all counted rows",
            definition=definition,
            undefined="rows without variance",
        )

    each_fvu = tuple(
        about(own.fvu, "fvu", "share of variance", f"sum |x - x^|^2 / sum |x - mean(x)|^2 with {size:.0f} latents")
        for own, size in zip(sums, sizes, strict=True)
    )
    return each_fvu, fitted_law(sizes, each_fvu)


def _sums(store: Store, rows: Rows, ready: Sequence[StandIn]) -> list[Reconstruction]:
    """Of each dictionary, over all rows. Each place has a mean row of its own, so the columns stand side by side."""
    sums = [Reconstruction() for _ in ready]
    names = [name for each in ready for name in (*each.reads, *each.writes)]
    for part in chunks(len(rows), max(each.n_latents for each in ready)):
        stored = take(store, names, rows.tokens[part], f"from row {part.start} of the held-out ones")
        for each, own in zip(ready, sums, strict=True):
            outputs, _ = each.rebuild(stored)
            target = torch.cat([stored[name] for name in each.writes], 1)
            output = torch.cat([outputs[name].cpu() for name in each.writes], 1)
            own.add(target, output, rows.documents[part], place=", ".join(each.writes))
    return sums
