"""The fast kernels do what the slow, obvious ones do: ties, tiles, empty rows, both number types, any number of threads."""

from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mohole.kernels import cpu, plain, reference
from mohole.kernels.pairs import AdamStep, Backward, Moving, Pairs, from_dense, side_by_side

KERNELS = st.sampled_from([cpu, plain])
DTYPES = st.sampled_from([torch.float32, torch.float64])
SIZES = {
    "n_rows": st.integers(1, 9),
    "n_latents": st.integers(1, 400),
    "d": st.integers(1, 9),
    "seed": st.integers(0, 999),
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    yield
    torch.set_num_threads(1)


def draw(*shape: int, seed: int, levels: int | None = None, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Normal numbers, or small whole ones, so that there are ties everywhere and sums are exact."""
    generator = torch.Generator().manual_seed(seed)
    if levels is None:
        return torch.randn(*shape, generator=generator, dtype=dtype)
    return torch.randint(-levels, levels + 1, shape, generator=generator).to(dtype)


def dense(pairs: Pairs, n_latents: int, values: torch.Tensor | None = None) -> torch.Tensor:
    found = torch.zeros(len(pairs.row_starts) - 1, n_latents, dtype=pairs.values.dtype)
    found[pairs.rows, pairs.latents.long()] = pairs.values if values is None else values
    return found


def check_order(pairs: Pairs) -> None:
    for start, stop in zip(pairs.row_starts[:-1].tolist(), pairs.row_starts[1:].tolist(), strict=True):
        assert (torch.diff(pairs.latents[start:stop]) > 0).all()


@given(kernels=KERNELS, dtype=DTYPES, k=st.integers(1, 50), levels=st.sampled_from([1, 2, 5, 40]), **SIZES)
def test_top_k_keeps_what_a_stable_sort_keeps(
    kernels: ModuleType, dtype: torch.dtype, k: int, levels: int, n_rows: int, n_latents: int, d: int, seed: int
) -> None:
    k = min(k, n_latents)
    rows, W_enc = (
        draw(n_rows, d, seed=seed, levels=levels, dtype=dtype),
        draw(n_latents, d, seed=seed + 1, levels=2, dtype=dtype),
    )
    b_enc = draw(n_latents, seed=seed + 2, levels=3, dtype=dtype)
    found = kernels.top_k(rows, W_enc, b_enc, k)
    assert torch.equal(dense(found, n_latents), reference.codes(rows @ W_enc.T + b_enc, k))
    assert (found.values > 0).all()
    check_order(found)


@pytest.mark.parametrize("kernels", [cpu, plain])
@pytest.mark.parametrize("k", [1, 32, 100, 700])
def test_top_k_over_many_tiles_in_real_numbers(kernels: ModuleType, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """More tiles than one, a last one that is no multiple of anything, and rows whose best latents all stand at the end."""
    monkeypatch.setattr(cpu, "_TILE_LATENTS", 512)
    rows, W_enc = draw(33, 20, seed=0), draw(5003, 20, seed=1)
    W_enc[-600:] *= 10
    b_enc = draw(5003, seed=2) - 1.0
    pre = rows @ W_enc.T + b_enc
    found = dense(kernels.top_k(rows, W_enc, b_enc, k), 5003)
    torch.testing.assert_close(found, reference.codes(pre, k), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kernels", [cpu, plain])
@pytest.mark.parametrize(("n_latents", "k"), [(400, 4), (128, 5), (1000, 16), (2048, 32), (700, 300)])
def test_top_k_of_real_numbers_in_one_tile_keeps_k_in_every_row(kernels: ModuleType, n_latents: int, k: int) -> None:
    rows, W_enc = draw(300, 12, seed=1), draw(n_latents, 12, seed=2)
    b_enc = draw(n_latents, seed=3) * 0.1
    found = kernels.top_k(rows, W_enc, b_enc, k)
    expected = reference.codes(rows @ W_enc.T + b_enc, k)
    torch.testing.assert_close(dense(found, n_latents), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(torch.diff(found.row_starts), (expected > 0).sum(1))


@pytest.mark.parametrize("kernels", [cpu, plain])
def test_what_is_not_positive_is_never_kept_however_few_there_are(kernels: ModuleType) -> None:
    W_enc = torch.zeros(128, 1)
    W_enc[17] = 1.0
    for found in (
        kernels.top_k(torch.ones(3, 1), W_enc, torch.zeros(128), 5),
        kernels.batch_top(torch.ones(3, 1), W_enc, torch.zeros(128), 9),
    ):
        assert found.latents.tolist() == [17, 17, 17]
        assert found.values.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("kernels", [cpu, plain])
def test_what_is_compared_is_the_pre_activation_as_it_is_rounded(kernels: ModuleType) -> None:
    """A large bias swallows small differences: those are ties then, and thresholds are compared with the bias in."""
    W_enc, b_enc = torch.zeros(384, 1), torch.zeros(384)
    for latent, value in ((0, 0.5040000), (1, 0.5000041), (200, 0.5000076)):
        W_enc[latent], b_enc[latent] = value - (0.0 if latent == 0 else 0.5), 100.0
    pre = torch.ones(1, 1) @ W_enc.T + b_enc
    assert torch.equal(dense(kernels.batch_top(torch.ones(1, 1), W_enc, b_enc, 2), 384), reference.batch_top(pre, 2))
    for threshold in (100.0, 100.000004, 100.00001, 100.504):
        limits = torch.full((384,), threshold)
        assert torch.equal(
            dense(kernels.above(torch.ones(1, 1), W_enc, b_enc, limits), 384), reference.above(pre, limits)
        )


@pytest.mark.parametrize("kernels", [cpu, plain])
def test_among_equals_the_lowest_latents_are_kept_in_every_width(kernels: ModuleType) -> None:
    for n_latents in (7, 64, 513, 5000):
        found = kernels.top_k(torch.ones(3, 1), torch.ones(n_latents, 1), torch.zeros(n_latents), 5)
        assert found.latents.tolist() == [0, 1, 2, 3, 4] * 3


@pytest.mark.parametrize("kernels", [cpu, plain])
def test_no_pre_activation_is_positive_and_no_code_is_kept(kernels: ModuleType) -> None:
    nothing = torch.zeros(300, 2)
    for found in (
        kernels.top_k(torch.ones(4, 2), nothing, torch.zeros(300), 7),
        kernels.batch_top(torch.ones(4, 2), nothing, torch.full((300,), -1.0), 7),
        kernels.above(torch.ones(4, 2), nothing, torch.zeros(300), torch.zeros(300)),
    ):
        assert found.row_starts.tolist() == [0] * 5
        assert len(found.latents) == len(found.values) == 0
        assert torch.equal(
            kernels.decode(found, found.values, draw(300, 3, seed=0), torch.ones(4, 3)), torch.ones(4, 3)
        )
        assert kernels.by_latent(found, 300).starts.tolist() == [0] * 301


@pytest.mark.parametrize("kernels", [cpu, plain])
def test_a_bad_number_is_never_a_good_code(kernels: ModuleType) -> None:
    """A row with NaN gives no codes that look right, and leaves the other rows alone."""
    rows, W_enc = draw(6, 5, seed=0), draw(300, 5, seed=1)
    clean = dense(kernels.top_k(rows, W_enc, torch.zeros(300), 8), 300)
    rows[2, 3] = torch.nan
    found = dense(kernels.top_k(rows, W_enc, torch.zeros(300), 8), 300)
    others = torch.arange(6) != 2
    assert torch.equal(found[others], clean[others])
    assert not found[2].isfinite().all() or (found[2] == 0).all()


@given(kernels=KERNELS, dtype=DTYPES, n=st.integers(1, 60), levels=st.sampled_from([1, 3, 40]), **SIZES)
def test_the_best_of_a_batch_are_those_of_a_stable_sort(
    kernels: ModuleType, dtype: torch.dtype, n: int, levels: int, n_rows: int, n_latents: int, d: int, seed: int
) -> None:
    rows, W_enc = (
        draw(n_rows, d, seed=seed, levels=levels, dtype=dtype),
        draw(n_latents, d, seed=seed + 1, levels=2, dtype=dtype),
    )
    b_enc = draw(n_latents, seed=seed + 2, levels=3, dtype=dtype)
    found = kernels.batch_top(rows, W_enc, b_enc, n)
    assert torch.equal(dense(found, n_latents), reference.batch_top(rows @ W_enc.T + b_enc, n))
    check_order(found)


def test_the_best_of_a_batch_over_many_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "_TILE_LATENTS", 128)
    for seed in range(6):
        rows, W_enc, b_enc = draw(40, 3, seed=seed, levels=2), draw(1500, 3, seed=seed + 9, levels=2), torch.zeros(1500)
        for n in (1, 40, 900, 59_999):
            found = cpu.batch_top(rows, W_enc, b_enc, n)
            assert torch.equal(dense(found, 1500), reference.batch_top(rows @ W_enc.T, n)), (seed, n)


@given(kernels=KERNELS, dtype=DTYPES, **SIZES)
def test_above_keeps_what_exceeds_its_own_threshold(
    kernels: ModuleType, dtype: torch.dtype, n_rows: int, n_latents: int, d: int, seed: int
) -> None:
    rows, W_enc = (
        draw(n_rows, d, seed=seed, levels=4, dtype=dtype),
        draw(n_latents, d, seed=seed + 1, levels=2, dtype=dtype),
    )
    b_enc, threshold = (draw(n_latents, seed=seed + i, levels=3, dtype=dtype) for i in (2, 3))
    found = kernels.above(rows, W_enc, b_enc, threshold)
    pre = rows @ W_enc.T + b_enc
    assert torch.equal(dense(found, n_latents), reference.above(pre, threshold))
    assert len(found.latents) == int((pre > threshold).sum())  # a kept zero is a pair, too
    check_order(found)


@given(kernels=KERNELS, dtype=DTYPES, share=st.floats(0, 1), **SIZES)
def test_decoding_dots_and_sums_are_products_with_the_dense_codes(
    kernels: ModuleType, dtype: torch.dtype, share: float, n_rows: int, n_latents: int, d: int, seed: int
) -> None:
    pre = draw(n_rows, n_latents, seed=seed, dtype=dtype)
    pairs = from_dense(draw(n_rows, n_latents, seed=seed + 1).abs() < share, pre)
    codes = dense(pairs, n_latents)
    W_dec, target = draw(n_latents, d, seed=seed + 2, dtype=dtype), draw(n_rows, d, seed=seed + 3, dtype=dtype)
    close = {"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 1e-10, "atol": 1e-10}
    out = kernels.decode(pairs, pairs.values, W_dec, target.clone())
    torch.testing.assert_close(out, reference.decode(codes, W_dec) + target, **close)

    sources = draw(2, n_rows, d, seed=seed + 4, dtype=dtype)
    source_of = (torch.arange(n_latents) % 2).to(torch.uint8)
    found = kernels.dots(pairs, sources, source_of, W_dec)
    expected = torch.where(source_of.bool(), reference.dots(sources[1], W_dec), reference.dots(sources[0], W_dec))
    torch.testing.assert_close(found, expected[pairs.rows, pairs.latents.long()], **close)

    d_pre, read = draw(len(pairs.values), seed=seed + 5, dtype=dtype), draw(n_rows, d, seed=seed + 6, dtype=dtype)
    by_latent = kernels.by_latent(pairs, n_latents)
    back = Backward(
        by_latent, d_pre, pairs.values, read, sources, source_of, torch.zeros(n_latents, dtype=dtype), (0, d), False
    )
    d_enc, d_dec = kernels.gradients(back, W_dec)
    torch.testing.assert_close(d_enc, reference.sums(dense(pairs, n_latents, d_pre), read), **close)
    both = [reference.sums(codes, source) for source in sources]
    torch.testing.assert_close(d_dec, torch.where(source_of.bool()[:, None], both[1], both[0]), **close)
    squares = kernels.squared_lengths(back, W_dec)
    torch.testing.assert_close(squares, d_enc.square().sum(1) + d_dec.square().sum(1), **close)
    weights = draw(n_latents, seed=seed + 7, dtype=dtype)
    torch.testing.assert_close(kernels.weighted_sum(weights, W_dec), weights @ W_dec, **close)
    torch.testing.assert_close(by_latent.sums(d_pre), dense(pairs, n_latents, d_pre).sum(0), **close)


def some_backward(
    kernels: ModuleType, *, is_unit: bool, dtype: torch.dtype = torch.float64
) -> tuple[Backward, Moving, Moving]:
    n_rows, n_latents, d = 64, 1300, 10
    W_dec = draw(n_latents, d, seed=2, dtype=dtype)
    if is_unit:
        W_dec /= W_dec.norm(dim=1, keepdim=True)
    pre = draw(n_rows, n_latents, seed=0, dtype=dtype)
    pairs = from_dense(pre > 2.0, pre)
    by_latent, zeros = kernels.by_latent(pairs, n_latents), torch.zeros(n_latents, dtype=torch.uint8)
    back = Backward(
        by_latent,
        draw(len(pairs.values), seed=3, dtype=dtype),
        pairs.values,
        draw(n_rows, d, seed=4, dtype=dtype),
        draw(1, n_rows, d, seed=5, dtype=dtype),
        zeros,
        draw(n_latents, seed=6, dtype=dtype),
        (0, 4, d),
        is_unit,
    )
    return back, Moving.still(draw(n_latents, d, seed=1, dtype=dtype)), Moving.still(W_dec)


@pytest.mark.parametrize("kernels", [cpu, plain])
@pytest.mark.parametrize("is_unit", [True, False])
def test_adam_moves_as_torchs_adam_does(kernels: ModuleType, is_unit: bool) -> None:
    """Gradients of every size, over many steps, against torch.optim.Adam on the gradient tensors."""
    back, encoder, decoder = some_backward(kernels, is_unit=is_unit)
    theirs = [encoder.weight.clone(), decoder.weight.clone()]
    adam = torch.optim.Adam(theirs, lr=0.01, eps=6.25e-10)
    for step in range(12):
        scale = 10.0 ** (step % 5 - 4)
        theirs[0].grad, theirs[1].grad = (gradient * scale for gradient in kernels.gradients(back, theirs[1]))
        squares = kernels.adam(back, encoder, decoder, AdamStep(0.01, step + 1), shrink=scale)
        adam.step()
        if is_unit:
            theirs[1] /= theirs[1].norm(dim=1, keepdim=True)
        torch.testing.assert_close(encoder.weight, theirs[0], rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(decoder.weight, theirs[1], rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(squares, kernels.squared_lengths(back, theirs[1]), rtol=0.2, atol=1.0)
    if is_unit:
        torch.testing.assert_close(decoder.weight.norm(dim=1), torch.ones(1300, dtype=torch.float64))


@pytest.mark.parametrize("kernels", [cpu, plain])
def test_the_gradient_of_lengths_is_autograds(kernels: ModuleType) -> None:
    back, _, decoder = some_backward(kernels, is_unit=False)
    W_dec = decoder.weight.clone().requires_grad_()
    lengths = W_dec[:, :4].norm(dim=1) + W_dec[:, 4:].norm(dim=1)
    (expected,) = torch.autograd.grad((lengths * back.norm_gradient).sum(), W_dec)
    without = Backward(**(vars(back) | {"norm_gradient": torch.zeros_like(back.norm_gradient)}))
    found = kernels.gradients(back, decoder.weight)[1] - kernels.gradients(without, decoder.weight)[1]
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    decoder.weight[3] = 0.0  # a row of length zero has no direction, and no NaN
    assert kernels.gradients(back, decoder.weight)[1].isfinite().all()


@pytest.mark.parametrize("kernels", [cpu, plain])
def test_the_moments_of_a_silent_latent_do_not_become_denormal(kernels: ModuleType) -> None:
    back, encoder, decoder = some_backward(kernels, is_unit=True, dtype=torch.float32)
    kernels.adam(back, encoder, decoder, AdamStep(0.01, 1), shrink=1e-3)
    none = kernels.by_latent(from_dense(torch.zeros(64, 1300) > 1, torch.zeros(64, 1300)), 1300)
    silent = Backward(**(vars(back) | {"by_latent": none, "d_pre": back.d_pre[:0], "values": back.values[:0]}))
    for step in range(1200):
        kernels.adam(silent, encoder, decoder, AdamStep(0.01, step + 2))
    tiny = torch.finfo(torch.float32).tiny
    for moment in (encoder.mean, encoder.square, decoder.mean, decoder.square):
        assert ((moment == 0) | (moment.abs() >= tiny)).all()
    assert (encoder.mean == 0).all()
    assert (encoder.square > 0).any()


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
