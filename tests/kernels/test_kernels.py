"""The fast kernels do what the slow, obvious ones do: ties, tiles, empty rows, both number types, any number of threads."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.kernels import laws
from tests.kernels.laws import SIZES, dense, draw, some_backward

from mohole.kernels import cpu, plain, reference
from mohole.kernels.pairs import AdamStep, from_dense, side_by_side

KERNELS = st.sampled_from([cpu, plain])
DTYPES = st.sampled_from([torch.float32, torch.float64])
each_module = pytest.mark.parametrize("kernels", [cpu, plain])


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    yield
    torch.set_num_threads(1)


@given(kernels=KERNELS, dtype=DTYPES, k=st.integers(1, 50), levels=st.sampled_from([1, 2, 5, 40]), **SIZES)
def test_top_k_keeps_what_a_stable_sort_keeps(dtype: torch.dtype, **drawn: Any) -> None:
    laws.top_k_keeps_what_a_stable_sort_keeps(dtype=dtype, bias_dtype=dtype, **drawn)


@each_module
@pytest.mark.parametrize("k", [1, 32, 100, 700])
def test_top_k_over_many_tiles_in_real_numbers(kernels: ModuleType, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """More tiles than one, a last one that is no multiple of anything, and rows whose best latents all stand at the end."""
    monkeypatch.setattr(cpu, "_TILE_LATENTS", 512)
    laws.top_k_of_real_numbers(kernels, 33, 5003, 20, k, late=600)


@each_module
@pytest.mark.parametrize(("n_latents", "k"), [(400, 4), (128, 5), (1000, 16), (2048, 32), (700, 300)])
def test_top_k_of_real_numbers_in_one_tile_keeps_k_in_every_row(kernels: ModuleType, n_latents: int, k: int) -> None:
    laws.top_k_of_real_numbers(kernels, 300, n_latents, 12, k)


@each_module
def test_what_is_not_positive_is_never_kept_however_few_there_are(kernels: ModuleType) -> None:
    laws.what_is_not_positive_is_never_kept(kernels)


@each_module
def test_what_is_compared_is_the_pre_activation_as_it_is_rounded(kernels: ModuleType) -> None:
    """A large bias swallows small differences: those are ties then, and thresholds are compared with the bias in."""
    laws.what_is_compared_is_the_pre_activation_as_it_is_rounded(kernels)


@each_module
@pytest.mark.parametrize("n_latents", [7, 64, 513, 5000])
def test_among_equals_the_lowest_latents_are_kept_in_every_width(kernels: ModuleType, n_latents: int) -> None:
    laws.among_equals_the_lowest_latents_are_kept(kernels, n_latents)


@each_module
def test_no_pre_activation_is_positive_and_no_code_is_kept(kernels: ModuleType) -> None:
    laws.no_pre_activation_is_positive_and_no_code_is_kept(kernels)


@each_module
def test_a_bad_number_is_never_a_good_code(kernels: ModuleType) -> None:
    laws.a_bad_number_is_never_a_good_code(kernels)


@given(kernels=KERNELS, dtype=DTYPES, n=st.integers(1, 60), levels=st.sampled_from([1, 3, 40]), **SIZES)
def test_the_best_of_a_batch_are_those_of_a_stable_sort(dtype: torch.dtype, **drawn: Any) -> None:
    laws.the_best_of_a_batch_are_those_of_a_stable_sort(dtype=dtype, bias_dtype=dtype, **drawn)


def test_the_best_of_a_batch_over_many_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "_TILE_LATENTS", 128)
    for seed in range(6):
        rows, W_enc, b_enc = draw(40, 3, seed=seed, levels=2), draw(1500, 3, seed=seed + 9, levels=2), torch.zeros(1500)
        for n in (1, 40, 900, 59_999):
            found = cpu.batch_top(rows, W_enc, b_enc, n)
            assert torch.equal(dense(found, 1500), reference.batch_top(rows @ W_enc.T, n)), (seed, n)


@given(kernels=KERNELS, dtype=DTYPES, **SIZES)
def test_above_keeps_what_exceeds_its_own_threshold(dtype: torch.dtype, **drawn: Any) -> None:
    laws.above_keeps_what_exceeds_its_own_threshold(dtype=dtype, bias_dtype=dtype, **drawn)


def test_above_over_many_tiles_and_rows_that_outgrow_their_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """In memory of an earlier batch, too."""
    monkeypatch.setattr(cpu, "_ROOM", 2)
    scratch = cpu.Scratch(128)
    for seed, n_rows in enumerate((1, 40, 7)):
        rows, W_enc, b_enc = (
            draw(n_rows, 3, seed=seed, levels=2),
            draw(1500, 3, seed=seed + 9, levels=2),
            torch.zeros(1500),
        )
        for threshold in (9.0, 5.0, 0.0):
            limits = torch.full((1500,), threshold)
            found = cpu.above(rows, W_enc, b_enc, limits, scratch)
            assert torch.equal(dense(found, 1500), reference.above(rows @ W_enc.T, limits)), (seed, threshold)
            laws.check_order(found)


def test_neither_blocks_of_latents_nor_pairs_of_zero_change_a_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    pre, W_dec = draw(9, 300, seed=0), draw(300, 20, seed=1)
    values = pre * (pre.abs() > 0.3)
    sources, source_of = draw(2, 9, 20, seed=2), (torch.arange(300) % 2).to(torch.uint8)
    pairs = from_dense(pre.abs() > 0.1, pre)
    active = pairs.where(values[pre.abs() > 0.1] != 0)
    whole, dots = (
        cpu.decode(active, active.values, W_dec, torch.zeros(9, 20)),
        cpu.dots(pairs, sources, source_of, W_dec),
    )
    monkeypatch.setattr(cpu, "_HELD_BYTES", 1)
    for n_pairs in (1, 10, 100):
        monkeypatch.setattr(cpu, "_PAIRS_OF_BLOCK", n_pairs)
        found = cpu.decode(pairs, values[pre.abs() > 0.1], W_dec, torch.zeros(9, 20))
        assert torch.equal(found, whole)
        assert torch.equal(cpu.dots(pairs, sources, source_of, W_dec), dots)


@given(kernels=KERNELS, dtype=DTYPES, share=st.floats(0, 1), **SIZES)
def test_decoding_dots_and_sums_are_products_with_the_dense_codes(**drawn: Any) -> None:
    laws.decoding_dots_and_sums_are_products_with_the_dense_codes(**drawn)


@each_module
def test_no_gradient_is_longer_than_its_bound(kernels: ModuleType) -> None:
    laws.no_gradient_is_longer_than_its_bound(kernels)


@each_module
@pytest.mark.parametrize("is_unit", [True, False])
def test_adam_moves_as_torchs_adam_does(kernels: ModuleType, is_unit: bool) -> None:
    laws.adam_moves_as_torchs_adam_does(kernels, is_unit=is_unit)


@each_module
def test_the_gradient_of_lengths_is_autograds(kernels: ModuleType) -> None:
    laws.the_gradient_of_lengths_is_autograds(kernels)


@each_module
def test_the_moments_of_a_silent_latent_do_not_become_denormal(kernels: ModuleType) -> None:
    laws.the_moments_of_a_silent_latent_do_not_become_denormal(kernels)


def test_every_result_is_the_same_for_any_number_of_threads() -> None:
    found = []
    for n_threads in (1, 2, 3):
        torch.set_num_threads(n_threads)
        rows, W_enc = draw(101, 64, seed=0), draw(3000, 64, seed=1)
        b_enc = torch.zeros(3000)
        each: list[torch.Tensor] = []
        for pairs in (
            cpu.top_k(rows, W_enc, b_enc, 9),
            cpu.batch_top(rows, W_enc, b_enc, 900),
            cpu.above(rows, W_enc, b_enc, b_enc + 9),
        ):
            each += [pairs.latents, pairs.values, cpu.decode(pairs, pairs.values, W_enc, torch.zeros(101, 64))]
        back, encoder, decoder = some_backward(cpu, is_unit=True, dtype=torch.float32)
        each += [cpu.adam(back, encoder, decoder, AdamStep(0.1, 1)), encoder.weight, decoder.weight]
        each.append(cpu.weighted_sum(draw(3000, seed=7), W_enc))
        found.append(each)
    for each in found[1:]:
        assert all(torch.equal(one, other) for one, other in zip(found[0], each, strict=True))


@given(seed=st.integers(0, 99), n_rows=st.integers(1, 6), parts=st.integers(1, 4))
def test_pairs_side_by_side_are_in_the_order_of_rows_then_parts(seed: int, n_rows: int, parts: int) -> None:
    pres = [draw(n_rows, 5, seed=seed + i) for i in range(parts)]
    together = side_by_side([from_dense(pre > 0, pre) for pre in pres])
    whole = from_dense(torch.cat(pres, 1) > 0, torch.cat(pres, 1))
    assert torch.equal(together.row_starts, whole.row_starts)
    assert torch.equal(together.values, whole.values)
    kept = torch.from_numpy(np.random.default_rng(seed).random(len(whole.values)) < 0.5)
    some = whole.where(kept)
    assert torch.equal(some.rows, whole.rows[kept])
    assert torch.equal(some.latents, whole.latents[kept])
