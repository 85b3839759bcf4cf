"""What the model loses when reconstructions stand in for its activations: CE, KL, and ablations to compare with.

One dictionary or many, of any kind, all in place in the same pass. The untouched run is made once for every batch, and the layers
before the first hookpoint run in it alone; the reconstruction and each ablation replace the same positions of the same
hookpoints, and the same predictions are scored.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from mohole.config import Evaluate
from mohole.corpus import Corpus
from mohole.dictionary import AnyDictionary
from mohole.evaluate.in_model.ablations import ABLATIONS, Ablation, Backdrop
from mohole.evaluate.in_model.edits import replacing, require_apart, together
from mohole.evaluate.in_model.passages import SCORED, Passage, held_out_passages, masks_at
from mohole.evaluate.standin import StandIn, stand_in
from mohole.metrics import DocumentSums, Masks, Measure, ce_recovered, kl_nats, kl_recovered, measured, token_nats
from mohole.metrics.measure import Statistic, ratio
from mohole.model import Edit, LanguageModel, Trunk, Untouched
from mohole.progress import track

Float64 = NDArray[np.float64]

Means = Callable[[str], Statistic]

BASELINES: Mapping[Ablation, str] = {
    "mean": "mean ablation",
    "zero": "zero ablation",
    "position_mean": "position-mean ablation",
    "resample": "resample ablation",
}
_NO_OTHER = "the measured text is of one document, so there is no other to draw rows from"
_NO_HARM = "the ablation does the model no harm, so there is nothing to recover"


def splice(
    model: LanguageModel, dictionaries: Sequence[AnyDictionary], corpus: Corpus, settings: Evaluate, *, seed: int
) -> dict[str, Measure]:
    """What the model loses on held-out documents with all these dictionaries in place at once, by name of the measure.

    Raises:
        StageError: no pair of tokens in the held-out documents, or two dictionaries write one place.
        HookpointError: the model has no such place, or rows of another width there.
        NumericsError: a loss is not finite.
    """
    stand_ins = [stand_in(dictionary, model) for dictionary in dictionaries]
    return {measure.name: measure for measure in measure_splice(model, stand_ins, corpus, settings, seed=seed)}


def measure_splice(
    model: LanguageModel, stand_ins: Sequence[StandIn], corpus: Corpus, settings: Evaluate, *, seed: int
) -> tuple[Measure, ...]:
    """As `splice`, of dictionaries made ready."""
    places = require_apart(stand_ins)
    passages, n_tokens = held_out_passages(model, corpus, settings, seed)
    title = f"evaluate {'; '.join(each.name for each in stand_ins)}: splice"
    with track(title, sum(passage.n_tokens for passage in passages), "tokens") as tracker:
        backdrop = Backdrop(model, places, passages, seed)
        sums = DocumentSums(columns_of(backdrop.available))
        for passage in passages:
            add_losses(sums, passage, _losses(model, stand_ins, backdrop, places, passage), ", ".join(places))
            tracker.advance(passage.n_tokens)
    return (*_measures(sums, masks_at(places), seed), _dropped(passages, n_tokens, places))


def _dropped(passages: Sequence[Passage], n_tokens: int, places: Sequence[str]) -> Measure:
    n_replaced = sum(len(passage.replaced_tokens) for passage in passages)
    return Measure(
        name="dropped",
        value=1.0 - n_replaced / n_tokens,
        unit="share of tokens",
        low=None,
        high=None,
        n=n_tokens,
        n_of="tokens",
        n_documents=len(np.unique(np.concatenate([passage.replaced_documents for passage in passages]))),
        masks=Masks(replaced=masks_at(places).replaced),
        baseline="",
        definition="tokens of the measured text that are never replaced: special tokens, and windows without a pair to score",
    )


def columns_of(ablations: Sequence[Ablation]) -> tuple[str, ...]:
    """What is summed over pairs: nats of the clean and of each changed model, and KL from clean."""
    return ("pairs", "clean", "replaced", "kl", *ablations, *(f"kl_{ablation}" for ablation in ablations))


def _losses(
    model: LanguageModel, stand_ins: Sequence[StandIn], backdrop: Backdrop, places: Sequence[str], passage: Passage
) -> dict[str, Float[Tensor, " pair"]]:
    untouched = clean_run(model, stand_ins, passage)
    clean = scored(untouched.logits, passage)
    found = {"clean": token_nats(clean, passage.targets)}
    changes = {"": together(stand_ins, passage.is_text, untouched.rows)}
    for ablation in backdrop.available:
        changes[ablation] = ablating(backdrop, ablation, places, passage)
    for name, edits in changes.items():
        logits = predictions(model, passage, edits, untouched.trunk)
        found[name or "replaced"] = token_nats(logits, passage.targets)
        found[f"kl_{name}" if name else "kl"] = kl_nats(clean, logits)
    return found


def clean_run(model: LanguageModel, stand_ins: Sequence[StandIn], passage: Passage) -> Untouched:
    """The model untouched, with the rows that stand-ins need of this run."""
    touched = [name for each in stand_ins for name in (*each.reads, *each.writes)]
    return model.untouched(
        passage.tokens, reads=[name for each in stand_ins for name in each.needs_clean], changes=touched
    )


def predictions(
    model: LanguageModel, passage: Passage, edits: Sequence[Edit], trunk: Trunk | None = None
) -> Float[Tensor, "pair vocab"]:
    """Logits of the scored pairs."""
    return scored(model.logits(passage.tokens, edits, trunk=trunk), passage)


def scored(logits: Float[Tensor, "batch position vocab"], passage: Passage) -> Float[Tensor, "pair vocab"]:
    """Those of the scored pairs."""
    return logits.cpu()[:, :-1][passage.scored]


def ablating(backdrop: Backdrop, ablation: Ablation, places: Sequence[str], passage: Passage) -> list[Edit]:
    """The ablation at every place that a stand-in writes, at the same positions."""
    return [
        replacing(place, passage.is_text, partial(_put, backdrop.rows(ablation, place, passage))) for place in places
    ]


def _put(rows: Tensor, found: Tensor) -> Tensor:
    return rows


def add_losses(sums: DocumentSums, passage: Passage, losses: Mapping[str, Float[Tensor, " pair"]], where: str) -> None:
    """Add nats of scored pairs, by column."""
    columns = {"pairs": torch.ones(len(passage.targets), dtype=torch.float64), **losses}
    values = torch.stack([columns[name] for name in sums.columns], dim=1).numpy()
    sums.add(passage.documents, values, place=f"{where}: nats of {', '.join(sums.columns[1:])}")


@dataclass(frozen=True)
class Definition:
    """A number made of sums of nats."""

    name: str
    statistic: Statistic
    unit: str
    baseline: str
    definition: str
    undefined: str = _NO_HARM


def definitions(sums: DocumentSums) -> Iterator[Definition]:
    """Every number that these sums have the columns for, and those that an ablation without columns leaves undefined."""
    pairs = sums.column("pairs")

    def mean(column: str) -> Statistic:
        return sums.mean_of(column, "pairs")

    def excess(weights: Float64) -> Float64:
        return ratio(weights @ (sums.column("replaced") - sums.column("clean")), weights @ pairs)

    nats = "nats per token"
    untouched = "the model untouched"
    yield Definition("ce_clean", mean("clean"), nats, "", "mean of -ln p(next token), the model untouched")
    yield Definition(
        "ce_replaced", mean("replaced"), nats, "", "the same with the reconstruction in place of the activation"
    )
    yield Definition("excess_ce", excess, nats, untouched, "CE replaced - CE clean")
    if "kl" in sums.columns:
        over = "mean of KL(clean || replaced) over the next token's distribution"
        yield Definition("kl", mean("kl"), nats, untouched, over)
    has_kl = "kl" in sums.columns
    for ablation in ABLATIONS:
        if ablation in sums.columns:
            yield from _against(sums, ablation, mean)
        elif has_kl:
            yield from _undefined(ablation)


def suffix(ablation: Ablation) -> str:
    """Of a measure's name: none for mean ablation, which was there first."""
    return "" if ablation == "mean" else f"_{ablation}"


