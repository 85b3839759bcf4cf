"""Triton's kernels obey the same laws: in its interpreter on a machine without a CUDA device, on the device where there is one.

The interpreter runs the programs' own source in numpy, an operator at a time. What it cannot show is compiled code: races
between threads, how matrix units round, registers.
"""

from importlib.util import find_spec
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from tests.kernels import laws
from tests.kernels.laws import dense, draw, some_backward

from mohole.kernels import plain, reference
from mohole.kernels.choice import kernels_for
from mohole.kernels.pairs import AdamStep, Backward

if find_spec("triton") is None:
    pytest.skip("needs triton: pip install 'mohole[gpu]'", allow_module_level=True)

HAS_DEVICE = torch.cuda.is_available()
TYPES = st.sampled_from(
    [(torch.float32, torch.float32), (torch.bfloat16, torch.float32), (torch.bfloat16, torch.bfloat16)]
)
"""Of rows and weights, and of biases and codes."""
some_examples = settings() if HAS_DEVICE else settings(max_examples=5, phases=[Phase.generate])
"""The interpreter takes half a second for each: few, and a failure is not made smaller."""
SIZES = laws.SIZES if HAS_DEVICE else laws.SIZES | {"n_latents": st.integers(1, 120)}


@some_examples
@given(types=TYPES, k=st.integers(1, 50), levels=st.sampled_from([1, 2, 5, 40]), **SIZES)
def test_top_k_keeps_what_a_stable_sort_keeps(gpu: ModuleType, types: tuple[torch.dtype, ...], **drawn: Any) -> None:
    laws.top_k_keeps_what_a_stable_sort_keeps(gpu, *types, **drawn)


@pytest.mark.parametrize(
    ("n_rows", "n_latents", "d", "k", "late"), [(17, 403, 20, 7, 70), (5, 300, 6, 7, 0), (1, 90, 3, 100, 0)]
)
def test_top_k_of_real_numbers(gpu: ModuleType, n_rows: int, n_latents: int, d: int, k: int, late: int) -> None:
    """Rows whose best latents all stand at the end; a single row, and more codes asked for than there are latents."""
    laws.top_k_of_real_numbers(gpu, n_rows, n_latents, d, k, late=late)


