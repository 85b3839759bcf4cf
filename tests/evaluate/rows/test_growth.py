"""The floor under FVU is found where it was put; too few sizes say nothing of it."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from mohole import config
from mohole.corpus import Corpus
from mohole.dictionary import Crosscoder, Latents, SparseAutoencoder
from mohole.errors import StageError
from mohole.evaluate.rows.choice import choose_rows
from mohole.evaluate.rows.growth import measure_growth
from mohole.evaluate.rows.measure import measure_rows
from mohole.evaluate.standin import stand_in
from mohole.metrics.growth import fitted_floor
from mohole.store import Store

HOOKPOINT, D = "resid_post.0", 32


@pytest.mark.parametrize(("floor", "factor", "exponent"), [(0.05, 2.0, 0.5), (0.0, 1.0, 0.3), (0.2, 30.0, 1.0)])
def test_a_law_is_found_again(floor: float, factor: float, exponent: float) -> None:
    sizes = np.array([256.0, 512, 1024, 4096, 16384, 65536])
    noise = np.exp(0.001 * np.random.default_rng(0).normal(size=(20, 6)))
    found = fitted_floor(sizes, (floor + factor * sizes**-exponent) * noise)
    assert np.median(found[0]) == pytest.approx(floor, abs=0.003)
    assert np.median(found[2]) == pytest.approx(exponent, rel=0.05)
    assert np.median(found[1]) == pytest.approx(factor, rel=0.2)


def test_three_sizes_or_an_impossible_fvu_say_nothing() -> None:
    assert np.isnan(fitted_floor(np.array([1.0, 2, 4]), np.array([[0.5, 0.4, 0.3]]))[0]).all()
    assert np.isnan(fitted_floor(np.array([1.0, 2, 4, 8]), np.array([[0.5, 0.4, np.nan, 0.1]]))[0]).all()


def spanning(n: int, hookpoint: str = HOOKPOINT) -> SparseAutoencoder:
    """Rebuilds the first n coordinates."""
    both = torch.cat([torch.eye(D)[:n], -torch.eye(D)[:n]])
    return SparseAutoencoder(hookpoint, config.ReLU(), both, torch.zeros(2 * n), both, torch.zeros(D))


def test_variance_that_no_dictionary_reaches_is_the_floor(world: Corpus, make_store: Callable[..., Store]) -> None:
    """What the first n coordinates leave is n^-1/2 and a floor, which is in coordinates that none of the dictionaries has."""
    left = np.concatenate([[2.0], np.arange(1, 17) ** -0.5])
    floor = 0.2 / 0.9  # a tenth of 2 + floor
    variance = np.concatenate([left[:-1] - left[1:], np.full(16, (left[-1] + floor) / 16)])
    rows = np.random.default_rng(0).normal(size=(world.n_tokens, D)) * variance**0.5
    store = make_store(world, rows)
    chosen = choose_rows(world, store, held_out=True, max_rows=10_000, seed=0)
    each, law = measure_growth(store, chosen, [spanning(n) for n in (1, 2, 4, 8, 16)], seed=0)
    assert [measure.value for measure in each] == sorted((measure.value for measure in each), reverse=True)
    named = {measure.name: measure for measure in law}
    assert named["fvu_floor"].value == pytest.approx(0.1, abs=0.04)
    assert named["fvu_exponent"].value == pytest.approx(0.5, abs=0.15)
    assert named["dark_share"].value == pytest.approx(named["fvu_floor"].value / each[-1].value)
    assert named["fvu_floor"].low <= named["fvu_floor"].value <= named["fvu_floor"].high
    assert "2, 4, 8, 16, 32 latents" in named["fvu_floor"].definition
    _, law = measure_growth(store, chosen, [spanning(n) for n in (1, 2, 4)], seed=0)
    assert all(measure.value is None and "four are needed" in measure.undefined for measure in law)
    with pytest.raises(StageError, match="all write one place"):
        measure_growth(store, chosen, [spanning(1), spanning(2, "resid_post.1")], seed=0)


def test_a_dictionary_of_several_places_has_the_fvu_of_its_evaluation(
    own_text: Corpus, harvested_at: Callable[..., Store]
) -> None:
    """Each place has a mean row of its own. About one mean of both, what their means differ by would count as variance."""
    places = ("resid_post.0", "mlp_out.1")
    store = harvested_at(own_text, places)
    chosen = choose_rows(own_text, store, held_out=True, max_rows=10_000, seed=0)
    wide = torch.randn(12, 2 * D, generator=torch.Generator().manual_seed(0)) / 8
    latents = Latents(config.TopK(k=4), wide, torch.zeros(12), wide)
    crosscoder = Crosscoder(places, (D, D), latents, torch.cat([torch.zeros(D), torch.full((D,), 2.0)]))
    (found,), _ = measure_growth(store, chosen, [crosscoder], seed=0)
    measures = {measure.name: measure for measure in measure_rows(store, chosen, stand_in(crosscoder), seed=0).measures}
    assert found.value == pytest.approx(measures["fvu"].value)
    stored = np.concatenate([store.take(name, chosen.tokens).astype(np.float64) for name in places], 1)
    rebuilt = crosscoder.decode(crosscoder.encode(torch.from_numpy(stored).float())).double().numpy()
    by_hand = ((stored - rebuilt) ** 2).sum() / ((stored - stored.mean(0)) ** 2).sum()
    assert found.value == pytest.approx(by_hand, rel=1e-5)
