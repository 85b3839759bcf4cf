"""Continuations that share one cache and go on together, a token each with every pass. No threads, no queues."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from mohole.act import Reader, Stamp, Steered, steer_rows
from mohole.engine.ask import Likelihood
from mohole.engine.row import Row
from mohole.model import LanguageModel, TextCache
from mohole.model.generate import choose_each
from mohole.model.joining import join, trim

_FREE_CELLS = 1 << 14
"""Positions of padding that are not worth a pass of their own."""


@dataclass(frozen=True)
class Outcome:
    """What a pass gave for each row of a cohort."""

    logits: Tensor
    stamps: tuple[Stamp, ...]
    values: list[tuple[float, ...] | None]
    """Of the readings, at the last token of the pass."""


class Cohort:
    """Rows and the cache that holds what they have run."""

    def __init__(self, model: LanguageModel, rows: Sequence[Row], cache: TextCache) -> None:
        self.model, self.rows, self.cache = model, list(rows), cache

    @classmethod
    def begin(cls, model: LanguageModel, rows: Sequence[Row]) -> tuple["Cohort", Outcome]:
        """Run all that rows consist of so far. Equal beginnings under equal interventions are run once.

        Raises:
            MoholeError: an intervention that is too strong for some row; nobody knows for which.
        """
        places: dict[object, int] = {}
        which = [places.setdefault(_beginning(row), len(places)) for row in rows]
        firsts = [rows[which.index(place)] for place in range(len(places))]
        texts = [[*row.ask.prompt, *row.chosen] for row in firsts]
        most = max(map(len, texts))
        padding = [most - len(text) for text in texts]
        tokens = torch.tensor([[text[0]] * n + text for n, text in zip(padding, texts, strict=True)])
        steered, reader = _edits(model, firsts)
        n_prompt = [len(row.ask.prompt) for row in firsts]
        passed = steered.step(tokens, n_prompt=n_prompt, padding=padding, reads=[reader])
        values = _last(reader)
        cache, logits = passed.cache, passed.logits
        if len(firsts) < len(rows):
            cache, logits = cache.select(which), logits[which]
        stamps = tuple(passed.stamps[place] for place in which)
        return cls(model, rows, cache), Outcome(logits, stamps, [values[place] for place in which])

    def step(self) -> Outcome:
        """Run everyone's newest token. Raises: MoholeError: as `begin`."""
        tokens = torch.tensor([[row.chosen[-1]] for row in self.rows])
        steered, reader = self._edits
        passed = steered.step(tokens, self.cache, reads=[reader])
        self.cache = passed.cache
        return Outcome(passed.logits, passed.stamps, _last(reader))

    @cached_property
    def _edits(self) -> tuple[Steered, Reader]:
        return _edits(self.model, self.rows)

    def keep(self, rows: Sequence[Row]) -> None:
        """Go on with these alone."""
        if len(rows) == len(self.rows):
            return
        places = [place for place, row in enumerate(self.rows) if row in rows]
        self.rows = [self.rows[place] for place in places]
        self.__dict__.pop("_edits", None)
        if places:
            self.cache = trim(self.cache.select(places))


def joined(cohorts: Sequence[Cohort]) -> list[Cohort]:
    """As few as it pays: all in one where padding a short text to a long one's length costs less than a pass of its own."""
    found: list[Cohort] = []
    for cohort in sorted((each for each in cohorts if each.rows), key=lambda each: each.cache.tokens.shape[1]):
        both = [found[-1], cohort] if found else []
        cache = join([each.cache for each in both]) if both and _pays(both) else None
        if cache is None:
            found.append(cohort)
        else:
            found[-1] = Cohort(cohort.model, [row for each in both for row in each.rows], cache)
    return found


def _pays(cohorts: Sequence[Cohort]) -> bool:
    longest = max(each.cache.tokens.shape[1] for each in cohorts)
    cells = sum(len(each.rows) for each in cohorts) * longest
    text = sum(each.cache.tokens.numel() - sum(each.cache.padding) for each in cohorts)
    return cells <= 2 * text + _FREE_CELLS


def chosen(rows: Sequence[Row], logits: Tensor) -> list[tuple[int, Likelihood | None]]:
    """Everyone's next token, with its likelihood for those who ask. Raises: NumericsError: logits that are not numbers."""
    tokens = choose_each(logits, [row.sampling for row in rows], [len(row.chosen) for row in rows]).tolist()
    asking = [place for place, row in enumerate(rows) if row.ask.n_top is not None]
    found: dict[int, Likelihood] = {}
    if asking:
        logprobs = torch.log_softmax(logits[asking].float(), dim=-1)
        n_top = max(rows[place].ask.n_top or 0 for place in asking)
        values, ids = (part.tolist() for part in logprobs.topk(min(n_top, logprobs.shape[1]), dim=-1))
        for i, place in enumerate(asking):
            n = rows[place].ask.n_top or 0
            top = tuple(zip(ids[i][:n], values[i][:n], strict=True))
            found[place] = Likelihood(float(logprobs[i, tokens[place]]), top)
    return [(token, found.get(place)) for place, token in enumerate(tokens)]


def _edits(model: LanguageModel, rows: Sequence[Row]) -> tuple[Steered, Reader]:
    reader = Reader([row.ask.readings for row in rows], model.device)
    return steer_rows(model, [row.ask.plan for row in rows]), reader


def _last(reader: Reader) -> list[tuple[float, ...] | None]:
    if not reader.hookpoints:
        return [None] * len(reader.wanted)
    return [tuple(each[-1].tolist()) if each.numel() else None for each in reader.values()]


def _beginning(row: Row) -> object:
    """Equal where one run serves both. One that has gone on is run for itself: its stamp is its own."""
    if row.chosen:
        return id(row)
    readings = tuple((reading.name, reading.place.layer, reading.place.latent) for reading in row.ask.readings)
    return row.ask.prompt, row.ask.plan.key, readings
