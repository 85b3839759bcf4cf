"""What the model loses when reconstructions stand in for its activations: CE, KL, and ablations to compare with.

One dictionary or many, of any kind, all in place in the same pass. The untouched run is made once for every batch, and the layers
before the first hookpoint run in it alone; the reconstruction and each ablation replace the same positions of the same
hookpoints, and the same predictions are scored.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mohole.config import Evaluate
from mohole.corpus import Corpus
from mohole.dictionary import AnyDictionary
from mohole.evaluate.in_model.ablations import Ablation, Backdrop
from mohole.evaluate.in_model.edits import replacing, require_apart, together
from mohole.evaluate.in_model.nats import columns_of, readings
from mohole.evaluate.in_model.passages import SCORED, Passage, held_out_passages, masks_at
from mohole.evaluate.standin import StandIn, stand_in
from mohole.metrics import DocumentSums, Masks, Measure, kl_nats, token_nats
from mohole.model import Edit, LanguageModel, Trunk, Untouched
from mohole.progress import track


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


def _measures(sums: DocumentSums, masks: Masks, seed: int) -> Iterator[Measure]:
    n = int(sums.total("pairs"))
    for each in readings(sums):
        own = masks if each.name != "ce_clean" else Masks(scored=SCORED)
        yield each.of(sums.documents, seed=seed, n=n, n_of="pairs of tokens", masks=own)
