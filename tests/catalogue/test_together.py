"""Counts of latents that fire together are those of all tokens, however they come in; the strongest are those of the formula."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mohole.catalogue.together import Together
from mohole.kernels import HAS_NUMBA
from mohole.kernels import together as kernels

Codes = tuple[np.ndarray, np.ndarray]


@pytest.fixture(params=["compiled", "plain"], scope="module", autouse=True)
def both_ways(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.param == "compiled" and not HAS_NUMBA:
        pytest.skip("numba is not here")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "HAS_NUMBA", request.param == "compiled")
        yield


def some_codes(seed: int, n_tokens: int, n_latents: int) -> np.ndarray:
    """Which latent fires in which token [token, latent]: some always, some never, some that copy another."""
    rng = np.random.default_rng(seed)
    fires = rng.random((n_tokens, n_latents)) < rng.choice([0.0, 0.05, 0.3, 0.6, 1.0], n_latents)
    for latent in range(1, n_latents, 4):
        fires[:, latent] = fires[:, rng.integers(n_latents)]
    return fires


def rows_of(fires: np.ndarray) -> Codes:
    return np.concatenate([[0], np.cumsum(fires.sum(1))]), np.nonzero(fires)[1].astype(np.int32)


def slowly(fires: np.ndarray, n: int, least: int) -> tuple[list, list, list]:
    """Every pair by numpy's own correlation of the two columns."""
    n_latents = fires.shape[1]
    found: tuple[list, list, list] = ([], [], [])
    for i in range(n_latents):
        pairs = []
        for j in range(n_latents):
            n_both = int((fires[:, i] & fires[:, j]).sum())
            varies = 0 < fires[:, i].sum() < len(fires) and 0 < fires[:, j].sum() < len(fires)
            if i != j and varies and n_both >= least:
                phi = np.corrcoef(fires[:, i], fires[:, j])[0, 1]
                if phi > 1e-9:
                    pairs.append((-round(phi, 6), j, n_both))
        pairs = [*sorted(pairs)[:n], *[(0.0, -1, 0)] * n][:n]
        for column, values in zip(found, zip(*pairs, strict=True), strict=True):
            column.append(list(values))
    return found


@given(st.integers(0, 10**6), st.integers(1, 60), st.integers(2, 14), st.integers(1, 5), st.integers(1, 3))
def test_the_top_are_those_of_every_pair_s_correlation(
    seed: int, n_tokens: int, n_latents: int, n: int, least: int
) -> None:
    fires = some_codes(seed, n_tokens, n_latents)
    together = Together(0, n_latents, n_latents)
    together.add(*rows_of(fires))
    latents, counts, phi = together.top(fires.sum(0), n_tokens, n, least=least)
    values, expected, n_both = slowly(fires, n, least)
    assert latents.tolist() == expected
    assert counts.tolist() == n_both
    np.testing.assert_allclose(-phi, values, atol=1e-6)
    assert (latents.dtype, counts.dtype, phi.dtype) == (np.int32, np.int64, np.float32)


@given(st.integers(0, 10**6), st.integers(0, 80), st.integers(2, 20), st.integers(0, 200), st.data())
def test_no_byte_depends_on_ranges_pieces_order_or_what_is_held(
    seed: int, n_tokens: int, n_latents: int, hold: int, data: st.DataObject
) -> None:
    fires = some_codes(seed, n_tokens, n_latents)
    totals = fires.sum(0)
    whole = Together(0, n_latents, n_latents)
    whole.add(*rows_of(fires))
    expected = whole.top(totals, n_tokens, 4)
    first = data.draw(st.integers(0, n_latents))
    last = data.draw(st.integers(first, n_latents))
    order = np.random.default_rng(seed).permutation(n_tokens)
    cuts = sorted(data.draw(st.lists(st.integers(0, n_tokens), max_size=5)))
    parts = [Together(first, last, n_latents, hold=hold) for _ in range(2)]
    for number, piece in enumerate(np.split(order, cuts)):
        parts[number % 2].add(*rows_of(fires[piece]))
    parts[0].top(totals, n_tokens, 4)  # asking changes nothing
    parts[0].merge(parts[1])
    for one, other in zip(parts[0].top(totals, n_tokens, 4), expected, strict=True):
        assert one.tobytes() == np.ascontiguousarray(other[first:last]).tobytes()


