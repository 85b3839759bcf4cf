"""Features by label: what must be found first, what must never break it, and its scores against the formula in its docstring."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mohole.errors import ConfigError
from mohole.search.company import Company
from mohole.search.hits import Hit
from mohole.search.labels import LabelIndex
from mohole.search.meaning import Embedder
from mohole.search.spelling import EXACT, Spelling
from mohole.search.words import WordTable, words

LABELS = [
    "“Golden Gate Bridge”", "“Brücke”, “bridge”, “pont”", "the word “gate” in gardens", "bridges and tunnels", "“金门大桥”", "",
    "moonlight on water", "footbridge", "“!”", "“Golden Gate Bridge”", "suspension", "שלום עולם", "😀 faces",
]  # fmt: skip


def found(hits: Sequence[Hit]) -> list[int]:
    return [hit.latent for hit in hits]


class Opposites:
    """An embedder that knows one thing: fear is near to courage."""

    least = 0.5

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        return np.asarray([[1.0, 0.0] if {"fear", "courage"} & set(words(text)) or not text else [0.0, 1.0] for text in texts],
                          dtype=np.float32)  # fmt: skip


@given(st.lists(st.text(max_size=30), min_size=1, max_size=12), st.data())
def test_a_label_finds_itself_first(labels: list[str], data: st.DataObject) -> None:
    label = data.draw(st.sampled_from(labels))
    hits = LabelIndex(labels).search(label, 3)
    if not label.strip():
        assert hits == []
    else:
        assert labels[hits[0].latent].strip() == label.strip()
        assert hits[0].score == 1.0


@given(
    st.lists(st.sampled_from(["golden", "gate", "bridge", "gaet", "brid", "和", "a"]), min_size=1, max_size=5),
    st.data(),
)
def test_scores_are_those_of_the_formula(asked: list[str], data: st.DataObject) -> None:
    vocabulary = st.lists(st.sampled_from(["golden", "gate", "bridge", "bridges", "和", "tower"]), max_size=5)
    labels = [" ".join(chosen) for chosen in data.draw(st.lists(vocabulary, min_size=1, max_size=8))]
    table = WordTable.of(labels)
    spelling = Spelling(table)
    n, own = len(labels), [words(label) for label in labels]
    likeness = []
    for word in dict.fromkeys(asked):
        candidates = {table.vocabulary[i]: like for i, (like, _) in spelling.candidates(word).items()}
        likeness.append([max((candidates.get(other, 0.0) for other in label), default=0.0) for label in own])
    idf = [np.log1p(n / max(sum(like > 0 for like in row), 1)) for row in likeness]
    scores = []
    for i, label in enumerate(own):
        share = sum(weight * row[i] for weight, row in zip(idf, likeness, strict=True)) / sum(idf)
        phrase = any(label[j : j + len(asked)] == asked for j in range(len(label)))
        whole = min(sum(row[i] for row in likeness) / max(len(label), 1), 1)
        score = 0.8 * share + 0.1 * phrase + 0.1 * whole * (share > 0)
        scores.append(1.0 if label == asked else score)
    expected = sorted((i for i in range(n) if scores[i] > 0), key=lambda i: (-np.float32(scores[i]), i))
    hits = LabelIndex(labels, embedder=Nothing()).search(" ".join(asked), n)
    assert [hit.score for hit in hits] == pytest.approx([scores[i] for i in expected], rel=1e-6)
    assert {hit.latent: pytest.approx(hit.score, rel=1e-6) for hit in hits} == {i: scores[i] for i in expected}


class Nothing:
    """An embedder that knows nothing."""

    least = 0.5

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        return np.zeros((len(texts), 1), dtype=np.float32)


@pytest.mark.parametrize("label", ["bridge bridges", "bridges bridge"])
def test_of_several_words_that_are_meant_the_nearest_counts(label: str) -> None:
    hits = LabelIndex(["gate", label], embedder=Nothing()).search("bridge", 2)
    assert hits[0].score == pytest.approx(0.8 + 0.1 + 0.1 / 2)
    assert hits[0].why == "label: “bridge”"


def test_equal_labels_come_in_order_of_their_latents() -> None:
    hits = LabelIndex(LABELS).search("Golden Gate Bridge", 2)
    assert found(hits) == [0, 9]
    assert hits[0].score == hits[1].score == np.float32(0.999)
    assert hits[0].why == "label: “golden”, “gate”, “bridge”"


@pytest.mark.parametrize(
    ("query", "latent", "why"),
    [
        ("brigde", 0, "“brigde” spelt like “bridge”"),
        ("moonl", 6, "“moonl” beginning of “moonlight”"),
        ("pension", 10, "“pension” part of “suspension”"),
        ("大桥", 4, "“大”, “桥”"),
        ("BRÜCKE", 1, "“brucke”"),
        ("!", 8, "“!”"),
        ("עולם", 11, "“עולם”"),
        ("😀", 12, "“😀”"),
    ],
)
def test_what_a_query_finds_first_and_why(query: str, latent: int, why: str) -> None:
    first = LabelIndex(LABELS).search(query, 3)[0]
    assert (first.latent, first.why) == (latent, f"label: {why}")


HOSTILE = [
    "", " ", "\x00", '"', "'; DROP TABLE labels; --", '"unbalanced', "AND OR NOT NEAR(", "a*", "^col:x", "-gate", "(((", "\\",
    "%_", "\ud800", "x" * 10_000, "gate " * 2_000, " ".join(map(str, range(3_000))), "\u202egate", "e\u0301" * 500, "😀" * 300,
    "*" * 500,
]  # fmt: skip


@pytest.mark.parametrize("query", HOSTILE)
def test_no_query_breaks_it(query: str) -> None:
    index = LabelIndex([*LABELS, "'; DROP TABLE labels; --"])
    hits = index.search(query, 4)
    assert len(hits) <= 4
    assert hits == sorted(hits, key=lambda hit: (-hit.score, hit.latent))
    assert hits == index.search(query, 100)[:4]
    assert all(0 < hit.score <= 1 for hit in hits)
    assert 5 not in found(hits), "an empty label was found"


def test_no_labels_and_no_room() -> None:
    assert LabelIndex([]).search("gate", 3) == []
    assert LabelIndex(["", " "]).search("gate", 3) == []
    with pytest.raises(ConfigError, match="limit: 0 is too small"):
        LabelIndex(LABELS).search("gate", 0)


def test_words_that_keep_the_same_company_are_near() -> None:
    """ferry and boat never stand in one label, but beside the same words; tractor stands beside others."""
    sea = [
        f"{vessel} {a} {b}"
        for vessel in ("ferry", "boat")
        for a in ("harbour", "wave", "sail")
        for b in ("captain", "deck")
    ]
    land = [
        f"{machine} {a} {b}"
        for machine in ("tractor", "plough")
        for a in ("field", "barn", "hay")
        for b in ("farmer", "soil")
    ]
    others = [f"colour{i % 9} shape{i % 7} sound{i % 5}" for i in range(60)]
    labels = [*land, *sea, *others]
    hits = LabelIndex(labels).search("boat", 12)
    by_meaning = [hit.latent for hit in hits if hit.why.startswith("meaning")]
    assert by_meaning
    assert all("ferry" in labels[latent] for latent in by_meaning)
    assert found(hits)[:6] == [i for i, label in enumerate(labels) if "boat" in label], "the word itself comes first"
    company = Company.of(WordTable.of(labels))
    assert isinstance(company, Embedder)
    own = company.embed(labels)
    np.testing.assert_allclose(np.linalg.norm(own, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(company.of_table.cosines(own[3]), own @ own[3], atol=2e-3)
    boat, ferry, tractor = company.embed(["boat", "ferry", "tractor"])
    assert boat @ ferry > 0.99, "they stand beside the same words; how often a word stands beside itself is no company"
    assert abs(boat @ tractor) < 0.1
    half = company.embed(["boat zeppelin"])[0]
    assert 0 < np.linalg.norm(half) < 0.6, "a text half unknown is not wholly near to anything"


def test_a_word_said_twice_is_one_word_to_its_company() -> None:
    once = ["red wine", "red cheese", "old wine", "old cheese", "blue sky"]
    twice = ["red wine wine", *once[1:]]
    mine, other = (Company.of(WordTable.of(labels)).embed(["wine", "cheese"]) for labels in (once, twice))
    assert mine[0] @ mine[1] == pytest.approx(other[0] @ other[1], abs=1e-4)


def test_an_embedder_of_ones_own_is_asked() -> None:
    labels = ["courage in battle", "red wine", "", "fear of water"]
    hits = LabelIndex(labels, embedder=Opposites()).search("fear", 4)
    assert found(hits) == [3, 0]
    assert hits[1].why == "meaning, cosine 1.00"
    assert EXACT == "word"
