"""The catalogue stage: encode a sample of whole documents once, keep the codes, and gather what each latent fires on."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mohole import config
from mohole.catalogue.layout import CATALOGUE_FILE, CODES_FILE, FACTS_FILE, N_HISTOGRAM_BINS
from mohole.catalogue.sample import Sample, choose
from mohole.catalogue.statistics import Firings, IntervalSample, Moments, TopDocuments, histogram, rank_in_group
from mohole.catalogue.vocabulary import Unembedding, promoted_and_suppressed
from mohole.corpus import Corpus, first_twins
from mohole.dictionary import Dictionary
from mohole.errors import NumericsError
from mohole.progress import track
from mohole.record import write_json
from mohole.store import Store
from mohole.tensors import write_tensors

Int64 = NDArray[np.int64]

_ENCODE_NUMBERS = 1 << 22  # pre-activations held at once
_CHUNK_FIRINGS = 1 << 18


@dataclass(frozen=True)
class Codes:
    """Sparse codes of the sampled tokens, ascending: compressed rows in numpy arrays."""

    row_starts: Int64
    latents: NDArray[np.int32]
    values: NDArray[np.float32]


def build(
    out: Path,
    model: Unembedding,
    dictionary: Dictionary,
    corpus: Corpus,
    store: Store,
    settings: config.Catalogue,
    *,
    seed: int,
) -> None:
    """Write the files of a catalogue artifact into `out`. The order of the store's rows does not matter.

    Raises:
        StageError: the store holds no whole document of the corpus.
        NumericsError: a row or an activation is not a finite number.
    """
    sample = choose(corpus, store.tokens, settings.max_tokens, seed=seed)
    codes = encode(dictionary, store, sample)
    write_tensors(
        out / CODES_FILE,
        {"tokens": sample.tokens, "row_starts": codes.row_starts, "latents": codes.latents, "values": codes.values},
    )
    arrays = gather(codes, sample.tokens, corpus, dictionary.n_latents, settings, seed=seed)
    seen = np.unique(corpus.tokens).astype(np.int64)
    arrays["vocabulary_ids"], arrays["vocabulary_logits"] = promoted_and_suppressed(
        model, dictionary, seen, settings.promoted
    )
    arrays["piece_bytes"], arrays["piece_starts"] = _packed(corpus.pieces)
    write_tensors(out / CATALOGUE_FILE, arrays)
    facts = {
        "hookpoint": dictionary.hookpoint,
        "n_latents": dictionary.n_latents,
        "n_tokens": len(sample.tokens),
        "n_documents": sample.n_documents,
        "promoted": settings.promoted,
    }
    write_json(out / FACTS_FILE, facts)


@torch.no_grad()
def encode(dictionary: Dictionary, store: Store, sample: Sample) -> Codes:
    """The sampled tokens' codes. Always cut alike, in token order: a product's rounding may depend on the batch.

    Raises:
        NumericsError: a row holds NaN or infinity; its token is named.
    """
    chunk = max(256, min(8192, _ENCODE_NUMBERS // dictionary.n_latents))
    n_active, latents, values = [], [], []
    with track(f"catalogue {dictionary.hookpoint}", len(sample.tokens), "tokens") as tracker:
        for start in range(0, len(sample.tokens), chunk):
            rows = torch.from_numpy(store.take(dictionary.hookpoint, sample.tokens[start : start + chunk]))
            finite = rows.isfinite().all(1)
            if not finite.all():
                token = sample.tokens[start + int((~finite).nonzero()[0, 0])]
                raise NumericsError(f"{dictionary.hookpoint}: the row of token {token} is not finite; harvest it again")
            codes = dictionary.encode(rows)
            n_active.append(codes.n_active.numpy())
            latents.append(codes.latents.numpy().astype(np.int32))
            values.append(codes.values.numpy().astype(np.float32))
            tracker.advance(len(rows))
    row_starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.concatenate(n_active), dtype=np.int64)])
    return Codes(row_starts, np.concatenate(latents), np.concatenate(values))


def gather(
    codes: Codes, tokens: Int64, corpus: Corpus, n_latents: int, settings: config.Catalogue, *, seed: int
) -> dict[str, NDArray[np.generic]]:
    """Every per-latent array of the catalogue but the vocabulary's, in two passes: intervals need the maxima first."""
    documents = first_twins(corpus.tokens, corpus.document_starts)
    n_per_interval = settings.top_examples + settings.intervals * settings.interval_examples
    chunks = _chunks(codes, tokens, documents[corpus.document_of(tokens)])
    moments = Moments(n_latents)
    top = TopDocuments(n_latents, corpus.n_documents, settings.top_examples)
    for chunk in chunks:
        moments.add(chunk)
        top.add(chunk)
    intervals = IntervalSample(moments.maximum, settings.intervals, n_per_interval, seed=seed)
    bins = np.zeros((n_latents, N_HISTOGRAM_BINS), dtype=np.int64)
    for chunk in chunks:
        intervals.add(chunk)
        bins += histogram(chunk, moments.maximum, N_HISTOGRAM_BINS)
    which, drawn = intervals.drawn(settings.interval_examples, corpus.n_documents, top.firings)
    return {
        "count": moments.counts,
        "sum": moments.sums,
        "maximum": moments.maximum,
        "histogram": bins,
        "interval_count": intervals.counts,
        **_examples("top", top.firings, top.firings.latents, (n_latents, settings.top_examples), corpus, settings),
        **_examples(
            "interval",
            drawn,
            drawn.latents * settings.intervals + which,
            (n_latents, settings.intervals, settings.interval_examples),
            corpus,
            settings,
        ),
    }


def _chunks(codes: Codes, tokens: Int64, documents: Int64) -> list[Firings]:
    """The codes as firings, a bounded number at a time. The cuts are free: see statistics.py."""
    rows = np.repeat(np.arange(len(tokens)), np.diff(codes.row_starts))
    return [
        Firings(
            codes.latents[start : start + _CHUNK_FIRINGS].astype(np.int64),
            codes.values[start : start + _CHUNK_FIRINGS],
            tokens[rows[start : start + _CHUNK_FIRINGS]],
            documents[rows[start : start + _CHUNK_FIRINGS]],
        )
        for start in range(0, len(codes.values), _CHUNK_FIRINGS)
    ]


def _examples(
    name: str, firings: Firings, groups: Int64, shape: tuple[int, ...], corpus: Corpus, settings: config.Catalogue
) -> dict[str, NDArray[np.generic]]:
    """Pointers into the corpus in arrays of fixed stride; token -1 where a latent has fewer examples than there is room."""
    place = (groups, rank_in_group(groups))
    flat = (int(np.prod(shape[:-1])), shape[-1])
    documents = corpus.document_of(firings.tokens)
    starts = np.maximum(corpus.document_starts[documents], firings.tokens - settings.context_tokens)
    ends = np.minimum(corpus.document_starts[documents + 1], firings.tokens + settings.context_tokens + 1)
    arrays: dict[str, NDArray[np.generic]] = {}
    for key, column in (("token", firings.tokens), ("start", starts), ("end", ends), ("document", documents)):
        filled = np.full(flat, -1, dtype=np.int64)
        filled[place] = column
        arrays[f"{name}_{key}"] = filled.reshape(shape)
    return arrays


def _packed(pieces: tuple[str, ...]) -> tuple[NDArray[np.uint8], Int64]:
    """Strings as one run of UTF-8 bytes and the places where each begins; opens without parsing, and keeps every character."""
    encoded = [piece.encode("utf-8") for piece in pieces]
    starts = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
    return np.frombuffer(b"".join(encoded), dtype=np.uint8).copy(), starts
