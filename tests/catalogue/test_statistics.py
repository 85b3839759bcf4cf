"""Statistics do not depend on how the firings were cut or ordered, and are what a slow loop finds."""

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mohole.catalogue import statistics
from mohole.catalogue.statistics import Firings, IntervalSample, Moments, TopDocuments
from mohole.errors import NumericsError

N_LATENTS, N_DOCUMENTS, PER_DOCUMENT = 5, 30, 6


def some_firings(seed: int, n: int = 600) -> Firings:
    """Distinct (latent, token) pairs; for even seeds values from a short list, so that ties are frequent."""
    rng = np.random.default_rng(seed)
    pairs = rng.choice((N_LATENTS - 1) * N_DOCUMENTS * PER_DOCUMENT, n, replace=False)  # the last latent is dead
    latents, tokens = pairs // (N_DOCUMENTS * PER_DOCUMENT), pairs % (N_DOCUMENTS * PER_DOCUMENT)
    if seed % 2:
        values = rng.random(n, dtype=np.float32) + np.float32(1e-3)
    else:
        values = rng.choice(np.float32([0.1, 0.2, 1 / 3, 0.5, 1.0, 3.0, 1e-12, 1e6]), n)
    return Firings(latents, values, tokens, tokens // PER_DOCUMENT)


def cut(firings: Firings, seed: int, n_cuts: int) -> list[Firings]:
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(firings))
    return [firings.at(part) for part in np.split(order, np.sort(rng.integers(0, len(firings), n_cuts)))]


def everything(parts: list[Firings], *, merged: bool) -> list[bytes]:
    """All bytes of all statistics, gathered from the parts one after the other or each alone and then merged."""

    def gather(new, parts):
        if not merged:
            total = new()
            for part in parts:
                total.add(part)
            return total
        pieces = [new() for _ in parts]
        for piece, part in zip(pieces, parts, strict=True):
            piece.add(part)
        while len(pieces) > 1:
            pieces[0].merge(pieces.pop())
        return pieces[0]

    moments = gather(lambda: Moments(N_LATENTS), parts)
    top = gather(lambda: TopDocuments(N_LATENTS, N_DOCUMENTS, 4), parts)
    sample = gather(lambda: IntervalSample(moments.maximum, 3, 4 + 3 * 2, seed=1), parts)
    intervals, drawn = sample.drawn(2, N_DOCUMENTS, top.firings)
    bins = np.sum([statistics.histogram(part, moments.maximum, 40) for part in parts], axis=0)
    arrays = [moments.counts, moments.sums, moments.maximum, moments.magnitudes, bins, sample.counts, intervals]
    for firings in (top.firings, drawn):
        arrays += [firings.latents, firings.values, firings.tokens, firings.documents]
    return [array.tobytes() for array in arrays]


@settings(max_examples=40)
@given(seed=st.integers(0, 50), cuts=st.integers(0, 30), order=st.integers(0, 50), merged=st.booleans())
def test_any_cut_and_any_order_give_the_same_bytes(seed: int, cuts: int, order: int, merged: bool) -> None:
    firings = some_firings(seed)
    assert everything(cut(firings, order, cuts), merged=merged) == everything([firings], merged=False)


@settings(max_examples=10)
@given(seed=st.integers(0, 50), cuts=st.integers(0, 5), order=st.integers(0, 50))
def test_without_numba_the_bytes_are_the_same(seed: int, cuts: int, order: int) -> None:
    firings = some_firings(seed)
    if seed % 3 == 0:  # weaker than the least power of two
        firings = replace(firings, values=firings.values * np.float32(1e-11))
    parts = cut(firings, order, cuts)
    starts = np.sort(np.random.default_rng(seed).integers(0, 181, 12))  # some documents are empty
    starts = np.concatenate([[0], starts, [181]])

    def both() -> list[bytes]:
        found = [statistics.documents_of(part.tokens, starts, np.arange(13)[::-1].copy()) for part in parts]
        return [*everything(parts, merged=order % 2 == 0), *(documents.tobytes() for documents in found)]

    compiled = both()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "HAS_NUMBA", False)
        assert both() == compiled


def test_sums_are_exact() -> None:
    firings = some_firings(3)
    moments = Moments(N_LATENTS)
    moments.add(firings)
    for latent in range(N_LATENTS):
        exact = math.fsum(firings.values[firings.latents == latent].astype(float))
        assert moments.sums[latent] == pytest.approx(exact, rel=1e-15)
    assert moments.sums[-1] == moments.maximum[-1] == moments.counts[-1] == 0


@pytest.mark.parametrize("value", [np.nan, np.inf, 2.0**32])
def test_what_cannot_be_summed_exactly_is_refused(value: float) -> None:
    one = np.zeros(1, np.int64)
    with pytest.raises(NumericsError, match="latent 0"):
        Moments(1).add(Firings(one, np.float32([value]), one, one))


