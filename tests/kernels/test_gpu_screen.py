"""Screened codes of a CUDA device are the codes: by the laws of all kernels, with doubt planted, and with the doubt ignored."""

from importlib.util import find_spec
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from tests.kernels import laws
from tests.kernels.laws import SIZES, dense, draw

from mohole.kernels import plain
from mohole.kernels.choice import screen_for

if find_spec("triton") is None:
    pytest.skip("needs triton: pip install 'mohole[gpu]'", allow_module_level=True)

few_examples = settings() if torch.cuda.is_available() else settings(max_examples=5, phases=[Phase.generate])
"""The interpreter takes a second for each."""
SMALL = SIZES if torch.cuda.is_available() else SIZES | {"n_latents": st.integers(1, 120)}


def screened(gpu: ModuleType) -> ModuleType:
    """The kernels, with screening in the place of `top_k`."""
    from mohole.kernels.gpu_screen import Screen

    return cast(ModuleType, SimpleNamespace(**(vars(gpu) | {"top_k": lambda *given: Screen().top_k(*given)})))


@few_examples
@given(k=st.integers(1, 50), levels=st.sampled_from([1, 2, 5, 40]), **SMALL)
def test_screening_keeps_what_a_stable_sort_keeps(gpu: ModuleType, **drawn: Any) -> None:
    """Whole numbers: ties everywhere, and sums are exact."""
    laws.top_k_keeps_what_a_stable_sort_keeps(
        screened(gpu), dtype=torch.float32, bias_dtype=torch.float32, **(drawn | {"d": 4 * drawn["d"]})
    )


@pytest.mark.parametrize(
    ("n_rows", "n_latents", "d", "k", "late"),
    [(17, 403, 20, 7, 70), (5, 300, 300, 7, 0), (1, 90, 3, 100, 0), (19, 150, 6, 40, 0)],
)
def test_screening_of_real_numbers(gpu: ModuleType, n_rows: int, n_latents: int, d: int, k: int, late: int) -> None:
    """Many tiles, rows wider than a block, more codes than there are latents, candidates that are nearly all latents."""
    laws.top_k_of_real_numbers(screened(gpu), n_rows, n_latents, d, k, late=late)


@pytest.mark.parametrize("n_latents", [5, 24, 140])
def test_among_equals_the_lowest_latents_are_kept(gpu: ModuleType, n_latents: int) -> None:
    """In the last case more than there are candidates: then all of them are in doubt."""
    laws.among_equals_the_lowest_latents_are_kept(screened(gpu), n_latents)


def test_screening_keeps_the_other_laws(gpu: ModuleType) -> None:
    laws.what_is_not_positive_is_never_kept(screened(gpu))
    laws.no_pre_activation_is_positive_and_no_code_is_kept(screened(gpu))
    laws.a_bad_number_is_never_a_good_code(screened(gpu))


def some(n_rows: int = 12, n_latents: int = 160, d: int = 40) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return draw(n_rows, d, seed=0), draw(n_latents, d, seed=1) / d**0.5, draw(n_latents, seed=2) * 0.1


def same(rows: torch.Tensor, W_enc: torch.Tensor, b_enc: torch.Tensor, k: int) -> Any:
    """Assert that codes are those of torch's own kernels."""
    from mohole.kernels.gpu_screen import Screen

    own = Screen()
    found, expected = own.top_k(rows, W_enc, b_enc, k), plain.top_k(rows, W_enc, b_enc, k)
    assert torch.equal(found.row_starts, expected.row_starts)
    assert torch.equal(found.latents, expected.latents)
    size = rows.norm(dim=1)[found.rows] * W_enc.norm(dim=1).max()
    assert ((found.values - expected.values).abs() <= 1e-6 * size + 1e-30).all()
    return own


def test_no_row_of_ordinary_numbers_is_encoded_twice(gpu: ModuleType) -> None:
    own = same(*some(), 16)
    assert (own.n_rows, own.n_again) == (12, 0)


