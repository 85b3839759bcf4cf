"""Detection is not cause: does the latent that is best at telling a label also move what the model predicts at the label?

The latent is edited in the model, and predictions are read: in windows with the label from the label on, because a concept
mostly shows later than in the next token; in windows that have another label of its contrast, from there on. What belongs to
a label is learned from the text of training documents (metrics/evidence.py); every number is from held-out ones. Edits, at
every token of the text, at the dictionary's hookpoint:

    up      x + (c - f(x)) d       the latent held at its maximum c: does the label's behaviour come where the label is not?
    random  x + (c - f(x)) r       as far along a random direction as long as d: what any push does
    zero    x - f(x) d             the latent held at zero: does the behaviour go where the label is?
    ablate  x - ((x - m) d) d/|d|^2     the row's whole part along d made that of the mean row m

Of a dictionary that normalises each row by itself, the first three move a row by its own scale times as much.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from mohole import keys
from mohole.config import Evaluate
from mohole.corpus import Corpus, keyed_order
from mohole.dictionary import Dictionary
from mohole.dictionary.clamped import ClampedLatents
from mohole.evaluate.in_model.edits import Change, replacing
from mohole.evaluate.in_model.passages import room_for_logits, text_batches
from mohole.evaluate.recovery.effects import Effects
from mohole.evaluate.recovery.finder import Side
from mohole.evaluate.recovery.results import Cause, EditEffect, LabelResult
from mohole.evaluate.recovery.truth import Contrast, Marks, Truth
from mohole.metrics import Measure, scored_pairs
from mohole.metrics.evidence import signature
from mohole.model import LanguageModel
from mohole.progress import track

Int64 = NDArray[np.int64]
Bools = NDArray[np.bool_]


def most_telling(found: list[LabelResult], word_families: tuple[str, ...]) -> list[LabelResult]:
    """The best label of each family, then the second best of each, and so on; families of words first.

    Best by the F1 on the documents that its latent was chosen on: no number reported later has a part in it.
    """
    families: dict[str, list[LabelResult]] = {}
    for result in sorted(found, key=lambda result: -result.latent.f1_selection):
        families.setdefault(result.family, []).append(result)
    ordered = sorted(
        families, key=lambda family: (family not in word_families, -families[family][0].latent.f1_selection)
    )
    turns = max((len(members) for members in families.values()), default=0)
    return [families[name][turn] for turn in range(turns) for name in ordered if turn < len(families[name])]


def measure_causes(
    model: LanguageModel,
    dictionary: Dictionary,
    corpus: Corpus,
    truth: Truth,
    selection: Side,
    candidates: Iterable[LabelResult],
    settings: Evaluate,
    *,
    seed: int,
) -> dict[str, Cause]:
    """What the best latents of labels do in the model: of the first `settings.causal_labels` of these that can be tried.

    Args:
        selection: rows of training documents; the latent's maximum and the mean row are theirs.

    Raises:
        NumericsError: a prediction is not finite.
    """
    mean = torch.from_numpy(selection.vectors.mean(axis=0, dtype=np.float64)).float()
    reader = _Reader(model, corpus, dictionary.hookpoint, settings, seed)
    result: dict[str, Cause] = {}
    with track(f"evaluate {dictionary.hookpoint}: cause", settings.causal_labels, "labels") as tracker:
        for label in candidates:
            if len(result) == settings.causal_labels:
                break
            latent = label.latent.candidate
            assert latent is not None  # a dictionary's detector always is one of its latents
            maximum = float(selection.latents.of_column(latent)[1].max(initial=0.0))
            measures = _measure(reader, truth, label.label, edits(dictionary, latent, maximum, mean, seed), seed)
            if measures is not None:
                result[label.label] = Cause(latent, maximum, *measures)
                tracker.advance()
    return result


def edits(
    dictionary: Dictionary, latent: int, maximum: float, mean: Float[Tensor, " d"], seed: int
) -> dict[str, Change]:
    """The four edits of one latent, rows in and rows out. See the head of this file."""
    which = torch.tensor([latent])
    (direction,) = dictionary.directions(which)
    drawn = torch.from_numpy(keys.normal(seed, keys.Use.CAUSAL_DIRECTION, np.array([latent]), dictionary.d_model)[0])
    stray = (drawn / drawn.norm()).float() * direction.norm()
    up, zero = (ClampedLatents(dictionary, which, torch.tensor([value])) for value in (maximum, 0.0))
    unit = direction / direction.norm().clamp_min(torch.finfo(direction.dtype).tiny)
    own: dict[str, Change] = {
        "up": up.apply,
        "random": lambda rows: rows + up.movement(rows) * stray,
        "zero": zero.apply,
        "ablate": lambda rows: rows - ((rows - mean) @ unit)[:, None] * unit,
    }
    return {name: _as_the_model_has_them(change) for name, change in own.items()}


def _as_the_model_has_them(change: Change) -> Change:
    return lambda rows: change(rows.float().cpu()).to(rows)


@dataclass(frozen=True)
class _Stretches:
    """Windows that hold a label's contrast, each from its first token of it on. There predictions are read."""

    windows: Int64
    """Ascending."""
    first: Int64
    """The first token that counts: with the label, where the window has it, else with another label of the contrast."""
    has_label: Bools

    def take(self, chosen: Int64 | Bools) -> "_Stretches":
        return _Stretches(self.windows[chosen], self.first[chosen], self.has_label[chosen])


