"""Features by a word of the text: those that fire most strongly on it, and those that make the model say it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

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

    @property
    def is_run(self) -> bool:
        return _is_run(self.text)

    def is_piece(self, piece: str, core: str) -> bool:
        """`core`: the piece folded, without space around it."""
        return (piece if self.is_exact else core) == self.text

    def may_be_at(self, piece: str, core: str, is_run: bool) -> bool:
        """Can a token with this piece be inside it, or hold it? No longer run of letters holds a run of letters as a word."""
        if self.is_exact:
            return piece == self.text
        if self.is_run and is_run and len(core) > len(self.text):
            return False
        return bool(core) and (core in self.text or self.text in core)


def _is_run(text: str) -> bool:
    """Is it one run of what words are made of?"""
    return all(map(joins, text))


def by_token(catalogue: Catalogue, query: str, limit: int, *, corpus: Tokens | None = None) -> list[Hit]:
    """As `TokenIndex.search`, for one query: every latent's entries are gone through for it.

    Args:
        corpus: the one that the catalogue is of; None: the one of the run that the catalogue lies in.

    Raises:
        ConfigError: `limit` below 1. ArtifactError: there is no corpus in that run.
    """
    check_limit(limit)
    if not query:
        return []
    corpus = corpus or Corpus.open(catalogue.path.resolve().parent.parent / "corpus", verify=False)
    return TokenIndex.of(catalogue, corpus).search(query, limit)


class _Grouped:
    """Numbers from 0 on, each with the places in a column where it stands."""

    def __init__(self, columns: Mapping[str, NDArray[Any]], name: str) -> None:
        """Of `NAME_places` and `NAME_starts`, as `_grouped` gives them."""
        self._places: Int32 = columns[f"{name}_places"]
        self._starts: Int64 = columns[f"{name}_starts"]

    def places(self, keys: Int64) -> tuple[Int32, Int64]:
        """Where these stand, and which of them (its place in `keys`) each is."""
        counts = self._starts[keys + 1] - self._starts[keys]
        which = np.repeat(np.arange(len(keys)), counts)
        within = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
        return self._places[self._starts[keys][which] + within], which


def _grouped(column: NDArray[np.integer], n_keys: int, name: str) -> dict[str, NDArray[Any]]:
    places = np.argsort(column, kind="stable").astype(np.int32)
    return {f"{name}_places": places, f"{name}_starts": np.searchsorted(column[places], np.arange(n_keys + 1))}


def token_columns(top_tokens: Int64, promoted_ids: Int32, corpus: Tokens) -> dict[str, NDArray[Any]]:
    """What `TokenIndex` reads, as arrays that can be kept in a file.

    Args:
        top_tokens, promoted_ids: as `Catalogue.strongest` has them, -1 where there is none.
    """
    is_one = top_tokens >= 0
    n_examples = is_one.sum(axis=1)
    tokens, which = np.unique(top_tokens[is_one], return_inverse=True)
    raisers, ranks = np.nonzero(promoted_ids >= 0)
    raised = promoted_ids[promoted_ids >= 0]
    return {
        "n_examples": n_examples,
        "n_raised": np.array([promoted_ids.shape[1]]),
        "tokens": tokens,
        "latents": np.repeat(np.arange(len(top_tokens), dtype=np.int32), n_examples),
        "raisers": raisers.astype(np.int32),
        "ranks": ranks.astype(np.int32),
        "raised": raised,
        **_grouped(which, len(tokens), "by_token"),
        **_grouped(np.asarray(corpus.tokens[tokens]), len(corpus.pieces), "by_piece"),
        **_grouped(raised, len(corpus.pieces), "by_raised"),
    }


class TokenIndex:
    """The strongest tokens and the raised entries of all latents, made ready to be searched by word: a query then costs what it
    finds and a look at every piece of the vocabulary, not at every latent."""

    def __init__(self, columns: Mapping[str, NDArray[Any]], corpus: Tokens) -> None:
        """Args:
        columns: as `token_columns` gives them of this corpus, in memory or mapped.
        """
        self._corpus = corpus
        self._n_examples: Int64 = columns["n_examples"]
        self._n_latents = len(self._n_examples)
        self._n_raised = int(columns["n_raised"][0])
        self._tokens: Int64 = columns["tokens"]
        self._latents: Int32 = columns["latents"]
        self._raisers: Int32 = columns["raisers"]
        self._ranks: Int32 = columns["ranks"]
        self._raised: Int32 = columns["raised"]
        self._by_token, self._by_piece, self._by_raised = (
            _Grouped(columns, name) for name in ("by_token", "by_piece", "by_raised")
        )
        self._folded = [fold(piece) for piece in corpus.pieces]
        self._cores = [piece.strip() for piece in self._folded]
        self._is_run = [_is_run(core) for core in self._cores]
        words = [(bool(piece) and joins(piece[0]), bool(piece) and joins(piece[-1])) for piece in self._folded]
        begins, ends = np.array(words, dtype=np.bool_).reshape(-1, 2).T
        is_empty = np.array([not piece for piece in self._folded], dtype=np.bool_)
        spaces = [(piece[:1].isspace(), piece[-1:].isspace()) for piece in self._folded]
        self._is_after_space, self._is_before_space = np.array(spaces, dtype=np.bool_).reshape(-1, 2).T
        self._may_go_on, self._may_come_from = begins | is_empty, ends | is_empty
        """Could a word of the piece before run into this one, of this one into the next? Of an empty piece nobody knows."""

    @classmethod
    def of(cls, catalogue: Catalogue, corpus: Tokens) -> "TokenIndex":
        """Of a catalogue and its corpus; reads every block of the catalogue."""
        return cls(token_columns(*catalogue.strongest(), corpus), corpus)

    def search(self, query: str, limit: int) -> list[Hit]:
        """Features whose top examples' strongest token is, or is a part of, this word (or phrase), or whose direction raises it.

            score = max(share of the top examples, .5 (1 - rank / n) among the n entries raised most)

        Whole words only, whatever their case and accents. Nothing but spaces or line ends is compared as it is. A character
        that the tokenizer cuts into bytes is not found: its pieces are no text.

        Raises:
            ConfigError: `limit` below 1.
        """
        check_limit(limit)
        if not query:
            return []
        text = " ".join(fold(query).split())
        asked = _Asked(text or query, not text)
        n_here = self._strongest(asked)
        rank, raised = self._rank(asked)
        by_examples = n_here / np.maximum(self._n_examples, 1)
        by_logits = _OF_PROMOTED * (1 - rank / max(self._n_raised, 1))

        def why(latent: int) -> str:
            parts = []
            if n_here[latent]:
                parts.append(
                    f"strongest at “{query.strip() or query}” in {n_here[latent]} of {self._n_examples[latent]} examples"
                )
            if rank[latent] < self._n_raised:
                piece = self._corpus.pieces[raised[latent]]
                parts.append(f"raises “{piece}” ({rank[latent] + 1} of {self._n_raised})")
            return "; ".join(parts)

        return best(np.maximum(by_examples, by_logits), limit, why)

    def _rank(self, asked: _Asked) -> tuple[Int64, Int64]:
        """Of each latent the first of its raised entries that is asked for, and that entry; as many as there are: none is."""
        pieces = _numbers(map(asked.is_piece, self._corpus.pieces, self._cores))
        rank = np.full(self._n_latents, self._n_raised, dtype=np.int64)
        raised = np.full(self._n_latents, -1, dtype=np.int64)
        places, _ = self._by_raised.places(pieces)
        places = places[np.argsort(-self._ranks[places], kind="stable")]  # the last that is written is the first one
        latents = self._raisers[places]
        rank[latents], raised[latents] = self._ranks[places], self._raised[places]
        return rank, raised

    def _strongest(self, asked: _Asked) -> Int64:
        """Of each latent, top examples whose strongest token is in the word."""
        may_be = map(asked.may_be_at, self._corpus.pieces, self._cores, self._is_run)
        found, _ = self._by_piece.places(_numbers(may_be))
        inside = np.sort(found)[self._is_in(np.sort(found), asked)]
        entries, _ = self._by_token.places(inside.astype(np.int64))
        return np.bincount(self._latents[entries], minlength=self._n_latents)

    def _is_in(self, which: Int32, asked: _Asked) -> Bool:
        """Is each of these tokens (by place in `_tokens`) inside the word?"""
        if asked.is_exact or not len(which):
            return np.ones(len(which), dtype=np.bool_)
        ids, starts, tokens = self._corpus.tokens, self._corpus.document_starts, self._tokens[which]
        document = np.searchsorted(starts, tokens, side="right") - 1
        is_in = self._is_alone(tokens, starts[document], starts[document + 1], asked)
        rest = np.flatnonzero(~is_in)
        first = np.maximum(tokens[rest] - _AROUND, starts[document[rest]])
        last = np.minimum(tokens[rest] + _AROUND + 1, starts[document[rest] + 1])
        for place, token, begin, end in zip(
            rest.tolist(), tokens[rest].tolist(), first.tolist(), last.tolist(), strict=True
        ):
            is_in[place] = _covers([self._folded[id_] for id_ in ids[begin:end]], token - begin, asked.text)
        return is_in

    def _is_alone(self, tokens: Int64, first: Int64, last: Int64, asked: _Asked) -> Bool:
        """Is the token itself the word, and do its neighbours in the document not run into it? If not, look closely."""
        ids = self._corpus.tokens
        own = ids[tokens]
        is_word = np.isin(own, [entry for entry in np.unique(own).tolist() if self._cores[entry] == asked.text])
        before, after = ids[np.maximum(tokens - 1, first)], ids[np.minimum(tokens + 1, last - 1)]
        begins = self._is_after_space[own] | (tokens == first) | ~self._may_come_from[before]
        ends = self._is_before_space[own] | (tokens == last - 1) | ~self._may_go_on[after]
        return np.asarray(is_word & begins & ends)


def _numbers(flags: Iterable[bool]) -> Int64:
    return np.flatnonzero(np.fromiter(flags, np.bool_))


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