@pytest.mark.parametrize(
    "change",
    [
        lambda rows, W_enc, b_enc: (rows.mul_(1e-15), b_enc.zero_()),
        lambda rows, W_enc, b_enc: (rows.mul_(1e12), W_enc.mul_(1e-9)),
        lambda rows, W_enc, b_enc: (rows.mul_(1e-25), b_enc.zero_()),  # below what is rounded
        lambda rows, W_enc, b_enc: (rows[3:5].mul_(1e17), W_enc[7].mul_(1e17)),  # above
        lambda rows, W_enc, b_enc: rows[:, 7].mul_(3000.0),  # an outlier dimension
        lambda rows, W_enc, b_enc: W_enc[:, 7].mul_(3000.0),
        lambda rows, W_enc, b_enc: rows[3].mul_(1e6),  # an outlier row, and a latent
        lambda rows, W_enc, b_enc: W_enc[3].mul_(1e6),
        lambda rows, W_enc, b_enc: b_enc.sub_(3.0),  # few are positive
        lambda rows, W_enc, b_enc: b_enc.sub_(100.0),  # none is
        lambda rows, W_enc, b_enc: b_enc.add_(100.0),  # all are
        lambda rows, W_enc, b_enc: rows[::2].zero_(),
        lambda rows, W_enc, b_enc: W_enc[::3].zero_(),
    ],
)
def test_numbers_of_any_size_are_screened(gpu: ModuleType, change: Any) -> None:
    rows, W_enc, b_enc = some(6)
    change(rows, W_enc, b_enc)
    same(rows, W_enc, b_enc, 5)


@pytest.mark.parametrize("k", [15, 16, 17, 23, 24, 25])
def test_as_many_candidates_as_there_are_latents_or_nearly(gpu: ModuleType, k: int) -> None:
    rows, W_enc, b_enc = some(6, 40)
    same(rows, W_enc, b_enc + 1.0, k)


