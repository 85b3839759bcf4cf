"""Every number of a catalogue counted again from rows and weights, slowly, in float64; of its code only the draw of documents.

Rows and encoder are small whole numbers, so pre-activations are exact and equal ones are many: rules for ties are tested, too.
"""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mohole.catalogue import Catalogue
from mohole.catalogue.sample import within
from mohole.config import TopK
from mohole.corpus import Corpus
from mohole.dictionary import SparseAutoencoder

L, D, K, N_TOP, N_SHOWN = (
    45,
    12,
    6,
    4,
    5,
)  # latents, width, active ones, strongest documents, listed entries and latents
FAMILIES = (range(10, 15), range(30, 33))  # directions near one another; of the others hardly any are
DEAD = 40

Counted = tuple[Catalogue, Corpus, NDArray[np.float64], NDArray[np.float64]]


@pytest.fixture
def counted(make_corpus: Callable[..., Corpus], make_store, build, request: pytest.FixtureRequest) -> Counted:
    """A catalogue, its corpus, the activations [token, latent] and the unit directions [latent, d]."""
    rng = np.random.default_rng(3)
    documents = [rng.integers(2, 12, rng.integers(3, 13)).tolist() for _ in range(50)]  # piece 1 stands in none of them
    documents[40:44] = documents[:4]
    corpus = make_corpus(documents)
    rows = rng.integers(-2, 3, (corpus.n_tokens, D)).astype(np.float32)
    W_enc = rng.integers(-2, 3, (L, D)).astype(np.float32)
    W_enc[DEAD] = 0
    W_dec = rng.normal(size=(L, D))
    for family in FAMILIES:
        W_dec[family] = W_dec[family[0]] + 0.15 * rng.normal(size=(len(family), D))
    W_dec[20:25] *= 1e-3  # as free decoder rows may be: lengths say nothing of a direction
    dictionary = SparseAutoencoder(
        "resid_post.0",
        TopK(k=K),
        torch.from_numpy(W_enc),
        torch.zeros(L),
        torch.from_numpy(W_dec).float(),
        torch.zeros(D),
    )
    pre = rows.astype(np.float64) @ W_enc.T
    order = np.argsort(-pre, axis=1, kind="stable")[:, :K]  # equal ones by the lower latent
    codes = np.zeros_like(pre)
    np.put_along_axis(codes, order, np.maximum(np.take_along_axis(pre, order, 1), 0), 1)
    settings = {
        "top_examples": N_TOP,
        "promoted": 3,
        "neighbours": N_SHOWN,
        "together": N_SHOWN,
        "together_tokens": getattr(request, "param", 10**6),
    }
    directions = dictionary.W_dec.double().numpy()
    units = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    return build(corpus, make_store(rows), dictionary=dictionary, **settings), corpus, codes, units


def text_of(corpus: Corpus, token: int) -> bytes:
    document = np.searchsorted(corpus.document_starts, token, side="right") - 1
    return corpus.tokens[slice(*corpus.document_starts[document : document + 2])].tobytes()


def test_counts_sums_and_histograms(counted: Counted) -> None:
    catalogue, _, codes, _ = counted
    for latent in range(L):
        feature, values = catalogue.feature(latent), codes[codes[:, latent] > 0, latent]
        assert (feature.count, feature.is_dead) == (len(values), len(values) == 0)
        assert feature.density == len(values) / len(codes)
        assert catalogue.sums[latent] == math.fsum(values)
        powers = np.floor(np.log2(values)).astype(int)
        assert (
            catalogue.block(latent)["magnitudes"][latent % 32].tolist()
            == np.bincount(powers + 32, minlength=64).tolist()
        )
        if len(values):
            assert (feature.maximum, feature.mean) == (values.max(), values.mean())
            bins = np.ceil(values * 40 / values.max()).astype(int) - 1  # whole numbers times 40: exact
            assert list(feature.histogram.counts) == np.bincount(bins, minlength=40).tolist()
            fifths = np.ceil(values * 5 / values.max()).astype(int) - 1
            assert [interval.count for interval in feature.intervals] == np.bincount(fifths, minlength=5).tolist()
    assert catalogue.feature(DEAD).is_dead


