"""The stage as a whole: files, reading back, and the law that no planted answer reaches the labeller."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from mohole import artifact, catalogue, config, interpret
from mohole.catalogue import Catalogue
from mohole.corpus import Corpus, Document, Span, build_corpus
from mohole.dictionary import SparseAutoencoder
from mohole.errors import ArtifactError
from mohole.harvest.slice import documents_of
from mohole.interpret import Label, Labels
from mohole.interpret.labels import COLUMNS_FILE, FACTS_FILE, LABELS_FILE, write_labels
from mohole.record import write_json
from mohole.store import Store, write_store

WORDS = [
    " the",
    " cat",
    " dog",
    " tree",
    " sees",
    " eats",
    " red",
    " big",
    "\u2028",
    '"',
    "<b>",
    "\x07",
    "😀",
    "\u0085",
]
N_LATENTS = 6


class WordTokenizer:
    """Splits at the seams of WORDS."""

    def __len__(self) -> int:
        return len(WORDS)

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        ids, offsets, place = [], [], 0
        while place < len(text):
            token = next(i for i, word in enumerate(WORDS) if text.startswith(word, place))
            ids.append(token)
            offsets.append((place, place + len(WORDS[token])))
            place += len(WORDS[token])
        return ids, offsets

    def piece(self, token: int) -> str:
        return WORDS[token]


class NoModel:
    def unembed(self, rows: torch.Tensor) -> torch.Tensor:
        return rows @ torch.eye(rows.shape[-1], len(WORDS))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Latent i fires at word i, where truth says "word i"; the last one is dead."""
    root = tmp_path_factory.mktemp("world")
    rng = np.random.default_rng(0)
    documents = []
    for _ in range(300):
        ids = rng.integers(0, len(WORDS), 12)
        text, spans = "", []
        for token in ids:
            spans.append(Span(len(text), len(text) + len(WORDS[token]), f"word {token}"))
            text += WORDS[token]
        documents.append(Document(text, tuple(spans)))
    with artifact.create(root / "corpus", artifact.Inputs(kind="corpus", config={}, seed=0)) as out:
        build_corpus(out, documents, WordTokenizer(), context=16, has_bos=False, held_out=0.2, seed=0)
    corpus = Corpus.open(root / "corpus")
    words = np.array([8, 9, 10, 11, 12])
    rows = np.zeros((corpus.n_tokens, N_LATENTS), np.float32)
    for latent, word in enumerate(words):
        rows[:, latent] = (corpus.tokens == word) * 2.0 + 0.1 * (rng.random(corpus.n_tokens) < 0.2)
    write_store(root / "store", {"resid_post.0": rows}, documents_of(corpus), dtype="float32")
    eye, zeros = torch.eye(N_LATENTS), torch.zeros(N_LATENTS)
    dictionary = SparseAutoencoder("resid_post.0", config.TopK(k=N_LATENTS), eye, zeros, eye, zeros)
    with artifact.create(root / "catalogue", artifact.Inputs(kind="catalogue", config={}, seed=0)) as out:
        sources = catalogue.InMemory(NoModel(), dictionary, corpus, Store.open(root / "store"))
        catalogue.build(out, sources, config.Catalogue(), seed=0)
    return root


def label(root: Path, corpus: Corpus, name: str, **settings: float) -> Path:
    with artifact.create(root / name, artifact.Inputs(kind="labels", config={}, seed=0), replace=True) as out:
        interpret.label(out, Catalogue.open(root / "catalogue"), corpus, config.Label(**settings), seed=0)
    return root / name


def test_labels_read_back_with_hostile_words_in_them(world: Path) -> None:
    labels = Labels.open(label(world, Corpus.open(world / "corpus"), "labels"))
    assert len(labels) == N_LATENTS
    assert [labels.label(latent).text for latent in range(5)] == ["“\\u2028”", '“"”', "“<b>”", "“\\x07”", "“😀”"]
    assert [found.f1 for found in labels][:5] == [1.0] * 5
    assert labels.label(5).status == "dead"
    assert [found.latent for found in labels] == list(range(N_LATENTS))
    with pytest.raises(IndexError, match="latent 6"):
        labels.label(6)


def test_only_activations_above_the_share_of_the_maximum_count_as_firing(world: Path) -> None:
    corpus = Corpus.open(world / "corpus")
    strong = Labels.open(label(world, corpus, "strong")).label(0)
    every = Labels.open(label(world, corpus, "every", firing_share=0.0)).label(0)
    assert strong.threshold == pytest.approx(0.3 * 2.1)
    assert every.n_positive > strong.n_positive * 2
    assert every.f1 < strong.f1 == 1.0


