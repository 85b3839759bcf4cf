"""What a model knows of the planted world: answers, loss against the entropy floor, probes. Measures only, no thresholds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from mohole.corpus import Document, Task
from mohole.metrics import auroc
from mohole.model import Edit, LanguageModel, PassEdits
from mohole.planted.stream import EntropyFloor, Mix, documents, pages

_BATCH = 64
_RIDGE = 1e-4  # of the mean square of the rows' coordinates
_FEWEST = 20


def batched(
    model: LanguageModel, sequences: Sequence[list[int]]
) -> Iterator[tuple[list[int], Int[Tensor, "b position"]]]:
    """Right-padded batches with BOS in front, of sequences of similar length; with the sequences' numbers."""
    assert model.bos_id is not None
    order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
    for first in range(0, len(order), _BATCH):
        chosen = order[first : first + _BATCH]
        width = max(len(sequences[i]) for i in chosen)
        padding = model.tokenizer.eos_id or 0
        yield (
            chosen,
            torch.tensor([[model.bos_id, *sequences[i], *[padding] * (width - len(sequences[i]))] for i in chosen]),
        )


def encode_documents(
    model: LanguageModel, texts: Sequence[Document]
) -> list[tuple[Document, list[int], list[tuple[int, int]]]]:
    """Documents with their tokens and offsets; without the few (1 in 1000) that, framed, are longer than the context."""
    encoded = [(document, *model.tokenizer.encode_with_offsets(document.text)) for document in texts]
    return [whole for whole in encoded if model.context is None or len(whole[1]) + 2 <= model.context]


def right_answers(model: LanguageModel, task: Task, edits: Sequence[Edit | PassEdits] = ()) -> NDArray[np.bool_]:
    """Per prompt: is every token of the answer the likeliest one, given those before it?"""
    starts = [len(model.tokenizer.encode(prompt)) for prompt in task.prompts]
    whole = [model.tokenizer.encode(p + a) for p, a in zip(task.prompts, task.answers, strict=True)]
    right = np.zeros(len(whole), dtype=bool)
    for chosen, tokens in batched(model, whole):
        best = model.logits(tokens, edits).argmax(-1)
        for row, i in enumerate(chosen):
            right[i] = bool(
                (best[row, starts[i] : len(whole[i])] == tokens[row, starts[i] + 1 : len(whole[i]) + 1]).all()
            )
    return right


@dataclass(frozen=True, slots=True)
class Gap:
    """A model's loss against the entropy floor on the same documents, in nats per predicted token."""

    loss: float
    floor: EntropyFloor

    @property
    def nats_per_token(self) -> float:
        return self.loss - self.floor.nats_per_token


def floor_gap(
    model: LanguageModel, seed: int, count: int, *, held_out: bool | None = None, mix: Mix | None = None
) -> Gap:
    """Loss and floor on the same documents; by default of the natural world, withheld combinations included."""
    end = model.tokenizer.eos_id
    assert end is not None
    framed = [
        (p, [*model.tokenizer.encode(p.document().text), end]) for p in pages(seed, count, held_out=held_out, mix=mix)
    ]
    written = [(page, ids) for page, ids in framed if model.context is None or len(ids) < model.context]
    sequences = [ids for _, ids in written]
    lost = 0.0
    for chosen, tokens in batched(model, sequences):
        counted = (
            torch.arange(tokens.shape[1] - 1)[None, :] < torch.tensor([len(sequences[i]) for i in chosen])[:, None]
        )
        targets = tokens[:, 1:].masked_fill(~counted, -100)
        logits = model.logits(tokens)[:, :-1]
        lost += float(cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100, reduction="sum"))
    floor = EntropyFloor(sum(page.nats for page, _ in written), sum(map(len, sequences)))
    return Gap(lost / floor.n_tokens, floor)


# probes --------------------------------------------------------------------------------------------------


Marked = dict[str, NDArray[np.float32]]  # rows [n, d] by label


