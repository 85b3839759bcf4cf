"""The guard for numbers that are none: what an evaluation says where a NaN or an infinity stopped it."""

import numpy as np
import torch

from mohole.errors import NumericsError
from mohole.evaluate.results import Caution, DarkMatter, Evaluation
from mohole.evaluate.rows.choice import COUNTED, Rows, chunks
from mohole.evaluate.standin import StandIn
from mohole.metrics import Firing, Masks, Measure
from mohole.metrics.stamp import stamp
from mohole.progress import track
from mohole.store import Store

NOT_FINITE = "not_finite"


def without_numbers(store: Store, rows: Rows, spliced: StandIn, stopped: NumericsError) -> Evaluation:
    """A report with one number, the share of rows that are not finite, and a warning: of the others none is to be had.

    Args:
        rows: that were to be measured.
        stopped: what stopped the measuring; it names the first place.
    """
    share = _share(store, rows, spliced)
    n = round((share.value or 0.0) * share.n)
    return Evaluation(
        hookpoint=spliced.name,
        kind=spliced.kind,
        reads=spliced.reads,
        writes=spliced.writes,
        n_latents=spliced.n_latents,
        measures={share.name: share},
        tasks=(),
        density=Firing(spliced.n_latents).histogram(),
        dark_matter=DarkMatter(n_rows=0, classes=(), dense=()),
        warnings=(
            Caution(
                NOT_FINITE,
                f"{n:,} of {share.n:,} rows ({share.value:.3%}) are not finite, stored or rebuilt, so nothing else was measured. "
                f"First met: {stopped}",
            ),
        ),
        checked=stamp(),
    )


def _share(store: Store, rows: Rows, spliced: StandIn) -> Measure:
    """Of the rows: those with a NaN or an infinity where they are read, written, or rebuilt."""
    n_bad = 0
    with track(f"evaluate {spliced.name}: rows that are not finite", len(rows), "rows") as tracker:
        for part in chunks(len(rows), spliced.n_latents):
            names = dict.fromkeys((*spliced.reads, *spliced.writes))
            stored = {name: torch.from_numpy(store.take(name, rows.tokens[part])) for name in names}
            outputs, _ = spliced.rebuild(stored)
            whole = [torch.isfinite(each.cpu()).all(1) for each in (*stored.values(), *outputs.values())]
            n_bad += int((~torch.stack(whole).all(0)).sum())
            tracker.advance(part.stop - part.start)
    return Measure(
        name=NOT_FINITE,
        value=n_bad / len(rows),
        unit="share of rows",
        low=None,
        high=None,
        n=len(rows),
        n_of="rows",
        n_documents=len(np.unique(rows.documents)),
        masks=Masks(counted=COUNTED),
        baseline="",
        definition="rows with a NaN or an infinity where the dictionary reads, where it writes, or in what it rebuilds",
    )
