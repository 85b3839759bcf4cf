"""What the model loses when the reconstruction stands in for the activation: CE, KL, and ablations to compare with.

Windows run alone, padded on the right, as in harvest. BOS and special tokens are never replaced; a prediction is scored
where both its source and its target are text, so every scored prediction has a replaced source.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import Bool, Float
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
    windows = Windows(corpus.windows.start[chosen], corpus.windows.length[chosen])
    sums = DocumentSums(_COLUMNS)
    room = max(corpus.context, min(settings.batch_tokens, _LOGITS // model.vocab_size))
    average = torch.from_numpy(mean).float()
    changes = {
        "replaced": rebuild(dictionary),
        "mean": lambda rows: average.to(rows).expand_as(rows),
        "zero": torch.zeros_like,
    }
    with track(f"evaluate {dictionary.hookpoint}: splice", int(windows.length.sum()), "tokens") as tracker:
        for batch in batches(windows, room):
            _add_batch(sums, model, dictionary.hookpoint, corpus, chosen[batch], changes)
            tracker.advance(int(windows.length[batch].sum()))
    if len(sums.documents) == 0:
        raise StageError("evaluate: held-out documents hold no two tokens in a row; give longer text")
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


def _add_batch(
    sums: DocumentSums, model: LanguageModel, hookpoint: str, corpus: Corpus, batch: Int64, changes: dict[str, Change]
) -> None:
    tokens = torch.from_numpy(corpus.window_tokens(batch, model.bos_id if corpus.has_bos else None))
    is_text = text_mask(tokens, corpus.windows.length[batch], int(corpus.has_bos), model.special_ids)
    scored = scored_pairs(is_text)
    targets = tokens[:, 1:][scored]
    if len(targets) == 0:
        return

    def predictions(edits: list[Edit]) -> Tensor:
        return model.logits(tokens, edits).cpu()[:, :-1][scored]

    clean = predictions([])
    columns = {"pairs": torch.ones(len(targets), dtype=torch.float64), "clean": token_nats(clean, targets)}
    for name, change in changes.items():
        logits = predictions([replacing(hookpoint, is_text, change)])
        columns[name] = token_nats(logits, targets)
        if name == "replaced":
            columns["kl"] = kl_nats(clean, logits)
    row_documents = corpus.document_of(corpus.windows.start[batch])
    documents = row_documents[scored.nonzero()[:, 0].numpy()]
    values = torch.stack([columns[name] for name in sums.columns], dim=1).numpy()
    sums.add(documents, values, place=f"{hookpoint}: nats of {', '.join(sums.columns[1:])}")


def text_mask(
    tokens: Tensor, lengths: Int64, first: int, special_ids: frozenset[int]
) -> Bool[Tensor, "batch position"]:
    """Which positions of a padded batch are text: after BOS, before padding, and no special token."""
    position = torch.arange(tokens.shape[1])[None]
    inside = (position >= first) & (position < first + torch.from_numpy(lengths)[:, None])
    return inside & ~torch.isin(tokens, torch.tensor(sorted(special_ids), dtype=tokens.dtype))


def _measures(sums: DocumentSums, seed: int) -> Iterator[Measure]:
    pairs = sums.column("pairs")

    def mean(column: str) -> Statistic:
        return sums.mean_of(column, "pairs")

    def excess(weights: Float64) -> Float64:
        return ratio(weights @ (sums.column("replaced") - sums.column("clean")), weights @ pairs)

    def recovered(ablation: str) -> Statistic:
        return lambda weights: ce_recovered(mean("clean")(weights), mean("replaced")(weights), mean(ablation)(weights))

    harmless = "the ablation does the model no harm, so there is nothing to recover"
    nats, share = "nats per token", "share of the ablation's damage"
    recovering = "(CE ablated - CE replaced) / (CE ablated - CE clean); saturates, so read the excess in nats beside it"
    for name, statistic, unit, baseline, definition in (
        ("ce_clean", mean("clean"), nats, "", "mean of -ln p(next token), the model untouched"),
        ("ce_replaced", mean("replaced"), nats, "", "the same with the reconstruction in place of the activation"),
        ("ce_mean", mean("mean"), nats, "", "the same with the mean held-out row at every replaced position"),
        ("ce_zero", mean("zero"), nats, "", "the same with zeros at every replaced position"),
        ("excess_ce", excess, nats, "the model untouched", "CE replaced - CE clean"),
        ("ce_recovered", recovered("mean"), share, "mean ablation", recovering),
        ("ce_recovered_zero", recovered("zero"), share, "zero ablation", recovering),
        (
            "kl",
            mean("kl"),
            nats,
            "the model untouched",
            "mean of KL(clean || replaced) over the next token's distribution",
        ),
    ):
        yield measured(
            statistic,
            sums.documents,
            seed=seed,
            name=name,
            unit=unit,
            n=int(pairs.sum()),
            n_of="pairs of tokens",
            masks=MASKS if name != "ce_clean" else Masks(scored=MASKS.scored),
            baseline=baseline,
            definition=definition,
            undefined=harmless,
        )
