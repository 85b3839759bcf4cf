"""Screened codes are the codes: by the same laws as the kernels', with doubt planted, and with the doubt ignored."""

from types import ModuleType, SimpleNamespace
from typing import Any, cast, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kernels import laws
from tests.kernels.laws import SIZES, dense, draw

from mohole.kernels import cpu, screen_bfloat16, screen_whole
from mohole.kernels.pairs import TooManyError
from mohole.kernels.screen import Near, Rounding, Screen, best_rounding

pytestmark = [
    pytest.mark.skipif(best_rounding() is None, reason="screening needs numba and a processor with AVX2"),
    pytest.mark.parametrize(
        "rounding", get_args(Rounding)
    ),  # bfloat16 is right everywhere, fast where there are matrix units
]
NEAR: dict[Rounding, Any] = {"bfloat16": screen_bfloat16.NearBfloat16, "whole": screen_whole.NearWhole}


def screened(rounding: Rounding) -> ModuleType:
    """The kernels of a CPU, with codes that are screened."""
    ways = {"top_k": lambda *given: Screen(rounding).top_k(*given)}
    ways["above"] = lambda *given, most=None: Screen(rounding).above(*given, most=most)
    return cast(ModuleType, SimpleNamespace(**(vars(cpu) | ways)))


@settings(max_examples=20)
@given(**SIZES)
def test_screening_keeps_what_exceeds_its_own_threshold(rounding: Rounding, **drawn: Any) -> None:
    """Whole numbers: many equal their threshold, and are not kept."""
    laws.above_keeps_what_exceeds_its_own_threshold(
        screened(rounding), dtype=torch.float32, bias_dtype=torch.float32, **(drawn | {"d": 4 * drawn["d"]})
    )


@settings(max_examples=20)
@given(k=st.integers(1, 50), levels=st.sampled_from([1, 2, 5, 40]), **SIZES)
def test_screening_keeps_what_a_stable_sort_keeps(rounding: Rounding, **drawn: Any) -> None:
    """Whole numbers: ties everywhere, and sums are exact."""
    laws.top_k_keeps_what_a_stable_sort_keeps(
        screened(rounding), dtype=torch.float32, bias_dtype=torch.float32, **(drawn | {"d": 4 * drawn["d"]})
    )


@pytest.mark.parametrize(
    ("n_rows", "n_latents", "d", "k"), [(33, 5003, 20, 1), (300, 2050, 45, 32), (515, 700, 70, 100)]
)
def test_screening_over_many_tiles_in_real_numbers(
    rounding: Rounding, n_rows: int, n_latents: int, d: int, k: int
) -> None:
    laws.top_k_of_real_numbers(screened(rounding), n_rows, n_latents, d, k, late=600)


@pytest.mark.parametrize("n_latents", [5, 64, 1100])
def test_among_equals_the_lowest_latents_are_kept(rounding: Rounding, n_latents: int) -> None:
    laws.among_equals_the_lowest_latents_are_kept(screened(rounding), n_latents)


def test_screening_keeps_the_other_laws(rounding: Rounding) -> None:
    kernels = screened(rounding)
    laws.what_is_not_positive_is_never_kept(kernels)
    laws.no_pre_activation_is_positive_and_no_code_is_kept(kernels)
    laws.a_bad_number_is_never_a_good_code(kernels)


def same(rounding: Rounding, rows: torch.Tensor, W_enc: torch.Tensor, b_enc: torch.Tensor, k: int) -> Screen:
    """Assert that both ways give the same codes."""
    own = Screen(rounding)
    found, expected = own.top_k(rows, W_enc, b_enc, k), cpu.top_k(rows, W_enc, b_enc, k)
    assert torch.equal(found.row_starts, expected.row_starts)
    assert torch.equal(found.latents, expected.latents)
    size = rows.norm(dim=1)[found.rows] * W_enc.norm(dim=1).max()
    assert ((found.values - expected.values).abs() <= 1e-6 * size + 1e-30).all()
    return own


