"""What must be true of judges' scores and of simulations."""

from collections.abc import Iterator

import numpy as np

from mohole.keys import Use, normal, uniform
from mohole.metrics.definitions import Definitions
from mohole.metrics.known_answers.answer import Answer, Check, refuses

_N = 2000


def judges_score_what_they_know(d: Definitions) -> Iterator[Answer]:
    """An oracle scores 1; random, always-yes and always-no judges one half, with balanced and with rare positives."""
    coin = uniform(11, Use.BOOTSTRAP, np.arange(_N), np.zeros(_N, dtype=np.int64)) < 0.5
    for every in (2, 10):
        positive = np.arange(_N) % every == 0
        for name, said, true, within in (
            ("an oracle", positive, 1.0, 1e-9),
            ("always yes", np.ones(_N, np.bool_), 0.5, 1e-9),
            ("always no", np.zeros(_N, np.bool_), 0.5, 1e-9),
            ("a coin", coin, 0.5, 0.05),
        ):
            found = d.judged([bool(answer) for answer in said], positive)
            yield Answer(f"{name}, one positive in {every}", found.balanced_accuracy, true, within)
            yield Answer(f"failures of {name}", found.failure_rate, 0.0)
    yield refuses("an answer short", lambda: d.judged([True], np.array([True, False])))


def unreadable_answers_are_counted(d: Definitions) -> Iterator[Answer]:
    """An oracle of whose answers k % cannot be read has failure rate k %, scores 1 - k %, and 1 on those that can be read."""
    positive = np.arange(_N) % 2 == 0
    for percent in (0, 5, 50):
        said = [None if i // 2 % 100 < percent else bool(positive[i]) for i in range(_N)]
        found = d.judged(said, positive)
        yield Answer(f"failure rate, {percent} % unreadable", found.failure_rate, percent / 100)
        yield Answer(f"score, {percent} % unreadable", found.balanced_accuracy, 1 - percent / 100)
        yield Answer(f"score of what is readable, {percent} % unreadable", found.of_answered, 1.0)
    nothing = d.judged([None] * 4, np.array([True, True, False, False]))
    yield Answer("score of what is readable, nothing is", nothing.of_answered, float("nan"))
    yield Answer("score, nothing is readable", nothing.balanced_accuracy, 0.0)
    hard = d.judged([None, None, False, False], np.array([True, True, False, False]))
    yield Answer("score of a judge that fails on all positives", hard.balanced_accuracy, 0.5)


def a_constant_simulation_has_no_score(d: Definitions) -> Iterator[Answer]:
    """A copy correlates 1, in any scale; a copy turned round -1; noise about 0; a constant, zero or not, is undefined."""
    real = np.maximum(normal(12, Use.BOOTSTRAP, np.arange(400), 2), 0.0)
    yield Answer("a copy", d.simulation_score(real[:, 0], real[:, 0]), 1.0)
    yield Answer("a copy times 10 plus 3", d.simulation_score(10 * real[:, 0] + 3, real[:, 0]), 1.0)
    yield Answer("turned round", d.simulation_score(-real[:, 0], real[:, 0]), -1.0)
    yield Answer("another latent", d.simulation_score(real[:, 1], real[:, 0]), 0.0, 0.12)
    for name, value in (("zero", 0.0), ("a tenth", 0.1)):
        constant = np.full(400, value)
        yield Answer(f"{name} everywhere", d.simulation_score(constant, real[:, 0]), float("nan"))
        yield Answer(f"real {name} everywhere", d.simulation_score(real[:, 0], constant), float("nan"))
    hand = d.simulation_score(np.array([0.0, 1.0, 2.0]), np.array([0.0, 0.0, 3.0]))
    yield Answer("0, 1, 2 with 0, 0, 3", hand, 3 / np.sqrt(2 * 6))


CHECKS: tuple[Check, ...] = (
    judges_score_what_they_know, unreadable_answers_are_counted, a_constant_simulation_has_no_score,
)  # fmt: skip