def test_top_k_does_not_depend_on_how_the_latents_are_cut(gpu: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal rows, and ties in all parts: the bits are the same for any number of parts and of programs."""
    rows, W_enc, b_enc = draw(20, 4, seed=0, levels=1), draw(300, 4, seed=1, levels=1), torch.zeros(300)
    rows[7] = rows[3]
    found = []
    for n_parts, n_programs in ((1, 1), (2, 7), (8, 3)):
        monkeypatch.setattr("mohole.kernels.gpu_encode._PARTS", n_parts)
        monkeypatch.setattr("mohole.kernels.gpu_encode._n_programs", lambda device, n=n_programs: n)
        found.append(dense(gpu.top_k(rows, W_enc, b_enc, 9), 300))
    assert torch.equal(found[0], reference.codes(rows @ W_enc.T, 9))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    assert torch.equal(found[0][3], found[0][7])


def test_more_codes_in_a_row_than_a_program_holds(gpu: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mohole.kernels.gpu_encode._MOST_HELD", 64)
    laws.top_k_of_real_numbers(gpu, 9, 200, 5, 60)


def test_what_is_not_positive_is_never_kept_however_few_there_are(gpu: ModuleType) -> None:
    laws.what_is_not_positive_is_never_kept(gpu)


def test_what_is_compared_is_the_pre_activation_as_it_is_rounded(gpu: ModuleType) -> None:
    laws.what_is_compared_is_the_pre_activation_as_it_is_rounded(gpu)


def test_codes_of_bfloat16_are_compared_as_they_are_rounded(gpu: ModuleType) -> None:
    """257 is 256 then, and so the lower latent is kept; 259 is 260."""
    W_enc = torch.tensor([[256.0, 0.0], [256.0, 1.0], [0.0, 1.0], [256.0, 3.0]], dtype=torch.bfloat16)
    rows = torch.ones(1, 2, dtype=torch.bfloat16)
    found = gpu.top_k(rows, W_enc[:3], torch.zeros(3, dtype=torch.bfloat16), 1)
    assert (found.latents.tolist(), found.values.tolist()) == ([0], [256.0])
    found = gpu.above(rows, W_enc, torch.zeros(4, dtype=torch.bfloat16), torch.full((4,), 256.0, dtype=torch.bfloat16))
    assert (found.latents.tolist(), found.values.tolist()) == ([3], [260.0])


@pytest.mark.parametrize("n_latents", [7, 64, 513])
def test_among_equals_the_lowest_latents_are_kept_in_every_width(gpu: ModuleType, n_latents: int) -> None:
    laws.among_equals_the_lowest_latents_are_kept(gpu, n_latents)


def test_no_pre_activation_is_positive_and_no_code_is_kept(gpu: ModuleType) -> None:
    laws.no_pre_activation_is_positive_and_no_code_is_kept(gpu)


def test_a_bad_number_is_never_a_good_code(gpu: ModuleType) -> None:
    laws.a_bad_number_is_never_a_good_code(gpu)


@some_examples
@given(types=TYPES, n=st.integers(1, 60), levels=st.sampled_from([1, 3, 40]), **SIZES)
def test_the_best_of_a_batch_are_those_of_a_stable_sort(
    gpu: ModuleType, types: tuple[torch.dtype, ...], **drawn: Any
) -> None:
    laws.the_best_of_a_batch_are_those_of_a_stable_sort(gpu, *types, **drawn)


@pytest.mark.parametrize("n", [1, 40, 300])
def test_the_best_of_a_batch_over_many_tiles(gpu: ModuleType, n: int) -> None:
    """Ties in all slabs of latents: the lower row wins, though its latent may come later."""
    rows, W_enc, b_enc = draw(20, 2, seed=1, levels=1), draw(200, 2, seed=9, levels=1), torch.zeros(200)
    found = gpu.batch_top(rows, W_enc, b_enc, n)
    assert torch.equal(dense(found, 200), reference.batch_top(rows @ W_enc.T, n))


@some_examples
@given(types=TYPES, **SIZES)
def test_above_keeps_what_exceeds_its_own_threshold(
    gpu: ModuleType, types: tuple[torch.dtype, ...], **drawn: Any
) -> None:
    laws.above_keeps_what_exceeds_its_own_threshold(gpu, *types, **drawn)


def test_a_list_that_finds_no_room_is_made_again_and_remembered(gpu: ModuleType) -> None:
    rows, W_enc, b_enc, limits = draw(5, 3, seed=0), draw(200, 3, seed=1), torch.zeros(200), torch.zeros(200)
    rows[2] = 0.0
    expected = reference.above(rows @ W_enc.T, limits)
    scratch = gpu.Scratch()
    for room in (1, None):
        scratch.room = room or scratch.room
        found = gpu.above(rows, W_enc, b_enc, limits, scratch)
        torch.testing.assert_close(dense(found, 200), expected)
        laws.check_order(found)
    assert scratch.room > 1


@settings(some_examples, max_examples=100 if HAS_DEVICE else 2)
@given(dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]), share=st.floats(0, 1), **SIZES)
def test_decoding_dots_and_sums_are_products_with_the_dense_codes(gpu: ModuleType, **drawn: Any) -> None:
    laws.decoding_dots_and_sums_are_products_with_the_dense_codes(gpu, **drawn)


def test_columns_in_blocks_that_a_cache_holds(gpu: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """More blocks of columns than one, the last one not full."""
    monkeypatch.setattr("mohole.kernels.gpu_sums._L2_BYTES", 64 * 30 * 4)
    codes, W_dec = draw(4, 30, seed=0).relu(), draw(30, 150, seed=1)
    pairs, source = laws.from_dense(codes > 0, codes), draw(1, 4, 150, seed=2)
    close = {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(gpu.decode(pairs, pairs.values, W_dec, torch.zeros(4, 150)), codes @ W_dec, **close)
    found = gpu.dots(pairs, source, torch.zeros(30, dtype=torch.uint8), W_dec)
    torch.testing.assert_close(found, (source[0] @ W_dec.T)[codes > 0], **close)


def test_no_gradient_is_longer_than_its_bound(gpu: ModuleType) -> None:
    laws.no_gradient_is_longer_than_its_bound(gpu, n_latents=24)


@pytest.mark.parametrize("is_unit", [True, False])
def test_adam_moves_as_torchs_adam_does(gpu: ModuleType, is_unit: bool) -> None:
    laws.adam_moves_as_torchs_adam_does(gpu, is_unit=is_unit, n_latents=10, n_steps=3)


@pytest.mark.parametrize("is_unit", [True, False])
def test_gradients_and_adam_are_those_of_plain(gpu: ModuleType, is_unit: bool) -> None:
    """In float32: shrunk gradients, lengths, weights and moments. Rows wider than a program are left to `plain` itself."""
    moved = []
    for kernels in (gpu, plain):
        back, encoder, decoder = some_backward(kernels, is_unit=is_unit, n_latents=24, dtype=torch.float32)
        lengths = kernels.squared_lengths(back, decoder.weight)
        for step in range(2):
            squares = kernels.adam(back, encoder, decoder, AdamStep(0.01, step + 1), shrink=0.5)
        moved.append([lengths, squares, *vars(encoder).values(), *vars(decoder).values()])
    for ours, theirs in zip(*moved, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_a_latent_with_many_pairs_is_summed_in_pieces(gpu: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """One latent in all rows, which are three and a half pieces, and others in fewer than a piece."""
    monkeypatch.setattr("mohole.kernels.gpu_sums._PIECE_PAIRS", 8)
    codes = draw(28, 5, seed=0).relu() * (torch.arange(28) < 6)[:, None]
    codes[:, 2] = 1.0 + torch.arange(28)
    pairs, read, source = laws.from_dense(codes > 0, codes), draw(28, 6, seed=1), draw(1, 28, 7, seed=2)
    by_latent, zeros = gpu.by_latent(pairs, 5), torch.zeros(5)
    back = Backward(by_latent, pairs.values, pairs.values, read, source, zeros.to(torch.uint8), zeros, (0, 7), False)
    d_enc, d_dec = gpu.gradients(back, draw(5, 7, seed=3))
    torch.testing.assert_close(d_enc, codes.T @ read, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(d_dec, codes.T @ source[0], rtol=1e-4, atol=1e-4)


def test_the_gradient_of_lengths_is_autograds(gpu: ModuleType) -> None:
    laws.the_gradient_of_lengths_is_autograds(gpu, n_latents=20)


def test_the_moments_of_a_silent_latent_do_not_become_denormal(gpu: ModuleType) -> None:
    """With a mean that fades in a few steps instead of a thousand."""
    laws.the_moments_of_a_silent_latent_do_not_become_denormal(gpu, n_latents=20, n_steps=4, beta1=1e-8)


def test_a_bad_gradient_is_seen_in_the_weights(gpu: ModuleType) -> None:
    back, encoder, decoder = some_backward(gpu, is_unit=False, n_latents=20, dtype=torch.float32)
    d_product = back.d_product.clone()
    d_product[int(back.by_latent.order[0])] = torch.nan
    bad = Backward(**(vars(back) | {"d_product": d_product}))
    assert gpu.adam(bad, encoder, decoder, AdamStep(0.01, 1)).isnan().any()
    assert encoder.weight.isnan().any()


def test_the_module_is_chosen_for_a_device_alone(gpu: ModuleType) -> None:
    assert kernels_for(torch.device("cuda")) is gpu
    assert kernels_for(torch.device("cpu")) is not gpu
