"""All definitions as one value, so that a check can be asked of ours and of a mutant that has one of them wrong."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mohole.metrics.absorption import Absorbed, absorption
from mohole.metrics.binary import Area, BestCut, Confusion, auroc, auroc_by_document, best_cut, confusion
from mohole.metrics.bootstrap import document_weights, interval
from mohole.metrics.centred import CentredRows, MeanRow
from mohole.metrics.concept_removal import attribution, scr, tpp, without
from mohole.metrics.correlation import CodeCorrelation
from mohole.metrics.diffing import LatentScaling, relative_norm
from mohole.metrics.disentangle import caused, disentanglement, interchange, isolated
from mohole.metrics.evidence import evidence_nats, signature
from mohole.metrics.firing import Firing
from mohole.metrics.geometry import best_cosine, cosine_with, nearest_other, paired_cosine, row_norms
from mohole.metrics.growth import fitted_floor
from mohole.metrics.judged import Judged, judged, simulation_score
from mohole.metrics.known_features import Detection, cosines, detection, found, mcc, own_latents, uniqueness
from mohole.metrics.language import ce_recovered, kl_nats, kl_recovered, scored_pairs, token_nats
from mohole.metrics.linear import LinearFit
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
from mohole.metrics.measure import Statistic, wilson
from mohole.metrics.reconstruction import Reconstruction
from mohole.metrics.sparse_probe import (
    LinearProbe,
    Probed,
    balanced_accuracy,
    class_gap,
    fit_probe,
    probe_splits,
    selectivity,
    sparse_probe,
)
from mohole.metrics.sparsity import DocumentFiring, l1_by_row
from mohole.metrics.splitting import CoFiring, Coverage, children_by_cosine
from mohole.metrics.unlearning import choose_edit, frontier, unlearned, unlearning_score
from mohole.metrics.written import perplexity, repeated_ngrams

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
    kl_recovered: Callable[[Array, Array], Array] = kl_recovered
    confusion: Callable[..., Confusion] = confusion
    auroc: Callable[..., float] = auroc
    auroc_by_document: Callable[..., Area] = auroc_by_document
    best_cut: Callable[..., BestCut] = best_cut
    document_weights: Callable[..., Array] = document_weights
    interval: Callable[[Array], tuple[float | None, float | None]] = interval
    wilson: Callable[[int, int], tuple[float, float]] = wilson
    mean_row: type[MeanRow] = MeanRow
    centred: type[CentredRows] = CentredRows
    longest_apart: type[LongestApart] = LongestApart
    l1_by_row: Callable[..., Array] = l1_by_row
    document_firing: type[DocumentFiring] = DocumentFiring
    row_norms: Callable[[Tensor], Tensor] = row_norms
    paired_cosine: Callable[[Tensor, Tensor], Tensor] = paired_cosine
    cosine_with: Callable[[Tensor, Tensor], Tensor] = cosine_with
    best_cosine: Callable[..., tuple[Tensor, Tensor]] = best_cosine
    nearest_other: Callable[..., tuple[Tensor, Tensor]] = nearest_other
    expected_max_cosine: Callable[[int, int], float] = expected_max_cosine
    mmcs: Callable[..., Mmcs] = mmcs
    hungarian: Callable[[Tensor, Tensor], Matching] = hungarian
    mutual_nearest: Callable[..., Matching] = mutual_nearest
    shared: Callable[..., Matching] = shared
    stability: Callable[..., list[Tensor]] = stability
    children_by_cosine: Callable[..., NDArray[np.int64]] = children_by_cosine
    co_firing: type[CoFiring] = CoFiring
    coverage: type[Coverage] = Coverage
    code_correlation: type[CodeCorrelation] = CodeCorrelation
    relative_norm: Callable[[Tensor, Tensor], Tensor] = relative_norm
    latent_scaling: type[LatentScaling] = LatentScaling
    linear_fit: type[LinearFit] = LinearFit
    fitted_floor: Callable[[Array, Array], tuple[Array, Array, Array]] = fitted_floor
    feature_cosines: Callable[[Tensor, Tensor], Tensor] = cosines
    mcc: Callable[[Tensor], float] = mcc
    uniqueness: Callable[[Tensor], float] = uniqueness
    own_latents: Callable[[Tensor], Tensor] = own_latents
    detection: Callable[..., Detection] = detection
    found_firings: Callable[..., NDArray[np.bool_]] = found
    signature: Callable[..., Tensor] = signature
    evidence_nats: Callable[[Tensor, Tensor], Tensor] = evidence_nats
    fit_probe: Callable[..., LinearProbe] = fit_probe
    class_gap: Callable[..., Array] = class_gap
    sparse_probe: Callable[..., Probed] = sparse_probe
    balanced_accuracy: Callable[..., Statistic] = balanced_accuracy
    selectivity: Callable[[Array, Array], Array] = selectivity
    probe_splits: Callable[..., int] = probe_splits
    attribution: Callable[..., Array] = attribution
    without: Callable[..., Array] = without
    scr: Callable[[Array, Array, Array], Array] = scr
    tpp: Callable[..., Array] = tpp
    absorption: Callable[..., Absorbed] = absorption
    interchange: Callable[..., Array] = interchange
    caused: Callable[..., Array] = caused
    isolated: Callable[..., Array] = isolated
    disentanglement: Callable[[Array, Array], Array] = disentanglement
    frontier: Callable[..., NDArray[np.int64]] = frontier
    choose_edit: Callable[..., int | None] = choose_edit
    unlearned: Callable[[Array, Array, float], Array] = unlearned
    unlearning_score: Callable[..., float] = unlearning_score
    judged: Callable[..., Judged] = judged
    simulation_score: Callable[[Array, Array], float] = simulation_score
    repeated_ngrams: Callable[..., tuple[int, int]] = repeated_ngrams
    perplexity: Callable[[Array, Array], Array] = perplexity


OURS = Definitions()
