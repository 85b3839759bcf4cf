"""All definitions as one value, so that a check can be asked of ours and of a mutant that has one of them wrong."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mohole.metrics.binary import Area, BestCut, Confusion, auroc, auroc_by_document, best_cut, confusion
from mohole.metrics.bootstrap import document_weights, interval
from mohole.metrics.firing import Firing
from mohole.metrics.language import ce_recovered, kl_nats, scored_pairs, token_nats
from mohole.metrics.measure import wilson
from mohole.metrics.reconstruction import Reconstruction

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Definitions:
    """What every number is computed by. `Definitions()` is ours; `replace(OURS, kl_nats=wrong)` is a mutant.

    Each field is asked for by a check of `known_answers`, and wrong in a mutant: a test goes through the fields.
    """

    reconstruction: type[Reconstruction] = Reconstruction
    firing: type[Firing] = Firing
    scored_pairs: Callable[[Tensor], Tensor] = scored_pairs
    token_nats: Callable[[Tensor, Tensor], Tensor] = token_nats
    kl_nats: Callable[[Tensor, Tensor], Tensor] = kl_nats
    ce_recovered: Callable[[Array, Array, Array], Array] = ce_recovered
    confusion: Callable[..., Confusion] = confusion
    auroc: Callable[..., float] = auroc
    auroc_by_document: Callable[..., Area] = auroc_by_document
    best_cut: Callable[..., BestCut] = best_cut
    document_weights: Callable[..., Array] = document_weights
    interval: Callable[[Array], tuple[float | None, float | None]] = interval
    wilson: Callable[[int, int], tuple[float, float]] = wilson


OURS = Definitions()