_RECOVERED = "(CE ablated - CE replaced) / (CE ablated - CE clean); saturates, so read the excess in nats beside it"
_KL_RECOVERED = "1 - KL(clean || replaced) / KL(clean || ablated)"
_SHARE = "share of the ablation's damage"
_PUT: Mapping[Ablation, str] = {
    "mean": "the mean of all replaced rows at every replaced position",
    "zero": "zeros at every replaced position",
    "position_mean": "the mean of the rows at the same place of their window, where 16 documents reach it, else of all",
    "resample": "a row of another document at every replaced position, drawn by key",
}


def _against(sums: DocumentSums, ablation: Ablation, mean: Means) -> Iterator[Definition]:
    def recovered(weights: Float64) -> Float64:
        return ce_recovered(mean("clean")(weights), mean("replaced")(weights), mean(ablation)(weights))

    put, end, baseline = _PUT[ablation], suffix(ablation), BASELINES[ablation]
    yield Definition(f"ce_{ablation}", mean(ablation), "nats per token", "", f"mean of -ln p(next token) with {put}")
    yield Definition(f"ce_recovered{end}", recovered, _SHARE, baseline, _RECOVERED)
    if "kl" in sums.columns:

        def kept(weights: Float64) -> Float64:
            return kl_recovered(mean("kl")(weights), mean(f"kl_{ablation}")(weights))

        over = f"mean of KL(clean || ablated) with {put}"
        yield Definition(f"kl_{ablation}", mean(f"kl_{ablation}"), "nats per token", "the model untouched", over)
        yield Definition(f"kl_recovered{end}", kept, _SHARE, baseline, _KL_RECOVERED)


def _undefined(ablation: Ablation) -> Iterator[Definition]:
    end, baseline = suffix(ablation), BASELINES[ablation]
    for name, unit, definition in (
        (f"ce_{ablation}", "nats per token", f"mean of -ln p(next token) with {_PUT[ablation]}"),
        (f"ce_recovered{end}", _SHARE, _RECOVERED),
        (f"kl_{ablation}", "nats per token", f"mean of KL(clean || ablated) with {_PUT[ablation]}"),
        (f"kl_recovered{end}", _SHARE, _KL_RECOVERED),
    ):
        yield Definition(name, lambda weights: np.full(len(weights), np.nan), unit, baseline, definition, _NO_OTHER)


def _measures(sums: DocumentSums, masks: Masks, seed: int) -> Iterator[Measure]:
    for each in definitions(sums):
        yield measured(
            each.statistic,
            sums.documents,
            seed=seed,
            name=each.name,
            unit=each.unit,
            n=int(sums.total("pairs")),
            n_of="pairs of tokens",
            masks=masks if each.name != "ce_clean" else Masks(scored=SCORED),
            baseline=each.baseline,
            definition=each.definition,
            undefined=each.undefined,
        )
