"""Reading a catalogue: one `Feature` per latent, from its entry in the header and its block. Opens at once, whatever its size."""

from collections import OrderedDict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray

from mohole import artifact
from mohole.catalogue.blocks import Columns, unpack
from mohole.catalogue.codes import Codes, CodeStore
from mohole.catalogue.evidence import TOP
from mohole.catalogue.feature import Example, Feature, Histogram, Interval
from mohole.catalogue.header import Header
from mohole.catalogue.layout import (
    DOCUMENTS_FILE,
    FACTS_FILE,
    FEATURES_PER_BLOCK,
    FORMAT,
    INDEX,
    PIECES_FILE,
    features_file,
)
from mohole.catalogue.statistics import edges_to, rank_in_group
from mohole.corpus import Corpus
from mohole.dictionary import SparseCodes
from mohole.drawing import notebook
from mohole.errors import ArtifactError
from mohole.record import read_json
from mohole.storage import open_storage
from mohole.store.latent_index import Entries, EntryIds, LatentIndex
from mohole.tensors import open_tensors

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


class Catalogue:
    """A finished catalogue artifact, opened for reading: small files are verified now, the others where they are read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest = artifact.open_artifact(path, kind="catalogue")
        facts = read_json(path / FACTS_FILE, "format")
        if facts["format"] != FORMAT:
            raise ArtifactError(f"{path}: {facts['format']!r}; this mohole reads {FORMAT!r}; make the catalogue again")
        self.hookpoint: str = facts["hookpoint"]
        self.n_latents: int = facts["n_latents"]
        self.n_tokens: int = facts["n_tokens"]
        self.n_documents: int = facts["n_documents"]
        self.n_counted_together: int = facts["n_counted_together"]
        """Tokens over which firing together was counted."""
        self._n_corpus_tokens: int = facts["n_corpus_tokens"]
        self._n_promoted: int = facts["promoted"]
        self._latents_per_file: int = facts["latents_per_file"]
        self._header = Header(path, self.n_latents)
        self._storage = open_storage(path)
        # Plain views of what is mapped: numpy's own class for that takes ten times as long to cut a small piece.
        pieces = open_tensors(path / PIECES_FILE)
        self._piece_bytes = np.asarray(pieces["piece_bytes"]).data
        self._piece_starts: Int64 = np.asarray(pieces["piece_starts"])
        self._document_starts: Int64 = np.asarray(open_tensors(path / DOCUMENTS_FILE)["document_starts"])
        self._code_store = CodeStore(path, [part["n_rows"] for part in facts["codes"]])
        self._blocks: OrderedDict[int, Columns] = OrderedDict()

    @classmethod
    def open(cls, path: Path | str) -> "Catalogue":
        """Open the catalogue at `path`.

        Raises:
            ArtifactError: missing, unfinished, damaged, or of another kind.
        """
        return cls(Path(path))

    @cached_property
    def counts(self) -> Int64:
        """Tokens at which each latent fires."""
        return self._header.column("count")

    @cached_property
    def density(self) -> Float64:
        """Share of tokens at which each latent fires."""
        return self.counts / self.n_tokens

    @cached_property
    def maximum(self) -> Float32:
        """Largest activation of each latent; 0 for a dead one."""
        return self._header.column("maximum")

    @cached_property
    def sums(self) -> Float64:
        """Sum of each latent's activations."""
        return self._header.column("sum")

    @cached_property
    def family(self) -> Int32:
        """The family of each latent; -1: none."""
        return self._header.column("family")

    @cached_property
    def xy(self) -> Float32:
        """Where each latent lies on the map, [latent, 2]: near directions lie near."""
        return np.stack([self._header.column("x"), self._header.column("y")], axis=1)

    def strongest(self) -> tuple[Int64, Int32]:
        """For searches over all latents; every block is read for it.

        [latent, example]: global index of the token that each top example is about, strongest first; -1: no such example.
        [latent, entry]: vocabulary entries that each latent's direction raises most, strongest first; -1: none.
        """
        tops: list[tuple[Int64, Int64, Int64]] = []
        ids = np.full((self.n_latents, self._n_promoted), -1, dtype=np.int32)
        for first in range(0, self.n_latents, FEATURES_PER_BLOCK):
            block = self.block(first)
            latents = first + np.repeat(np.arange(len(block["n_examples"])), block["n_examples"])
            is_top = block["example_interval"] == TOP
            tops.append(
                (latents[is_top], block["example_token"][is_top].astype(np.int64), rank_in_group(latents[is_top]))
            )
            ids[first : first + FEATURES_PER_BLOCK] = block["vocabulary_id"][:, : self._n_promoted]
        latents, tokens, ranks = (np.concatenate(column) for column in zip(*tops, strict=True))
        top_tokens = np.full((self.n_latents, int(ranks.max(initial=-1)) + 1), -1, dtype=np.int64)
        top_tokens[latents, ranks] = tokens
        return top_tokens, ids

    @property
    def tokens(self) -> Int64:
        """Global indices of the tokens looked at, ascending: whole documents."""
        return self.firings.tokens

    def looks_at_the_tokens_of(self, other: "Catalogue") -> bool:
        """Are both of the very same tokens of the same corpus? Then activations of the two can be compared token by token."""
        mine, theirs = (each.manifest.inputs.parents.get("corpus") for each in (self, other))
        return (
            mine is not None
            and mine == theirs
            and self.n_tokens == other.n_tokens
            and self._tokens_digest == other._tokens_digest
        )

    @cached_property
    def _tokens_digest(self) -> str:
        digest = xxhash.xxh3_128()
        for part in self._code_store.parts():
            digest.update(np.ascontiguousarray(part.tokens).data)
        return digest.hexdigest()

    @property
    def firings(self) -> Codes:
        """The codes of all tokens: tokens, row starts, latents, values. `codes` has them as tensors, copied."""
        return self._code_store.whole

    @cached_property
    def codes(self) -> SparseCodes:
        """The sparse codes; row i belongs to `tokens[i]`."""
        _, *columns = self.firings
        row_starts, latents, values = (torch.from_numpy(np.array(array)) for array in columns)
        return SparseCodes(row_starts, latents.long(), values, self.n_latents)

    def entries(self, latent: int) -> Entries:
        """Every token at which a latent fires, and how strongly; tokens ascending.

        Raises:
            DamageError: the part of the index that holds them is not what was written.
        """
        return self._index.entries(latent)

    @cached_property
    def _index(self) -> LatentIndex:
        ids = EntryIds(self.n_latents, self._n_corpus_tokens)
        return LatentIndex(self._storage.folder(INDEX), ids)

    def activations(self, latent: int, start: int, end: int) -> tuple[float, ...]:
        """The latent at tokens [start, end) of a document looked at; 0 where it is silent or the token has no row."""
        tokens, row_starts, latents, values = self.firings
        first, last = (int(row) for row in np.searchsorted(tokens, (start, end)))
        here = row_starts[first] + np.flatnonzero(latents[row_starts[first] : row_starts[last]] == latent)
        rows = first + np.searchsorted(row_starts[first : last + 1], here, side="right") - 1
        shown = np.zeros(end - start, dtype=np.float32)
        shown[tokens[rows] - start] = values[here]
        return tuple(shown.tolist())

    def feature(self, latent: int) -> Feature:
        """Everything known about one latent.

        Raises:
            IndexError: no such latent. ArtifactError: its entry or its block is not what was written.
        """
        if not 0 <= latent < self.n_latents:
            raise IndexError(f"latent {latent}: this catalogue has {self.n_latents} (0-{self.n_latents - 1})")
        entry, block, row = self._header.entry(latent), self.block(latent), latent % FEATURES_PER_BLOCK
        count, maximum = int(entry["count"]), float(entry["maximum"])
        examples = self._examples(block, row, maximum)
        n, family = self._n_promoted, int(entry["family"])
        return Feature(
            latent=latent,
            count=count,
            density=count / self.n_tokens,
            maximum=maximum,
            mean=float(entry["sum"]) / max(count, 1),
            is_dead=count == 0,
            histogram=_histogram(block["histogram"][row], maximum) if count else Histogram((), ()),
            top=tuple(example for interval, example in examples if interval == TOP),
            intervals=_intervals(block["interval_count"][row], maximum, examples) if count else (),
            promoted=self._entries(block, row, 0, n),
            suppressed=self._entries(block, row, n, 2 * n),
            neighbours=_listed(block, row, "neighbour", "cosine"),
            together=_listed(block, row, "together", "n_together", "phi"),
            family=family if family >= 0 else None,
            texts=self._texts,
        )

    def _texts(self, start: int, end: int) -> tuple[str, ...] | None:
        corpus = self._corpus
        return None if corpus is None else tuple(corpus.pieces[token] for token in corpus.tokens[start:end].tolist())

    @cached_property
    def _corpus(self) -> Corpus | None:
        """The corpus of the run that this catalogue lies in, if it is the one it was made from."""
        place, wanted = self.path.resolve().parent.parent / "corpus", self.manifest.inputs.parents.get("corpus")
        if wanted is None or not (place / artifact.MANIFEST).is_file():
            return None
        return Corpus.open(place, verify=False) if artifact.read_manifest(place).digest == wanted else None

    def _repr_html_(self) -> str:
        """Shown by notebooks."""
        alive = self.counts > 0
        n_dead = self.n_latents - int(alive.sum())
        facts = (
            f"{self.n_latents:,} latents, {n_dead:,} of them dead, looked at on {self.n_tokens:,} tokens of "
            f"{self.n_documents:,} documents"
        )
        density = np.log10(self.density[alive])
        counts, edges = np.histogram(density, bins=40) if alive.any() else (np.zeros(1, np.int64), np.zeros(2))
        frequent = np.argsort(-self.counts, kind="stable")[:_SHOWN].tolist()
        lines = [
            (
                f"{latent}",
                f"{self.density[latent]:.2%}",
                f"{self.maximum[latent]:.3g}",
                f"{self.sums[latent] / max(1, self.counts[latent]):.3g}",
                f"{self.family[latent]}" if self.family[latent] >= 0 else "–",
            )
            for latent in frequent
        ]
        ends = (f"{10 ** edges[0]:.1g}", f"{10 ** edges[-1]:.1g}")
        return notebook.card(
            f"Catalogue of {self.hookpoint}",
            notebook.note(facts, kind="soft"),
            notebook.sides(
                notebook.part(
                    "Share of tokens, logarithmic", notebook.bars(counts.tolist(), *ends, "Latents by density")
                ),
                notebook.part(
                    "The most frequent",
                    notebook.table(("latent", "fires at", "maximum", "mean", "family"), lines, words=()),
                ),
            ),
            notebook.note("catalogue.feature(LATENT) shows one.", kind="soft"),
        )

    def block(self, latent: int) -> Columns:
        """The columns of the block that holds a latent, as docs/formats.md lists them; the last few that were asked for are kept.

        Raises:
            ArtifactError: as `feature`.
        """
        number = latent // FEATURES_PER_BLOCK
        block = self._blocks.get(number)
        if block is None:  # looked up once: another thread may drop it at any moment
            entry, file = self._header.entry(latent), features_file(latent // self._latents_per_file)
            data = bytearray(int(entry["n_bytes"]))
            self._storage.read_into(file, int(entry["offset"]), data)
            block = self._blocks[number] = unpack(bytes(data), f"{self.path}/{file}: block of latent {latent}")
            if len(self._blocks) > _BLOCKS_KEPT:
                self._blocks.popitem(last=False)
        return block

    def _examples(self, block: Columns, row: int, maximum: float) -> list[tuple[int, Example]]:
        """A latent's examples, each with the number of its interval. Whole columns at once: one by one takes far longer."""
        first = int(block["n_examples"][:row].sum())
        mine = slice(first, first + int(block["n_examples"][row]))
        n_firings, lengths = block["n_firings"][mine].astype(np.int64), block["example_length"][mine].astype(np.int64)
        firing = int(block["n_firings"][:first].sum())
        inside = slice(firing, firing + int(n_firings.sum()))
        ends = np.cumsum(lengths)
        shown = np.zeros(int(lengths.sum()))
        at = np.repeat(ends - lengths, n_firings) + block["firing_place"][inside]
        shown[at] = block["firing_share"][inside] * np.float64(maximum)
        activations = tuple(shown.tolist())
        tokens = block["example_token"][mine].astype(np.int64)
        starts = tokens - block["example_before"][mine]
        documents = np.searchsorted(self._document_starts, tokens, side="right") - 1
        columns = (documents, tokens, starts, starts + lengths, ends - lengths, ends, block["example_interval"][mine])
        return [
            (interval, Example(document, token, start, end, activations[low:high]))
            for document, token, start, end, low, high, interval in zip(
                *(each.tolist() for each in columns), strict=True
            )
        ]

    def _entries(self, block: Columns, row: int, first: int, last: int) -> tuple[tuple[str, float], ...]:
        ids = block["vocabulary_id"][row, first:last]
        is_one = ids >= 0
        logits = block["vocabulary_logit"][row, first:last][is_one].tolist()
        return tuple(zip(map(self.piece, ids[is_one].tolist()), logits, strict=True))

    def piece(self, token: int) -> str:
        """A vocabulary entry as a person reads it."""
        low, high = self._piece_starts[token : token + 2].tolist()
        return str(self._piece_bytes[low:high], "utf-8")


_BLOCKS_KEPT = 64
_SHOWN = 6
"""Features in a notebook's table."""


def _listed(block: Columns, row: int, *names: str) -> tuple[Any, ...]:
    """A latent's entries of these columns, those without a latent (in the first of them) left out."""
    entries = zip(*(block[name][row].tolist() for name in names), strict=True)
    return tuple(entry for entry in entries if entry[0] >= 0)


def _histogram(counts: NDArray[np.integer], maximum: float) -> Histogram:
    return Histogram(tuple(edges_to(maximum, len(counts))), tuple(counts.tolist()))


def _intervals(
    counts: NDArray[np.integer], maximum: float, examples: list[tuple[int, Example]]
) -> tuple[Interval, ...]:
    edges = edges_to(maximum, len(counts))
    own: list[list[Example]] = [[] for _ in counts]
    for interval, example in examples:
        if interval != TOP:
            own[interval].append(example)
    return tuple(Interval(edges[i], edges[i + 1], count, tuple(own[i])) for i, count in enumerate(counts.tolist()))
