"""What must be true of counts of firings: L0, dead and dense latents, the density histogram."""

from collections.abc import Iterator

import numpy as np
import torch

from mohole.metrics.definitions import Definitions
from mohole.metrics.firing import Firing
from mohole.metrics.known_answers.answer import Answer, Check

_N_ROWS = 1000
_PERIODS = {"ultra-rare": 1000, "tenth": 10, "half": 2, "always": 1}
"""Latents that fire in every so-manieth row; latent 0 never does."""


def _planted(d: Definitions, first: int, last: int) -> Firing:
    """Rows `first` to `last` of the planted latents; negative values fire too, stored zeros do not."""
    firing = d.firing(len(_PERIODS) + 1)
    entries = [
        (latent, -1.0 if row % 3 else 2.0)
        for row in range(first, last)
        for latent, period in enumerate(_PERIODS.values(), start=1)
        if row % period == 0
    ]
    zeros = [(0, 0.0)] * (last - first)
    latents, values = zip(*entries, *zeros, strict=True)
    firing.add(torch.tensor(latents), torch.tensor(values), last - first)
    return firing


def planted_densities_are_counted_exactly(d: Definitions) -> Iterator[Answer]:
    """Latents that fire never, once, in a tenth, in half and in all rows are counted so; a stored zero is no firing."""
    firing = _planted(d, 0, _N_ROWS)
    for latent, true in enumerate((0, 1, 100, 500, 1000)):
        yield Answer(f"firings of latent {latent}", float(firing.counts[latent]), float(true), 0)
    yield Answer("L0", firing.l0, 1.601)
    yield Answer("dead latents", float(firing.n_dead), 1.0, 0)
    yield Answer("latents denser than a tenth", float(firing.n_denser_than(0.1)), 2.0, 0)


def negative_codes_fire(d: Definitions) -> Iterator[Answer]:
    """A latent fires where it is not zero: negative values count as positive ones do."""
    firing = d.firing(2)
    firing.add(torch.tensor([0, 0, 1]), torch.tensor([-1.0, -2.0, 3.0]), 2)
    yield Answer("L0 with negative values", firing.l0, 1.5)
    yield Answer("firings of a latent that is always negative", float(firing.counts[0]), 2.0, 0)


def ranks_count_one_stream(d: Definitions) -> Iterator[Answer]:
    """Counted on 1, 2 or 8 ranks and merged, the counts are those of one."""
    for n_ranks in (1, 2, 8):
        size = _N_ROWS // n_ranks
        parts = [_planted(d, rank * size, (rank + 1) * size) for rank in range(n_ranks)]
        for part in parts[1:]:
            parts[0].merge(part)
        yield Answer(f"dead latents on {n_ranks} ranks", float(parts[0].n_dead), 1.0, 0)
        yield Answer(f"rows on {n_ranks} ranks", float(parts[0].n_rows), float(_N_ROWS), 0)
        yield Answer(f"L0 on {n_ranks} ranks", parts[0].l0, 1.601)


def counts_pass_two_to_the_24(d: Definitions) -> Iterator[Answer]:
    """16 777 216 + 1 is 16 777 217, which float32 cannot hold."""
    firing = d.firing(1)
    firing.counts = firing.counts + 2**24
    firing.n_rows = 2**24
    firing.add(torch.tensor([0]), torch.tensor([1.0]), 1)
    yield Answer("firings after 2^24 and one more", float(firing.counts[0]), 2.0**24 + 1, 0)


def every_latent_is_in_the_histogram(d: Definitions) -> Iterator[Answer]:
    """The density histogram holds every latent once: the dead in the zero bin, density 1 in the last one."""
    histogram = _planted(d, 0, _N_ROWS).histogram()
    yield Answer("latents in the zero bin", float(histogram.zero), 1.0, 0)
    yield Answer("latents in the other bins", float(sum(histogram.counts)), 4.0, 0)
    yield Answer("latents in the last bin", float(histogram.counts[-1]), 1.0, 0)
    inside = np.searchsorted(histogram.edges, -1.0, side="right") - 1
    yield Answer("latents in the bin that begins at a tenth", float(histogram.counts[inside]), 1.0, 0)


CHECKS: tuple[Check, ...] = (
    planted_densities_are_counted_exactly, negative_codes_fire, ranks_count_one_stream, counts_pass_two_to_the_24,
    every_latent_is_in_the_histogram,
)  # fmt: skip