def near_ties() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Latents that differ by less than halves do, in another order than that of the latents, and equal ones among them."""
    rows, W_enc, b_enc = some()
    W_enc[60:160] = W_enc[3] + draw(100, 40, seed=4) * 2e-5
    W_enc[80:90] = W_enc[140:150]
    rows[:] = W_enc[3] * 2 + rows * 1e-3
    return rows, W_enc, b_enc.zero_()


def test_rows_in_doubt_are_encoded_again(gpu: ModuleType) -> None:
    from mohole.kernels.gpu_screen import Screen

    own = Screen()
    rows, W_enc, b_enc = near_ties()
    found, expected = own.top_k(rows, W_enc, b_enc, 16), gpu.top_k(rows, W_enc, b_enc, 16)
    assert own.n_again == 12
    assert torch.equal(found.latents, expected.latents)
    assert torch.equal(found.values, expected.values)


def test_some_rows_in_doubt_leave_the_others_alone(gpu: ModuleType) -> None:
    rows, W_enc, b_enc = near_ties()
    rows[::3] = some()[0][::3] - W_enc[3] * 9
    own = same(rows, W_enc, b_enc, 16)
    assert own.n_again == 8


def test_with_the_doubt_ignored_codes_would_be_wrong(gpu: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """So the certificate decides, and is not always true by itself."""
    from mohole.kernels import gpu_screen

    rows, W_enc, b_enc = near_ties()
    monkeypatch.setattr(gpu_screen, "_ROUNDING", 0.0)
    monkeypatch.setattr(gpu_screen, "_OWN", 0.0)
    own = gpu_screen.Screen()
    found = own.top_k(rows, W_enc, b_enc, 16)
    assert own.n_again < 12
    assert not torch.equal(found.latents, plain.top_k(rows, W_enc, b_enc, 16).latents)


@pytest.mark.parametrize("where", ["row", "latent", "bias"])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_bad_numbers_do_what_they_do_without_screening(gpu: ModuleType, where: str, bad: float) -> None:
    rows, W_enc, b_enc = some(6)
    {"row": rows[4], "latent": W_enc[70], "bias": b_enc[70:]}[where][0] = bad
    found, expected = screened(gpu).top_k(rows, W_enc, b_enc, 16), gpu.top_k(rows, W_enc, b_enc, 16)
    torch.testing.assert_close(dense(found, 160), dense(expected, 160), rtol=1e-5, atol=1e-5, equal_nan=True)


@pytest.mark.filterwarnings(
    "ignore:invalid value encountered", "ignore:overflow encountered in cast"
)  # the interpreter's numpy
def test_a_latent_too_long_for_a_bound_is_a_candidate(gpu: ModuleType) -> None:
    """Its length is no float32 number, and times a row of length zero nothing at all; its code is its bias."""
    _, W_enc, b_enc = some()
    W_enc[7], b_enc[7] = 2e38, 5.0
    found = screened(gpu).top_k(torch.zeros(2, 40), W_enc, b_enc, 4)
    assert torch.equal(dense(found, 160), dense(plain.top_k(torch.zeros(2, 40), W_enc, b_enc, 4), 160))
    assert 7 in found.latents


@pytest.mark.parametrize("outlier", [1.0, 50.0, 1e5])
def test_no_pre_activation_exceeds_its_bound(gpu: ModuleType, outlier: float) -> None:
    """With every latent a candidate all bounds are seen. An outlier of 1e5 leaves the other numbers with few bits."""
    from mohole.kernels import gpu_screen

    rows, W_enc, _ = some(9, 100, 130)
    rows[:, 5] *= outlier
    rows[2], W_enc[17] = 0.0, 0.0
    bias = torch.full((100,), 20.0 * float(rows.norm(dim=1).max()))
    bounds = gpu_screen._bounds(rows, W_enc, bias, 100, gpu.Scratch())
    assert (bounds.counts == 100).all()
    room = bounds.values[:, :100] - (rows.double() @ W_enc.double().T + bias.double())
    assert (room > 0).all()
    of_bias = bias[0] * 2**-15
    error = 2**-10 * rows.norm(dim=1)[:, None] * W_enc.norm(dim=1)
    assert (room < error + of_bias).all()  # a bound that is of use


def test_bounds_hold_where_all_errors_point_one_way(gpu: ModuleType) -> None:
    """Every number is rounded down, by nearly as much as can be, and the other side is along the error: no bound is further away
    than what sums are allowed. Of rows, of latents, and of both."""
    from mohole.kernels import gpu_screen

    off, bias = 1.0 + 0.99 * 2.0**-11, torch.full((3,), 100.0)
    rows, W_enc = torch.ones(3, 64), torch.ones(3, 64)
    rows[1], rows[2], W_enc[1], W_enc[2] = off, -off, off, -off
    found = gpu_screen._bounds(rows, W_enc, bias, 3, gpu.Scratch()).values[:, :3]
    room = found - (rows.double() @ W_enc.double().T + bias.double())
    missed = 64 * 0.99 * 2.0**-11
    assert (room > 0).all()
    along = torch.tensor([[True, True, False], [True, True, False], [False, False, True]])
    assert (room[along] < 0.2 * missed).all()


def test_halves_and_what_they_miss(gpu: ModuleType) -> None:
    """A row is its halves times its unit, but for an error as long as is claimed; units are powers of two."""
    from mohole.kernels.gpu_screen import _Halves

    matrix = draw(13, 300, seed=0) * 10.0 ** torch.arange(-6.0, 7.0)[:, None]
    matrix[4], matrix[5, 7], matrix[6], matrix[7] = 0.0, torch.inf, 1e-25, 1e17
    found = _Halves.of(matrix, gpu.Scratch(), "rows")
    near = found.halves.double() * found.units[:, None]
    missed = (matrix.double() - near).norm(dim=1)
    good = torch.arange(13) != 5
    torch.testing.assert_close(found.errors[good].double(), missed[good], rtol=1e-6, atol=0.0)
    torch.testing.assert_close(found.lengths[good], matrix.norm(dim=1)[good])
    assert found.errors[5] == torch.inf
    assert (near[5] == 0).all()
    ordinary = good & (matrix.norm(dim=1) > 1e-20) & (matrix.norm(dim=1) < 1e15)
    assert (missed[ordinary] < 2**-11 * matrix.double().norm(dim=1)[ordinary]).all()
    assert (found.units[ordinary].log2() % 1 == 0).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_numbers_are_not_screened(gpu: ModuleType, dtype: torch.dtype) -> None:
    from mohole.kernels.gpu_screen import Screen

    rows, W_enc, b_enc = (each.to(dtype) for each in some(3, 90))
    own = Screen()
    assert torch.equal(own.top_k(rows, W_enc, b_enc, 16).values, gpu.top_k(rows, W_enc, b_enc, 16).values)
    assert own.n_rows == 0


def test_screening_is_chosen_for_a_device(gpu: ModuleType) -> None:
    from mohole.kernels.gpu_screen import Screen

    assert isinstance(screen_for(torch.device("cuda")), Screen)
    assert not isinstance(screen_for(torch.device("cpu")), Screen)
