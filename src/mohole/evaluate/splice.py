"""What the model loses when the reconstruction stands in for the activation: CE, KL, and ablations to compare with.

Windows run alone, padded on the right, as in harvest. BOS and special tokens are never replaced; a prediction is scored
where both its source and its target are text, so every scored prediction has a replaced source.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from mohole.config import Evaluate
from mohole.corpus import Corpus, Windows, batches, keyed_order
from mohole.dictionary import Dictionary
from mohole.errors import StageError
from mohole.keys import Use
from mohole.metrics import DocumentSums, Masks, Measure, ce_recovered, kl_nats, measured, scored_pairs, token_nats
from mohole.metrics.measure import Statistic, ratio
from mohole.model import Edit, LanguageModel
from mohole.progress import track

Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]
Change = Callable[[Float[Tensor, "row d"]], Float[Tensor, "row d"]]

MASKS = Masks(
    replaced="every token of the text; not BOS, not padding, not special tokens; the same in ablations",
    scored="pairs (token, next token) inside a window, both of them text; not BOS, not padding",
)
_COLUMNS = ("pairs", "clean", "replaced", "mean", "zero", "kl")
_LOGITS = 1 << 25  # logits held at once per pass: 128 MB in float32


def measure_splice(
    model: LanguageModel, dictionary: Dictionary, corpus: Corpus, mean: Float64, settings: Evaluate, *, seed: int
) -> tuple[Measure, ...]:
    """CE clean, replaced and ablated, KL, excess, recovered, over held-out documents.

    Args:
        mean: the row that mean ablation puts everywhere.

    Raises:
        StageError: no pair of tokens in the held-out documents.
        NumericsError: a loss is not finite.
    """
    chosen = choose_windows(corpus, settings.max_documents, settings.max_tokens, seed)
    sums = DocumentSums(_COLUMNS)
    changes = {"replaced": rebuild(dictionary), **ablations(mean)}
    n_tokens = int(corpus.windows.length[chosen].sum())
    with track(f"evaluate {dictionary.hookpoint}: splice", n_tokens, "tokens") as tracker:
        for passage in passages(model, corpus, chosen, settings.batch_tokens):
            columns = _losses(model, dictionary.hookpoint, passage, changes)
            add_losses(sums, passage, columns, dictionary.hookpoint)
            tracker.advance(passage.n_tokens)
    require_pairs(sums)
    return tuple(_measures(sums, seed))


def choose_windows(corpus: Corpus, max_documents: int, max_tokens: int, seed: int) -> Int64:
    """Windows (by number) of held-out documents in keyed order, until there are enough documents or tokens."""
    held_out = np.flatnonzero(corpus.held_out)
    ordered = held_out[keyed_order(held_out, seed=seed, use=Use.MEASURED_DOCUMENTS)][:max_documents]
    document = corpus.document_of(corpus.windows.start)
    first, last = np.searchsorted(document, ordered), np.searchsorted(document, ordered, side="right")
    numbers = np.concatenate([np.arange(a, b) for a, b in zip(first, last, strict=True)])
    n_chosen = max(1, int((np.cumsum(corpus.windows.length[numbers]) <= max_tokens).sum()))
    return numbers[:n_chosen]


def rebuild(dictionary: Dictionary) -> Change:
    """Rows into their reconstruction, wherever the model computes them."""
    return lambda rows: dictionary.decode(dictionary.encode(rows.float().cpu())).to(rows)


def replacing(hookpoint: str, replaced: Bool[Tensor, "batch position"], change: Change) -> Edit:
    """An edit that changes the rows at the positions to be replaced, and no others."""

    def edit(rows: Tensor, _first_position: int) -> Tensor:
        mask = replaced.to(rows.device)
        if bool(mask.any()):
            rows[mask] = change(rows[mask])
        return rows

    return Edit(hookpoint, edit)


@dataclass(frozen=True)
class Passage:
    """Some windows as one batch for the model."""

    tokens: Int[Tensor, "batch position"]
    is_text: Bool[Tensor, "batch position"]
    """Positions to be replaced."""
    scored: Bool[Tensor, "batch position_less_one"]
    targets: Int[Tensor, " pair"]
    documents: Int64
    """The document of each scored pair."""
    n_tokens: int

    def predictions(self, model: LanguageModel, hookpoint: str, change: Change | None) -> Float[Tensor, "pair vocab"]:
        """Logits of the scored pairs, with the rows at `hookpoint` changed; None: the model untouched."""
        edits = [] if change is None else [replacing(hookpoint, self.is_text, change)]
        return model.logits(self.tokens, edits).cpu()[:, :-1][self.scored]


def passages(model: LanguageModel, corpus: Corpus, chosen: Int64, batch_tokens: int) -> Iterator[Passage]:
    """These windows (by number) in batches of like length; those without a pair to score are left out."""
    windows = Windows(corpus.windows.start[chosen], corpus.windows.length[chosen])
    room = max(corpus.context, min(batch_tokens, _LOGITS // model.vocab_size))
    for batch in batches(windows, room):
        tokens = torch.from_numpy(corpus.window_tokens(chosen[batch], model.bos_id if corpus.has_bos else None))
        is_text = text_mask(tokens, windows.length[batch], int(corpus.has_bos), model.special_ids)
        scored = scored_pairs(is_text)
        targets = tokens[:, 1:][scored]
        if len(targets) == 0:
            continue
        documents = corpus.document_of(windows.start[batch])[scored.nonzero()[:, 0].numpy()]
        yield Passage(tokens, is_text, scored, targets, documents, int(windows.length[batch].sum()))


def ablations(mean: Float64) -> dict[str, Change]:
    """What the reconstruction is held against: every row the mean row, or zero."""
    average = torch.from_numpy(mean).float()
    return {"mean": lambda rows: average.to(rows).expand_as(rows), "zero": torch.zeros_like}


def _losses(
    model: LanguageModel, hookpoint: str, passage: Passage, changes: Mapping[str, Change]
) -> dict[str, Float[Tensor, " pair"]]:
    clean = passage.predictions(model, hookpoint, None)
    found = {"clean": token_nats(clean, passage.targets)}
    for name, change in changes.items():
        logits = passage.predictions(model, hookpoint, change)
        found[name] = token_nats(logits, passage.targets)
        if name == "replaced":
            found["kl"] = kl_nats(clean, logits)
    return found


def add_losses(
    sums: DocumentSums, passage: Passage, losses: Mapping[str, Float[Tensor, " pair"]], hookpoint: str
) -> None:
    """Add nats of scored pairs, by column."""
    columns = {"pairs": torch.ones(len(passage.targets), dtype=torch.float64), **losses}
    values = torch.stack([columns[name] for name in sums.columns], dim=1).numpy()
    sums.add(passage.documents, values, place=f"{hookpoint}: nats of {', '.join(sums.columns[1:])}")


def require_pairs(sums: DocumentSums) -> None:
    """Raises: StageError: nothing was scored."""
    if len(sums.documents) == 0:
        raise StageError("evaluate: held-out documents hold no two tokens in a row; give longer text")


def text_mask(
    tokens: Tensor, lengths: Int64, first: int, special_ids: frozenset[int]
) -> Bool[Tensor, "batch position"]:
    """Which positions of a padded batch are text: after BOS, before padding, and no special token."""
    position = torch.arange(tokens.shape[1])[None]
    inside = (position >= first) & (position < first + torch.from_numpy(lengths)[:, None])
    return inside & ~torch.isin(tokens, torch.tensor(sorted(special_ids), dtype=tokens.dtype))


@dataclass(frozen=True)
class Definition:
    """A number made of sums of nats."""

    name: str
    statistic: Statistic
    unit: str
    baseline: str
    definition: str


def definitions(sums: DocumentSums) -> Iterator[Definition]:
    """Every number that these sums have the columns for."""
    pairs = sums.column("pairs")

    def mean(column: str) -> Statistic:
        return sums.mean_of(column, "pairs")

    def excess(weights: Float64) -> Float64:
        return ratio(weights @ (sums.column("replaced") - sums.column("clean")), weights @ pairs)

    def recovered(ablation: str) -> Statistic:
        return lambda weights: ce_recovered(mean("clean")(weights), mean("replaced")(weights), mean(ablation)(weights))

    nats, share = "nats per token", "share of the ablation's damage"
    untouched = "the model untouched"
    recovering = "(CE ablated - CE replaced) / (CE ablated - CE clean); saturates, so read the excess in nats beside it"
    yield Definition("ce_clean", mean("clean"), nats, "", "mean of -ln p(next token), the model untouched")
    yield Definition(
        "ce_replaced", mean("replaced"), nats, "", "the same with the reconstruction in place of the activation"
    )
    yield Definition(
        "ce_mean", mean("mean"), nats, "", "the same with the mean held-out row at every replaced position"
    )
    yield Definition("ce_zero", mean("zero"), nats, "", "the same with zeros at every replaced position")
    yield Definition("excess_ce", excess, nats, untouched, "CE replaced - CE clean")
    yield Definition("ce_recovered", recovered("mean"), share, "mean ablation", recovering)
    yield Definition("ce_recovered_zero", recovered("zero"), share, "zero ablation", recovering)
    if "kl" in sums.columns:
        over = "mean of KL(clean || replaced) over the next token's distribution"
        yield Definition("kl", mean("kl"), nats, untouched, over)


def _measures(sums: DocumentSums, seed: int) -> Iterator[Measure]:
    for each in definitions(sums):
        yield measured(
            each.statistic,
            sums.documents,
            seed=seed,
            name=each.name,
            unit=each.unit,
            n=int(sums.total("pairs")),
            n_of="pairs of tokens",
            masks=MASKS if each.name != "ce_clean" else Masks(scored=MASKS.scored),
            baseline=each.baseline,
            definition=each.definition,
            undefined="the ablation does the model no harm, so there is nothing to recover",
        )
