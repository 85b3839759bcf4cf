"""SCR in the model: latents of a spurious attribute are taken out at every token; probes of the last layer say what is left."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from mohole.evaluate.results import Rated
from mohole.evaluate.suites.classes import Classed, Group, attributes, both
from mohole.evaluate.suites.coders import SIZES, Coder, along, span
from mohole.evaluate.suites.material import Material, Unit, best_on_selection, constant, over, rated
from mohole.evaluate.suites.readout import ReadOut, RowEdit
from mohole.evaluate.suites.removal import MASKS, removing
from mohole.metrics import DocumentSums
from mohole.metrics.concept_removal import attribution, scr, without
from mohole.metrics.measure import Statistic
from mohole.metrics.sparse_probe import LinearProbe, fit_probe

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
Bools = NDArray[np.bool_]

_MOST_PAIRS = 4


def measure_scr(material: Material) -> Iterator[Rated]:
    """SCR between two attributes of the same tokens: a family of words and its language, each the other's spurious one."""
    pair = attributes(material.groups)
    if pair is None:
        return
    first, second = pair
    cases = [*_cases(first, second, material), *_cases(second, first, material)]
    if not cases:
        return
    documents = np.unique(np.concatenate([case.judged.documents for case in cases]))
    biased = [case.accuracy(case.biased, None, documents) for case in cases]
    oracle = [case.accuracy(case.oracle, None, documents) for case in cases]
    shares: dict[str, Statistic] = {}
    sizes: dict[str, Statistic] = {}
    for coder in [*material.coders, None]:
        name = coder.name if coder else "probe"
        edits, chosen = zip(*(case.edit(coder) for case in cases), strict=True)
        ablated = [case.accuracy(case.biased, edit, documents) for case, edit in zip(cases, edits, strict=True)]
        shares[name] = partial(_pooled, biased, ablated, oracle)
        sizes[name] = constant(float(np.mean(chosen)))
    n = sum(len(case.judged) for case in cases)
    definition = (
        "(ablated - biased) / (oracle - biased), each the mean accuracy over pairs of classes, the four combinations of "
        "wanted and spurious counting the same: a probe trained where both always agree, the same with the spurious class's "
        f"latents removed at every token, and one trained on all four; {len(cases)} pairs: "
        f"{', '.join(case.name for case in cases)}; probes at {cases[0].read_at}"
    )
    why = "the spurious correlation costs the probe nothing, so there is nothing to remove"
    about = Unit("SCR", "share of the bias removed", "tokens", MASKS, "0: the biased probe as it is", definition, why)
    yield rated(about, documents, n, shares, material.seed)
    for name, statistics in (("accuracy with the bias", biased), ("accuracy without the bias", oracle)):
        about = Unit(name, "accuracy", "tokens", MASKS, "0.5: chance", definition)
        found: dict[str, Statistic] = {"probe": partial(_mean, statistics)}
        yield rated(about, documents, n, found, material.seed)
    about = Unit("latents removed for SCR", "latents", "tokens", MASKS, "", definition)
    yield rated(about, documents, n, sizes, material.seed)


@dataclass
class _Case:
    """One pair of wanted classes with one pair of spurious ones."""

    name: str
    judged: Classed
    wanted: Bools
    spurious: Bools
    reader: ReadOut
    biased: LinearProbe
    oracle: LinearProbe
    rows: Float32
    """Selection rows at the dictionary's place, of all four combinations, with their labels."""
    labels: tuple[Bools, Bools]

    @property
    def read_at(self) -> str:
        return self.reader.read_at

    def edit(self, coder: Coder | None) -> tuple[RowEdit, int]:
        """What removes the spurious class: latents chosen on the selection rows, or the probe's own direction."""
        direction = fit_probe(self.rows, self.labels[1]).direction
        if coder is None:
            own = along("probe", span(direction[None]), self.rows.mean(axis=0, dtype=np.float64))
            return removing(own, np.zeros(1, dtype=np.int64)), 1
        codes = coder.parts(self.rows)
        ranked = np.argsort(-np.abs(attribution(codes, self.labels[1], coder.decoder, direction)), kind="stable")
        agree = self.labels[0] == self.labels[1]
        here = fit_probe(self.rows[agree], self.labels[0][agree])

        def score(size: int) -> float:
            left = without(self.rows, codes, coder.decoder, ranked[:size])
            return _cell_accuracy(here.log_odds(left) > 0, *self.labels)

        size = best_on_selection(SIZES, score)
        return removing(coder, ranked[:size]), size

    def accuracy(self, probe: LinearProbe, edit: RowEdit | None, documents: Int64) -> Statistic:
        """Accuracy about the wanted class on held-out tokens, each combination counting a quarter."""
        right = (probe.log_odds(self.reader.rows(self.judged.tokens, edit)) > 0) == self.wanted
        sums = DocumentSums([f"{what}{cell}" for cell in range(4) for what in ("n", "right")])
        cell = 2 * self.wanted + self.spurious
        columns = [(cell == each) & hit for each in range(4) for hit in (np.ones(len(cell), np.bool_), right)]
        sums.add(self.judged.documents, np.stack(columns, axis=1).astype(np.float64))
        every = over(documents, sums)
        shares = [every.mean_of(f"right{each}", f"n{each}") for each in range(4)]
        return partial(_mean, shares)


