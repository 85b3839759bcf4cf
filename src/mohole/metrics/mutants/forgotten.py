"""Wrong ways to score unlearning."""

from typing import Any

import numpy as np

from mohole.metrics.definitions import OURS, Array
from mohole.metrics.mutants.mutant import Mutant, mutant
from mohole.metrics.unlearning import Tried


def _best_on_the_test(selection: Tried, scoring: Tried, chance: float, least_kept: float = 0.99) -> float:
    """The best edit of a sweep on the prompts that it is scored on.

    Seen in: SAEBench unlearning, the lowest accuracy of all settings.
    """
    return OURS.unlearning_score(scoring, scoring, chance, least_kept)


def _any_harm(tried: Tried, least_kept: float = 0.99) -> int | None:
    """The edit that forgets most, whatever else it destroys.

    Seen in: unlearning without a retained set.
    """
    return int(np.argmin(tried.target))


def _kept_of_one(tried: Tried, least_kept: float = 0.99) -> int | None:
    """What is kept is held against 1, not against what the model could: a model with .8 may not be edited at all.

    Seen in: absolute thresholds on accuracy.
    """
    return OURS.choose_edit(Tried(tried.clean_target, 1.0, tried.target, tried.kept), least_kept)


def _never_none(tried: Tried, least_kept: float = 0.99) -> int | None:
    """Where every edit harms, the least harmful is taken as if it did not.

    Seen in: an argmax over what is left.
    """
    return (
        int(np.argmax(tried.kept))
        if OURS.choose_edit(tried, least_kept) is None
        else OURS.choose_edit(tried, least_kept)
    )


def _one_minus(clean: Array, edited: Array, chance: float) -> Array:
    """1 - accuracy: a model that never knew has forgotten.

    Seen in: SAEBench unlearning score.
    """
    return 1 - edited


def _no_chance(clean: Array, edited: Array, chance: float) -> Array:
    """Chance is forgotten: guessing counts as knowing.

    Seen in: relative drops of multiple-choice accuracy.
    """
    return (clean - edited) / clean


def _whole_sweep(tried: Tried) -> Any:
    """Edits that others beat are on the frontier too.

    Seen in: scatter plots called a frontier.
    """
    return np.argsort(-tried.kept, kind="stable")


MUTANTS: tuple[Mutant, ...] = (
    mutant("unlearning_score", _best_on_the_test),
    mutant("choose_edit", _any_harm),
    mutant("choose_edit", _kept_of_one),
    mutant("choose_edit", _never_none),
    mutant("unlearned", _one_minus),
    mutant("unlearned", _no_chance),
    mutant("frontier", _whole_sweep),
)