def test_a_pair_that_is_never_best_in_a_piece_is_best_of_all() -> None:
    """0 fires with 1 in two tokens of each piece, and with another latent in three."""
    together = Together(0, 1, 12)
    fires = np.zeros((10 * 20, 12), np.bool_)
    for piece in range(10):
        here = fires[20 * piece : 20 * piece + 20]
        here[:5, 0] = here[:2, 1] = here[2:5, 2 + piece] = True
        together.add(*rows_of(here))
    latents, counts, phi = together.top(fires.sum(0), 200, 2)
    assert (latents[0, 0], counts[0, 0], latents[0, 1]) == (1, 20, 2)
    assert phi[0, 0] == pytest.approx(np.corrcoef(fires[:, 0], fires[:, 1])[0, 1], rel=1e-6)


def test_what_fires_everywhere_or_once_is_nobody_s() -> None:
    fires = np.zeros((100, 5), np.bool_)
    fires[:, 0] = fires[:10, 1] = fires[:9, 2] = fires[3, 3] = fires[3, 4] = True
    together = Together(0, 5, 5)
    together.add(*rows_of(fires))
    latents, counts, phi = together.top(fires.sum(0), 100, 4)
    assert latents.tolist() == [[-1] * 4, [2, -1, -1, -1], [1, -1, -1, -1], [-1] * 4, [-1] * 4]
    assert counts[1:3, 0].tolist() == [9, 9]
    latents, _, phi = together.top(fires.sum(0), 100, 4, least=1)
    assert (latents[3, 0], phi[3, 0]) == (4, 1.0)


@pytest.mark.parametrize("hold", [0, 20])
def test_counts_beyond_what_float32_and_int32_hold_are_exact(hold: int) -> None:
    """Merged with itself until the counts pass 2^32."""
    fires = np.array([[1, 1, 1], [1, 1, 0], [1, 0, 0], [0, 0, 0]], np.bool_)
    together = Together(0, 3, 3, hold=hold)
    together.add(*rows_of(fires))
    for _ in range(33):
        together.merge(together)
    latents, counts, phi = together.top(fires.sum(0) << 33, 4 << 33, 2)
    assert latents.tolist() == [[1, 2], [0, 2], [1, 0]]
    assert counts.tolist() == [[2 << 33, 1 << 33], [2 << 33, 1 << 33], [1 << 33, 1 << 33]]
    assert phi[0, 0] == pytest.approx(np.corrcoef(fires[:, 0], fires[:, 1])[0, 1])


@pytest.mark.parametrize(
    ("row_starts", "latents"), [([0, 1], [5]), ([0, 1], [-1]), ([0, 2], [1]), ([], [1]), ([1, 2], [0, 1])]
)
def test_what_is_no_row_of_codes_is_refused(row_starts: list[int], latents: list[int]) -> None:
    with pytest.raises(ValueError, match="latents"):
        Together(0, 5, 5).add(np.array(row_starts, np.int64), np.array(latents, np.int32))


def test_other_ranges_are_not_merged() -> None:
    with pytest.raises(ValueError, match=r"latents \[0, 3\) of 5 and \[0, 2\) of 5"):
        Together(0, 3, 5).merge(Together(0, 2, 5))
    with pytest.raises(ValueError, match="no such range"):
        Together(0, 6, 5)


@pytest.mark.parametrize("n_latents", [40, 4000])
@pytest.mark.skipif(not HAS_NUMBA, reason="numba is not here")
def test_compiled_counts_are_those_of_a_product_of_matrices(n_latents: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of latents that meet few others, whose list is sorted, and of those that meet many."""
    fires = np.random.default_rng(0).random((60, n_latents)) < np.linspace(0.0, 16 / n_latents, n_latents)
    row_starts, latents = rows_of(fires)
    counted = []
    for compiled in (True, False):
        monkeypatch.setattr(kernels, "HAS_NUMBA", compiled)
        counted.append(kernels.count(row_starts, latents, 7, n_latents - 3, n_latents))
    assert len(counted[0].latents) > 500
    for one, other in zip(*counted, strict=True):
        assert (one.dtype, one.tobytes()) == (other.dtype, other.tobytes())
