"""The way of held-out rows through a dictionary into sums. What the sums say is in sums.py."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mohole.evaluate.rows.choice import Rows, chunks, mean_row, take
from mohole.evaluate.rows.sums import RowSums, rebuilt_measures
from mohole.evaluate.standin import StandIn, joined
from mohole.metrics import Firing, Measure, Reconstruction
from mohole.progress import track
from mohole.store import Store

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class RowQuality:
    """What the held-out rows say."""

    measures: tuple[Measure, ...]
    firing: Firing
    mean: Float64
    """The mean of what is to be rebuilt, the columns of all hookpoints side by side."""


def measure_rows(store: Store, rows: Rows, spliced: StandIn, *, seed: int) -> RowQuality:
    """Read the rows for their mean, then encode and decode them once, and measure.

    Raises:
        NumericsError: a row or its reconstruction is not finite.
    """
    mean = np.concatenate([mean_row(store, rows, name) for name in spliced.writes])
    sums = RowSums(mean, len(rows), spliced.direction_norms.cpu())
    parts = {name: Reconstruction() for name in spliced.writes} if len(spliced.writes) > 1 else {}
    with track(f"evaluate {spliced.name}: rows", len(rows), "rows") as tracker:
        for part in chunks(len(rows), spliced.n_latents):
            documents, where = rows.documents[part], f"from row {part.start} of the held-out ones"
            stored = take(store, (*spliced.reads, *spliced.writes), rows.tokens[part], where)
            outputs, codes = spliced.rebuild(stored)
            outputs = {name: output.cpu() for name, output in outputs.items()}
            place = f"{', '.join(spliced.writes)}: reconstruction"
            scales = spliced.scales(stored)
            scales = None if scales is None else scales.cpu()
            target, output = (joined(each, spliced.writes) for each in (stored, outputs))
            sums.add(target, output, codes.cpu(), documents, scales=scales, place=place)
            for name, own in parts.items():
                own.add(stored[name], outputs[name], documents, place=f"{name}: reconstruction")
            tracker.advance(len(documents))
    named = [measure for name, own in parts.items() for measure in rebuilt_measures(own, seed, f"/{name}")]
    return RowQuality((*sums.measures(seed), *named), sums.firing, mean)