def test_pools_are_written_down_and_disjoint(world: Path) -> None:
    path = label(world, Corpus.open(world / "corpus"), "pools")
    pools = json.loads((path / "labels.json").read_text())["pools"]
    assert sum(pool["documents"] for pool in pools.values()) == 300
    assert sum(pool["tokens"] for pool in pools.values()) == 300 * 12
    assert Labels.open(path).label(0).n_scored == pools["test"]["tokens"]


def test_no_truth_reaches_the_labeller(world: Path, tmp_path: Path) -> None:
    """The same bytes from a corpus without truth; and a corpus that hides everything but three fields is enough."""
    corpus = Corpus.open(world / "corpus")
    assert corpus.labels
    expected = (label(world, corpus, "with_truth") / "labels.jsonl").read_bytes()

    tensors = load_file(world / "corpus" / "corpus.safetensors")
    facts = json.loads((world / "corpus" / "corpus.json").read_text("utf-8"))
    with artifact.create(tmp_path / "bare", artifact.Inputs(kind="corpus", config={}, seed=0)) as out:
        tensors["truth_tokens"], tensors["truth_labels"] = np.zeros(0, np.int64), np.zeros(0, np.int32)
        save_file(tensors, out / "corpus.safetensors")
        (out / "corpus.json").write_text(json.dumps({**facts, "labels": []}), "utf-8")
    bare = Corpus.open(tmp_path / "bare")
    assert bare.labels == ()
    assert (label(world, bare, "without") / "labels.jsonl").read_bytes() == expected

    class Guarded(Corpus):
        def __init__(self) -> None:
            pass

        def __getattribute__(self, name: str) -> object:
            if name in ("tokens", "document_starts", "pieces"):
                return getattr(corpus, name)
            if name.startswith("__"):
                return object.__getattribute__(self, name)
            raise AssertionError(f"the labeller looked at corpus.{name}")

    assert (label(world, Guarded(), "guarded") / "labels.jsonl").read_bytes() == expected


def test_lines_and_columns_say_the_same(tmp_path: Path) -> None:
    """Labels from before there were columns read as they always did; what is not of its place is refused, not shown."""
    known = [
        Label(0, "“\u2028”, ÎLE \x00", "piece", 0.1 + 0.2, 1 / 3, 1.0, 7, 2**40, "good", 1e-30),
        Label(1, "", "", 0.0, 0.0, 0.0, 0, 9, "dead", 0.0),
        Label(2, "金门大桥 😀", "after+word", 0.5, 0.5, 0.5, 1, 9, "partial", 5e30),
    ]
    for name in ("columns", "lines", "others"):
        with artifact.create(tmp_path / name, artifact.Inputs(kind="labels", config={}, seed=0)) as out:
            write_json(out / FACTS_FILE, {"firing_share": 0.3})
            write_labels(out / LABELS_FILE, known)
            if name != "columns":
                (out / COLUMNS_FILE).unlink()
            if name == "others":
                (out / LABELS_FILE).write_text("\n".join(reversed((out / LABELS_FILE).read_text().split("\n"))))
    found, lines = Labels.open(tmp_path / "columns"), Labels.open(tmp_path / "lines")
    assert list(found) == list(lines) == known
    assert found.columns.texts(np.array([2, 0])) == [known[2].text, known[0].text]
    with pytest.raises(ArtifactError, match=r"labels\.jsonl: damaged .*latents are not 0, 1, 2"):
        Labels.open(tmp_path / "others")
    (tmp_path / "columns" / COLUMNS_FILE).write_bytes((tmp_path / "columns" / COLUMNS_FILE).read_bytes()[:-1])
    with pytest.raises(ArtifactError, match=r"labels\.safetensors"):
        Labels.open(tmp_path / "columns")


def test_a_damaged_file_of_labels_is_named(world: Path, tmp_path: Path) -> None:
    with artifact.create(tmp_path / "labels", artifact.Inputs(kind="labels", config={}, seed=0)) as out:
        (out / "labels.json").write_text(json.dumps({"firing_share": 0.3}))
        (out / "labels.jsonl").write_text('{"latent": 0}\n')
    with pytest.raises(ArtifactError, match=r"labels\.jsonl: damaged"):
        Labels.open(tmp_path / "labels")
