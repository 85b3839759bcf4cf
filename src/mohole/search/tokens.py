"""Features by a word of the text: those that fire most strongly on it, and those that make the model say it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mohole.catalogue import Catalogue
from mohole.corpus import Corpus
from mohole.interpret.text import joins
from mohole.search.hits import Hit, best, check_limit
from mohole.search.words import fold

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Bool = NDArray[np.bool_]

_AROUND = 12
"""Tokens on either side in which the word has to begin and end."""
_OF_PROMOTED = 0.5
"""What the entry that a direction raises most scores; a share of top examples scores itself."""


@runtime_checkable
class Tokens(Protocol):
    """What is needed of a corpus."""

    @property
    def tokens(self) -> Int32: ...

    @property
    def document_starts(self) -> Int64: ...

    @property
    def pieces(self) -> Sequence[str]: ...


@dataclass(frozen=True)
class _Asked:
    """A word or a few, as they are compared."""

    text: str
    is_exact: bool
    """Nothing but space: compared as it is."""

    def is_piece(self, piece: str) -> bool:
        return piece == self.text if self.is_exact else fold(piece).strip() == self.text

    def may_be_at(self, piece: str) -> bool:
        """Can a token with this piece be inside it, or hold it?"""
        own = piece if self.is_exact else fold(piece).strip()
        return own == self.text if self.is_exact else bool(own) and (own in self.text or self.text in own)


def by_token(catalogue: Catalogue, query: str, limit: int, *, corpus: Tokens | None = None) -> list[Hit]:
    """Features whose top examples' strongest token is, or is a part of, this word (or phrase), or whose direction raises it.

        score = max(share of the top examples, .5 (1 - rank / n) among the n entries raised most)

    Whole words only, whatever their case and accents. Nothing but spaces or line ends is compared as it is. A character that
    the tokenizer cuts into bytes is not found: its pieces are no text.

    Args:
        corpus: the one that the catalogue is of; None: the one of the run that the catalogue lies in.

    Raises:
        ConfigError: `limit` below 1. ArtifactError: there is no corpus in that run.
    """
    check_limit(limit)
    text = " ".join(fold(query).split())
    asked = _Asked(text or query, not text)
    if not query:
        return []
    corpus = corpus or Corpus.open(catalogue.path.resolve().parent.parent / "corpus", verify=False)
    n_here, n_examples = _strongest(catalogue.top_tokens, corpus, asked)
    ids = catalogue.promoted_ids
    is_asked = np.asarray([asked.is_piece(piece) for piece in corpus.pieces] + [False], dtype=np.bool_)[ids]
    rank = np.where(is_asked.any(axis=1), is_asked.argmax(axis=1), ids.shape[1])
    by_examples = n_here / np.maximum(n_examples, 1)
    by_logits = _OF_PROMOTED * (1 - rank / max(ids.shape[1], 1))

    def why(latent: int) -> str:
        parts = []
        if n_here[latent]:
            parts.append(
                f"strongest at “{query.strip() or query}” in {n_here[latent]} of {n_examples[latent]} examples"
            )
        if rank[latent] < ids.shape[1]:
            parts.append(f"raises “{corpus.pieces[ids[latent, rank[latent]]]}” ({rank[latent] + 1} of {ids.shape[1]})")
        return "; ".join(parts)

    return best(np.maximum(by_examples, by_logits), limit, why)


def _strongest(top_tokens: Int64, corpus: Tokens, asked: _Asked) -> tuple[Int64, Int64]:
    """For each latent: top examples whose strongest token is in the word, and top examples."""
    there = top_tokens >= 0
    may_be = np.asarray([asked.may_be_at(piece) for piece in corpus.pieces], dtype=np.bool_)
    tokens = np.unique(top_tokens[there])
    tokens = tokens[may_be[corpus.tokens[tokens]]]
    starts = corpus.document_starts
    document = np.searchsorted(starts, tokens, side="right") - 1
    first, last = np.maximum(tokens - _AROUND, starts[document]), np.minimum(tokens + _AROUND + 1, starts[document + 1])
    is_in = [
        asked.is_exact
        or _covers([fold(corpus.pieces[id_]) for id_ in corpus.tokens[begin:end]], token - begin, asked.text)
        for token, begin, end in zip(tokens.tolist(), first.tolist(), last.tolist(), strict=True)
    ]
    inside = tokens[np.asarray(is_in, dtype=np.bool_)]
    return np.asarray(np.isin(top_tokens, inside).sum(axis=1)), np.asarray(there.sum(axis=1))


def _covers(pieces: Sequence[str], at: int, word: str) -> bool:
    """Does the word stand in this text as a whole word, with the piece `at` in it?"""
    text = "".join(pieces)
    begin = len("".join(pieces[:at]))
    end = begin + len(pieces[at])
    begin = end - len(pieces[at].lstrip())
    place = text.find(word, max(0, begin - len(word)))
    while 0 <= place < end:
        after = place + len(word)
        is_whole = not (_joined(text, place) or _joined(text, after))
        if after > begin and is_whole:
            return True
        place = text.find(word, place + 1)
    return False


def _joined(text: str, seam: int) -> bool:
    """Does a word go on across this place?"""
    return 0 < seam < len(text) and joins(text[seam - 1]) and joins(text[seam])
