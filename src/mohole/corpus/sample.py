"""Documents in the order of a keyed hash, whole ones up to a budget, and documents that are the same text twice."""

from itertools import pairwise

import numpy as np
import xxhash
from numpy.typing import NDArray

from mohole.keys import Use, words

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
UInt64 = NDArray[np.uint64]


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
    hashes = b"".join(text_hash(tokens[start:end]) for start, end in pairwise(document_starts.tolist()))
    return first_equal(np.frombuffer(hashes, dtype="<u8").reshape(-1, 2))


def text_hash(tokens: Int32) -> bytes:
    """xxh3-128 of a document's token bytes: the 16 bytes that are kept of a text to know it again."""
    return xxhash.xxh3_128_digest(np.ascontiguousarray(tokens).data)


def first_equal(hashes: UInt64) -> Int64:
    """For each row [two words], the first row that equals it. Some 40 bytes of memory for each row while it sorts."""
    order = np.lexsort((hashes[:, 1], hashes[:, 0]))  # stable, so equal rows stay in their order
    is_first = np.ones(len(order), dtype=np.bool_)
    is_first[1:] = (hashes[order[1:]] != hashes[order[:-1]]).any(axis=1)
    first = np.empty(len(order), dtype=np.int64)
    first[order] = order[is_first][np.cumsum(is_first) - 1]
    return first
