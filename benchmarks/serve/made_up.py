"""A run of any number of features, real in format and made up in content: its catalogue comes from the catalogue's own pipeline.

    python benchmarks/serve/made_up.py FOLDER 1000000

Corpus, dictionary, catalogue and labels are written by the code that writes all others. Made up are the codes (a keyed hash of
token and slot: each of 32 slots keeps a latent for two tokens), and, since a million directions compared with one another take
hours here, the neighbours, vocabulary entries, families and places. Two tokens of text for each feature; 33 firings on the
average in either half, in bursts of two, the first latents' a few times as often as the last ones'.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray

from mohole import artifact, catalogue, config
from mohole.catalogue import builder, features
from mohole.catalogue.layout import BULK
from mohole.corpus import Corpus, Document, build_corpus
from mohole.dictionary import SparseAutoencoder, SparseCodes
from mohole.dictionary.files import save
from mohole.interpret.labels import FACTS_FILE, LABELS_FILE, Label, write_labels
from mohole.record import write_json

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "search"))
from labels import labels, vocabulary

HOOKPOINT = "resid_post.0"
_SLOTS, _DOCUMENT_TOKENS, _TOKENS_PER_LATENT = 32, 128, 2
_SEED = 7
_WORDS = 4096

Int64 = NDArray[np.int64]


def make_run(run: Path, n_latents: int) -> Path:
    """Write a run folder with one hookpoint."""
    with _artifact(run / "corpus", "corpus") as out:
        _write_corpus(out, _TOKENS_PER_LATENT * n_latents)
    folder = run / HOOKPOINT
    eye = torch.zeros(n_latents, 2)
    dictionary = SparseAutoencoder(HOOKPOINT, config.TopK(k=1), eye, torch.zeros(n_latents), eye, torch.zeros(2))
    with _artifact(folder / "dictionary", "dictionary") as out:
        save(dictionary, out)
    with _artifact(folder / "catalogue", "catalogue", bulk=BULK) as out:
        _write_catalogue(out, Corpus.open(run / "corpus", verify=False), n_latents)
    with _artifact(folder / "labels", "labels") as out:
        write_labels(out / LABELS_FILE, _labels(n_latents))
        write_json(out / FACTS_FILE, {"firing_share": 0.3})
    return run


def _artifact(path: Path, kind: str, bulk: tuple[str, ...] = ()) -> Any:
    return artifact.create(path, artifact.Inputs(kind=kind, config={"made_up": True}, seed=_SEED), bulk=bulk)


class _Words:
    """A tokenizer of texts that are written as numbers of words."""

    def __init__(self) -> None:
        self._pieces = [" " + word for word in vocabulary(_WORDS, _SEED)]

    def __len__(self) -> int:
        return len(self._pieces)

    def piece(self, token: int) -> str:
        return self._pieces[token]

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        tokens = [int(word) for word in text.split()]
        return tokens, [(i, i + 1) for i in range(len(tokens))]


def _write_corpus(out: Path, n_tokens: int) -> None:
    draw = np.random.default_rng(_SEED)

    def documents() -> Iterator[Document]:
        for _ in range(-(-n_tokens // _DOCUMENT_TOKENS)):
            words = np.minimum(draw.zipf(1.2, _DOCUMENT_TOKENS), _WORDS) - 1
            yield Document(" ".join(map(str, words.tolist())))

    build_corpus(out, documents(), _Words(), context=_DOCUMENT_TOKENS, has_bos=False, held_out=0.1, seed=_SEED)


@dataclass(frozen=True)
class _Rows:
    """In place of a store: a token's row is its number."""

    n_tokens: int

    @property
    def tokens(self) -> Int64:
        return np.arange(self.n_tokens)

    def take(self, hookpoint: str, tokens: Int64) -> NDArray[np.float64]:
        return tokens[:, None].astype(np.float64)


