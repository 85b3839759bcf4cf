"""What must be true of probes, dense and k-sparse, and of the counts that come with them."""

from collections.abc import Iterator
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array  # type: ignore[import-untyped]

from mohole.keys import Use, normal, uniform
from mohole.metrics.definitions import Definitions
from mohole.metrics.known_answers.answer import Answer, Check, refuses
from mohole.metrics.sparse_probe import Items, control_labels, decision_sums

Float64 = NDArray[np.float64]
Bools = NDArray[np.bool_]

_N = 240
_ONCE = np.ones((1, _N))


def _drawn(seed: int, n: int) -> Float64:
    return uniform(seed, Use.BOOTSTRAP, np.arange(n), np.zeros(n, dtype=np.int64))


def _items(codes: Float64, positive: Bools, first_document: int) -> Items:
    """One document for each item."""
    return Items(csr_array(codes), positive, first_document + np.arange(len(positive)))


def _accuracy(d: Definitions, decided: Bools, positive: Bools) -> float:
    statistic = d.balanced_accuracy(decision_sums(decided, positive, np.arange(len(positive))))
    return float(statistic(np.ones((1, len(positive))))[0])


@cache
def _codes(seed: int, n: int, n_latents: int) -> Float64:
    """Codes that know nothing: each latent fires in about a third of the items, with values of its own size."""
    return np.maximum(normal(seed, Use.BOOTSTRAP, np.arange(n), n_latents) - 0.4, 0.0) * np.linspace(0.1, 10, n_latents)


def a_latent_that_is_the_label_is_found(d: Definitions) -> Iterator[Answer]:
    """Among loud latents that know nothing, the one that is the label is read by a probe of one latent, with accuracy 1."""
    positive = np.arange(_N) % 4 == 0
    for scale in (1e-3, 1.0, 1e3):
        sides = []
        for seed in (1, 2):
            codes = _codes(seed, _N, 12).copy()
            codes[:, 3] = np.where(positive, 1 + 0.1 * _drawn(seed, _N), 0.0) * scale
            sides.append(_items(codes, positive, seed * _N))
        found = d.sparse_probe(*sides, 1)
        yield Answer(f"latent found, {scale:g} times as long", float(found.latents[0]), 3.0, 0)
        yield Answer(f"balanced accuracy, {scale:g} times as long", _accuracy(d, found.decided, positive), 1.0)
    yield refuses("a document on both sides", lambda: d.sparse_probe(sides[0], sides[0], 1))


def the_gap_does_not_see_the_gauge(d: Definitions) -> Iterator[Answer]:
    """Values ten times as large (and decoder rows a tenth as long) leave a latent's class gap; turned labels turn its sign."""
    positive = np.arange(_N) % 3 == 0
    codes = _codes(3, _N, 6) + positive[:, None] * np.linspace(0, 2, 6)
    plain, louder = d.class_gap(csr_array(codes), positive), d.class_gap(csr_array(10 * codes), positive)
    turned = d.class_gap(csr_array(codes), ~positive)
    for latent in range(6):
        yield Answer(f"gap of latent {latent}, values times 10", float(louder[latent]), float(plain[latent]))
        yield Answer(f"gap of latent {latent}, labels turned", float(turned[latent]), -float(plain[latent]))
    dead = d.class_gap(csr_array(np.zeros((_N, 1))), positive)
    yield Answer("gap of a latent that never fires", float(dead[0]), 0.0)
    two = np.array([[1.0], [3.0], [0.0], [2.0]])
    yield Answer("gap of 1, 3 from 0, 2", float(d.class_gap(csr_array(two), np.array([1, 1, 0, 0], np.bool_))[0]), 1.0)


def a_label_of_chance_scores_half(d: Definitions) -> Iterator[Answer]:
    """Labels that are shuffled have balanced accuracy one half on average, however many latents there are to choose from."""
    sparse, dense = [], []
    for sample in range(16):
        labels = _drawn(100 + sample, 120) < 0.5
        codes = _codes(7, 120, 60)
        selection, scoring = (
            _items(codes[side], labels[side], 120 * i) for i, side in enumerate((slice(80), slice(80, 120)))
        )
        sparse.append(_accuracy(d, d.sparse_probe(selection, scoring, 1).decided, scoring.positive))
        if sample < 8:
            probe = d.fit_probe(codes[:80, :20], selection.positive)
            dense.append(_accuracy(d, probe.log_odds(codes[80:, :20]) > 0, scoring.positive))
    yield Answer(
        "mean balanced accuracy of 16 probes of a latent for shuffled labels", float(np.mean(sparse)), 0.5, 0.05
    )
    yield Answer("mean balanced accuracy of 8 dense probes for shuffled labels", float(np.mean(dense)), 0.5, 0.08)


