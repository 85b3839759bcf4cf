"""Reading a catalogue: one `Feature` per latent, assembled from memory-mapped arrays on request. Writes nothing."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mohole import artifact
from mohole.catalogue.layout import CATALOGUE_FILE, CODES_FILE, FACTS_FILE
from mohole.catalogue.statistics import interval_edges
from mohole.dictionary import SparseCodes
from mohole.record import read_json
from mohole.tensors import open_tensors

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Example:
    """A stretch of one document around a firing: a pointer into the corpus, with the latent's activations along it."""

    document: int
    token: int
    """Global index of the token it is about: of a top example the document's strongest, of an interval the one drawn."""
    start: int
    end: int
    """The stretch is tokens [start, end), cut to the document."""
    activations: tuple[float, ...]
    """The latent's exact activation at each token of the stretch; 0 where it is silent."""

    @property
    def activation(self) -> float:
        """At `token`."""
        return self.activations[self.token - self.start]


@dataclass(frozen=True, slots=True)
class Interval:
    """Activations in (low, high]."""

    low: float
    high: float
    count: int
    """Tokens whose activation lies in it."""
    examples: tuple[Example, ...]
    """Drawn uniformly from the documents that fire in it, without those already shown higher up."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """counts[i] activations in (edges[i], edges[i + 1]]: equal steps from 0 to the maximum, zeros not counted."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Feature:
    """A latent and its evidence. A dead one fired nowhere: no examples, no intervals, no histogram."""

    latent: int
    count: int
    """Tokens at which it fires, of the catalogue's `n_tokens`."""
    density: float
    """count / n_tokens."""
    maximum: float
    mean: float
    """Mean activation where it fires."""
    is_dead: bool
    histogram: Histogram
    top: tuple[Example, ...]
    """Strongest first, at most one from a document; documents with the same text count as one."""
    intervals: tuple[Interval, ...]
    """From weak to strong."""
    promoted: tuple[tuple[str, float], ...]
    """(vocabulary entry, logit) that its direction raises most, strongest first; see catalogue.vocabulary.lens."""
    suppressed: tuple[tuple[str, float], ...]


class Catalogue:
    """A finished catalogue artifact, opened for reading. Costs its checksums; nothing is parsed but a few numbers."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest = artifact.open_artifact(path, kind="catalogue")
        self._arrays = open_tensors(path / CATALOGUE_FILE)
        self._codes = open_tensors(path / CODES_FILE)
        facts = read_json(path / FACTS_FILE, "hookpoint", "n_latents", "n_tokens", "n_documents", "promoted")
        self.hookpoint: str = facts["hookpoint"]
        self.n_latents: int = facts["n_latents"]
        self.n_tokens: int = facts["n_tokens"]
        self.n_documents: int = facts["n_documents"]
        self._n_promoted: int = facts["promoted"]

    @classmethod
    def open(cls, path: Path | str) -> "Catalogue":
        """Open the catalogue at `path`.

        Raises:
            ArtifactError: missing, unfinished, damaged, or of another kind.
        """
        return cls(Path(path))

    @property
    def counts(self) -> Int64:
        """Tokens at which each latent fires."""
        return self._arrays["count"]

    @cached_property
    def density(self) -> Float64:
        """Share of tokens at which each latent fires."""
        return self.counts / self.n_tokens

    @property
    def maximum(self) -> Float32:
        """Largest activation of each latent; 0 for a dead one."""
        return self._arrays["maximum"]

    @property
    def sums(self) -> Float64:
        """Sum of each latent's activations."""
        return self._arrays["sum"]

    @property
    def tokens(self) -> Int64:
        """Global indices of the tokens looked at, ascending: whole documents."""
        return self._codes["tokens"]

    @property
    def firings(self) -> tuple[Int64, Int32, Float32]:
        """The codes as mapped arrays: row starts, latents, values. `codes` has them as tensors, copied."""
        return self._codes["row_starts"], self._codes["latents"], self._codes["values"]

    @cached_property
    def codes(self) -> SparseCodes:
        """The sparse codes; row i belongs to `tokens[i]`."""
        row_starts, latents, values = (torch.from_numpy(np.array(array)) for array in self.firings)
        return SparseCodes(row_starts, latents.long(), values, self.n_latents)

    def activations(self, latent: int, start: int, end: int) -> tuple[float, ...]:
        """The latent at tokens [start, end) of a document looked at; 0 where it is silent or the token has no row."""
        row_starts, latents, values = self.firings
        first, last = (int(row) for row in np.searchsorted(self.tokens, (start, end)))
        here = row_starts[first] + np.flatnonzero(latents[row_starts[first] : row_starts[last]] == latent)
        rows = first + np.searchsorted(row_starts[first : last + 1], here, side="right") - 1
        shown = np.zeros(end - start, dtype=np.float32)
        shown[self.tokens[rows] - start] = values[here]
        return tuple(shown.tolist())

    def feature(self, latent: int) -> Feature:
        """Everything known about one latent.

        Raises:
            IndexError: no such latent.
        """
        if not 0 <= latent < self.n_latents:
            raise IndexError(f"latent {latent}: this catalogue has {self.n_latents} (0-{self.n_latents - 1})")
        count, maximum = int(self.counts[latent]), float(self.maximum[latent])
        n = self._n_promoted
        return Feature(
            latent=latent,
            count=count,
            density=count / self.n_tokens,
            maximum=maximum,
            mean=float(self.sums[latent]) / max(count, 1),
            is_dead=count == 0,
            histogram=self._histogram(latent) if count else Histogram((), ()),
            top=self._examples(latent, "top", (latent,)),
            intervals=self._intervals(latent) if count else (),
            promoted=self._entries(latent, 0, n),
            suppressed=self._entries(latent, n, 2 * n),
        )

    def _histogram(self, latent: int) -> Histogram:
        counts = self._arrays["histogram"][latent]
        edges = interval_edges(self.maximum[latent : latent + 1], len(counts))[0]
        return Histogram(tuple(edges.tolist()), tuple(counts.tolist()))

    def _intervals(self, latent: int) -> tuple[Interval, ...]:
        counts = self._arrays["interval_count"][latent].tolist()
        edges = interval_edges(self.maximum[latent : latent + 1], len(counts))[0].tolist()
        return tuple(
            Interval(edges[i], edges[i + 1], count, self._examples(latent, "interval", (latent, i)))
            for i, count in enumerate(counts)
        )

    def _examples(self, latent: int, name: str, place: tuple[int, ...]) -> tuple[Example, ...]:
        columns = (self._arrays[f"{name}_{key}"][place].tolist() for key in ("document", "token", "start", "end"))
        return tuple(
            Example(document, token, start, end, self.activations(latent, start, end))
            for document, token, start, end in zip(*columns, strict=True)
            if token >= 0
        )

    def _entries(self, latent: int, first: int, last: int) -> tuple[tuple[str, float], ...]:
        ids = self._arrays["vocabulary_ids"][latent, first:last].tolist()
        logits = self._arrays["vocabulary_logits"][latent, first:last].tolist()
        return tuple((self._piece(token), logit) for token, logit in zip(ids, logits, strict=True) if token >= 0)

    def _piece(self, token: int) -> str:
        starts = self._arrays["piece_starts"]
        return bytes(self._arrays["piece_bytes"][starts[token] : starts[token + 1]]).decode("utf-8")
