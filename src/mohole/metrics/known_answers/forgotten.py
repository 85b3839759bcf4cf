"""What must be true of unlearning: the frontier, the choice of an edit, and the score."""

from collections.abc import Iterator

import numpy as np

from mohole.keys import Use, uniform
from mohole.metrics.definitions import Definitions
from mohole.metrics.known_answers.answer import Answer, Check
from mohole.metrics.unlearning import Tried


def forgetting_is_counted_from_chance(d: Definitions) -> Iterator[Answer]:
    """At chance all is forgotten, at the clean accuracy nothing, below chance more than all; knowing nothing is undefined."""
    clean = np.array([0.9])
    for name, edited, true in (("chance", 0.1, 1.0), ("clean", 0.9, 0.0), ("half way", 0.5, 0.5), ("0", 0.0, 1.125)):
        yield Answer(f"forgotten, at {name}", float(d.unlearned(clean, np.array([edited]), 0.1)[0]), true)
    yield Answer("forgotten, better than before", float(d.unlearned(clean, np.array([1.0]), 0.1)[0]), -0.125)
    yield Answer(
        "forgotten by one who knew nothing", float(d.unlearned(np.array([0.12]), np.array([0.1]), 0.1)[0]), float("nan")
    )


def the_frontier_has_no_edit_that_another_beats(d: Definitions) -> Iterator[Answer]:
    """Of five edits, one that is beaten and a copy are left out; the rest are in order of what they keep."""
    tried = Tried(0.9, 1.0, np.array([0.9, 0.5, 0.6, 0.1, 0.5]), np.array([1.0, 0.9, 0.8, 0.5, 0.9]))
    found = d.frontier(tried)
    yield Answer("edits on the frontier", float(len(found)), 3.0, 0)
    for place, true in enumerate((0, 1, 3)):
        yield Answer(f"edit at place {place}", float(found[place]), float(true), 0)


def what_is_lost_elsewhere_forbids_an_edit(d: Definitions) -> Iterator[Answer]:
    """The edit that forgets most but harms the rest is not chosen; where all harm, none is, and nothing was forgotten."""
    tried = Tried(0.9, 0.8, np.array([0.0, 0.4, 0.8]), np.array([0.5, 0.795, 0.8]))
    yield Answer("the edit chosen", float(d.choose_edit(tried, 0.99) or 0), 1.0, 0)
    harmful = Tried(0.9, 0.8, np.zeros(2), np.full(2, 0.5))
    yield Answer("an edit is chosen where all harm", float(d.choose_edit(harmful, 0.99) is not None), 0.0, 0)
    yield Answer("score where all harm", d.unlearning_score(harmful, harmful, 0.0), 0.0)
    yield Answer("score of the edit chosen", d.unlearning_score(tried, tried, 0.0), 0.5 / 0.9)


def a_sweep_of_edits_that_do_nothing_scores_zero(d: Definitions) -> Iterator[Answer]:
    """Edits that differ from the clean model by chance alone score 0 on average, however many were tried."""
    n_edits, scores = 40, []
    for sample in range(60):
        sides = []
        for side in (0, 1):
            noise = uniform(sample, Use.BOOTSTRAP, np.arange(n_edits), np.full(n_edits, side)) - 0.5
            sides.append(Tried(0.8, 1.0, 0.8 + 0.2 * noise, np.ones(n_edits)))
        scores.append(d.unlearning_score(*sides, 0.0))
    yield Answer("mean score of 60 sweeps of 40 edits", float(np.mean(scores)), 0.0, 0.03)


CHECKS: tuple[Check, ...] = (
    forgetting_is_counted_from_chance, the_frontier_has_no_edit_that_another_beats, what_is_lost_elsewhere_forbids_an_edit,
    a_sweep_of_edits_that_do_nothing_scores_zero,
)  # fmt: skip