@dataclass(frozen=True)
class _Hashing:
    """In place of a dictionary: a row's latents and values are a hash of its number."""

    n_latents: int
    hookpoint: str = HOOKPOINT

    def encode(self, rows: torch.Tensor) -> SparseCodes:
        tokens = rows[:, 0].numpy().astype(np.uint64)
        slots = np.arange(_SLOTS, dtype=np.uint64)
        burst = (tokens[:, None] + slots % 2) // 2
        share = _uniform(burst * np.uint64(_SLOTS) + slots)
        latents = (self.n_latents * share**1.5).astype(np.int64)
        latents = np.sort(latents, axis=1)
        once = np.ones(latents.shape, dtype=np.bool_)
        once[:, 1:] = latents[:, 1:] != latents[:, :-1]
        rank = _uniform(tokens[:, None] * np.uint64(_SLOTS) + slots + (np.uint64(1) << np.uint64(60)))
        values = (0.2 - np.log1p(-rank)).astype(np.float32)  # most are weak
        starts = np.concatenate([[0], np.cumsum(once.sum(1))])
        return SparseCodes(
            *(torch.from_numpy(each) for each in (starts, latents[once], values[once])), n_latents=self.n_latents
        )

    def directions(self, latents: torch.Tensor) -> torch.Tensor:
        return torch.zeros(self.n_latents, 2)


def _uniform(number: NDArray[np.uint64]) -> NDArray[np.float64]:
    """In [0, 1), by the mixing of splitmix64."""
    mixed = number + np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return np.asarray(((mixed ^ (mixed >> np.uint64(31))) >> np.uint64(11)) * 2.0**-53)


def _write_catalogue(out: Path, corpus: Corpus, n_latents: int) -> None:
    settings = config.Catalogue(max_tokens=corpus.n_tokens)
    sources = catalogue.InMemory(
        cast(Any, None), cast(Any, _Hashing(n_latents)), corpus, cast(Any, _Rows(corpus.n_tokens))
    )
    draw = np.random.default_rng(_SEED)

    def directions(task: features.RangeTask, seen: Int64) -> dict[str, NDArray[Any]]:
        n = task.last - task.first
        return {
            "vocabulary_id": draw.integers(0, _WORDS, (n, 2 * settings.promoted)),
            "vocabulary_logit": -np.sort(-draw.normal(0, 3, (n, 2 * settings.promoted)), axis=1).astype(np.float32),
            "neighbour": draw.integers(0, n_latents, (n, settings.neighbours)),
            "cosine": -np.sort(-draw.uniform(0.2, 0.8, (n, settings.neighbours)), axis=1).astype(np.float32),
        }

    def families(*_: object, at_least: float) -> NDArray[np.int32]:
        """Two in five have one, of sizes from two to some hundreds."""
        found = (
            np.minimum(draw.zipf(1.5, n_latents) * draw.integers(1, 1 + n_latents // 20, n_latents), 2**30) % n_latents
        )
        return np.where(draw.random(n_latents) < 0.4, found, -1).astype(np.int32)

    def place(*_: object, seed: int) -> NDArray[np.float32]:
        """Crowds of places in the unit disc."""
        middle = draw.uniform(-0.7, 0.7, (max(1, n_latents // 500), 2))[
            draw.integers(0, max(1, n_latents // 500), n_latents)
        ]
        return np.clip(middle + draw.normal(0, 0.03, (n_latents, 2)), -1, 1).astype(np.float32)

    with (
        mock.patch.object(features, "_directions", directions),
        mock.patch.object(builder, "families", families),
        mock.patch.object(builder, "place", place),
    ):
        builder.build(out, sources, settings, seed=_SEED)


def _labels(n_latents: int) -> list[Label]:
    draw = np.random.default_rng(_SEED)
    scores = draw.beta(3, 2, (n_latents, 3)).tolist()
    return [
        Label(latent, text, "word", f1, precision, recall, 20, 100_000, _status(f1), 0.5)
        for latent, (text, (f1, precision, recall)) in enumerate(zip(labels(n_latents), scores, strict=True))
    ]


def _status(f1: float) -> Any:
    return "good" if f1 >= 0.8 else "partial" if f1 >= 0.5 else "none"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("n_latents", type=int)
    arguments = parser.parse_args()
    print(make_run(arguments.folder, arguments.n_latents))


if __name__ == "__main__":
    main()
