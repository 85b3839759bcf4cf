"""A finished corpus artifact, opened for reading."""

from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mohole import artifact
from mohole.byte_pieces import joined
from mohole.corpus.elsewhere import local_copy
from mohole.corpus.windows import Windows, cut
from mohole.record import read_json
from mohole.tensors import open_tensors

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Bool = NDArray[np.bool_]

_SEEN_AMONG = 1 << 24


class Corpus:
    """A finished corpus artifact, opened for reading."""

    def __init__(self, path: Path, *, verify: bool = True, most_bytes: int | None = None) -> None:
        self.path = path
        self.manifest = artifact.open_artifact(path, kind="corpus", verify=verify, most_bytes=most_bytes)
        tensors = open_tensors(path / "corpus.safetensors")
        facts = read_json(path / "corpus.json", "context", "has_bos", "labels", "pieces")
        self.tokens: Int32 = tensors["tokens"]
        """Token ids, all documents one after the other, no begin-of-text tokens."""
        self.document_starts: Int64 = tensors["document_starts"]
        """Token index at which each document starts, and the number of tokens."""
        self.held_out: Bool = tensors["held_out"].astype(np.bool_)
        """For each document: is it kept away from training?"""
        self.context: int = facts["context"]
        self.has_bos: bool = facts["has_bos"]
        self.labels: tuple[str, ...] = tuple(facts["labels"])
        """Names of the truth labels; empty where nothing is known."""
        self.pieces: tuple[str, ...] = tuple(facts["pieces"])
        """Each token id as a person reads it; what is a part of a character as its bytes, <0xE2>."""
        self._truth_tokens: Int64 = tensors["truth_tokens"]
        self._truth_starts = np.searchsorted(tensors["truth_labels"], np.arange(len(self.labels) + 1))
        self._label_ids = {label: i for i, label in enumerate(self.labels)}

    @classmethod
    def open(cls, path: Path | str, *, verify: bool = True, most_bytes: int | None = None) -> "Corpus":
        """Open the corpus in a folder, or at a URL, from which it is copied for the time of this process.

        Args:
            verify: read the files once to compare checksums; else their sizes are looked at.
            most_bytes: of a larger file the size is looked at all the same.

        Raises:
            ArtifactError: missing, unfinished or damaged.
        """
        return cls(
            local_copy(path) if isinstance(path, str) and "://" in path else Path(path),
            verify=verify,
            most_bytes=most_bytes,
        )

    @property
    def n_tokens(self) -> int:
        return len(self.tokens)

    @property
    def n_documents(self) -> int:
        return len(self.document_starts) - 1

    @cached_property
    def windows(self) -> Windows:
        """Every window of every document, in order: at most `context` tokens, a begin-of-text token included."""
        return cut(self.document_starts, self.context - int(self.has_bos))

    @cached_property
    def seen(self) -> Int64:
        """Vocabulary entries that occur among its first 16 million tokens, ascending: all but the rarest that occur at all."""
        counts = np.bincount(self.tokens[:_SEEN_AMONG], minlength=len(self.pieces))
        return np.flatnonzero(counts)

    def window_tokens(self, windows: Int64, bos_id: int | None) -> Int64:
        """The tokens of these windows (by number) as a batch [window, position], filled up with zeros on the right.

        With `bos_id`, that token stands in front of each; a causal model never sees what fills up the right.
        """
        starts, lengths = self.windows.start[windows], self.windows.length[windows]
        first = int(bos_id is not None)
        batch = np.zeros((len(windows), int(lengths.max()) + first), dtype=np.int64)
        if bos_id is not None:
            batch[:, 0] = bos_id
        offsets = np.arange(batch.shape[1] - first)
        inside = offsets < lengths[:, None]
        batch[:, first:][inside] = self.tokens[(starts[:, None] + offsets)[inside]]
        return batch

    def document_of(self, tokens: Int64) -> Int64:
        """The document that each token (by global index) belongs to."""
        return np.searchsorted(self.document_starts, tokens, side="right") - 1

    def position_of(self, tokens: Int64) -> Int64:
        """Each token's place in its document, counted from 0."""
        return tokens - self.document_starts[self.document_of(tokens)]

    def truth(self, label: str) -> Int64:
        """Token indices at which a label holds, ascending. None where the label is unknown to this corpus."""
        if label not in self._label_ids:
            return np.zeros(0, dtype=np.int64)
        i = self._label_ids[label]
        return self._truth_tokens[self._truth_starts[i] : self._truth_starts[i + 1]]

    def text(self, start: int, end: int) -> str:
        """The tokens [start, end) as a person reads them: characters that were cut into several tokens are whole again."""
        return joined(self.pieces[token] for token in self.tokens[start:end])
