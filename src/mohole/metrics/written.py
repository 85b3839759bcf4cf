"""How a text that a model wrote is: how much of it was said before, and how strange a reader finds it."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mohole.metrics.measure import ratio

Float64 = NDArray[np.float64]

NGRAM = 3
"""Tokens of a phrase that counts as said again. Of single tokens any good text repeats most."""


def repeated_ngrams(tokens: Sequence[int], n: int = NGRAM) -> tuple[int, int]:
    """(n-grams that stood in this text before, n-grams) of one text: their share is 1 - distinct-n.

    Both counts are for pooling: sum each over texts, then divide. A text of less than n tokens has none, and joining texts
    would make n-grams that nobody wrote, and repeats between texts that answer alike.
    Source: Li et al. 2016 (arXiv 1510.03055), distinct-n; Welleck et al. 2020 (arXiv 1908.04319), seq-rep-n.
    """
    found = [tuple(tokens[first : first + n]) for first in range(len(tokens) - n + 1)]
    return len(found) - len(set(found)), len(found)


def perplexity(nats: Float64, n_tokens: Float64) -> Float64:
    """exp(summed nats / tokens): among how many equally likely tokens the reader seems to choose. NaN: no token.

    Of several texts: sum both over the texts first. The mean of the texts' own perplexities is the number of the worst text.
    """
    return np.exp(ratio(nats, n_tokens))