def test_the_strongest_texts_and_those_of_each_interval(counted: Counted) -> None:
    catalogue, corpus, codes, _ = counted
    for latent in range(L):
        feature, fired = catalogue.feature(latent), np.flatnonzero(codes[:, latent])
        seen: set[bytes] = set()
        wanted = []
        for token in sorted(fired.tolist(), key=lambda token: (-codes[token, latent], token)):
            if text_of(corpus, token) not in seen:
                seen.add(text_of(corpus, token))
                wanted.append(token)
        assert [example.token for example in feature.top] == wanted[:N_TOP]
        shown = {text_of(corpus, example.token) for example in feature.top}
        for interval in reversed(feature.intervals):
            inside = [t for t in fired.tolist() if interval.low < codes[t, latent] <= interval.high]
            there = {text_of(corpus, token) for token in inside} - shown
            drawn = [example.token for example in interval.examples]
            assert set(drawn) <= set(inside)
            texts = {text_of(corpus, token) for token in drawn}
            assert texts <= there
            assert len(texts) == len(drawn) == min(3, len(there))
            shown |= texts
        for example in (*feature.top, *(each for interval in feature.intervals for each in interval.examples)):
            np.testing.assert_allclose(example.activations, codes[example.start : example.end, latent], rtol=2**-11)


@pytest.mark.parametrize("counted", [10**6, 150], indirect=True, ids=["over all tokens", "over some"])
def test_neighbours_and_firing_together_are_the_best_of_all(counted: Counted) -> None:
    catalogue, corpus, codes, units = counted
    cosines = units @ units.T
    over = within(corpus, np.arange(len(codes)), catalogue.n_counted_together, seed=0)
    assert len(over) == catalogue.n_counted_together
    fires = codes[over] > 0
    for latent in range(L):
        feature = catalogue.feature(latent)
        others = [other for other in range(L) if other != latent]
        near = sorted(others, key=lambda other: -np.float32(cosines[latent, other]))[:N_SHOWN]
        assert [other for other, _ in feature.neighbours] == near
        assert [cosine for _, cosine in feature.neighbours] == pytest.approx(cosines[latent, near], abs=2**-11)
        phi, both = {}, {}
        for other in others:
            both[other] = int((fires[:, latent] & fires[:, other]).sum())
            if both[other] >= 2:
                n, one, two = len(fires), int(fires[:, latent].sum()), int(fires[:, other].sum())
                spread = math.sqrt(one * (n - one)) * math.sqrt(
                    two * (n - two)
                )  # whole numbers: the same for equal counts
                phi[other] = np.float32((n * both[other] - one * two) / spread)
        best = [other for other in sorted(phi, key=lambda other: (-phi[other], other)) if phi[other] > 0][:N_SHOWN]
        assert [(other, n) for other, n, _ in feature.together] == [(other, both[other]) for other in best]
        assert [each for _, _, each in feature.together] == pytest.approx([phi[other] for other in best], abs=2**-11)


def test_promoted_and_suppressed_are_of_the_direction_among_pieces_of_the_corpus(counted: Counted) -> None:
    catalogue, corpus, _, units = counted
    seen = np.arange(2, 12)  # 0 and 1 stand in no document
    logits = (np.sqrt(D) * units)[:, seen]  # of a row with root mean square 1, by the model of these tests
    logits -= logits.mean(1, keepdims=True)
    for latent in range(L):
        feature, order = catalogue.feature(latent), np.argsort(-logits[latent])
        for listed, places in ((feature.promoted, order[:3]), (feature.suppressed, order[::-1][:3])):
            assert [piece for piece, _ in listed] == [corpus.pieces[seen[place]] for place in places]
            assert [logit for _, logit in listed] == pytest.approx(logits[latent, places], abs=2e-3)


def test_families_and_the_map_are_of_the_latents_they_are_said_of(counted: Counted) -> None:
    catalogue, _, _, _ = counted
    apart = np.linalg.norm(catalogue.xy[:, None] - catalogue.xy[None], axis=2)
    everyone = np.median(apart)
    for family in FAMILIES:
        assert len({*catalogue.family[family].tolist()}) == 1
        assert catalogue.family[family[0]] >= 0
        assert apart[np.ix_(family, family)].max() < everyone / 2
    others = np.setdiff1d(np.arange(L), np.concatenate([*FAMILIES]))
    assert (catalogue.family[others] >= 0).mean() < 0.25, (
        "near by chance, as directions of few dimensions are, is no family"
    )
