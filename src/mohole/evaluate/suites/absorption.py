"""Feature absorption of concepts and of families of words, and over how many latents they are split. On rows alone, no model."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from mohole.evaluate.results import Rated
from mohole.evaluate.rows.choice import COUNTED
from mohole.evaluate.suites.classes import WORD, Classed, Group
from mohole.evaluate.suites.coders import Coder, scaled
from mohole.evaluate.suites.material import Material, Unit, constant, over, rated
from mohole.keys import Use, words
from mohole.metrics import DocumentSums, Masks
from mohole.metrics.absorption import absorption
from mohole.metrics.codes import CodeMatrix
from mohole.metrics.measure import Statistic, ratio
from mohole.metrics.sparse_probe import (
    Items,
    class_gap,
    decision_sums,
    f1_of,
    fit_probe,
    probe_splits,
    sparse_probe,
)

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]
Bools = NDArray[np.bool_]

MOST_MAIN = 5
"""Main latents that a label may have."""
_MOST_CLASSES = 8
_LEAST_PROJECTION = 0.1


def measure_absorption(material: Material) -> Iterator[Rated]:
    """Rates, shares and splits, mean over a group's classes; of the dictionary and of random directions."""
    truth = material.truth
    spoken = (*truth.word_families, WORD) if truth else ()
    found = [group for group in material.groups if group.name in spoken] or material.groups
    for group in found:
        yield from _of_group(group, material)


@dataclass(frozen=True)
class _Carried:
    """What was found of one class: sums over documents, and the number of latents beyond the first."""

    sums: DocumentSums
    n_splits: int


def _of_group(group: Group, material: Material) -> Iterator[Rated]:
    n_classes = len(group.classes)
    selection, scoring = (material.thinned(side, n_classes) for side in (group.selection, group.scoring))
    rows = [material.vectors(side.tokens) for side in (selection, scoring)]
    classes = range(min(n_classes, _MOST_CLASSES))
    documents = np.unique(scoring.documents)
    rates: dict[str, Statistic] = {}
    shares: dict[str, Statistic] = {}
    splits: dict[str, Statistic] = {}
    n = 0
    for coder in (coder for coder in material.coders if coder.is_sparse):
        codes = [coder.encode(side) for side in rows]
        carried = [_carried(c, coder, (selection, scoring), rows, codes, material.seed) for c in classes]
        every = [over(documents, each.sums) for each in carried]
        rates[coder.name] = partial(_pooled, every, "full", "defined")
        shares[coder.name] = partial(_pooled, every, "share", "shared")
        splits[coder.name] = constant(float(np.mean([each.n_splits for each in carried])))
        n = int(sum(each.total("defined") for each in every))
    counted = Masks(counted=f"{COUNTED}; of these, tokens of a class that a probe of the whole row calls so")
    of = f"{len(classes)} classes of {group.name}"
    for name, unit, statistics, baseline, definition in (
        ("absorbed", "share of tokens", rates, "0",
         "tokens at which none of the class's main latents fires and one other latent carries at least 0.4 of the row's "
         f"projection on the probe, measured from the decoder's bias; pooled over {of}"),
        ("absorbed share", "share of the projection", shares, "0",
         "absorbers / (main latents + absorbers), products with the probe's unit direction, at most three absorbers, 0 where "
         f"they carry less than 0.4 of the projection; mean over the tokens of {of}"),
        ("splits", "latents beyond the first", splits, "0",
         f"how many latents a k-sparse probe takes on while each adds 0.03 of F1 on documents it was not fitted on (at most "
         f"{MOST_MAIN - 1}), mean over {of}"),
    ):  # fmt: skip
        about = Unit(f"{group.name}: {name}", unit, "tokens", counted, baseline, definition, "no token was decided")
        yield rated(about, documents, n, statistics, material.seed)


def _carried(
    c: int,
    coder: Coder,
    sides: tuple[Classed, Classed],
    rows: list[Float32],
    codes: list[CodeMatrix],
    seed: int,
) -> _Carried:
    selection, scoring = sides
    positive = selection.classes == c
    main, n_splits = _main_latents(codes[0], positive, selection.documents, seed)
    probe = fit_probe(rows[0], positive)
    unit = probe.direction / np.linalg.norm(probe.direction)
    typical = float(((rows[0] - coder.silent(rows[0]))[positive] @ unit).mean())
    kept = np.flatnonzero((scoring.classes == c) & (probe.log_odds(rows[1]) > 0))
    found = absorption(
        rows[1][kept],
        scaled(codes[1][kept], coder.scale(rows[1][kept])),
        coder.decoder,
        coder.silent(rows[1][kept]),
        probe.direction,
        main,
        least_projection=max(_LEAST_PROJECTION * typical, 1e-6),
    )
    sums = DocumentSums(("defined", "full", "shared", "share"))
    has_share = ~np.isnan(found.share)
    columns = (found.defined, found.full, has_share, np.where(has_share, found.share, 0.0))
    sums.add(scoring.documents[kept], np.stack(columns, axis=1).astype(np.float64))
    return _Carried(sums, n_splits)


def _main_latents(codes: CodeMatrix, positive: Bools, documents: Int64, seed: int) -> tuple[Int64, int]:
    """A label's own latents: added while F1 on a half of the selection documents grows, fitted on the other half."""
    fitted = words(seed, Use.PROBED_ITEMS, documents, 1) % 2 == 0
    fit_on, judge_on = (
        Items(codes[np.flatnonzero(half)], positive[half], documents[half]) for half in (fitted, ~fitted)
    )
    if any(not half.positive.any() or half.positive.all() for half in (fit_on, judge_on)):
        return np.argsort(-np.abs(class_gap(codes, positive)), kind="stable")[:1], 0
    f1, latents = [], np.zeros(0, dtype=np.int64)
    for k in range(1, MOST_MAIN + 1):
        probed = sparse_probe(fit_on, judge_on, k)
        latents = probed.latents
        sums = decision_sums(probed.decided, judge_on.positive, judge_on.documents)
        f1.append(float(f1_of(sums)(np.ones((1, len(sums.documents))))[0]))
    n_splits = probe_splits(np.array(f1))
    return latents[: n_splits + 1], n_splits


def _pooled(sums: list[DocumentSums], top: str, bottom: str, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    numerator = sum(weights @ each.column(top) for each in sums)
    denominator = sum(weights @ each.column(bottom) for each in sums)
    return ratio(np.asarray(numerator), np.asarray(denominator))