def marked_rows(
    model: LanguageModel, texts: Sequence[Document], hookpoints: Sequence[str], labels: Sequence[str]
) -> dict[str, Marked]:
    """By hookpoint and label, the rows at the last token of each span whose label starts with one of `labels`."""
    encoded = encode_documents(model, texts)
    rows: dict[str, dict[str, list[NDArray[np.float32]]]] = {at: defaultdict(list) for at in hookpoints}
    for chosen, tokens in batched(model, [ids for _, ids, _ in encoded]):
        activations = model.read(tokens, hookpoints)
        for row, i in enumerate(chosen):
            document, _, offsets = encoded[i]
            ends = np.asarray([end for _, end in offsets])
            for span in document.spans:
                if span.label.startswith(tuple(labels)):
                    token = int(np.searchsorted(ends, span.end))  # the first that reaches the end of the span
                    for at in hookpoints:
                        rows[at][span.label].append(activations[at][row, token + 1].numpy())
    return {at: {label: np.stack(found) for label, found in by_label.items()} for at, by_label in rows.items()}


def linear_probe(rows: NDArray[np.float32], positive: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Weights (the last one a constant) of a ridge regression to +1 and -1, both classes weighing the same."""
    x = np.concatenate([rows, np.ones((len(rows), 1))], axis=1).astype(np.float64)
    weight = np.where(positive, 0.5 / max(positive.sum(), 1), 0.5 / max((~positive).sum(), 1))
    scale = np.trace(x.T @ (x * weight[:, None])) / x.shape[1]
    gram = x.T @ (x * weight[:, None]) + _RIDGE * scale * np.eye(x.shape[1])
    solved: NDArray[np.float64] = np.linalg.solve(gram, x.T @ (weight * np.where(positive, 1.0, -1.0)))
    return solved


def apply_probe(weights: NDArray[np.float64], rows: NDArray[np.float32]) -> NDArray[np.float64]:
    scores: NDArray[np.float64] = rows @ weights[:-1] + weights[-1]
    return scores


def truth_probes(
    model: LanguageModel, hookpoints: Sequence[str], seed: int, count: int
) -> dict[str, tuple[float, int]]:
    """By hookpoint, accuracy and n of a linear probe for "this claim is true" at the last token of the claim's object.

    The claims have no speaker. Trained on claims that the model has seen, tested on those it never saw.
    """
    mix = Mix({"verdicts": 1.0})
    known, new = (
        marked_rows(model, list(documents(seed, count, held_out=held_out, mix=mix)), hookpoints, ["statement/"])
        for held_out in (False, True)
    )
    found = {}
    for at in hookpoints:
        (train_x, train_y), (x, y) = (
            _two_classes(rows[at]["statement/true"], rows[at]["statement/false"]) for rows in (known, new)
        )
        found[at] = float(((apply_probe(linear_probe(train_x, train_y), x) > 0) == y).mean()), len(y)
    return found


def concept_probes(
    model: LanguageModel, hookpoints: Sequence[str], seed: int, count: int, families: Sequence[str]
) -> dict[str, dict[str, float]]:
    """By hookpoint and concept, AUROC of a linear probe at the concept's word against the rest of its family.

    Trained and tested on different documents. A concept with fewer than 20 words on either side is left out.
    """
    labels = [f"{family}/" for family in families]
    sides = [
        marked_rows(model, list(documents(seed + side, count, held_out=None)), hookpoints, labels) for side in (0, 1)
    ]
    return {at: _family_probes(sides[0][at], sides[1][at]) for at in hookpoints}


def _family_probes(train: Marked, test: Marked) -> dict[str, float]:
    scores = {}
    for label in train:
        if len(train[label]) < _FEWEST or len(test.get(label, ())) < _FEWEST:
            continue
        family = label.split("/")[0] + "/"
        (train_x, train_y), (x, y) = (
            _two_classes(
                rows[label],
                np.concatenate([r for name, r in rows.items() if name != label and name.startswith(family)]),
            )
            for rows in (train, test)
        )
        scores[label] = auroc(apply_probe(linear_probe(train_x, train_y), x), y)
    return scores


def _two_classes(yes: NDArray[np.float32], no: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    return np.concatenate([yes, no]), np.arange(len(yes) + len(no)) < len(yes)
