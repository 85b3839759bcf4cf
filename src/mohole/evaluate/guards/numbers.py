"""Guards that look at what was measured, and cost nothing."""

from collections.abc import Iterator, Mapping, Sequence

from mohole.evaluate.in_model.ablations import ABLATIONS
from mohole.evaluate.in_model.nats import suffix
from mohole.evaluate.results import Caution, DarkMatter, TaskResult
from mohole.metrics import Measure

WORST_FVU = 0.9
_BIAS = (0.8, 1.25)
_TASK_DROP = 0.02
_DEAD_SHARE = 0.1
_DENSE_SHARE = 0.05
_DROPPED_SHARE = 0.1
_LEAKING = 0.8
_FEW_ROWS_VARIANCE = 0.5


def numbers_out_of_range(
    measures: Mapping[str, Measure], tasks: Sequence[TaskResult], n_latents: int
) -> Iterator[Caution]:
    """Guards that look at one number after another."""
    value = measures["fvu"].value
    if value is None:
        yield Caution("fvu_undefined", f"FVU is undefined: {measures['fvu'].undefined}.")
    elif value > 1:
        yield Caution(
            "fvu_above_one",
            f"FVU is {value:.3g}: worse than predicting the mean row. Is the dictionary for this model and hookpoint?",
        )
    elif value > WORST_FVU:
        yield Caution("fvu_near_one", f"FVU is {value:.3g}: hardly better than predicting the mean row.")
    yield from _recovered(measures)
    yield from _shares(measures, n_latents)
    for task in tasks:
        if task.change < -_TASK_DROP - 1e-9:  # 0.98 - 1.0 is a little less than -0.02
            yield Caution(
                "task_lost",
                f"Task {task.name}: accuracy falls from {task.clean:.3f} to {task.replaced:.3f} under the reconstruction.",
            )


def _recovered(measures: Mapping[str, Measure]) -> Iterator[Caution]:
    undefined: dict[str, list[str]] = {}
    for ablation in ABLATIONS:
        measure = measures[f"ce_recovered{suffix(ablation)}"]
        value, baseline = measure.value, measure.baseline
        if value is None:
            undefined.setdefault(measure.undefined, []).append(baseline)
        elif value > 1.02:
            yield Caution(
                "recovered_above_one",
                f"CE recovered against {baseline} is {value:.3f}, above 1: the model predicts better with the reconstruction.",
            )
        elif value < 0:
            yield Caution(
                "recovered_below_zero",
                f"CE recovered against {baseline} is {value:.3f}: the reconstruction does more harm than the ablation.",
            )
    for reason, baselines in undefined.items():
        yield Caution("recovered_undefined", f"CE recovered against {', '.join(baselines)} is undefined: {reason}.")


def _shares(measures: Mapping[str, Measure], n_latents: int) -> Iterator[Caution]:
    dead, dense = measures["dead"], measures["dense"]
    if dead.value is not None and dead.value > _DEAD_SHARE * n_latents:
        yield Caution("dead", f"{dead.value:.0f} of {n_latents} latents fired in none of {dead.n} held-out rows.")
    if dense.value is not None and dense.value > _DENSE_SHARE * n_latents:
        yield Caution("dense", f"{dense.value:.0f} of {n_latents} latents fire in more than a tenth of the rows.")
    bias, dropped = measures["relative_bias"].value, measures["dropped"].value
    if bias is not None and not _BIAS[0] <= bias <= _BIAS[1]:
        yield Caution(
            "biased",
            f"Reconstructions are {bias:.3g} times as long as fits the rows: is their scale that of the model?",
        )
    if dropped is not None and dropped > _DROPPED_SHARE:
        yield Caution(
            "dropped", f"{dropped:.0%} of the text's tokens were not replaced: special tokens, or windows of one token."
        )


def unexplained(measures: Mapping[str, Measure], dark_matter: DarkMatter) -> Iterator[Caution]:
    """Guards that look at where variance and error are."""
    few = measures["outlier_variance"].value
    if few is not None and few > _FEW_ROWS_VARIANCE:
        yield Caution(
            "few_rows", f"A thousandth of the rows holds {few:.0%} of the variance: FVU is about them; see fvu_trimmed."
        )
    leaking = [dense for dense in dark_matter.dense if abs(dense.mean_cosine or 0.0) > _LEAKING]
    if leaking:
        names = ", ".join(str(dense.latent) for dense in leaking[:5])
        yield Caution(
            "mean_leakage",
            f"{len(leaking)} dense latents ({names}{', ...' if len(leaking) > 5 else ''}) point along the mean row: "
            "they do a bias's work.",
        )
