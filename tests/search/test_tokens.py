"""Features by word, on a run whose latents fire on known words, against a reading of every example."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tests.report.run_folder import BRIDGE, DEAD, HOSTILE, make_run

from mohole.catalogue import Catalogue
from mohole.corpus import Corpus
from mohole.errors import ArtifactError, ConfigError
from mohole.search.tokens import TokenIndex, _Asked, _covers, by_token, token_columns
from mohole.search.words import fold


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def catalogue(run: Path) -> Catalogue:
    return Catalogue.open(run / "resid_post.0" / "catalogue")


def strongest_pieces(catalogue: Catalogue, corpus: Corpus, latent: int) -> list[str]:
    return [corpus.pieces[corpus.tokens[example.token]].strip() for example in catalogue.feature(latent).top]


@pytest.mark.parametrize("word", ["fox", "Bridge", "金门大桥", "ferry", "17", "owl"])
def test_words_find_the_features_that_fire_most_on_them_and_no_others(
    catalogue: Catalogue, run: Path, word: str
) -> None:
    corpus = Corpus.open(run / "corpus")
    hits = {hit.latent: hit for hit in by_token(catalogue, word, catalogue.n_latents)}
    for latent in range(catalogue.n_latents):
        pieces = strongest_pieces(catalogue, corpus, latent)
        promoted = [piece.strip().casefold() for piece, _ in catalogue.feature(latent).promoted]
        share = sum(piece.casefold() == word.casefold() for piece in pieces) / max(len(pieces), 1)
        raised = 0.5 * (1 - promoted.index(word.casefold()) / len(promoted)) if word.casefold() in promoted else 0.0
        assert (latent in hits) == (max(share, raised) > 0), (latent, pieces)
        if latent in hits:
            assert hits[latent].score == pytest.approx(max(share, raised))
            assert ("strongest at" in hits[latent].why) == (share > 0)
            assert ("raises" in hits[latent].why) == (word.casefold() in promoted)
    assert DEAD not in hits or "raises" in hits[DEAD].why


def test_a_share_is_of_the_examples_there_are_not_of_those_there_is_room_for() -> None:
    corpus = SimpleNamespace(
        tokens=np.int32([0, 1, 0, 1]), document_starts=np.array([0, 1, 2, 3, 4]), pieces=("owl", "fox")
    )
    top = np.array([[0, 1, 2, 3], [0, -1, -1, -1], [1, 2, 3, -1], [1, -1, -1, -1]])
    hits = TokenIndex(token_columns(top, np.full((4, 2), -1, np.int32), corpus), corpus).search("owl", 9)
    assert [(hit.latent, hit.score) for hit in hits] == [(1, 1.0), (0, 0.5), (2, pytest.approx(1 / 3))]


def test_the_bridge_is_found_by_its_name_in_any_language(catalogue: Catalogue) -> None:
    for name in ("Bridge", "golden-gate-brucke", "金门大桥", "Golden Gate Bridge", "  gate   bridge "):
        found = [hit.latent for hit in by_token(catalogue, name, 40) if "strongest" in hit.why]
        assert BRIDGE in found, name


def test_a_phrase_must_stand_there_whole(catalogue: Catalogue) -> None:
    for wrong in ("ridge", "Gate Brid", "Bridge Golden", "fox,", "xfox"):
        assert [hit for hit in by_token(catalogue, wrong, 40) if "strongest" in hit.why] == [], wrong


@pytest.mark.parametrize(
    ("pieces", "at", "word", "is_in"),
    [
        (["the", " gol", "den", " gate"], 2, "golden", True),
        (["the", " gol", "den", " gate"], 2, "golden gate", True),
        (["the", " gol", "den", " gate"], 0, "golden", False),
        (["the", " gol", "den", " gate"], 3, "golden", False),
        (["the", " gol", "den", "s"], 2, "golden", False),
        (["fox", ","], 1, "fox", False),
        (["a", "fox"], 1, "fox", False),
        (["a", " fox"], 0, "fox", False),
        (["大", "桥", "大"], 2, "大桥", False),
        (["金", "大", "桥"], 1, "大桥", True),
        (["fox", " fox"], 1, "fox", True),
        ([" ", "fox"], 0, "fox", False),
    ],
)
def test_a_token_is_in_a_word_only_if_it_is(pieces: list[str], at: int, word: str, is_in: bool) -> None:
    assert _covers(pieces, at, word) == is_in


def _index(top_tokens: np.ndarray, corpus: SimpleNamespace) -> TokenIndex:
    """Of latents that raise nothing."""
    raised = np.full((len(top_tokens), 1), -1, dtype=np.int32)
    return TokenIndex(token_columns(top_tokens, raised, corpus), corpus)


def test_a_word_does_not_begin_in_one_document_and_end_in_the_next() -> None:
    pieces = ["gol", "den", " x", " gol"]
    tokens, starts = np.asarray([0, 1, 3, 1, 2], dtype=np.int32), np.asarray([0, 1, 5])
    corpus = SimpleNamespace(pieces=pieces, tokens=tokens, document_starts=starts)
    top = np.asarray([[0, -1], [1, -1], [2, 3], [4, -1]])
    here = _index(top, corpus)._strongest(_Asked("golden", False))
    assert here.tolist() == [0, 0, 2, 0]


def test_the_quick_look_finds_what_the_close_one_does() -> None:
    """Words that are one token are not looked at closely: of random texts of awkward pieces, no answer differs."""
    pieces = [
        *("fox", " fox", "fox ", " FOX", "f", "ox", "es", " ", "", "_", "’", ",", "桥", " 桥", "大", "ﬁ", "\n"),
        *("fox es", "é", "\u0301", "foxe", "-fox-", "fox,e"),
    ]
    draw = np.random.default_rng(0)
    tokens = draw.integers(0, len(pieces), 3000).astype(np.int32)
    starts = np.concatenate([[0], np.sort(draw.choice(np.arange(1, 3000), 300, replace=False)), [3000]])
    corpus = SimpleNamespace(pieces=pieces, tokens=tokens, document_starts=starts)
    index = _index(np.arange(3000)[:, None], corpus)
    folded = [fold(piece) for piece in pieces]
    for query in ("fox", "foxes", "fox es", "桥", "大桥", "f", ",", "fi", "_", "e"):
        here = index._strongest(_Asked(query, False))
        assert here.any()
        for token in range(3000):
            document = int(np.searchsorted(starts, token, side="right")) - 1
            first, last = max(token - 12, int(starts[document])), min(token + 13, int(starts[document + 1]))
            core = folded[tokens[token]].strip()
            around = [folded[id_] for id_ in tokens[first:last]]
            is_in = bool(core) and (core in query or query in core) and _covers(around, token - first, query)
            assert here[token] == is_in, (query, token)


def test_answers_are_sorted_and_cut_and_need_a_corpus(catalogue: Catalogue, run: Path, tmp_path: Path) -> None:
    whole = by_token(catalogue, "the", 100)
    assert whole == sorted(whole, key=lambda hit: (-hit.score, hit.latent))
    assert by_token(catalogue, "the", 2) == whole[:2]
    assert by_token(catalogue, "", 2) == []
    with pytest.raises(ConfigError, match="limit"):
        by_token(catalogue, "the", 0)
    shutil.copytree(run / "resid_post.0" / "catalogue", tmp_path / "alone" / "resid_post.0" / "catalogue")
    moved = Catalogue.open(tmp_path / "alone" / "resid_post.0" / "catalogue")
    with pytest.raises(ArtifactError, match="no artifact there"):
        by_token(moved, "the", 2)
    assert by_token(moved, "the", 2, corpus=Corpus.open(run / "corpus")) == whole[:2]


@pytest.mark.parametrize("query", ["\x00", "\ud800", "x" * 10_000, "😀", "\u202e", "'; --", "(", "\n", HOSTILE, "[a-"])
def test_no_query_breaks_it(catalogue: Catalogue, query: str) -> None:
    assert all(0 < hit.score <= 1 and np.isfinite(hit.score) for hit in by_token(catalogue, query, 5))
