"""TPP in the model: latents of a class are taken out at every token; probes of all classes at the last layer say what is left."""

from collections.abc import Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from mohole.evaluate.results import Rated
from mohole.evaluate.suites.classes import WORD, Group, group_named
from mohole.evaluate.suites.coders import SIZES, Coder, along, span
from mohole.evaluate.suites.material import Material, Unit, best_on_selection, constant, over, rated
from mohole.evaluate.suites.readout import RowEdit
from mohole.evaluate.suites.removal import MASKS, removing
from mohole.metrics.concept_removal import attribution, tpp, without
from mohole.metrics.measure import Statistic
from mohole.metrics.sparse_probe import LinearProbe, balanced_accuracy, decision_sums, fit_probe

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

_MOST_CLASSES = 8


def measure_tpp(material: Material) -> Iterator[Rated]:
    """TPP over the families of words; of a corpus that names none, over the largest group.

    Source of the n of latents: the best of SIZES on training documents, by probes at the dictionary's own place.
    """
    group = group_named(material.groups, WORD) or max(material.groups, key=lambda each: len(each.classes), default=None)
    if group is None or len(group.classes) < 2:
        return
    yield from _Tpp(group, material).ratings()


class _Tpp:
    def __init__(self, group: Group, material: Material) -> None:
        self._material, self._n = material, min(len(group.classes), _MOST_CLASSES)
        self._group = group
        chosen, judged = (
            side.take(np.flatnonzero(side.classes < self._n)) for side in (group.selection, group.scoring)
        )
        self._selection = material.thinned(chosen, self._n)
        self._rows = material.vectors(self._selection.tokens)
        self._probes = [fit_probe(self._rows, self._selection.classes == c) for c in range(self._n)]
        fitting, self._reader = material.read_out(chosen.tokens), material.read_out(judged.tokens)
        train, self._judged = chosen.among(fitting.tokens), judged.among(self._reader.tokens)
        read = fitting.rows(train.tokens)  # runs the model: once, and not for each class
        self._readers = [fit_probe(read, train.classes == c) for c in range(self._n)]
        self._documents = np.unique(self._judged.documents)

    def ratings(self) -> Iterator[Rated]:
        before = self._accuracies(self._reader.rows(self._judged.tokens))
        shares, points, sizes = {}, {}, {}
        directions = np.stack([probe.direction for probe in self._probes])
        mean = self._rows.mean(axis=0, dtype=np.float64)
        for coder in self._material.coders:
            ranked = self._ranked(coder)
            size = best_on_selection(SIZES, partial(self._score_here, coder, ranked))
            edits = [removing(coder, latents[:size]) for latents in ranked]
            shares[coder.name], points[coder.name] = self._statistics(before, edits)
            sizes[coder.name] = constant(float(size))
        own = [along("probe", span(direction[None]), mean) for direction in directions]
        edits = [removing(coder, np.zeros(1, dtype=np.int64)) for coder in own]
        shares["probe"], points["probe"] = self._statistics(before, edits)
        definition = (
            "mean over classes of what the class's own probe loses when the class's latents are removed at every token, less "
            f"what the other classes' probes lose on average; {self._n} classes of {self._group.name}, probes at "
            f"{self._reader.read_at}; `probe` removes the one direction that a probe of the class reads"
        )
        for name, unit, statistics, baseline in (
            ("TPP", "share of what probes know above chance", shares, "0: damage without aim"),
            ("TPP in points", "points of balanced accuracy", points, "0: damage without aim"),
            ("latents removed for TPP", "latents per class", sizes, ""),
        ):
            about = Unit(name, unit, "tokens", MASKS, baseline, definition)
            yield rated(about, self._documents, len(self._judged), statistics, self._material.seed)

    def _ranked(self, coder: Coder) -> list[Int64]:
        """For each class, its latents, those that speak most for it first."""
        codes = coder.parts(self._rows)
        score = [
            attribution(codes, self._selection.classes == c, coder.decoder, probe.direction)
            for c, probe in enumerate(self._probes)
        ]
        return [np.argsort(-each, kind="stable") for each in score]

    def _score_here(self, coder: Coder, ranked: list[Int64], size: int) -> float:
        """TPP on the selection's own rows, by probes of the dictionary's place."""
        codes = coder.parts(self._rows)
        judge = partial(_plain_accuracies, self._probes, classes=self._selection.classes)
        after = [judge(without(self._rows, codes, coder.decoder, latents[:size])) for latents in ranked]
        return float(tpp(judge(self._rows), np.stack(after), chance=0.5))

    def _statistics(self, before: list[Statistic], edits: list[RowEdit]) -> tuple[Statistic, Statistic]:
        after = [self._accuracies(self._reader.rows(self._judged.tokens, edit)) for edit in edits]

        def of(weights: Float64, chance: float | None) -> Float64:
            clean = np.stack([each(weights) for each in before], axis=-1)
            edited = np.stack([np.stack([each(weights) for each in row], axis=-1) for row in after], axis=-2)
            return tpp(clean, edited, chance=chance)

        return partial(of, chance=0.5), partial(of, chance=None)

    def _accuracies(self, rows: Float32) -> list[Statistic]:
        found = []
        for c, probe in enumerate(self._readers):
            sums = decision_sums(probe.log_odds(rows) > 0, self._judged.classes == c, self._judged.documents)
            found.append(balanced_accuracy(over(self._documents, sums)))
        return found


def _plain_accuracies(probes: list[LinearProbe], rows: NDArray[np.floating], classes: Int64) -> Float64:
    documents, one = np.zeros(len(rows), dtype=np.int64), np.ones((1, 1))
    return np.array(
        [
            float(balanced_accuracy(decision_sums(probe.log_odds(rows) > 0, classes == c, documents))(one)[0])
            for c, probe in enumerate(probes)
        ]
    )
