"""Documents in the order of a keyed hash, whole ones up to a budget, and documents that are the same text twice."""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mohole.keys import Use, words

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]


def keyed_order(documents: Int64, *, seed: int, use: Use) -> Int64:
    """Places of documents in the order of their keys: any prefix is a uniform sample."""
    return np.lexsort((documents, words(seed, use, documents)))


def within_budget(documents: Int64, sizes: Int64, max_tokens: int, *, seed: int, use: Use) -> Int64:
    """The documents that fit the budget, ascending; at least one, however long.

    They are taken in the order of their keys, up to the first that does not fit, so a smaller budget's documents are among a
    larger one's.
    """
    order = keyed_order(documents, seed=seed, use=use)
    n_kept = int((np.cumsum(sizes[order]) <= max_tokens).sum())
    return np.sort(documents[order[: max(n_kept, 1)]])


def first_twins(tokens: Int32, document_starts: Int64) -> Int64:
    """For each document, the first one with the same tokens: itself, unless the text was there before."""
    seen: dict[bytes, int] = {}
    texts = (tokens[start:end].tobytes() for start, end in pairwise(document_starts.tolist()))
    return np.asarray([seen.setdefault(text, document) for document, text in enumerate(texts)], dtype=np.int64)
