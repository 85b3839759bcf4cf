"""What the codes say of some neighbouring latents: statistics, examples with their activations, by name and in bytes that do
not depend on how the entries came. Arrays in, arrays out.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mohole import config
from mohole.catalogue.blocks import Columns
from mohole.catalogue.layout import N_HISTOGRAM_BINS
from mohole.catalogue.statistics import Firings, IntervalSample, Moments, TopDocuments, documents_of, histogram
from mohole.corpus import Corpus
from mohole.store.latent_index import Entries

Int64 = NDArray[np.int64]

TOP = -1
"""Stands for the number of an interval where an example is one of the strongest."""

Pieces = Callable[[], Iterable[Entries]]
"""Gives the entries anew, in the order of (latent, token), as often as it is asked."""


@dataclass(frozen=True)
class Examples:
    """Stretches of text around firings, by latent; of one latent the strongest documents first, then interval by interval."""

    latent: Int64
    interval: Int64
    """`TOP`, or the number of the interval."""
    token: Int64
    start: Int64
    end: Int64

    def __len__(self) -> int:
        return len(self.token)


def gather(
    pieces: Pieces, first: int, last: int, corpus: Corpus, twins: Int64, settings: config.Catalogue, *, seed: int
) -> tuple[Columns, Examples]:
    """Statistics [latent, ...] of latents [first, last), and their examples, whose latents count from `first`.

    The entries are gone through three times: intervals need the maxima, and the examples' activations the examples.

    Args:
        twins: for each document, the first one with the same text.
    """
    n = last - first
    n_per_interval = settings.top_examples + settings.intervals * settings.interval_examples
    moments, top = Moments(n), TopDocuments(n, corpus.n_documents, settings.top_examples)
    for firings in _firings(pieces, first, corpus, twins):
        moments.add(firings)
        top.add(firings)
    intervals = IntervalSample(moments.maximum, settings.intervals, n_per_interval, seed=seed, first_latent=first)
    bins = np.zeros((n, N_HISTOGRAM_BINS), dtype=np.int64)
    for firings in _firings(pieces, first, corpus, twins):
        intervals.add(firings)
        bins += histogram(firings, moments.maximum, N_HISTOGRAM_BINS)
    which, drawn = intervals.drawn(settings.interval_examples, corpus.n_documents, top.firings)
    columns: Columns = {
        "count": moments.counts,
        "sum": moments.sums,
        "maximum": moments.maximum,
        "magnitudes": moments.magnitudes,
        "histogram": bins,
        "interval_count": intervals.counts,
    }
    return columns, _examples(top.firings, drawn, which, corpus, settings.context_tokens)


def along(pieces: Pieces, first: int, examples: Examples) -> tuple[Int64, Int64, NDArray[np.float32]]:
    """The examples' latents along their stretches: for each example where its firings begin (and the end), their places in the
    stretch, and their values."""
    order = np.lexsort((examples.start, examples.latent))
    whose, places, values = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros(0, np.float32)]
    for piece in pieces():
        latents = piece.latent - first
        room = int(max(piece.token.max(), examples.end.max(initial=0))) + 1
        ids = latents * room + piece.token
        mine = order[(examples.latent[order] >= latents[0]) & (examples.latent[order] <= latents[-1])]
        lows = np.searchsorted(ids, examples.latent[mine] * room + examples.start[mine])
        highs = np.searchsorted(ids, examples.latent[mine] * room + examples.end[mine])
        n_found = highs - lows
        at = np.repeat(lows - (np.cumsum(n_found) - n_found), n_found) + np.arange(n_found.sum())
        example = np.repeat(mine, n_found)
        whose.append(example)
        places.append(piece.token[at] - examples.start[example])
        values.append(piece.value[at])
    owner, place, value = np.concatenate(whose), np.concatenate(places), np.concatenate(values)
    sorted_by = np.lexsort((place, owner))
    starts = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=len(examples)))]).astype(np.int64)
    return starts, place[sorted_by], value[sorted_by]


def _firings(pieces: Pieces, first: int, corpus: Corpus, twins: Int64) -> Iterable[Firings]:
    for piece in pieces():
        yield Firings(
            piece.latent - first, piece.value, piece.token, documents_of(piece.token, corpus.document_starts, twins)
        )


def _examples(top: Firings, drawn: Firings, which: Int64, corpus: Corpus, context_tokens: int) -> Examples:
    latents = np.concatenate([top.latents, drawn.latents])
    interval = np.concatenate([np.full(len(top), TOP, dtype=np.int64), which])
    order = np.lexsort((np.arange(len(latents)), interval, latents))
    tokens = np.concatenate([top.tokens, drawn.tokens])[order]
    documents = corpus.document_of(tokens)
    return Examples(
        latent=latents[order],
        interval=interval[order],
        token=tokens,
        start=np.maximum(corpus.document_starts[documents], tokens - context_tokens),
        end=np.minimum(corpus.document_starts[documents + 1], tokens + context_tokens + 1),
    )
