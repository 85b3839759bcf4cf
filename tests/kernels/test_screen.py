"""Screened codes are the codes: by the same laws as the kernels', with doubt planted, and with the doubt ignored."""

from types import ModuleType, SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kernels import laws
from tests.kernels.laws import SIZES, dense, draw

from mohole.kernels import cpu, screen
from mohole.kernels.screen import Screen, can_screen

pytestmark = pytest.mark.skipif(not can_screen(), reason="screening needs numba and a processor with AVX2")

SCREENED = cast(ModuleType, SimpleNamespace(**(vars(cpu) | {"top_k": lambda *given: Screen().top_k(*given)})))


@settings(max_examples=40)
@given(k=st.integers(1, 50), levels=st.sampled_from([1, 2, 5, 40]), **SIZES)
def test_screening_keeps_what_a_stable_sort_keeps(**drawn: Any) -> None:
    """Whole numbers: ties everywhere, and sums are exact."""
    laws.top_k_keeps_what_a_stable_sort_keeps(
        SCREENED, dtype=torch.float32, bias_dtype=torch.float32, **(drawn | {"d": 4 * drawn["d"]})
    )


@pytest.mark.parametrize(
    ("n_rows", "n_latents", "d", "k"), [(33, 5003, 20, 1), (300, 2050, 45, 32), (515, 700, 70, 100)]
)
def test_screening_over_many_tiles_in_real_numbers(n_rows: int, n_latents: int, d: int, k: int) -> None:
    laws.top_k_of_real_numbers(SCREENED, n_rows, n_latents, d, k, late=600)


@pytest.mark.parametrize("n_latents", [5, 64, 1100])
def test_among_equals_the_lowest_latents_are_kept(n_latents: int) -> None:
    laws.among_equals_the_lowest_latents_are_kept(SCREENED, n_latents)


def test_screening_keeps_the_other_laws() -> None:
    laws.what_is_not_positive_is_never_kept(SCREENED)
    laws.no_pre_activation_is_positive_and_no_code_is_kept(SCREENED)
    laws.a_bad_number_is_never_a_good_code(SCREENED)


def same(rows: torch.Tensor, W_enc: torch.Tensor, b_enc: torch.Tensor, k: int) -> Screen:
    """Assert that both ways give the same codes."""
    own = Screen()
    found, expected = own.top_k(rows, W_enc, b_enc, k), cpu.top_k(rows, W_enc, b_enc, k)
    assert torch.equal(found.row_starts, expected.row_starts)
    assert torch.equal(found.latents, expected.latents)
    size = rows.norm(dim=1)[found.rows] * W_enc.norm(dim=1).max()
    assert ((found.values - expected.values).abs() <= 1e-6 * size + 1e-30).all()
    return own


def some(n_rows: int = 40, n_latents: int = 1500, d: int = 50) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return draw(n_rows, d, seed=0), draw(n_latents, d, seed=1) / d**0.5, draw(n_latents, seed=2) * 0.1


def test_no_row_of_ordinary_numbers_is_encoded_twice() -> None:
    own = same(*some(), 16)
    assert (own.n_rows, own.n_again) == (40, 0)


@pytest.mark.parametrize(
    "change",
    [
        lambda rows, W_enc, b_enc: rows.mul_(1e-15),
        lambda rows, W_enc, b_enc: (rows.mul_(1e12), W_enc.mul_(1e-9)),
        lambda rows, W_enc, b_enc: rows[:, 7].mul_(3000.0),  # an outlier dimension
        lambda rows, W_enc, b_enc: W_enc[:, 7].mul_(3000.0),
        lambda rows, W_enc, b_enc: b_enc.sub_(3.0),  # few are positive
        lambda rows, W_enc, b_enc: b_enc.sub_(100.0),  # none is
        lambda rows, W_enc, b_enc: b_enc.add_(100.0),  # all are
        lambda rows, W_enc, b_enc: rows[::2].zero_(),
        lambda rows, W_enc, b_enc: W_enc[::3].zero_(),
    ],
)
def test_numbers_of_any_size_are_screened(change: Any) -> None:
    rows, W_enc, b_enc = some()
    change(rows, W_enc, b_enc)
    same(rows, W_enc, b_enc, 16)