def some(n_rows: int = 40, n_latents: int = 1500, d: int = 50) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return draw(n_rows, d, seed=0), draw(n_latents, d, seed=1) / d**0.5, draw(n_latents, seed=2) * 0.1


def test_no_row_of_ordinary_numbers_is_encoded_twice(rounding: Rounding) -> None:
    own = same(rounding, *some(), 16)
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
def test_numbers_of_any_size_are_screened(rounding: Rounding, change: Any) -> None:
    rows, W_enc, b_enc = some()
    change(rows, W_enc, b_enc)
    same(rounding, rows, W_enc, b_enc, 16)


def near_ties() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Latents that differ by less than their rounding, in another order than that of the latents."""
    rows, W_enc, b_enc = some()
    nearly = W_enc[3] + draw(200, 50, seed=4) * 2e-7
    W_enc[600:800] = nearly[torch.randperm(200, generator=torch.Generator().manual_seed(5))]
    rows[:] = W_enc[3] * 2 + rows * 1e-3
    b_enc.zero_()
    return rows, W_enc, b_enc


def test_rows_in_doubt_are_encoded_again(rounding: Rounding) -> None:
    own = Screen(rounding)
    rows, W_enc, b_enc = near_ties()
    found = own.top_k(rows, W_enc, b_enc, 16)
    assert own.n_again == 40
    expected = cpu.top_k(rows, W_enc, b_enc, 16)
    assert torch.equal(found.latents, expected.latents)
    assert torch.equal(found.values, expected.values)


def test_with_the_doubt_ignored_codes_would_be_wrong(rounding: Rounding, monkeypatch: pytest.MonkeyPatch) -> None:
    """So the certificate decides, and is not always true by itself."""
    rows, W_enc, b_enc = near_ties()
    for module in (screen_bfloat16, screen_whole):
        monkeypatch.setattr(module, "slack_of", lambda x_lengths, *given: np.full(len(x_lengths), 1e-30))
    monkeypatch.setattr(screen_bfloat16.NearBfloat16, "rounding", 0.0)
    own = Screen(rounding)
    found = own.top_k(rows, W_enc, b_enc, 16)
    assert own.n_again < 40
    assert not torch.equal(found.latents, cpu.top_k(rows, W_enc, b_enc, 16).latents)


@pytest.mark.parametrize("n_latents", [1500, 20])
@pytest.mark.parametrize("where", ["row", "latent", "bias"])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_bad_numbers_do_what_they_do_without_screening(
    rounding: Rounding, where: str, bad: float, n_latents: int
) -> None:
    rows, W_enc, b_enc = some(n_latents=n_latents)
    {"row": rows[4], "latent": W_enc[7], "bias": b_enc[7:]}[where][0] = bad
    found, expected = Screen(rounding).top_k(rows, W_enc, b_enc, 16), cpu.top_k(rows, W_enc, b_enc, 16)
    torch.testing.assert_close(
        dense(found, n_latents), dense(expected, n_latents), rtol=1e-5, atol=1e-5, equal_nan=True
    )


def some_thresholds() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Each latent's threshold lies between two of its pre-activations that rounding cannot tell apart."""
    rows, W_enc, b_enc = some(60, 1333, 130)
    rows[30:] = rows[:30] * (1 + 1e-4)
    pre = rows.double() @ W_enc.double().T + b_enc.double()
    latents = torch.arange(1333)
    lower, upper = pre[latents % 30, latents], pre[latents % 30 + 30, latents]
    thresholds = (lower + upper) / 2
    thresholds[(lower - upper).abs() < 1e-5] = 100.0  # no float32 sum tells them apart
    return rows, W_enc, b_enc, thresholds.float()


