"""What every number means, defined once: pure, mergeable, with masks, units, n and an interval. No model, no files.

Training, evaluation and reports use these definitions and have none of their own. Sums are float64, counts int64, so the
same rows give the same number however they are cut into batches.
"""

from mohole.metrics.binary import Area, BestCut, Confusion, auroc, auroc_by_document, best_cut, confusion
from mohole.metrics.bootstrap import document_weights, interval
from mohole.metrics.centred import CentredRows, MeanRow
from mohole.metrics.codes import Codes
from mohole.metrics.correlation import CodeCorrelation
from mohole.metrics.diffing import LatentScaling, relative_norm
from mohole.metrics.documents import DocumentSums
from mohole.metrics.firing import DensityHistogram, Firing
from mohole.metrics.geometry import best_cosine, cosine_with, nearest_other, paired_cosine, row_norms
from mohole.metrics.language import ce_recovered, kl_nats, kl_recovered, scored_pairs, token_nats
from mohole.metrics.longest import LongestApart
from mohole.metrics.matching import (
    Matching,
    Mmcs,
    expected_max_cosine,
    hungarian,
    mmcs,
    mutual_nearest,
    shared,
    stability,
)
from mohole.metrics.measure import Masks, Measure, measured, require_finite, wilson
from mohole.metrics.reconstruction import Reconstruction, fvu
from mohole.metrics.sparsity import DocumentFiring, l1_by_row
from mohole.metrics.splitting import CoFiring, Coverage, children_by_cosine
from mohole.metrics.written import perplexity, repeated_ngrams

__all__ = [
    "Area",
    "BestCut",
    "CentredRows",
    "CoFiring",
    "CodeCorrelation",
    "Codes",
    "Confusion",
    "Coverage",
    "DensityHistogram",
    "DocumentFiring",
    "DocumentSums",
    "Firing",
    "LatentScaling",
    "LongestApart",
    "Masks",
    "Matching",
    "MeanRow",
    "Measure",
    "Mmcs",
    "Reconstruction",
    "auroc",
    "auroc_by_document",
    "best_cosine",
    "best_cut",
    "ce_recovered",
    "children_by_cosine",
    "confusion",
    "cosine_with",
    "document_weights",
    "expected_max_cosine",
    "fvu",
    "hungarian",
    "interval",
    "kl_nats",
    "kl_recovered",
    "l1_by_row",
    "measured",
    "mmcs",
    "mutual_nearest",
    "nearest_other",
    "paired_cosine",
    "perplexity",
    "relative_norm",
    "repeated_ngrams",
    "require_finite",
    "row_norms",
    "scored_pairs",
    "shared",
    "stability",
    "token_nats",
    "wilson",
]
