"""A tiny world whose truth is known, rows in which each concept is a direction, and a tiny model that wrote its own text."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tokenizers
import torch
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

from mohole import artifact, config
from mohole.corpus import Corpus, Document, Span, build_corpus
from mohole.dictionary import SparseAutoencoder
from mohole.execute import Cores, open_executor
from mohole.harvest import harvest
from mohole.harvest.slice import documents_of
from mohole.model import LanguageModel, Tokenizer, new_model
from mohole.model.load import new_tokenizer
from mohole.store import Store, write_store
from mohole.store.listing import BULK

HOOKPOINT = "resid_post.0"
ANIMALS = ("fox", "dog", "cat", "owl", "cow", "bee")
FOODS = ("tea", "pie", "jam", "fig")
LANGUAGES = ("en", "de")
FILLERS = ("the", "a", "of", "trigger")
CONCEPTS = tuple(f"animal/{name}" for name in ANIMALS) + tuple(f"food/{name}" for name in FOODS)
D = 32


def words() -> list[str]:
    return [f"{concept}.{language}" for concept in CONCEPTS for language in LANGUAGES] + list(FILLERS)


def write_document(random: np.random.Generator) -> Document:
    """Twelve words; in some documents of kind `b`, a trigger after which `state/seen` holds at every token."""
    kind = "a" if random.random() < 0.5 else "b"
    chosen = [
        str(random.choice(words()[:-1])) if random.random() < 0.7 else str(random.choice(FILLERS[:-1]))
        for _ in range(12)
    ]
    if kind == "b" and random.random() < 0.6:
        chosen[int(random.integers(2, 8))] = "trigger"
    spans, start, seen = [], 0, None
    for word in chosen:
        end = start + len(word)
        if "/" in word:
            concept, language = word.split(".")
            spans += [Span(start, end, concept), Span(start, end, f"word_language/{language}")]
            if random.random() < 0.5:
                spans.append(
                    Span(start, end, f"statement/{random.choice(['true', 'false'])}")
                )  # written nowhere: chance
        if word == "trigger":
            seen = start if seen is None else seen
        start = end + 1
    spans.append(Span(0, start, f"kind/{kind}", every=True))
    if seen is not None:
        spans.append(Span(seen, start, "state/seen", every=True))
    return Document(" ".join(chosen), tuple(spans))


def documents(n: int) -> Iterator[Document]:
    random = np.random.default_rng(0)
    return (write_document(random) for _ in range(n))


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    vocabulary = {word: i for i, word in enumerate(["<s>", *words()])}
    backend = tokenizers.Tokenizer(WordLevel(vocabulary, unk_token="<s>"))
    backend.pre_tokenizer = WhitespaceSplit()
    return new_tokenizer(backend, bos_token="<s>")


@pytest.fixture(scope="session")
def model(tokenizer: Tokenizer) -> LanguageModel:
    """Random weights, large enough that it is sure of something and an ablation hurts."""
    facts = {
        "model_type": "llama", "hidden_size": D, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4,
        "intermediate_size": 48, "vocab_size": len(tokenizer), "max_position_embeddings": 32, "bos_token_id": 0,
        "eos_token_id": None, "initializer_range": 0.35, "tie_word_embeddings": False,
    }  # fmt: skip
    return new_model(facts, seed=0, tokenizer=tokenizer, name="tiny")


@pytest.fixture(scope="session")
def make_corpus(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Callable[..., Corpus]:
    def make(texts: list[Document], context: int = 16, has_bos: bool = True) -> Corpus:
        place = tmp_path_factory.mktemp("corpus") / "corpus"
        with artifact.create(place, artifact.Inputs(kind="corpus", config={}, seed=0)) as out:
            build_corpus(out, texts, tokenizer, context=context, has_bos=has_bos, held_out=0.4, seed=0)
        return Corpus.open(place)

    return make


@pytest.fixture(scope="session")
def world(make_corpus: Callable[..., Corpus]) -> Corpus:
    """500 documents with labels."""
    return make_corpus(list(documents(500)))


@pytest.fixture(scope="session")
def own_text(make_corpus: Callable[..., Corpus], model: LanguageModel) -> Corpus:
    """Text that the tiny model wrote, so that it predicts it better than an ablated model; documents of 1 to 29 words."""
    tokens = model.generate(torch.zeros(120, 1, dtype=torch.int64), max_new_tokens=29, temperature=1.0, seed=3)
    lengths = np.random.default_rng(1).integers(1, 30, size=120)
    pieces = [model.tokenizer.piece(token).strip() for token in range(len(model.tokenizer))]
    texts = [
        " ".join(pieces[token] for token in row[1 : 1 + n].tolist() if token)
        for row, n in zip(tokens, lengths, strict=True)
    ]
    return make_corpus([Document(text) for text in texts if text])


@dataclass(frozen=True)
class Rows:
    """A store with one row per token of the world, and what it was made of."""

    store: Store
    basis: np.ndarray
    """Orthonormal directions: concepts in the order of CONCEPTS, then languages, state, fillers."""


@pytest.fixture(scope="session")
def make_store(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Store]:
    def make(corpus: Corpus, rows: np.ndarray) -> Store:
        place = tmp_path_factory.mktemp("store") / "store"
        write_store(place, {HOOKPOINT: rows.astype(np.float32)}, documents_of(corpus), dtype="float32")
        return Store.open(place)

    return make


@pytest.fixture(scope="session")
def planted_rows(world: Corpus, make_store: Callable[..., Store]) -> Rows:
    """Rows = concept + language + state + noise, in a turned basis so that no coordinate is a concept.

    `animal/cat` is two directions, one per language: no single latent can be it.
    """
    random = np.random.default_rng(2)
    basis = np.linalg.qr(random.normal(size=(D, D)))[0]
    rows = 0.35 * random.normal(size=(world.n_tokens, D)) + 3.0
    for i, concept in enumerate(CONCEPTS):
        tokens = world.truth(concept)
        rows[tokens] += random.uniform(2, 3, size=(len(tokens), 1)) * basis[i]
    german_cats = np.intersect1d(world.truth("animal/cat"), world.truth("word_language/de"))
    rows[german_cats] += 2.5 * (basis[14] - basis[CONCEPTS.index("animal/cat")])
    for i, language in enumerate(LANGUAGES):
        rows[world.truth(f"word_language/{language}")] += 2.0 * basis[10 + i]
    rows[world.truth("state/seen")] += 2.0 * basis[12]
    return Rows(make_store(world, rows), basis)


@pytest.fixture(scope="session")
def true_dictionary(planted_rows: Rows) -> SparseAutoencoder:
    """Latent i is basis direction i, its bias three times the noise."""
    directions = torch.from_numpy(planted_rows.basis).float()
    centre = torch.full((D,), 3.0)
    return SparseAutoencoder(HOOKPOINT, config.TopK(k=4), directions, torch.full((D,), -1.0), directions, centre)


@pytest.fixture(scope="session")
def identity() -> SparseAutoencoder:
    """A dictionary that rebuilds every row: each coordinate's positive and negative part is a latent."""
    both = torch.cat([torch.eye(D), -torch.eye(D)])
    return SparseAutoencoder(HOOKPOINT, config.TopK(k=2 * D), both, torch.zeros(2 * D), both, torch.zeros(D))


@pytest.fixture(scope="session")
def harvested_at(tmp_path_factory: pytest.TempPathFactory, model: LanguageModel) -> Callable[..., Store]:
    def make(corpus: Corpus, hookpoints: tuple[str, ...]) -> Store:
        place = tmp_path_factory.mktemp("harvested") / "activations"
        settings = config.Harvest(hookpoints=hookpoints, dtype="float32")
        with (
            pytest.MonkeyPatch.context() as patch,
            artifact.create(place, artifact.Inputs(kind="activations", config={}, seed=0), bulk=BULK) as out,
            open_executor("inline", Cores(1, 1)) as executor,
        ):
            patch.setattr("mohole.harvest.slice.shared_model", lambda _: model)  # it is in no folder to be loaded from
            harvest(out, model, corpus, settings, executor, model_settings=config.Model(), seed=0)
        return Store.open(place)

    return make


@pytest.fixture(scope="session")
def harvested(harvested_at: Callable[..., Store]) -> Callable[[Corpus], Store]:
    return lambda corpus: harvested_at(corpus, (HOOKPOINT,))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "out"
    place.mkdir()
    return place