def _cases(wanted: Group, spurious: Group, material: Material) -> Iterator[_Case]:
    """The pairs of classes with the most tokens in their rarest combination."""
    selection, judged = (both(getattr(wanted, side), getattr(spurious, side)) for side in ("selection", "scoring"))
    counts = np.zeros((len(wanted.classes), len(spurious.classes)), dtype=np.int64)
    np.add.at(counts, (judged[0].classes, judged[1].classes), 1)
    pairs = [
        (int(counts[np.ix_(a, b)].min()), a, b)
        for a in combinations(range(len(wanted.classes)), 2)
        for b in combinations(range(len(spurious.classes)), 2)
    ]
    used: set[int] = set()
    n_cases = 0
    for fewest, a, b in sorted(pairs, key=lambda each: -each[0]):
        if fewest < material.settings.min_positives or n_cases == _MOST_PAIRS // 2:
            return
        if used & set(a):
            continue
        used |= set(a)
        n_cases += 1
        yield _case((wanted, spurious), (a, b), selection, judged, material)


def _case(
    groups: tuple[Group, Group],
    chosen: tuple[tuple[int, ...], tuple[int, ...]],
    selection: tuple[Classed, Classed],
    judged: tuple[Classed, Classed],
    material: Material,
) -> _Case:
    def narrowed(side: tuple[Classed, Classed]) -> tuple[Classed, Bools, Bools]:
        kept = np.flatnonzero(np.isin(side[0].classes, chosen[0]) & np.isin(side[1].classes, chosen[1]))
        return side[0].take(kept), side[0].classes[kept] == chosen[0][0], side[1].classes[kept] == chosen[1][0]

    items, wanted, spurious = narrowed(selection)
    fitting = material.read_out(items.tokens)
    inside = np.isin(items.tokens, fitting.tokens)
    read = fitting.rows(items.tokens[inside])
    agree = (wanted == spurious)[inside]
    scored, wanted_scored, spurious_scored = narrowed(judged)
    reader = material.read_out(scored.tokens)
    here = np.isin(scored.tokens, reader.tokens)
    names = [f"{group.classes[c[0]]} or {group.classes[c[1]]}" for group, c in zip(groups, chosen, strict=True)]
    return _Case(
        name=f"{names[0]} (spurious: {names[1]})",
        judged=scored.take(np.flatnonzero(here)),
        wanted=wanted_scored[here],
        spurious=spurious_scored[here],
        reader=reader,
        biased=fit_probe(read[agree], wanted[inside][agree]),
        oracle=fit_probe(read, wanted[inside]),
        rows=material.vectors(items.tokens),
        labels=(wanted, spurious),
    )


def _cell_accuracy(decided: Bools, wanted: Bools, spurious: Bools) -> float:
    right, cell = decided == wanted, 2 * wanted + spurious
    return float(np.mean([right[cell == each].mean() for each in np.unique(cell)]))


def _pooled(biased: list[Statistic], ablated: list[Statistic], oracle: list[Statistic], weights: Float64) -> Float64:
    return scr(*(_mean(statistics, weights) for statistics in (biased, ablated, oracle)))


def _mean(statistics: list[Statistic], weights: Float64) -> Float64:
    return np.asarray(np.mean([statistic(weights) for statistic in statistics], axis=0))
