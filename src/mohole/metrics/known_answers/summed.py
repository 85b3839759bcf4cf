"""What must be true of L1 and of firing consistency."""

from collections.abc import Iterator

import numpy as np
import torch

from mohole.metrics.definitions import Definitions
from mohole.metrics.known_answers.answer import Answer, Check
from mohole.metrics.known_answers.coded import coded

_CODES = torch.tensor([[1.0, 0.0, -2.0], [0.0, 0.0, 0.0], [0.0, 4.0, 0.5]], dtype=torch.float64)


def sizes_are_summed_without_sign(d: Definitions) -> Iterator[Answer]:
    """L1 of (1, 0, -2) is 3, of nothing 0; with decoder rows of length 2, 3 and 5 it is 12. A stored zero adds nothing."""
    norms = torch.tensor([2.0, 3.0, 5.0], dtype=torch.float64)
    for stored in (False, True):
        raw, weighed = (
            d.l1_by_row(coded(_CODES, with_zeros=stored)),
            d.l1_by_row(coded(_CODES, with_zeros=stored), norms),
        )
        for row, (true_raw, true_weighed) in enumerate(((3.0, 12.0), (0.0, 0.0), (4.5, 14.5))):
            yield Answer(f"L1 of row {row}", float(raw[row]), true_raw)
            yield Answer(f"L1 by length of row {row}", float(weighed[row]), true_weighed)


def l1_by_length_does_not_know_units(d: Definitions) -> Iterator[Answer]:
    """f -> c f with d -> d / c changes nothing that the dictionary does: L1 by length stays, raw L1 grows by c."""
    scale, norms = (
        torch.tensor([10.0, 0.1, 3.0], dtype=torch.float64),
        torch.tensor([2.0, 3.0, 5.0], dtype=torch.float64),
    )
    found = d.l1_by_row(coded(_CODES * scale), norms / scale)
    yield Answer("L1 by length in other units", float(found.sum()), 26.5)
    yield Answer("raw L1, all latents times 7", float(d.l1_by_row(coded(7 * _CODES)).sum()), 7 * 7.5)


def consistency_is_firings_for_each_document(d: Definitions) -> Iterator[Answer]:
    """Once in 3 documents is 1, four times in one is 4, never is undefined: also where batches and ranks cut documents."""
    documents = np.arange(16) // 4
    dense = torch.zeros(16, 4, dtype=torch.float64)
    dense[[0, 5, 10], 0] = 1.0  # once in each of three documents
    dense[4:8, 1] = -1.0  # all of one document
    dense[:, 2] = 2.0  # everywhere
    true = ((1.0, 3), (4.0, 1), (4.0, 4), (float("nan"), 0))
    for name, batch, n_ranks in (("one batch", 16, 1), ("batches of 3", 3, 1), ("three ranks", 1, 3)):
        ranks = [d.document_firing(4) for _ in range(n_ranks)]
        for turn, first in enumerate(range(0, 16, batch)):
            part = slice(first, first + batch)
            ranks[turn % n_ranks].add(coded(dense[part], with_zeros=True), documents[part])
        for rank in ranks[1:]:
            ranks[0].merge(rank)
        consistency, active = ranks[0].consistency, ranks[0].documents_active
        for latent, (value, n) in enumerate(true):
            yield Answer(f"consistency of latent {latent}, {name}", float(consistency[latent]), value)
            yield Answer(f"documents of latent {latent}, {name}", float(active[latent]), float(n), 0)
        sums = ranks[0].by_document()
        pooled = sums.mean_of("firings", "latents")(np.ones((1, 4)))[0]
        yield Answer(f"consistency of all, {name}", float(pooled), 23 / 8)


CHECKS: tuple[Check, ...] = (
    sizes_are_summed_without_sign, l1_by_length_does_not_know_units, consistency_is_firings_for_each_document,
)  # fmt: skip
