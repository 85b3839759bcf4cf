"""Wrong ways to score judges and simulations."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mohole.metrics.definitions import OURS, Array
from mohole.metrics.judged import Judged
from mohole.metrics.mutants.mutant import Mutant, mutant


def _never_failed(said: Sequence[bool | None], positive: Any) -> Judged:
    """The counter of failures is never raised.

    Seen in: delphi #178.
    """
    return replace(OURS.judged(said, positive), failure_rate=0.0)


def _failures_dropped(said: Sequence[bool | None], positive: Any) -> Judged:
    """Answers that cannot be read are dropped, and the score is of the rest.

    Seen in: delphi 0.1.3, accuracy over survivors.
    """
    found = OURS.judged(said, positive)
    return replace(found, balanced_accuracy=found.of_answered)


def _failure_is_no(said: Sequence[bool | None], positive: Any) -> Judged:
    """An answer that cannot be read is taken for a no: right on every negative.

    Seen in: bool(None).
    """
    found = OURS.judged(said, positive)
    return replace(found, balanced_accuracy=OURS.judged([bool(answer) for answer in said], positive).balanced_accuracy)


def _share_right(said: Sequence[bool | None], positive: Any) -> Judged:
    """Plain accuracy: always-no is right on nine negatives of ten.

    Seen in: SAEBench autointerp: 'None' scores .714.
    """
    right = [answer == bool(real) for answer, real in zip(said, positive, strict=True)]
    return replace(OURS.judged(said, positive), balanced_accuracy=float(np.mean(right)))


def _constant_is_zero(simulated: Array, real: Array) -> float:
    """A constant simulation scores 0, like one that is wrong.

    Seen in: nan_to_num of a correlation; delphi #137.
    """
    return float(np.nan_to_num(OURS.simulation_score(simulated, real)))


def _uncentred(simulated: Array, real: Array) -> float:
    """A cosine for a correlation: a constant scores well.

    Seen in: uncentred correlations.
    """
    length = float(np.linalg.norm(simulated) * np.linalg.norm(real))
    return float(simulated @ real) / length if length else float("nan")


MUTANTS: tuple[Mutant, ...] = (
    mutant("judged", _never_failed),
    mutant("judged", _failures_dropped),
    mutant("judged", _failure_is_no),
    mutant("judged", _share_right),
    mutant("simulation_score", _constant_is_zero),
    mutant("simulation_score", _uncentred),
)
