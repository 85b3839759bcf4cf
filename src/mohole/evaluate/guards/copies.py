"""A guard that looks at the text: documents that are copies of others on their side of the split.

A corpus keeps copies of one text on one side, so that nothing held out was trained on word for word. A text that was given over
and over then fills a side by itself, and intervals over documents take its copies for as many witnesses.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from mohole.corpus import Corpus, keyed_order
from mohole.corpus.sample import first_equal, text_hash
from mohole.evaluate.results import Caution
from mohole.evaluate.rows.choice import Rows
from mohole.keys import Use

Int64 = NDArray[np.int64]

MOST_COPIES = 0.5
_LOOKED_AT = 10_000
"""Training documents, a keyed sample: a text that fills half of a side is in any sample many times."""


def copies(corpus: Corpus, rows: Rows, *, seed: int) -> Iterator[Caution]:
    """The held-out documents that are measured, and a sample of those trained on."""
    yield from _of_side(
        corpus, np.unique(rows.documents), "held-out", "intervals, which are over documents, are too narrow"
    )
    training = np.flatnonzero(~corpus.held_out)
    sample = training[keyed_order(training, seed=seed, use=Use.MEASURED_DOCUMENTS)][:_LOOKED_AT]
    yield from _of_side(corpus, sample, "training", "what was learned is of few texts")


def _of_side(corpus: Corpus, documents: Int64, side: str, so: str) -> Iterator[Caution]:
    starts = corpus.document_starts
    hashes = b"".join(text_hash(corpus.tokens[starts[each] : starts[each + 1]]) for each in documents)
    _, counts = np.unique(first_equal(np.frombuffer(hashes, dtype="<u8").reshape(-1, 2)), return_counts=True)
    n_copies = len(documents) - len(counts)
    if n_copies > MOST_COPIES * len(documents):
        yield Caution(
            "copies",
            f"{n_copies} of {len(documents)} {side} documents are copies of another (one text stands there {counts.max()} "
            f"times; copies are all on one side of the split): {so}.",
        )
