"""What should not be: numbers out of their range, and a dictionary that does better as something it is not said to be.

Guards that look at numbers cost nothing. Guards that try something take a few hundred rows: they encode them alone and together,
at the store's other hookpoints, at other scales, with another nonlinearity. A dictionary that rebuilds rows twice as well
there has most likely been loaded with that mistake; and with fewer latents none should do better at all. FVU alone does not
tell: the demo's dictionaries have 0.09 to 0.64 at another layer of the stream, and 0.02 with ReLU in place of their TopK.
A NaN is not warned about: it stops the stage, with its place.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar, assert_never

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from mohole.config import BatchTopK, Gated, JumpReLU, Nonlinearity, ReLU, TopK
from mohole.corpus import Corpus
from mohole.dictionary import (
    AnyDictionary,
    Crosscoder,
    CrossLayerTranscoder,
    Latents,
    NormalisedAutoencoder,
    SparseAutoencoder,
    Transcoder,
)
from mohole.dictionary.normalised import at
from mohole.errors import StageError
from mohole.evaluate.ablations import ABLATIONS
from mohole.evaluate.results import Caution, DarkMatter, TaskResult
from mohole.evaluate.rows import Rows, take
from mohole.evaluate.splice import suffix
from mohole.evaluate.standin import StandIn, stand_in
from mohole.metrics import Measure, fvu
from mohole.model import LanguageModel
from mohole.store import Store

Int64 = NDArray[np.int64]

N_PROBED = 256  # rows that a mistake is tried on
N_ALONE = 32  # of them, encoded one by one
WORST_FVU = 0.9
_SUSPECT_FVU = 0.1  # below it no other scale is tried
_MUCH_BETTER = 0.5  # of its own FVU
_BETTER_WITH_FEWER = 0.9  # of its own FVU, with fewer latents
_LEAST_FVU = 0.005  # a dictionary this good is what it is said to be
_BIAS = (0.8, 1.25)
_TASK_DROP = 0.02
_DEAD_SHARE = 0.1
_DENSE_SHARE = 0.05
_DROPPED_SHARE = 0.1
_LEAKING = 0.8
_FEW_ROWS_VARIANCE = 0.5
_OTHER_ROWS = 0.05
_SCALES = tuple(2.0 ** (step / 2) for step in range(-12, 13) if step)
_KS = (2, 4, 8, 16, 32, 64, 128, 256)

_Coded = TypeVar("_Coded", Latents, SparseAutoencoder)


def numbers_out_of_range(
    measures: Mapping[str, Measure], tasks: Sequence[TaskResult], n_latents: int
) -> Iterator[Caution]:
    """Guards that look at what was measured."""
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


def probe(store: Store, rows: Rows, spliced: StandIn) -> Iterator[Caution]:
    """Guards that try something. Constant rows say nothing of a dictionary, and nothing is tried on them."""
    chosen = rows.tokens[np.unique(np.linspace(0, len(rows) - 1, N_PROBED).astype(np.int64))]
    stored = take(store, (*spliced.reads, *spliced.writes), chosen, "of the probed ones")
    yield from _alone_and_together(spliced, stored)
    own = _fvu(spliced, stored)
    if own is None or own < _LEAST_FVU:
        return
    yield from _elsewhere(store, chosen, spliced, own)
    yield from _otherwise(spliced, stored, own)
    if own > _SUSPECT_FVU:
        yield from _rescaled(spliced, stored, own)


def _alone_and_together(spliced: StandIn, stored: Mapping[str, Tensor]) -> Iterator[Caution]:
    some = {name: rows[:N_ALONE] for name, rows in stored.items()}
    whole = spliced.rebuild(stored)[1]
    n_rows = len(some[spliced.reads[0]])
    n_other = n_active = 0
    for row in range(n_rows):
        codes = spliced.rebuild({name: rows[row : row + 1] for name, rows in some.items()})[1]
        begin, end = (int(whole.row_starts[at]) for at in (row, row + 1))
        n_active += len(codes.latents)
        together = dict(zip(whole.latents[begin:end].tolist(), whole.values[begin:end].tolist(), strict=True))
        alone = dict(zip(codes.latents.tolist(), codes.values.tolist(), strict=True))
        largest = max((abs(value) for value in (*together.values(), *alone.values())), default=0.0)
        n_other += any(
            abs(together.get(latent, 0.0) - alone.get(latent, 0.0)) > 1e-3 * largest for latent in {*together, *alone}
        )
    if n_other > 1:  # one row may stand on the edge of a tie, which rounding decides
        in_batch = int(whole.row_starts[n_rows]) / n_rows
        yield Caution(
            "codes_depend_on_batch",
            f"{n_other} of {n_rows} rows have other codes alone (L0 {n_active / n_rows:.1f}) than in a batch "
            f"(L0 {in_batch:.1f}): every number here depends on the batch. Was it trained by batches, and has no threshold?",
        )


def _elsewhere(store: Store, tokens: Int64, spliced: StandIn, own: float) -> Iterator[Caution]:
    dictionary = spliced.dictionary
    if not isinstance(dictionary, SparseAutoencoder | NormalisedAutoencoder):
        return
    found: dict[str, float] = {}
    for name in store.hookpoints:
        if name != spliced.reads[0] and store.d_model(name) == dictionary.d_model:
            moved = stand_in(at(dictionary, name))
            value = _fvu(moved, take(store, [name], tokens, "of the probed ones"))
            if value is not None:
                found[name] = value
    best = min(found, key=lambda name: found[name], default=None)
    if best is not None and found[best] < _MUCH_BETTER * own:
        yield Caution(
            "better_elsewhere",
            f"It rebuilds {best} better (FVU {found[best]:.3g}) than {spliced.name} (FVU {own:.3g}): is it of that hookpoint?",
        )


def _rescaled(spliced: StandIn, stored: Mapping[str, Tensor], own: float) -> Iterator[Caution]:
    found = {scale: _fvu(spliced, {name: rows * scale for name, rows in stored.items()}) or np.inf for scale in _SCALES}
    best = min(found, key=lambda scale: found[scale])
    if found[best] < _MUCH_BETTER * min(own, 1.0):
        yield Caution(
            "better_scaled",
            f"It rebuilds rows times {best:.2g} better (FVU {found[best]:.3g}) than rows as they are (FVU {own:.3g}): "
            "was the scale of its training left out?",
        )


def _otherwise(spliced: StandIn, stored: Mapping[str, Tensor], own: float) -> Iterator[Caution]:
    l0 = float(spliced.rebuild(stored)[1].n_active.double().mean())
    best, least = "", np.inf
    for nonlinearity in _others(spliced):
        value = _fvu(replace(spliced, dictionary=_with(spliced.dictionary, nonlinearity)), stored)
        is_fewer = isinstance(nonlinearity, TopK) and nonlinearity.k < l0
        enough = (_BETTER_WITH_FEWER if is_fewer else _MUCH_BETTER) * min(own, 1.0)
        if value is not None and value < min(enough, least):
            least = value
            best = f"topk, k = {nonlinearity.k}," if isinstance(nonlinearity, TopK) else nonlinearity.kind
    if best:
        yield Caution(
            "better_otherwise",
            f"With {best} in place of its nonlinearity (L0 {l0:.1f}) FVU is {least:.3g}, as it is {own:.3g}: "
            "was it trained with another?",
        )


def _others(spliced: StandIn) -> Iterator[Nonlinearity]:
    """What else its encoder may have been trained with, as far as its tensors say nothing against it."""
    own = _nonlinearity(spliced.dictionary)
    match own:
        case Gated():
            return
        case TopK() | BatchTopK() | JumpReLU():
            yield ReLU()
        case ReLU():
            pass
        case _:
            assert_never(own)
    yield from (TopK(k=k) for k in _KS if 2 * k <= spliced.n_latents and own != TopK(k=k))


def _nonlinearity(dictionary: AnyDictionary) -> Nonlinearity:
    match dictionary:
        case SparseAutoencoder(nonlinearity=nonlinearity) | NormalisedAutoencoder(nonlinearity=nonlinearity):
            return nonlinearity
        case Transcoder(latents=latents) | Crosscoder(latents=latents):
            return latents.nonlinearity
        case CrossLayerTranscoder(layers=layers):
            return layers[0].nonlinearity
        case _:
            assert_never(dictionary)


def _with(dictionary: AnyDictionary, nonlinearity: Nonlinearity) -> AnyDictionary:
    def changed(latents: _Coded) -> _Coded:
        return replace(latents, nonlinearity=nonlinearity, threshold=None, b_mag=None, r_mag=None)

    match dictionary:
        case NormalisedAutoencoder(own=own):
            return replace(dictionary, own=changed(own))
        case SparseAutoencoder():
            return changed(dictionary)
        case Transcoder() | Crosscoder():
            return replace(dictionary, latents=changed(dictionary.latents))
        case CrossLayerTranscoder():
            return replace(dictionary, layers=tuple(changed(layer) for layer in dictionary.layers))
        case _:
            assert_never(dictionary)


def _fvu(spliced: StandIn, stored: Mapping[str, Float[Tensor, "row d"]]) -> float | None:
    """None: the rows have no variance, or the reconstruction is no number."""
    outputs, _ = spliced.rebuild(stored)
    target = torch.cat([stored[name] for name in spliced.writes], 1)
    output = torch.cat([outputs[name].cpu() for name in spliced.writes], 1)
    if len(target) < 2 or not bool((target != target[0]).any()) or not bool(torch.isfinite(output).all()):
        return None
    return float(fvu(target, output))


def require_rows_of(model: LanguageModel, corpus: Corpus, store: Store, rows: Rows, spliced: StandIn) -> None:
    """The store's rows must be this model's over this corpus: a few windows are run and compared.

    Raises:
        StageError: they are others.
    """
    names = tuple(dict.fromkeys((*spliced.reads, *spliced.writes)))
    window = np.searchsorted(corpus.windows.start, rows.tokens, side="right") - 1
    first = int(corpus.has_bos)
    ours: dict[str, list[Tensor]] = {name: [] for name in names}
    theirs: dict[str, list[Tensor]] = {name: [] for name in names}
    for number in np.unique(window)[:4]:
        tokens = rows.tokens[window == number]
        batch = torch.from_numpy(corpus.window_tokens(np.array([number]), model.bos_id if first else None))
        read = model.read(batch, names)
        place = torch.from_numpy(tokens - corpus.windows.start[number] + first)
        for name in names:
            ours[name].append(read[name][0].cpu().float()[place])
            theirs[name].append(torch.from_numpy(store.take(name, tokens)))
    for name in names:
        expected, found = torch.cat(ours[name]).double(), torch.cat(theirs[name]).double()
        share = float((found - expected).square().sum() / expected.square().sum().clamp(min=1e-30))
        if np.isfinite(share) and share > _OTHER_ROWS:  # a NaN is named where rows are measured
            raise StageError(
                f"{name}: rows of {store.url} are not what {model.name} makes of this corpus (they differ by {share:.0%} of "
                "their squared length); harvest them again with this model"
            )