def what_is_scored_on_decides_nothing(d: Definitions) -> Iterator[Answer]:
    """Other labels on the scoring side leave latents and decisions as they are: nothing is chosen or stopped by them."""
    labels = _drawn(9, 120) < 0.5
    codes = _codes(8, 120, 40)
    selection = _items(codes[:80], labels[:80], 0)
    for k in (1, 3):
        either = [d.sparse_probe(selection, _items(codes[80:], real, 80), k) for real in (labels[80:], ~labels[80:])]
        one, other = either
        yield Answer(f"latents read of {k}", float(len(one.latents)), float(k), 0)
        yield Answer(f"the same latents, {k} read", float(np.array_equal(one.latents, other.latents)), 1.0, 0)
        yield Answer(f"the same decisions, {k} read", float(np.array_equal(one.decided, other.decided)), 1.0, 0)


def probes_do_not_see_rarity_or_units(d: Definitions) -> Iterator[Answer]:
    """The two sides of a gap are told apart midway, when one of them is rare and whatever the columns' units are."""
    side = np.where(np.arange(_N) % 8 == 0, 1.0, -1.0)
    wobble = np.cos(np.arange(_N))
    for unit in (1e-3, 1.0, 1e3):
        values = np.stack([5 + 2 * side + 0.5 * wobble, np.sin(2.3 * np.arange(_N)) * unit], axis=1)
        values[:, 0] *= unit
        probe = d.fit_probe(values, side > 0)
        yield Answer(f"accuracy in units of {unit:g}", _accuracy(d, probe.log_odds(values) > 0, side > 0), 1.0)
        midway = -probe.bias / probe.direction[0] / unit
        yield Answer(f"where the probe cuts, in units of {unit:g}", float(midway), 5.0, 0.6)
    yield refuses("a probe of one class", lambda: d.fit_probe(values, np.ones(_N, np.bool_)))


def constant_answers_know_nothing(d: Definitions) -> Iterator[Answer]:
    """Always and never have balanced accuracy one half for a label of one item in ten; without a positive it is undefined."""
    rare = np.arange(_N) % 10 == 0
    yield Answer("always", _accuracy(d, np.ones(_N, np.bool_), rare), 0.5)
    yield Answer("never", _accuracy(d, np.zeros(_N, np.bool_), rare), 0.5)
    half = rare | (np.arange(_N) // 10 % 2 == 0)
    yield Answer("all positives and half of the negatives right", _accuracy(d, half, rare), 0.75)
    yield Answer("no positive", _accuracy(d, rare, np.zeros(_N, np.bool_)), float("nan"))


def knowing_the_word_is_not_knowing_the_label(d: Definitions) -> Iterator[Answer]:
    """A probe that reads one latent for each type of word is as good on control labels: selectivity 0."""
    types = np.arange(_N) % 12
    control = control_labels(types, 0.5, seed=4)
    label = types % 2 == 0
    words = np.eye(12)[types]
    accuracies = []
    for positive in (label, control):
        sides = [_items(words, positive, first) for first in (0, _N)]
        accuracies.append(_accuracy(d, d.sparse_probe(*sides, 12).decided, positive))
    task, chance = (np.array([value]) for value in accuracies)
    yield Answer("selectivity of a probe of words", float(d.selectivity(task, chance)[0]), 0.0)
    found = d.selectivity(np.array([0.8]), np.array([0.6]))
    yield Answer("selectivity of .8 where control labels have .6", float(found[0]), 0.2)


def splitting_counts_the_latents_beyond_the_first(d: Definitions) -> Iterator[Answer]:
    """A label that is one latent is split 0 times; one in three equal parts 2 times; a later jump after a stop does not count."""
    yield Answer("F1 .95, .96, .96", float(d.probe_splits(np.array([0.95, 0.96, 0.96]))), 0.0, 0)
    yield Answer("F1 .5, .8, 1, 1", float(d.probe_splits(np.array([0.5, 0.8, 1.0, 1.0]))), 2.0, 0)
    yield Answer("F1 .5, .51, .9", float(d.probe_splits(np.array([0.5, 0.51, 0.9]))), 0.0, 0)
    yield Answer("F1 of one probe", float(d.probe_splits(np.array([0.5]))), 0.0, 0)


CHECKS: tuple[Check, ...] = (
    splitting_counts_the_latents_beyond_the_first, constant_answers_know_nothing, the_gap_does_not_see_the_gauge,
    probes_do_not_see_rarity_or_units, knowing_the_word_is_not_knowing_the_label, a_latent_that_is_the_label_is_found,
    a_label_of_chance_scores_half, what_is_scored_on_decides_nothing,
)  # fmt: skip