def near_ties() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Latents that differ by less than their rounding, in another order than that of the latents."""
    rows, W_enc, b_enc = some()
    nearly = W_enc[3] + draw(200, 50, seed=4) * 2e-7
    W_enc[600:800] = nearly[torch.randperm(200, generator=torch.Generator().manual_seed(5))]
    rows[:] = W_enc[3] * 2 + rows * 1e-3
    b_enc.zero_()
    return rows, W_enc, b_enc


def test_rows_in_doubt_are_encoded_again() -> None:
    own = Screen()
    rows, W_enc, b_enc = near_ties()
    found = own.top_k(rows, W_enc, b_enc, 16)
    assert own.n_again == 40
    expected = cpu.top_k(rows, W_enc, b_enc, 16)
    assert torch.equal(found.latents, expected.latents)
    assert torch.equal(found.values, expected.values)


def test_with_the_doubt_ignored_codes_would_be_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """So the certificate decides, and is not always true by itself."""
    rows, W_enc, b_enc = near_ties()
    monkeypatch.setattr(screen, "_slack", lambda x, w, d, b_enc: np.full(len(x.units), 1e-30))
    own = Screen()
    found = own.top_k(rows, W_enc, b_enc, 16)
    assert own.n_again < 40
    assert not torch.equal(found.latents, cpu.top_k(rows, W_enc, b_enc, 16).latents)


@pytest.mark.parametrize("where", ["row", "latent", "bias"])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_bad_numbers_do_what_they_do_without_screening(where: str, bad: float) -> None:
    rows, W_enc, b_enc = some()
    {"row": rows[4], "latent": W_enc[700], "bias": b_enc[700:]}[where][0] = bad
    found, expected = Screen().top_k(rows, W_enc, b_enc, 16), cpu.top_k(rows, W_enc, b_enc, 16)
    torch.testing.assert_close(dense(found, 1500), dense(expected, 1500), rtol=1e-5, atol=1e-5, equal_nan=True)


def test_rounding_moves_no_pre_activation_further_than_is_claimed() -> None:
    rows, W_enc, b_enc = some(64, 333, 130)
    rows[:, 5] *= 50
    from mohole.kernels import screen_loops

    room = cpu.Scratch()
    x = screen._Whole.of(rows, screen_loops.ROWS, room, "rows")
    w = screen._Whole.of(W_enc, screen_loops.LATENTS, room, "latents")
    near = np.empty((len(x.units), len(w.units)), np.float32)
    screen_loops.products(x.packed.reshape(-1), x.units, w.packed.reshape(-1), w.units, 0, near, 0, len(x.packed))
    moved = np.abs(near[:64, :333] - (rows.double() @ W_enc.double().T).numpy()).max(1)
    slack = screen._slack(x, w, 130, b_enc)[:64]
    assert (moved < slack).all()
    assert (moved > slack / 100).all()  # a bound that is of use


def test_threads_change_nothing() -> None:
    rows, W_enc, b_enc = some()
    one = Screen().top_k(rows, W_enc, b_enc, 16)
    torch.set_num_threads(3)
    try:
        three = Screen().top_k(rows, W_enc, b_enc, 16)
    finally:
        torch.set_num_threads(1)
    assert torch.equal(one.values, three.values)
    assert torch.equal(one.latents, three.latents)


def test_double_numbers_are_not_screened() -> None:
    rows, W_enc, b_enc = (each.double() for each in some())
    own = Screen()
    assert torch.equal(own.top_k(rows, W_enc, b_enc, 16).values, cpu.top_k(rows, W_enc, b_enc, 16).values)
    assert own.n_rows == 0