def test_thresholds_are_decided_by_exact_values(rounding: Rounding) -> None:
    """Over tiles of any width, in rows that outgrow their room."""
    *given, thresholds = some_thresholds()
    own, expected = Screen(rounding), cpu.above(*given, thresholds)
    for _ in range(2):
        found = own.above(*given, thresholds)
        assert torch.equal(found.row_starts, expected.row_starts)
        assert torch.equal(found.latents, expected.latents)
        torch.testing.assert_close(found.values, expected.values, rtol=1e-5, atol=1e-5)
    assert (own.n_rows, own.n_again) == (120, 0)


def test_with_the_bound_ignored_what_exceeds_its_threshold_would_be_missed(
    rounding: Rounding, monkeypatch: pytest.MonkeyPatch
) -> None:
    *given, thresholds = some_thresholds()
    for module in (screen_bfloat16, screen_whole):
        monkeypatch.setattr(module, "slack_of", lambda x_lengths, *given: np.full(len(x_lengths), 1e-30))
    monkeypatch.setattr(screen_bfloat16, "_ROUNDING", 0.0)
    monkeypatch.setattr(screen_bfloat16.NearBfloat16, "rounding", 0.0)
    missed = len(cpu.above(*given, thresholds).latents) - len(Screen(rounding).above(*given, thresholds).latents)
    assert missed > 100


def test_where_candidates_are_many_or_a_number_is_none_nothing_is_screened(rounding: Rounding) -> None:
    rows, W_enc, b_enc = some()
    expected = cpu.above(rows, W_enc, b_enc, torch.zeros(1500))
    own = Screen(rounding)
    assert torch.equal(
        own.above(rows, W_enc, b_enc, torch.zeros(1500), most=len(expected.latents)).latents, expected.latents
    )
    assert own.n_again == 0
    with pytest.raises(TooManyError):
        own.above(rows, W_enc, b_enc, torch.zeros(1500), most=len(expected.latents) // 4)
    assert own.n_again == 40
    for bad in (torch.nan, torch.inf):
        for where in range(3):
            given = [tensor.clone() for tensor in (rows, W_enc, b_enc)]
            given[where].view(-1)[7] = bad
            found, expected = Screen(rounding).above(*given, torch.zeros(1500)), cpu.above(*given, torch.zeros(1500))
            assert torch.equal(found.latents, expected.latents)
            torch.testing.assert_close(found.values, expected.values, equal_nan=True)


def test_rounding_moves_no_pre_activation_further_than_is_claimed(rounding: Rounding) -> None:
    rows, W_enc, b_enc = some(64, 1333, 130)
    rows[:, 5] *= 50
    near: Near = NEAR[rounding](rows, W_enc, torch.zeros_like(b_enc), cpu.Scratch())
    found = np.zeros((64, near.n_latents), np.float32)
    for low, first, tile in near.tiles():
        found[low : low + len(tile), first : first + tile.shape[1]] = tile
    exact = (rows.double() @ W_enc.double().T).numpy()
    moved = np.abs(found[:, :1333] - exact) - near.rounding * np.abs(exact)
    assert (moved.max(1) < near.slack).all()
    assert (np.abs(found[:, :1333] - exact).max(1) > near.slack / 100).all()  # a bound that is of use


def test_threads_change_nothing(rounding: Rounding) -> None:
    rows, W_enc, b_enc = some()
    one = Screen(rounding).top_k(rows, W_enc, b_enc, 16)
    torch.set_num_threads(3)
    try:
        three = Screen(rounding).top_k(rows, W_enc, b_enc, 16)
    finally:
        torch.set_num_threads(1)
    assert torch.equal(one.values, three.values)
    assert torch.equal(one.latents, three.latents)


def test_double_numbers_are_not_screened(rounding: Rounding) -> None:
    rows, W_enc, b_enc = (each.double() for each in some())
    own = Screen(rounding)
    assert torch.equal(own.top_k(rows, W_enc, b_enc, 16).values, cpu.top_k(rows, W_enc, b_enc, 16).values)
    assert own.n_rows == 0
