"""The catalogue as a whole: the same bytes from any order of rows, true examples, dead latents said as dead, data kept intact."""

import numpy as np
import pytest
import torch
from tests.catalogue.conftest import contents

from mohole.catalogue import features
from mohole.catalogue.sample import choose
from mohole.catalogue.vocabulary import lens
from mohole.config import TopK
from mohole.dictionary import SparseAutoencoder
from mohole.errors import NumericsError, StageError

N = 4  # latents; the last one is dead


@pytest.fixture
def world(make_corpus):
    """40 documents of 3 to 12 tokens and sparse activations; some documents are copies of others."""
    rng = np.random.default_rng(0)
    documents = [rng.integers(1, 12, rng.integers(3, 13)).tolist() for _ in range(40)]
    documents[20:24] = documents[:4]
    corpus = make_corpus(documents)
    rows = np.maximum(rng.normal(size=(corpus.n_tokens, N)) - 0.5, 0).astype(np.float32)
    rows[:, -1] = 0
    for copy, first in zip(range(20, 24), range(4), strict=True):
        spans = [slice(*corpus.document_starts[i : i + 2]) for i in (first, copy)]
        rows[spans[1]] = rows[spans[0]]
    return corpus, rows


def test_the_order_of_rows_and_the_size_of_pieces_do_not_change_a_byte(
    world, make_store, build, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus, rows = world
    order = np.random.default_rng(1).permutation(len(rows))
    one = build(corpus, make_store(rows), "one")
    assert {"header.bin", "header.pages", "codes/000000.safetensors", "features/000000.bin"} < set(contents(one.path))
    monkeypatch.setattr(features, "_ENTRIES_AT_ONCE", 7)
    other = build(corpus, make_store(rows[order], order, "shuffled"), "other")
    assert contents(one.path) == contents(other.path)
    seeded = build(corpus, make_store(rows, name="third"), "seeded", seed=1)
    assert contents(seeded.path)["features/000000.bin"] != contents(one.path)["features/000000.bin"]


def test_a_feature_is_what_the_rows_say(world, make_store, build) -> None:
    corpus, rows = world
    catalogue = build(corpus, make_store(rows), top_examples=5, context_tokens=2)
    assert catalogue.n_tokens == corpus.n_tokens
    assert torch.equal(catalogue.codes.dense(), torch.from_numpy(rows))
    for latent in range(N - 1):
        feature = catalogue.feature(latent)
        fired = rows[rows[:, latent] > 0, latent]
        entries = catalogue.entries(latent)
        assert entries.token.tolist() == np.flatnonzero(rows[:, latent] > 0).tolist()
        assert entries.value.tolist() == fired.tolist()
        assert (feature.count, feature.maximum) == (len(fired), fired.max())
        assert feature.density == len(fired) / len(rows)
        assert feature.mean == pytest.approx(fired.mean(), rel=1e-6)
        assert sum(feature.histogram.counts) == sum(interval.count for interval in feature.intervals) == feature.count
        assert feature.top[0].activation == feature.maximum
        values = [example.activation for example in feature.top]
        assert values == sorted(values, reverse=True)
        for example in [*feature.top, *(e for interval in feature.intervals for e in interval.examples)]:
            first, end = corpus.document_starts[example.document : example.document + 2]
            assert max(first, example.token - 2) == example.start <= example.token < example.end
            assert example.end == min(end, example.token + 3)
            assert example.activation > 0  # no zero rows
            there = rows[example.start : example.end, latent]
            np.testing.assert_allclose(example.activations, there, rtol=2**-11, atol=2**-25 * feature.maximum)


def test_a_firing_is_never_shown_as_silence_however_weak_beside_the_maximum(make_corpus, make_store, build) -> None:
    corpus = make_corpus([[1, 2, 3], [2, 3, 1]])
    feature = build(corpus, make_store(np.float32([[1e6], [1e-3], [0], [0], [1e-3], [0]]))).feature(0)
    shown = [*feature.top, *(example for interval in feature.intervals for example in interval.examples)]
    assert {(example.token, *(value > 0 for value in example.activations)) for example in shown} == {
        (0, True, True, False), (4, False, True, False),
    }  # fmt: skip


def test_documents_with_the_same_text_are_shown_once(world, make_store, build) -> None:
    corpus, rows = world
    catalogue = build(corpus, make_store(rows), top_examples=40, interval_examples=10)
    for latent in range(N - 1):
        feature = catalogue.feature(latent)
        examples = [*feature.top, *(e for interval in feature.intervals for e in interval.examples)]
        spans = [corpus.document_starts[e.document : e.document + 2] for e in examples]
        texts = [corpus.tokens[start:end].tobytes() for start, end in spans]
        assert len(set(texts)) == len(texts)


def test_a_dead_latent_is_said_to_be_dead_and_shows_nothing(world, make_store, build) -> None:
    corpus, rows = world
    feature = build(corpus, make_store(rows)).feature(N - 1)
    assert feature.is_dead
    assert (feature.count, feature.density, feature.maximum, feature.mean) == (0, 0.0, 0.0, 0.0)
    assert (feature.top, feature.intervals, feature.histogram.counts) == ((), (), ())


def test_whole_documents_within_the_budget_and_a_smaller_budget_is_a_part_of_a_larger(world) -> None:
    corpus, rows = world
    stored = np.arange(len(rows))
    large, small = (set(choose(corpus, stored, budget, seed=3).tokens.tolist()) for budget in (150, 60))
    assert small < large
    assert len(small) <= 60
    for chosen in (large, small):
        documents = np.unique(corpus.document_of(np.array(sorted(chosen))))
        assert len(chosen) == np.diff(corpus.document_starts)[documents].sum()
    assert choose(corpus, stored, 1, seed=3).n_documents == 1


def test_tokens_without_a_row_are_shown_as_silent(make_corpus, make_store, build) -> None:
    corpus = make_corpus([[1, 2, 3, 4, 5], [1, 2, 3, 5, 4]])
    rows = np.float32([[1], [2], [0], [3], [0], [0], [0], [0], [0]])
    catalogue = build(corpus, make_store(rows, np.array([0, 1, 2, 4, 5, 6, 7, 8, 9])))  # token 3 has none
    example = catalogue.feature(0).top[0]
    assert (example.token, example.activations) == (4, pytest.approx((1.0, 2.0, 0.0, 0.0, 3.0), rel=2**-11))
    assert catalogue.n_tokens == 9


def test_hostile_pieces_come_back_as_they_were_and_unseen_entries_are_not_listed(
    make_corpus, make_store, build
) -> None:
    """A direction along coordinate v promotes entry v; entry 0 is in no document, so it is never named."""
    corpus = make_corpus([list(range(1, 12)), [*range(2, 12), 1]])
    catalogue = build(corpus, make_store(np.ones((22, 12), np.float32)), promoted=3)
    for token in range(1, 12):
        (piece, logit), *_ = catalogue.feature(token).promoted
        assert piece == corpus.pieces[token]
        assert logit == pytest.approx(np.sqrt(12) * 10 / 11, rel=2**-11)  # root mean square 1, centred over 11 entries
    listed = {piece for latent in range(12) for piece, _ in catalogue.feature(latent).promoted}
    listed |= {piece for latent in range(12) for piece, _ in catalogue.feature(latent).suppressed}
    assert "<unused>" not in listed
    assert [len(catalogue.feature(0).promoted), len(catalogue.feature(0).suppressed)] == [3, 3]


def test_the_lens_tells_the_direction_and_not_what_the_model_says_anyway_nor_how_long_it_is() -> None:
    weights, bias, directions = torch.randn(5, 7), torch.randn(7), torch.randn(3, 5)

    class Biased:
        def unembed(self, rows: torch.Tensor) -> torch.Tensor:
            return rows @ weights + bias

    wanted = 5**0.5 * directions / directions.norm(dim=1, keepdim=True) @ weights
    for scale in (1.0, 1e-6, 1e6):
        torch.testing.assert_close(lens(Biased(), scale * directions), wanted, rtol=1e-4, atol=1e-5)
    assert not lens(Biased(), torch.zeros(1, 5)).any(), "no direction says nothing"


def test_what_the_mlp_reads_promotes_nothing(make_corpus, make_store, build, tmp_path) -> None:
    corpus = make_corpus([[1, 2, 3], [2, 3, 1]])
    store = make_store(np.ones((6, 2), np.float32), hookpoint="mlp_in.0")
    eye, zeros = torch.eye(2), torch.zeros(2)
    dictionary = SparseAutoencoder("mlp_in.0", TopK(k=2), eye, zeros, eye, zeros)
    feature = build(corpus, store, dictionary=dictionary).feature(0)
    assert (feature.promoted, feature.suppressed) == ((), ())


def test_a_row_that_is_not_finite_is_refused_by_its_token(make_corpus, make_store, build, tmp_path) -> None:
    corpus = make_corpus([[1, 2, 3], [2, 3, 1]])
    rows = np.ones((6, 2), np.float32)
    rows[4, 1] = np.nan
    with pytest.raises(NumericsError, match="token 4"):
        build(corpus, make_store(rows))
    assert not (tmp_path / "catalogue").exists()


def test_a_store_of_something_else_is_refused(make_corpus, make_store, build) -> None:
    corpus = make_corpus([[1, 2, 3], [2, 3, 1]])
    with pytest.raises(StageError, match="no token of this corpus"):
        build(corpus, make_store(np.ones((2, 2), np.float32), np.array([100, 101])))


def test_a_latent_that_does_not_exist_is_named(world, make_store, build) -> None:
    corpus, rows = world
    catalogue = build(corpus, make_store(rows))
    for latent in (-1, N):
        with pytest.raises(IndexError, match=f"latent {latent}: this catalogue has {N}"):
            catalogue.feature(latent)
