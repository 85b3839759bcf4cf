"""k-sparse probing of every family of labels: how much of what a row says do one or five latents say?"""

from collections.abc import Iterator
from functools import partial

import numpy as np

from mohole.evaluate.results import Rated
from mohole.evaluate.rows.choice import COUNTED
from mohole.evaluate.suites.classes import Classed, Group
from mohole.evaluate.suites.material import Material, Unit, mean_over, over, rated
from mohole.metrics import Masks
from mohole.metrics.codes import CodeMatrix
from mohole.metrics.measure import Statistic
from mohole.metrics.sparse_probe import (
    Bools,
    Items,
    balanced_accuracy,
    control_labels,
    decision_sums,
    fit_probe,
    selectivity,
    sparse_probe,
)

SIZES = (1, 5)
_CONTROL_SHARE = 0.5


def measure_probing(material: Material) -> Iterator[Rated]:
    """For each group: mean balanced accuracy over its classes of probes of 1 and 5 latents; and their selectivity."""
    for group in material.groups:
        n_classes = len(group.classes)
        yield from _Sides(
            group,
            material,
            material.thinned(group.selection, n_classes),
            material.thinned(group.scoring, n_classes),
        ).ratings()


class _Sides:
    """One group's tokens on both sides, as codes of every kind."""

    def __init__(self, group: Group, material: Material, selection: Classed, scoring: Classed) -> None:
        self._group, self._material, self._selection, self._scoring = group, material, selection, scoring
        rows = [material.vectors(side.tokens) for side in (selection, scoring)]
        self._rows = rows
        self._codes: dict[str, list[CodeMatrix]] = {
            coder.name: [coder.encode(side) for side in rows] for coder in material.coders
        }
        self._documents = np.unique(scoring.documents)
        types = [material.corpus.tokens[side.tokens].astype(np.int64) for side in (selection, scoring)]
        self._control = [control_labels(each, _CONTROL_SHARE, material.seed) for each in types]

    def ratings(self) -> Iterator[Rated]:
        classes = range(len(self._group.classes))
        truth = [[side.classes == c for side in (self._selection, self._scoring)] for c in classes]
        full = mean_over(self._dense(*each) for each in truth)
        for k in SIZES:
            found = {name: mean_over(self._sparse(name, k, *each) for each in truth) for name in self._codes}
            yield self._rated(f"{self._group.name}: {k} latent{'s' if k > 1 else ''}", found | {"probe": full})
        controlled = {
            name: partial(_selective, mean_over(self._sparse(name, SIZES[-1], *each) for each in truth), control)
            for name, control in ((name, self._sparse(name, SIZES[-1], *self._control)) for name in self._codes)
        }
        probe = partial(_selective, full, self._dense(*self._control))
        yield self._rated(f"{self._group.name}: selectivity", controlled | {"probe": probe})

    def _sparse(self, name: str, k: int, selected: Bools, scored: Bools) -> Statistic:
        selection, scoring = self._codes[name]
        decided = sparse_probe(
            Items(selection, selected, self._selection.documents), Items(scoring, scored, self._scoring.documents), k
        ).decided
        return self._accuracy(decided, scored)

    def _dense(self, selected: Bools, scored: Bools) -> Statistic:
        return self._accuracy(fit_probe(self._rows[0], selected).log_odds(self._rows[1]) > 0, scored)

    def _accuracy(self, decided: Bools, scored: Bools) -> Statistic:
        return balanced_accuracy(over(self._documents, decision_sums(decided, scored, self._scoring.documents)))

    def _rated(self, name: str, statistics: dict[str, Statistic]) -> Rated:
        is_control = name.endswith("selectivity")
        definition = (
            f"balanced accuracy of {SIZES[-1]} latents less that on a control label drawn by token type (Hewitt & Liang 2019)"
            if is_control
            else "balanced accuracy of a logistic regression on the latents with the largest standardised class gap, mean over "
            f"{len(self._group.classes)} classes, each against the others of its group; `probe` reads the whole row"
        )
        unit = Unit(
            name=name,
            unit="difference of balanced accuracies" if is_control else "balanced accuracy",
            n_of="tokens",
            masks=Masks(counted=f"{COUNTED}; of these, tokens with one class of {self._group.name}"),
            baseline="0: a probe that only tells token types apart"
            if is_control
            else "0.5: chance and constant answers",
            definition=definition,
        )
        return rated(unit, self._documents, len(self._scoring), statistics, self._material.seed)


def _selective(task: Statistic, control: Statistic, weights: np.ndarray) -> np.ndarray:
    return selectivity(task(weights), control(weights))