@given(seed=st.integers(0, 1000))
def test_top_documents_are_those_of_a_slow_loop(seed: int) -> None:
    firings = some_firings(seed)
    top = TopDocuments(N_LATENTS, N_DOCUMENTS, 4)
    top.add(firings)
    for latent in range(N_LATENTS):
        best: dict[int, tuple[float, int]] = {}
        here = firings.latents == latent
        for value, token, document in zip(
            firings.values[here].tolist(), firings.tokens[here].tolist(), firings.documents[here].tolist(), strict=True
        ):
            best[document] = min(best.get(document, (0.0, 0)), (-value, token))
        expected = [token for _, token in sorted(best.values())[:4]]
        assert top.firings.tokens[top.firings.latents == latent].tolist() == expected


@given(
    maximum=st.floats(2.0**-20, 2.0**20, width=32),
    shares=st.lists(st.floats(0.001, 1.0), min_size=1, max_size=30),
    n=st.integers(1, 40),
)
def test_intervals_and_bins_are_half_open_and_cover_every_activation_once(
    maximum: float, shares: list[float], n: int
) -> None:
    exact = [maximum * i / n for i in range(1, n + 1)]  # values that stand on the edges, and others
    values = np.minimum(np.float32([*(maximum * share for share in shares), *exact, maximum]), np.float32(maximum))
    maxima = np.float32([maximum])
    edges = statistics.interval_edges(maxima, n)
    assert statistics.edges_to(maximum, n) == edges[0].tolist()
    index = statistics.interval_of(values, np.repeat(edges, len(values), axis=0))
    assert (edges[0][index] < values).all()
    assert (values <= edges[0][index + 1]).all()
    assert index[values == np.float32(maximum)].tolist() == [n - 1] * int((values == np.float32(maximum)).sum())
    zeros = np.zeros(len(values), np.int64)
    bins = statistics.histogram(Firings(zeros, values, zeros, zeros), maxima, n)
    assert bins.tolist() == [np.bincount(index, minlength=n).tolist()]


@pytest.mark.parametrize("n", [1, 3, 14, 40, 50])
def test_a_value_on_an_edge_is_in_the_bin_below_and_its_neighbours_on_their_own_sides(n: int) -> None:
    """Bins as exact fractions say, at edges that are float32 numbers: there dividing by the width is off by one bin."""
    n_naively_wrong = 0
    for maximum in range(1, 100):
        edges = [Fraction(maximum * i, n) for i in range(1, n + 1)]
        on = np.float32([edge for edge in edges if Fraction(float(np.float32(edge))) == edge])
        values = np.unique(np.concatenate([on, np.nextafter(on, np.float32(0)), np.nextafter(on, np.float32(1e9))]))
        values = values[values <= maximum]
        expected = [math.ceil(Fraction(value) * n / maximum) - 1 for value in values.tolist()]
        zeros, maxima = np.zeros(len(values), np.int64), np.float32([maximum])
        bins = statistics.histogram(Firings(zeros, values, zeros, zeros), maxima, n)
        assert bins.tolist() == [np.bincount(expected, minlength=n).tolist()]
        found = statistics.interval_of(values, np.repeat(statistics.interval_edges(maxima, n), len(values), axis=0))
        assert found.tolist() == expected
        n_naively_wrong += (np.ceil(values * np.float64(n / maximum)) - 1 != expected).sum()
    assert (n_naively_wrong > 0) == (n > 9)


def test_interval_examples_are_distinct_documents_inside_their_interval_and_not_shown_above() -> None:
    firings = some_firings(5)
    top, moments = TopDocuments(N_LATENTS, N_DOCUMENTS, 4), Moments(N_LATENTS)
    top.add(firings)
    moments.add(firings)
    sample = IntervalSample(moments.maximum, 3, 4 + 3 * 2, seed=1)
    sample.add(firings)
    intervals, drawn = sample.drawn(2, N_DOCUMENTS, top.firings)
    edges = statistics.interval_edges(moments.maximum, 3)
    assert (edges[drawn.latents, intervals] < drawn.values).all()
    assert (drawn.values <= edges[drawn.latents, intervals + 1]).all()
    shown = list(zip(drawn.latents.tolist(), drawn.documents.tolist(), strict=True))
    above = list(zip(top.firings.latents.tolist(), top.firings.documents.tolist(), strict=True))
    assert len(set(shown + above)) == len(shown + above)
    assert sample.counts.sum(1).tolist() == moments.counts.tolist()


def test_a_document_is_drawn_as_likely_as_any_other_however_often_it_fires() -> None:
    """10 documents, one of which fires 50 times as often: over 4000 latents each is drawn 400 +- 5 sigma times."""
    n_latents, n_documents = 4000, 10
    tokens = np.concatenate([np.arange(1, n_documents), np.arange(100, 150)])
    documents = np.concatenate([np.arange(1, n_documents), np.zeros(50, np.int64)])
    latents = np.repeat(np.arange(n_latents), len(tokens))
    values = np.ones(len(latents), np.float32)
    sample = IntervalSample(np.ones(n_latents, np.float32), 1, 1, seed=7)
    sample.add(Firings(latents, values, np.tile(tokens, n_latents), np.tile(documents, n_latents)))
    _, drawn = sample.drawn(1, n_documents, statistics.no_firings())
    counts = np.bincount(drawn.documents, minlength=n_documents)
    assert abs(counts - 400).max() < 5 * math.sqrt(400 * 0.9)
    within = np.bincount(drawn.tokens[drawn.documents == 0] - 100, minlength=50)
    assert abs(within - 8).max() < 5 * math.sqrt(8)
