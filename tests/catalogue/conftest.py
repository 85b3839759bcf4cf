"""A small corpus, a store whose rows are the activations wanted, and a dictionary that passes them through."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mohole import artifact, catalogue, config
from mohole.catalogue.layout import BULK, INDEX, TASKS
from mohole.corpus import Corpus, Document, build_corpus
from mohole.dictionary import SparseAutoencoder
from mohole.store import Documents, Store, write_store

PIECES = ["<unused>", " the", " cat", " dog", "\x07", "<b>", '"', "\ufffd", "😀", "桥", "\u2028", " bridge"]


class Pieces:
    """A tokenizer for texts that are written as piece numbers: "1 2 3"."""

    def __len__(self) -> int:
        return len(PIECES)

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        ids = [int(word) for word in text.split()]
        return ids, [(i, i + 1) for i in range(len(ids))]

    def piece(self, token: int) -> str:
        return PIECES[token]


class Vocabulary:
    """A model's unembedding: logit v of a row is its v-th coordinate, normalised like RMSNorm."""

    def unembed(self, rows: torch.Tensor) -> torch.Tensor:
        width, size = rows.shape[-1], len(PIECES)
        weights = torch.zeros(width, size)
        weights[: min(width, size), : min(width, size)] = torch.eye(min(width, size))
        return rows / (rows.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() @ weights


def pass_through(n_latents: int, hookpoint: str = "resid_post.0") -> SparseAutoencoder:
    """Latent i is active by the positive part of coordinate i."""
    eye, zeros = torch.eye(n_latents), torch.zeros(n_latents)
    return SparseAutoencoder(hookpoint, config.TopK(k=n_latents), eye, zeros, eye, zeros)


@pytest.fixture
def make_corpus(tmp_path: Path) -> Callable[[Sequence[Sequence[int]]], Corpus]:
    def make(documents: Sequence[Sequence[int]]) -> Corpus:
        with artifact.create(tmp_path / "corpus", artifact.Inputs(kind="corpus", config={}, seed=0)) as out:
            texts = [Document(" ".join(map(str, document))) for document in documents]
            build_corpus(out, texts, Pieces(), context=4, has_bos=False, held_out=0.5, seed=0)
        return Corpus.open(tmp_path / "corpus")

    return make


@pytest.fixture
def make_store(tmp_path: Path) -> Callable[..., Store]:
    def make(
        rows: NDArray[np.float32],
        tokens: NDArray[np.int64] | None = None,
        name: str = "store",
        hookpoint: str = "resid_post.0",
    ) -> Store:
        n_tokens = len(rows) if tokens is None else int(tokens.max()) + 1
        documents = Documents(np.array([0, n_tokens]), np.array([False]))
        write_store(tmp_path / name, {hookpoint: rows}, documents, tokens=tokens, dtype="float32")
        return Store.open(tmp_path / name)

    return make


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., catalogue.Catalogue]:
    def run(
        corpus: Corpus,
        store: Store,
        name: str = "catalogue",
        dictionary: SparseAutoencoder | None = None,
        seed: int = 0,
        **settings: int,
    ) -> catalogue.Catalogue:
        path = tmp_path / name
        dictionary = dictionary or pass_through(store.d_model("resid_post.0"))
        inputs = artifact.Inputs(kind="catalogue", config={}, seed=seed)
        with artifact.create(path, inputs, resume=True, bulk=BULK) as out:
            sources = catalogue.InMemory(Vocabulary(), dictionary, corpus, store)
            catalogue.build(out, sources, config.Catalogue(**settings), seed=seed)
        return catalogue.Catalogue.open(path)

    return run


def contents(path: Path) -> dict[str, bytes]:
    """Every file of a catalogue but those that depend on the plan of the index."""
    files = [file for file in path.rglob("*") if file.is_file()]
    named = {str(file.relative_to(path)): file for file in files}
    return {name: file.read_bytes() for name, file in named.items() if not name.startswith((INDEX, TASKS))}
