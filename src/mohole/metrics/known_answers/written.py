"""What must be true of numbers about texts that a model wrote."""

import math
from collections.abc import Iterator

import numpy as np

from mohole.metrics.definitions import Definitions
from mohole.metrics.known_answers.answer import Answer, Check


def a_text_that_goes_round_says_each_phrase_once(d: Definitions) -> Iterator[Answer]:
    """A text of period p has p phrases, and every other one is a repeat; other words in the same places change nothing."""
    for period in (1, 2, 5):
        repeated, total = d.repeated_ngrams([7 * (place % period) for place in range(23)], 3)
        yield Answer(f"phrases of 23 tokens of period {period}", total, 21, 0)
        yield Answer(f"repeats of 23 tokens of period {period}", repeated, 21 - period, 0)
    yield Answer("repeats where no phrase comes again", d.repeated_ngrams([1, 2, 1, 3, 1, 4, 1], 3)[0], 0, 0)
    yield Answer("repeats far from the first time", d.repeated_ngrams([1, 2, 3, 4, 5, 6, 1, 2, 3], 3)[0], 1, 0)
    yield Answer("repeats where they overlap", d.repeated_ngrams([4, 4, 4, 4], 3)[0], 1, 0)


def a_short_text_has_no_phrase(d: Definitions) -> Iterator[Answer]:
    """Two tokens are no phrase of three: nothing is counted, neither as new nor as a repeat."""
    for tokens in ([], [1], [1, 1]):
        yield Answer(f"phrases of {len(tokens)} tokens", d.repeated_ngrams(tokens, 3)[1], 0, 0)
        yield Answer(f"repeats of {len(tokens)} tokens", d.repeated_ngrams(tokens, 3)[0], 0, 0)


def a_uniform_guess_has_the_vocabulary_as_perplexity(d: Definitions) -> Iterator[Answer]:
    """Guessing evenly among V gives V; texts are pooled token by token; certainty gives 1, no text is undefined."""
    found = d.perplexity(np.array([10 * math.log(50.0), 0.0, 0.0]), np.array([10.0, 4.0, 0.0]))
    for what, value, true in zip(
        ("a guess among 50", "certainty", "no token"), found, (50.0, 1.0, math.nan), strict=True
    ):
        yield Answer(f"perplexity of {what}", float(value), true)
    pooled = d.perplexity(np.array([0.0 + 1 * math.log(16.0)]), np.array([3.0 + 1.0]))
    yield Answer("perplexity of a sure token thrice and a guess among 16", float(pooled[0]), 2.0)


CHECKS: tuple[Check, ...] = (
    a_text_that_goes_round_says_each_phrase_once,
    a_short_text_has_no_phrase,
    a_uniform_guess_has_the_vocabulary_as_perplexity,
)
