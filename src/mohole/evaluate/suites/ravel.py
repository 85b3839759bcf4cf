"""RAVEL-style disentanglement: one word gets another's family (or language), and the last layer says what it is now."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from mohole.evaluate.results import Rated
from mohole.evaluate.suites.classes import Classed, Group, attributes, both
from mohole.evaluate.suites.coders import Coder, along, scaled, span
from mohole.evaluate.suites.material import Material, Unit, best_on_selection, constant, rated
from mohole.evaluate.suites.readout import ReadOut
from mohole.keys import Use, words
from mohole.metrics import DocumentSums, Masks
from mohole.metrics.concept_removal import attribution
from mohole.metrics.disentangle import caused, disentanglement, interchange, isolated
from mohole.metrics.measure import Statistic
from mohole.metrics.sparse_probe import LinearProbe, fit_probe

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

SIZES = (1, 5, 20, 80)
_PARTS = ("cause", "isolation")


def measure_ravel(material: Material) -> Iterator[Rated]:
    """Cause, isolation and their mean for two attributes of the same tokens, each edited in turn."""
    pair = attributes(material.groups)
    if pair is None:
        return
    yield from _Ravel(pair, material).ratings()


@dataclass(frozen=True)
class _Pairs:
    """Base and source tokens, which differ in both attributes, with the classes of either."""

    base: Int64
    source: Int64
    base_classes: tuple[Int64, Int64]
    source_classes: tuple[Int64, Int64]
    documents: Int64


class _Ravel:
    def __init__(self, groups: tuple[Group, Group], material: Material) -> None:
        self._groups, self._material = groups, material
        selection, scoring = (both(*(getattr(g, side) for g in groups)) for side in ("selection", "scoring"))
        items = material.thinned(selection[0], len(groups[0].classes))
        self._items = (items, selection[1].among(items.tokens))
        self._rows = material.vectors(items.tokens)
        self._probes = [_probes(self._rows, side, group) for side, group in zip(self._items, groups, strict=True)]
        fitting, self._reader = material.read_out(items.tokens), material.read_out(scoring[0].tokens)
        train = [side.among(fitting.tokens) for side in self._items]
        read = fitting.rows(train[0].tokens)
        self._readers = [_probes(read, side, group) for side, group in zip(train, groups, strict=True)]
        here = [side.among(self._reader.tokens) for side in scoring]
        self._pairs = _pairs(here, material.seed, one_per_window=self._reader)
        self._trained = _pairs(list(self._items), material.seed)

    def ratings(self) -> Iterator[Rated]:
        documents = np.unique(self._pairs.documents)
        parts: dict[str, dict[str, Statistic]] = {f"{part} {i}": {} for part in _PARTS for i in (0, 1)}
        whole: dict[str, Statistic] = {}
        sizes: dict[str, dict[str, Statistic]] = {"0": {}, "1": {}}
        clean = self._read(None, self._reader)
        for name in (*(coder.name for coder in self._material.coders), "probe"):
            sums = []
            for i in (0, 1):
                coder, latents = self._chosen(name, i)
                found = self._scored(i, clean, self._read((coder, latents), self._reader))
                sums.append(_sums(found, self._pairs.documents))
                sizes[str(i)][name] = constant(float(len(latents)))
                parts[f"cause {i}"][name] = sums[i].mean_of("cause", "caused")
                parts[f"isolation {i}"][name] = sums[i].mean_of("isolation", "isolated")
            whole[name] = partial(_disentangled, sums)
        yield self._rated("disentanglement", whole, documents, "0.5: an edit of nothing, or of everything")
        for i in (0, 1):
            edited, other = self._groups[i].name, self._groups[1 - i].name
            yield self._rated(f"cause: {edited}", parts[f"cause {i}"], documents, "0: an edit of nothing")
            yield self._rated(
                f"isolation: {other} under edits of {edited}",
                parts[f"isolation {i}"],
                documents,
                "1: an edit of nothing",
            )
            yield self._rated(f"latents swapped: {edited}", sizes[str(i)], documents, "", unit="latents")

    def _chosen(self, name: str, i: int) -> tuple[Coder, Int64]:
        """The attribute's latents, as many as disentangle best on selection pairs at the dictionary's own place."""
        directions = np.stack([probe.direction for probe in self._probes[i]])
        mean = self._rows.mean(axis=0, dtype=np.float64)
        if name == "probe":
            own = along(name, span(directions), mean)
            return own, np.arange(len(own.decoder))
        coder = next(coder for coder in self._material.coders if coder.name == name)
        codes, parts = coder.encode(self._rows), coder.parts(self._rows)
        told = np.zeros(len(coder.decoder))
        for c, direction in enumerate(directions):
            told += np.abs(attribution(parts, self._items[i].classes == c, coder.decoder, direction))
        ranked = np.argsort(-told, kind="stable")
        place = [
            np.searchsorted(self._items[0].tokens, tokens) for tokens in (self._trained.base, self._trained.source)
        ]
        rows = self._rows[place[0]]
        base, source = (
            scaled(codes[each], coder.scale(rows)) for each in place
        )  # the source's strengths, in the base's units
        clean = [_read_as(self._probes[j], rows) for j in (0, 1)]

        def score(size: int) -> float:
            edited = interchange(rows, base, source, coder.decoder, ranked[:size])
            after = [_read_as(self._probes[j], edited) for j in (0, 1)]
            cause, isolation = _outcomes(self._trained, i, clean, after)
            return float(np.nanmean(cause) + np.nanmean(isolation)) if (~np.isnan(cause)).any() else float("nan")

        return coder, ranked[: best_on_selection(SIZES, score)]

    def _read(self, edit: tuple[Coder, Int64] | None, reader: ReadOut) -> list[Int64]:
        """What each attribute of the base tokens reads as at the last layer."""
        pairs = self._pairs
        change = None
        if edit is not None:
            coder, latents = edit
            source_codes = coder.encode(self._material.vectors(pairs.source))

            def change(rows: Float32, tokens: Int64) -> Float64:
                place = np.flatnonzero(np.isin(tokens, pairs.base))
                of = np.searchsorted(pairs.base, tokens[place])
                edited = rows.astype(np.float64)
                base = rows[place]
                source = scaled(source_codes[of], coder.scale(base))
                edited[place] = interchange(base, coder.parts(base), source, coder.decoder, latents)
                return edited

        rows = reader.rows(pairs.base, change)
        return [_read_as(probes, rows) for probes in self._readers]

    def _scored(self, i: int, clean: list[Int64], after: list[Int64]) -> tuple[Float64, Float64]:
        return _outcomes(self._pairs, i, clean, after)

    def _rated(
        self,
        name: str,
        statistics: dict[str, Statistic],
        documents: Int64,
        baseline: str,
        unit: str = "share of pairs",
    ) -> Rated:
        first, second = (group.name for group in self._groups)
        definition = (
            f"a base token gets the latents of one attribute from a source token that differs in both ({first}, {second}); "
            "cause: the edited attribute reads as the source's; isolation: the other one still reads as the base's; "
            "disentanglement: the mean of both over both attributes. Read by linear probes at "
            f"{self._reader.read_at}, pairs whose clean row is misread left out; `probe` swaps the directions that probes of "
            "the attribute read"
        )
        masks = Masks(replaced="the base token alone", counted="pairs of tokens that differ in both attributes")
        about = Unit(
            name, unit, "pairs of tokens", masks, baseline, definition, "no pair was read rightly before the edit"
        )
        return rated(about, documents, len(self._pairs.base), statistics, self._material.seed)


def _pairs(sides: list[Classed], seed: int, one_per_window: ReadOut | None = None) -> _Pairs:
    """Each base token with the first token in keyed order that differs from it in both attributes. Base tokens ascend."""
    first, second = sides
    order = np.argsort(words(seed, Use.INTERCHANGED, first.tokens), kind="stable")
    bases = np.arange(len(first)) if one_per_window is None else _one_each(first, one_per_window)
    base, source = [], []
    for turn, item in enumerate(bases):
        differs = (first.classes != first.classes[item]) & (second.classes != second.classes[item])
        candidates = order[differs[order]]
        if len(candidates):
            base.append(item)
            source.append(candidates[turn % len(candidates)])
    b, s = np.array(base, dtype=np.int64), np.array(source, dtype=np.int64)
    return _Pairs(
        first.tokens[b],
        first.tokens[s],
        (first.classes[b], second.classes[b]),
        (first.classes[s], second.classes[s]),
        first.documents[b],
    )


def _one_each(items: Classed, reader: ReadOut) -> Int64:
    """The last item of each window: edits of two tokens of one window would reach each other."""
    window = reader.window_of(items.tokens)
    return np.flatnonzero(np.append(window[1:] != window[:-1], True))


def _probes(rows: Float32, items: Classed, group: Group) -> list[LinearProbe]:
    return [fit_probe(rows, items.classes == c) for c in range(len(group.classes))]


def _read_as(probes: list[LinearProbe], rows: NDArray[np.floating]) -> Int64:
    """The class with the highest log-odds."""
    return np.asarray(np.argmax(np.stack([probe.log_odds(rows) for probe in probes]), axis=0), dtype=np.int64)


def _outcomes(pairs: _Pairs, i: int, clean: list[Int64], after: list[Int64]) -> tuple[Float64, Float64]:
    """Cause on attribute i and isolation of the other, pair by pair; a pair counts for both or for neither."""
    j = 1 - i
    cause = caused(pairs.base_classes[i], pairs.source_classes[i], clean[i], after[i])
    isolation = isolated(pairs.base_classes[j], pairs.source_classes[j], clean[j], after[j])
    undefined = np.isnan(cause) | np.isnan(isolation)
    return np.where(undefined, np.nan, cause), np.where(undefined, np.nan, isolation)


def _sums(found: tuple[Float64, Float64], documents: Int64) -> DocumentSums:
    sums = DocumentSums(("cause", "caused", "isolation", "isolated"))
    columns = [column for part in found for column in (np.nan_to_num(part), (~np.isnan(part)).astype(np.float64))]
    sums.add(documents, np.stack(columns, axis=1))
    return sums


def _disentangled(sums: list[DocumentSums], weights: Float64) -> Float64:
    cause = np.stack([each.mean_of("cause", "caused")(weights) for each in sums], axis=-1)
    isolation = np.stack([each.mean_of("isolation", "isolated")(weights) for each in sums], axis=-1)
    return disentanglement(cause, isolation)
