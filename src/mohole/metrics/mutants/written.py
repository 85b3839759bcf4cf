"""Wrong ways to say how a written text is."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mohole.metrics.mutants.mutant import Mutant, mutant

Float64 = NDArray[np.float64]


def _only_what_follows_itself(tokens: Sequence[int], n: int) -> tuple[int, int]:
    """Only a phrase right behind itself counts as said again.

    Seen in: stutter detectors.
    """
    found = [tuple(tokens[first : first + n]) for first in range(len(tokens) - n + 1)]
    return sum(one == other for one, other in zip(found, found[n:], strict=False)), len(found)


def _every_copy_counts(tokens: Sequence[int], n: int) -> tuple[int, int]:
    """A phrase's first time counts as a repeat, too, where it comes again.

    Seen in: counting phrases that are not unique in place of those said again.
    """
    found = [tuple(tokens[first : first + n]) for first in range(len(tokens) - n + 1)]
    return sum(found.count(each) > 1 for each in found), len(found)


def _single_tokens(tokens: Sequence[int], n: int) -> tuple[int, int]:
    """Tokens said again count in place of phrases.

    Seen in: distinct-1 read as repetition.
    """
    return len(tokens) - len(set(tokens)), max(len(tokens) - n + 1, 0)


def _repeats_per_token(tokens: Sequence[int], n: int) -> tuple[int, int]:
    """Repeats are divided by tokens, not by phrases.

    Seen in: Li et al. 2016 scale distinct-n by tokens.
    """
    found = [tuple(tokens[first : first + n]) for first in range(len(tokens) - n + 1)]
    return len(found) - len(set(found)), len(tokens)


def _perplexity_of_bits(nats: Float64, n_tokens: Float64) -> Float64:
    """2 to the power of nats.

    Seen in: a cross-entropy in nats and a perplexity in bits.
    """
    return np.asarray(2.0 ** np.divide(nats, n_tokens, out=np.full_like(nats, np.nan), where=n_tokens > 0))


def _no_text_is_certain(nats: Float64, n_tokens: Float64) -> Float64:
    """A model that wrote nothing is said to write what is certain.

    Seen in: max(n, 1) in a denominator.
    """
    return np.asarray(np.exp(nats / np.maximum(n_tokens, 1.0)))


MUTANTS: tuple[Mutant, ...] = (
    mutant("repeated_ngrams", _only_what_follows_itself),
    mutant("repeated_ngrams", _every_copy_counts),
    mutant("repeated_ngrams", _single_tokens),
    mutant("repeated_ngrams", _repeats_per_token),
    mutant("perplexity", _perplexity_of_bits),
    mutant("perplexity", _no_text_is_certain),
)
