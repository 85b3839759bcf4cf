"""What every number means, defined once: pure, mergeable, with masks, units, n and an interval. No model, no files.

Training, evaluation and reports use these definitions and have none of their own. Sums are float64, counts int64, so the
same rows give the same number however they are cut into batches.
"""

from mohole.metrics.ablation import kl_recovered
from mohole.metrics.binary import Area, BestCut, Confusion, auroc, auroc_by_document, best_cut, confusion
from mohole.metrics.bootstrap import document_weights, interval
from mohole.metrics.documents import DocumentSums
from mohole.metrics.firing import DensityHistogram, Firing
from mohole.metrics.language import ce_recovered, kl_nats, scored_pairs, token_nats
from mohole.metrics.measure import Masks, Measure, measured, require_finite, wilson
from mohole.metrics.reconstruction import Reconstruction, fvu

__all__ = [
    "Area",
    "BestCut",
    "Confusion",
    "DensityHistogram",
    "DocumentSums",
    "Firing",
    "Masks",
    "Measure",
    "Reconstruction",
    "auroc",
    "auroc_by_document",
    "best_cut",
    "ce_recovered",
    "confusion",
    "document_weights",
    "fvu",
    "interval",
    "kl_nats",
    "kl_recovered",
    "measured",
    "require_finite",
    "scored_pairs",
    "token_nats",
    "wilson",
]
