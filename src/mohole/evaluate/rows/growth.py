"""Several dictionaries of one stream and different sizes: what more latents would still explain, and what none would."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from mohole.dictionary import AnyDictionary
from mohole.errors import StageError
from mohole.evaluate.rows.choice import CENTRE, COUNTED, Rows, chunks, take
from mohole.evaluate.standin import StandIn, stand_in
from mohole.metrics import Masks, Measure, Reconstruction
from mohole.metrics.growth import fitted_floor
from mohole.metrics.measure import Reading, Statistic, ratio
from mohole.store import Store

Float64 = NDArray[np.float64]

_FITTED = "FVU = floor + factor x latents^-exponent, fitted to dictionaries of {sizes} latents"


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
    undefined = f"{len(np.unique(sizes))} numbers of latents, where four are needed, or rows without variance"

    def measures(readings: Iterator[Reading]) -> tuple[Measure, ...]:
        documents, masks = sums[0].documents, Masks(counted=COUNTED)
        return tuple(each.of(documents, seed=seed, n=len(rows), n_of="rows", masks=masks) for each in readings)

    return measures(_of_each(sums, sizes, undefined)), measures(_of_all(sums, sizes, undefined))


def _of_each(sums: Sequence[Reconstruction], sizes: Float64, undefined: str) -> Iterator[Reading]:
    for own, size in zip(sums, sizes, strict=True):
        definition = f"sum |x - x^|^2 / sum |x - mean(x)|^2 with {size:.0f} latents"
        yield Reading("fvu", own.fvu, "share of variance", CENTRE, definition, undefined)


def _of_all(sums: Sequence[Reconstruction], sizes: Float64, undefined: str) -> Iterator[Reading]:
    """What the law through all of their FVUs says."""

    def fitted(pick: Callable[[tuple[Float64, Float64, Float64], Float64], Float64]) -> Statistic:
        def statistic(weights: Float64) -> Float64:
            found = np.stack([own.fvu(weights) for own in sums], axis=1)
            return pick(fitted_floor(sizes, found), found)

        return statistic

    law = _FITTED.format(sizes=", ".join(f"{size:.0f}" for size in sizes))
    for name, pick, unit, definition in (
        ("fvu_floor", lambda line, _: line[0], "share of variance", f"floor of {law}"),
        ("fvu_exponent", lambda line, _: line[2], "exponent", f"exponent of {law}"),
        ("dark_share", lambda line, found: ratio(line[0], found.min(1)), "share of what the best leaves unexplained",
         f"floor over the lowest FVU, of {law}"),
    ):  # fmt: skip
        yield Reading(name, fitted(pick), unit, CENTRE, definition, undefined)


def _sums(store: Store, rows: Rows, ready: Sequence[StandIn]) -> list[Reconstruction]:
    """Of each dictionary, over all rows. Each place has a mean row of its own, so the columns stand side by side."""
    sums = [Reconstruction() for _ in ready]
    names = [name for each in ready for name in (*each.reads, *each.writes)]
    for part in chunks(len(rows), max(each.n_latents for each in ready)):
        stored = take(store, names, rows.tokens[part], f"from row {part.start} of the held-out ones")
        for each, own in zip(ready, sums, strict=True):
            own.add(*each.compared(stored), rows.documents[part], place=", ".join(each.writes))
    return sums
