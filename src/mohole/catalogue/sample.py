"""Which documents a catalogue looks at: whole ones, in the order of a keyed hash, until the budget is full."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mohole.corpus import Corpus, within_budget
from mohole.errors import StageError
from mohole.keys import Use

Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class Sample:
    """The tokens of the chosen documents that have rows."""

    tokens: Int64
    """Global token indices, ascending. Special tokens in a text have no row, so there may be gaps."""
    n_documents: int


def choose(corpus: Corpus, stored: Int64, max_tokens: int, *, seed: int) -> Sample:
    """Whole documents, with every row the store has of them; at least one document, however long.

    Args:
        stored: every token the store has a row of, ascending.

    Raises:
        StageError: the store holds no token of this corpus.
    """
    tokens = within(corpus, stored, max_tokens, seed=seed)
    if len(tokens) == 0:
        raise StageError("the store holds no token of this corpus; harvest this corpus")
    return Sample(tokens, len(np.unique(corpus.document_of(tokens))))


def within(corpus: Corpus, tokens: Int64, max_tokens: int, *, seed: int) -> Int64:
    """Those of some tokens, ascending, that are of the chosen documents. A smaller budget's are among a larger one's."""
    first = np.searchsorted(tokens, corpus.document_starts)
    n_rows = np.diff(first)
    there = np.flatnonzero(n_rows)
    if len(there) == 0:
        return tokens[:0]
    chosen = within_budget(there, n_rows[there], max_tokens, seed=seed, use=Use.CATALOGUE_DOCUMENTS)
    return np.concatenate([tokens[first[document] : first[document + 1]] for document in chosen])
