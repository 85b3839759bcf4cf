"""Slices: neighbouring windows that are one task of a harvest. Cut by the corpus and a size alone."""

import numpy as np

from mohole.corpus.corpus import Corpus


def slices(corpus: Corpus, shard_tokens: int) -> list[tuple[int, int]]:
    """Neighbouring windows of about `shard_tokens` tokens together: (first, one past the last), at least one each."""
    ends = corpus.windows.start + corpus.windows.length
    found, first = [], 0
    while first < len(ends):
        last = int(np.searchsorted(ends, corpus.windows.start[first] + shard_tokens, side="right"))
        last = max(last, first + 1)
        found.append((first, last))
        first = last
    return found
