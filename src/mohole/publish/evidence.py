"""A block of a catalogue made to stand alone: what pointed into the corpus, the vocabulary or the labels is there as text."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mohole.catalogue.blocks import Columns
from mohole.publish.texts import Texts, text_columns
from mohole.serve.answers import label_facts, names_of
from mohole.serve.columns import STATUSES
from mohole.serve.runs import OpenHookpoint

Int64 = NDArray[np.int64]

_ALL = 1 << 40  # tokens: more than any document has
_FREQUENT = 8  # times in a block
_AS_THEY_ARE = (
    "histogram", "interval_count", "n_examples", "example_interval", "example_token", "vocabulary_logit",
    "neighbour", "cosine", "together", "n_together", "phi",
)  # fmt: skip


def block_with_texts(place: OpenHookpoint, first: int, context_tokens: int | None) -> Columns:
    """The columns of the block that begins with latent `first`.

    Args:
        context_tokens: of text on either side of each example's token; None: all that the catalogue has there, and never more.
    """
    block = place.catalogue.block(first)
    columns = {name: block[name] for name in _AS_THEY_ARE}
    columns |= _stretches(place, block, _ALL if context_tokens is None else context_tokens)
    columns |= _labels(place, first, block)
    return columns


def _stretches(place: OpenHookpoint, block: Columns, context_tokens: int) -> Columns:
    """Examples' texts and firings, cut; with the vocabulary of the block."""
    token = block["example_token"].astype(np.int64)
    start_there = token - block["example_before"]
    start = np.maximum(start_there, token - context_tokens)
    end = np.minimum(start_there + block["example_length"], token + context_tokens + 1)
    document = np.searchsorted(place.document_starts, token, side="right") - 1

    n_firings = block["n_firings"].astype(np.int64)
    whose = np.repeat(np.arange(len(token)), n_firings)
    fires_at = start_there[whose] + block["firing_place"]
    is_inside = (fires_at >= start[whose]) & (fires_at < end[whose])

    length = end - start
    shown = np.repeat(start - (np.cumsum(length) - length), length) + np.arange(length.sum())
    ids, listed = place.tokens[shown], block["vocabulary_id"].astype(np.int64)
    used, number = _vocabulary(place, np.concatenate([ids, listed[listed >= 0]]))
    pieces = number(ids)
    return {
        "example_document": document,
        "example_before": token - start,
        "example_length": length,
        "example_edges": (start == place.document_starts[document]) + 2 * (end == place.document_starts[document + 1]),
        "n_firings": np.bincount(whose[is_inside], minlength=len(token)),
        "firing_place": (fires_at - start[whose])[is_inside],
        "firing_share": block["firing_share"][is_inside],
        # Bytes apart: where a block has thousands of pieces 6 % less than numbers of 16 bits, where it has hundreds 5 % more.
        "text_piece": pieces % 256,
        "text_piece_256": pieces // 256,
        "vocabulary_piece": np.where(listed >= 0, number(listed), -1),
        **text_columns("piece", used),
    }


def _vocabulary(
    place: OpenHookpoint, ids: NDArray[np.integer]
) -> tuple[list[str], Callable[[NDArray[np.integer]], Int64]]:
    """The pieces of these vocabulary entries, and what gives the number of each there (0 for what is no entry of them).

    The frequent ones first, by how often they are there; the others by their letters, which makes them half as long to write.
    """
    entries, n_times = np.unique(ids, return_counts=True)
    pieces = [
        place.corpus.pieces[entry] for entry in entries.tolist()
    ]  # the catalogue's own vocabulary is the corpus's
    order = sorted(range(len(entries)), key=lambda i: (-n_times[i] if n_times[i] >= _FREQUENT else 0, pieces[i], i))
    numbers = np.zeros(len(place.corpus.pieces), dtype=np.int64)
    numbers[entries[order]] = np.arange(len(order))
    return [pieces[i] for i in order], lambda listed: numbers[np.maximum(listed, 0)]


def _labels(place: OpenHookpoint, first: int, block: Columns) -> Columns:
    """The latents' labels with their scores, and the labels of the latents that they name."""
    people, texts = place.by_hand, Texts([""])
    own = [label_facts(place, latent, people) for latent in range(first, first + len(block["n_examples"]))]

    def named(latents: NDArray[np.integer]) -> Int64:
        names = names_of(place, latents[latents >= 0].tolist(), people)
        numbers = np.zeros(latents.shape, dtype=np.int64)
        numbers[latents >= 0] = [texts.number(name) for name in names]
        return numbers

    scores = [[facts.f1, facts.precision, facts.recall] for facts in own]
    counts = [[-1 if n is None else n for n in (facts.n_positive, facts.n_scored)] for facts in own]
    columns: Columns = {
        "label": np.asarray([texts.number(facts.text) for facts in own]),
        "label_kind": np.asarray([texts.number(facts.kind) for facts in own]),
        "label_status": np.asarray([STATUSES.index(facts.status) for facts in own]),
        "label_score": np.asarray(scores, dtype=np.float64),  # None is NaN
        "label_count": np.asarray(counts, dtype=np.int64),
        "neighbour_label": named(block["neighbour"]),
        "together_label": named(block["together"]),
    }
    return columns | texts.columns("label_text")
