"""Families of labels in one line each: medians over labels, their intervals, the margin over the floors."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mohole.evaluate.recovery.results import FLOORS, FamilyResult, LabelResult, Medians
from mohole.evaluate.recovery.truth import Truth
from mohole.metrics import interval

Float64 = NDArray[np.float64]

WORDS = "words"


@dataclass(frozen=True)
class Found:
    """A label's result, and its F1 in each replicate for each kind of detector."""

    result: LabelResult
    replicates: dict[str, Float64]


def summarise(truth: Truth, found: list[Found]) -> tuple[FamilyResult | None, tuple[FamilyResult, ...]]:
    """All families of words together, and each family."""
    families: dict[str, list[Found]] = {}
    for item in found:
        families.setdefault(item.result.family, []).append(item)
    words = [item for item in found if item.result.family in truth.word_families]
    results = tuple(_family(family, members, family in truth.word_families) for family, members in families.items())
    return (_family(WORDS, words, True) if words else None), results


def _family(name: str, members: list[Found], is_words: bool) -> FamilyResult:
    results = [item.result for item in members]
    f1, auroc = _medians(results, "f1"), _medians(results, "auroc")
    replicates = {
        detector: _nan_median(np.stack([item.replicates[detector] for item in members]))
        for detector in ("latent", *FLOORS)
    }
    f1_low, f1_high = interval(replicates["latent"])
    margins = replicates["latent"] - np.maximum.reduce([replicates[floor] for floor in FLOORS])
    margin_low, margin_high = interval(margins)
    return FamilyResult(
        family=name,
        is_words=is_words,
        n_labels=len(members),
        f1=f1,
        f1_low=f1_low,
        f1_high=f1_high,
        margin=f1.latent - f1.floor,
        margin_low=margin_low,
        margin_high=margin_high,
        auroc=auroc,
        always_yes=float(np.median([_always_yes(result) for result in results])),
        f1_all_latent=float(np.median([result.f1_all_latent for result in results])),
        f1_all_random=float(np.median([result.f1_all_random for result in results])),
        auroc_all_latent=float(np.median([result.auroc_all_latent for result in results])),
        auroc_all_random=float(np.median([result.auroc_all_random for result in results])),
    )


def _always_yes(result: LabelResult) -> float:
    return 2 * result.n_positive / (2 * result.n_positive + result.n_negative)


def _medians(results: list[LabelResult], measure: str) -> Medians:
    return Medians(
        **{
            detector: float(np.median([getattr(getattr(result, detector), measure) for result in results]))
            for detector in ("latent", *FLOORS, "probe")
        }
    )


def _nan_median(values: Float64) -> Float64:
    """Median down the labels, over those that have a positive in the replicate; NaN where none has."""
    has_any = ~np.isnan(values).all(axis=0)
    result = np.full(values.shape[1], np.nan)
    result[has_any] = np.nanmedian(values[:, has_any], axis=0)
    return result
