"""What sums of nats say: CE, KL, and what of an ablation's damage is undone. The sums are filled in splice.py and held_out.py."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mohole.evaluate.in_model.ablations import ABLATIONS, Ablation
from mohole.metrics import DocumentSums, ce_recovered, kl_recovered
from mohole.metrics.measure import Reading, Statistic, ratio

Float64 = NDArray[np.float64]

_BASELINES: Mapping[Ablation, str] = {
    "mean": "mean ablation",
    "zero": "zero ablation",
    "position_mean": "position-mean ablation",
    "resample": "resample ablation",
}
_PUT: Mapping[Ablation, str] = {
    "mean": "the mean of all replaced rows at every replaced position",
    "zero": "zeros at every replaced position",
    "position_mean": "the mean of the rows at the same place of their window, where 16 documents reach it, else of all",
    "resample": "a row of another document at every replaced position, drawn by key",
}
_NATS = "nats per token"
_UNTOUCHED = "the model untouched"
_SHARE = "share of the ablation's damage"
_RECOVERED = "(CE ablated - CE replaced) / (CE ablated - CE clean); saturates, so read the excess in nats beside it"
_KL_RECOVERED = "1 - KL(clean || replaced) / KL(clean || ablated)"
_NO_OTHER = "the measured text is of one document, so there is no other to draw rows from"
_NO_HARM = "the ablation does the model no harm, so there is nothing to recover"


def columns_of(ablations: Sequence[Ablation]) -> tuple[str, ...]:
    """What is summed over pairs: nats of the clean and of each changed model, and KL from clean."""
    return ("pairs", "clean", "replaced", "kl", *ablations, *(f"kl_{ablation}" for ablation in ablations))


def readings(sums: DocumentSums) -> Iterator[Reading]:
    """Every number that these sums have the columns for, and those that an ablation without columns leaves undefined."""

    def mean(column: str) -> Statistic:
        return sums.mean_of(column, "pairs") if column in sums.columns else _nothing

    def excess(weights: Float64) -> Float64:
        return ratio(weights @ (sums.column("replaced") - sums.column("clean")), weights @ sums.column("pairs"))

    clean = "mean of -ln p(next token), the model untouched"
    replaced = "the same with the reconstruction in place of the activation"
    yield Reading("ce_clean", mean("clean"), _NATS, "", clean, _NO_HARM)
    yield Reading("ce_replaced", mean("replaced"), _NATS, "", replaced, _NO_HARM)
    yield Reading("excess_ce", excess, _NATS, _UNTOUCHED, "CE replaced - CE clean", _NO_HARM)
    has_kl = "kl" in sums.columns
    if has_kl:
        over = "mean of KL(clean || replaced) over the next token's distribution"
        yield Reading("kl", mean("kl"), _NATS, _UNTOUCHED, over, _NO_HARM)
    for ablation in ABLATIONS:
        if ablation in sums.columns:
            yield from _against(ablation, mean, _NO_HARM, has_kl=has_kl)
        elif has_kl:
            yield from _against(ablation, mean, _NO_OTHER, has_kl=True)


def suffix(ablation: Ablation) -> str:
    """Of a measure's name: none for mean ablation, which was there first."""
    return "" if ablation == "mean" else f"_{ablation}"


def _against(
    ablation: Ablation, mean: Callable[[str], Statistic], undefined: str, *, has_kl: bool
) -> Iterator[Reading]:
    def recovered(weights: Float64) -> Float64:
        return ce_recovered(mean("clean")(weights), mean("replaced")(weights), mean(ablation)(weights))

    def kept(weights: Float64) -> Float64:
        return kl_recovered(mean("kl")(weights), mean(f"kl_{ablation}")(weights))

    put, end, baseline = _PUT[ablation], suffix(ablation), _BASELINES[ablation]
    nats = f"mean of -ln p(next token) with {put}"
    yield Reading(f"ce_{ablation}", mean(ablation), _NATS, "", nats, undefined)
    yield Reading(f"ce_recovered{end}", recovered, _SHARE, baseline, _RECOVERED, undefined)
    if has_kl:
        over = f"mean of KL(clean || ablated) with {put}"
        yield Reading(f"kl_{ablation}", mean(f"kl_{ablation}"), _NATS, _UNTOUCHED, over, undefined)
        yield Reading(f"kl_recovered{end}", kept, _SHARE, baseline, _KL_RECOVERED, undefined)


def _nothing(weights: Float64) -> Float64:
    """Of sums without the column."""
    return np.full(len(weights), np.nan)