def _stretches(corpus: Corpus, marks: Marks, contrast: Contrast, label: str) -> _Stretches:
    rows = marks.contrast_rows(contrast)
    tokens, is_label = marks.rows.tokens[rows], np.isin(rows, marks.of(label), assume_unique=True)
    windows = np.searchsorted(corpus.windows.start, tokens, side="right") - 1
    unique, first = np.unique(windows, return_index=True)
    having, first_label = np.unique(windows[is_label], return_index=True)
    has_label = np.isin(unique, having, assume_unique=True)
    starts = tokens[first]
    starts[has_label] = tokens[is_label][first_label]
    return _Stretches(unique, starts, has_label)


def _following(corpus: Corpus, some: _Stretches) -> Int64:
    """The tokens that the predictions of these stretches are about."""
    ends = corpus.windows.start[some.windows] + corpus.windows.length[some.windows]
    lengths = np.maximum(ends - some.first - 1, 0)
    offsets = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    following: Int64 = corpus.tokens[np.repeat(some.first + 1, lengths) + offsets].astype(np.int64)
    return following


@dataclass(frozen=True)
class _Reader:
    """Runs the model on stretches, as it is and with each edit."""

    model: LanguageModel
    corpus: Corpus
    hookpoint: str
    settings: Evaluate
    seed: int

    def choose(self, some: _Stretches) -> _Stretches:
        """Windows drawn by key: half of the tokens with the label, half without it."""
        lengths, chosen = self.corpus.windows.length[some.windows], []
        for side in (np.flatnonzero(some.has_label), np.flatnonzero(~some.has_label)):
            order = side[keyed_order(some.windows[side], seed=self.seed, use=keys.Use.CAUSAL_WINDOWS)]
            n_kept = max(1, int((np.cumsum(lengths[order]) <= self.settings.causal_tokens // 2).sum()))
            chosen.append(order[:n_kept])
        return some.take(np.sort(np.concatenate(chosen)))

    def read(self, some: _Stretches, changes: Mapping[str, Change], effects: Effects, place: str) -> None:
        """Add the predictions of these stretches to `effects`."""
        corpus = self.corpus
        last_layer = f"resid_post.{self.model.n_layers - 1}"
        room = room_for_logits(self.model, self.settings.batch_tokens)
        for windows, ids, is_text in text_batches(self.model, corpus, some.windows, room):
            here = some.take(np.searchsorted(some.windows, windows))
            starts = corpus.windows.start[windows]
            position = torch.arange(ids.shape[1] - 1) - int(corpus.has_bos)
            begins = torch.from_numpy(here.first - starts)
            scored = scored_pairs(is_text) & (position[None] >= begins[:, None])
            row = scored.nonzero()[:, 0].numpy()
            clean = self.model.untouched(ids, reads=[last_layer], changes=[self.hookpoint])
            passes = {"clean": clean.rows} | {
                name: self.model.read(ids, [last_layer], [replacing(self.hookpoint, is_text, each)], trunk=clean.trunk)
                for name, each in changes.items()
            }
            # Of the last layer's rows only those that are scored are turned into logits: a third of the cost.
            logits = {name: self.model.unembed(rows[last_layer][:, :-1][scored]).cpu() for name, rows in passes.items()}
            effects.add(logits, here.has_label[row], corpus.document_of(starts)[row], place=place)


def _measure(
    reader: _Reader, truth: Truth, label: str, changes: Mapping[str, Change], seed: int
) -> tuple[Measure, dict[str, EditEffect]] | None:
    """None where every window of the contrast has the label, or where nothing follows it."""
    contrast, corpus = truth.contrast(label), reader.corpus
    studied, scored = (_stretches(corpus, marks, contrast, label) for marks in (truth.selection, truth.scoring))
    if scored.has_label.all():
        return None
    following, elsewhere = (_following(corpus, studied.take(side)) for side in (studied.has_label, ~studied.has_label))
    if len(following) == 0 or len(elsewhere) == 0:
        return None
    effects = Effects(signature(following, elsewhere, reader.model.vocab_size))
    reader.read(reader.choose(scored), changes, effects, f"{reader.hookpoint}: predictions at {label}")
    if effects.is_one_sided:
        return None
    negatives = contrast.text(label)
    return effects.gap(negatives, seed), effects.of_edits(negatives, seed)
