"""Features by word, on a run whose latents fire on known words, against a reading of every example."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.report.run_folder import BRIDGE, DEAD, HOSTILE, make_run

from mohole.catalogue import Catalogue
from mohole.corpus import Corpus
from mohole.errors import ArtifactError, ConfigError
from mohole.search.tokens import by_token


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


def test_the_bridge_is_found_by_its_name_in_any_language(catalogue: Catalogue) -> None:
    for name in ("Bridge", "golden-gate-brucke", "金门大桥", "Golden Gate Bridge", "  gate   bridge "):
        found = [hit.latent for hit in by_token(catalogue, name, 40) if "strongest" in hit.why]
        assert BRIDGE in found, name


def test_a_phrase_must_stand_there_whole(catalogue: Catalogue) -> None:
    for wrong in ("ridge", "Gate Brid", "Bridge Golden", "fox,", "xfox"):
        assert [hit for hit in by_token(catalogue, wrong, 40) if "strongest" in hit.why] == [], wrong


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
