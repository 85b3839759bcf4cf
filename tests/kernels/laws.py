"""What every module of kernels must do, as checks of one module. Everything is made on torch's default device.

`test_kernels` runs them over the modules for CPUs, `test_gpu` over Triton's, in its interpreter and on a device.
"""

from types import ModuleType

import pytest
import torch
from hypothesis import strategies as st

from mohole.kernels import reference
from mohole.kernels.pairs import AdamStep, Backward, Moving, Pairs, TooManyError, from_dense

SIZES = {
    "n_rows": st.integers(1, 9),
    "n_latents": st.integers(1, 400),
    "d": st.integers(1, 9),
    "seed": st.integers(0, 999),
}


def draw(*shape: int, seed: int, levels: int | None = None, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Normal numbers, or small whole ones, so that there are ties everywhere and sums are exact. The same on every device."""
    generator = torch.Generator("cpu").manual_seed(seed)
    kind = torch.float64 if dtype == torch.float64 else torch.float32
    if levels is None:
        found = torch.randn(*shape, generator=generator, dtype=kind, device="cpu")
    else:
        found = torch.randint(-levels, levels + 1, shape, generator=generator, device="cpu")
    return found.to(torch.get_default_device(), dtype)


def dense(pairs: Pairs, n_latents: int, values: torch.Tensor | None = None) -> torch.Tensor:
    values = pairs.values if values is None else values
    found = torch.zeros(len(pairs.row_starts) - 1, n_latents, dtype=values.dtype)
    found[pairs.rows, pairs.latents.long()] = values
    return found


def rounded(rows: torch.Tensor, W_enc: torch.Tensor, b_enc: torch.Tensor) -> torch.Tensor:
    """Pre-activations of whole numbers, which are exact until they are rounded as b_enc is."""
    return (rows.double() @ W_enc.double().T + b_enc.double()).to(b_enc.dtype)


def check_order(pairs: Pairs) -> None:
    for start, stop in zip(pairs.row_starts[:-1].tolist(), pairs.row_starts[1:].tolist(), strict=True):
        assert (torch.diff(pairs.latents[start:stop]) > 0).all()


def some_weights(
    n_rows: int, n_latents: int, d: int, seed: int, levels: int, dtype: torch.dtype, bias_dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rows = draw(n_rows, d, seed=seed, levels=levels, dtype=dtype)
    W_enc = draw(n_latents, d, seed=seed + 1, levels=2, dtype=dtype)
    return rows, W_enc, draw(n_latents, seed=seed + 2, levels=3, dtype=bias_dtype)


def top_k_keeps_what_a_stable_sort_keeps(
    kernels: ModuleType, dtype: torch.dtype, bias_dtype: torch.dtype, k: int, levels: int, n_rows: int, n_latents: int,
    d: int, seed: int,
) -> None:  # fmt: skip
    k = min(k, n_latents)
    rows, W_enc, b_enc = some_weights(n_rows, n_latents, d, seed, levels, dtype, bias_dtype)
    found = kernels.top_k(rows, W_enc, b_enc, k)
    assert torch.equal(dense(found, n_latents), reference.codes(rounded(rows, W_enc, b_enc), k))
    assert (found.values > 0).all()
    check_order(found)


def top_k_of_real_numbers(kernels: ModuleType, n_rows: int, n_latents: int, d: int, k: int, *, late: int = 0) -> None:
    """`late`: so many latents at the end are the best of every row."""
    rows, W_enc = draw(n_rows, d, seed=0), draw(n_latents, d, seed=1)
    W_enc[len(W_enc) - late :] *= 10
    b_enc = draw(n_latents, seed=2) * 0.1
    found = kernels.top_k(rows, W_enc, b_enc, k)
    expected = reference.codes(rows @ W_enc.T + b_enc, k)
    torch.testing.assert_close(dense(found, n_latents), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(torch.diff(found.row_starts), (expected > 0).sum(1))


def what_is_not_positive_is_never_kept(kernels: ModuleType) -> None:
    W_enc = torch.zeros(128, 1)
    W_enc[17] = 1.0
    for found in (
        kernels.top_k(torch.ones(3, 1), W_enc, torch.zeros(128), 5),
        kernels.batch_top(torch.ones(3, 1), W_enc, torch.zeros(128), 9),
    ):
        assert found.latents.tolist() == [17, 17, 17]
        assert found.values.tolist() == [1.0, 1.0, 1.0]


def what_is_compared_is_the_pre_activation_as_it_is_rounded(kernels: ModuleType) -> None:
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


def among_equals_the_lowest_latents_are_kept(kernels: ModuleType, n_latents: int) -> None:
    found = kernels.top_k(torch.ones(3, 1), torch.ones(n_latents, 1), torch.zeros(n_latents), 5)
    assert found.latents.tolist() == [0, 1, 2, 3, 4] * 3


def no_pre_activation_is_positive_and_no_code_is_kept(kernels: ModuleType) -> None:
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


def a_bad_number_is_never_a_good_code(kernels: ModuleType) -> None:
    """A row with NaN gives no codes that look right, and leaves the other rows alone."""
    rows, W_enc = draw(6, 5, seed=0), draw(300, 5, seed=1)
    clean = dense(kernels.top_k(rows, W_enc, torch.zeros(300), 8), 300)
    rows[2, 3] = torch.nan
    found = dense(kernels.top_k(rows, W_enc, torch.zeros(300), 8), 300)
    others = torch.arange(6) != 2
    assert torch.equal(found[others], clean[others])
    assert not found[2].isfinite().all() or (found[2] == 0).all()


def the_best_of_a_batch_are_those_of_a_stable_sort(
    kernels: ModuleType, dtype: torch.dtype, bias_dtype: torch.dtype, n: int, levels: int, n_rows: int, n_latents: int,
    d: int, seed: int,
) -> None:  # fmt: skip
    rows, W_enc, b_enc = some_weights(n_rows, n_latents, d, seed, levels, dtype, bias_dtype)
    found = kernels.batch_top(rows, W_enc, b_enc, n)
    assert torch.equal(dense(found, n_latents), reference.batch_top(rounded(rows, W_enc, b_enc), n))
    check_order(found)


def above_keeps_what_exceeds_its_own_threshold(
    kernels: ModuleType, dtype: torch.dtype, bias_dtype: torch.dtype, n_rows: int, n_latents: int, d: int, seed: int
) -> None:
    rows, W_enc, b_enc = some_weights(n_rows, n_latents, d, seed, 4, dtype, bias_dtype)
    threshold = draw(n_latents, seed=seed + 3, levels=3, dtype=bias_dtype)
    found = kernels.above(rows, W_enc, b_enc, threshold)
    pre = rounded(rows, W_enc, b_enc)
    assert torch.equal(dense(found, n_latents), reference.above(pre, threshold))
    n_kept = len(found.latents)
    assert len(kernels.above(rows, W_enc, b_enc, threshold, most=n_kept).latents) == n_kept
    if n_kept:
        with pytest.raises(TooManyError):
            kernels.above(rows, W_enc, b_enc, threshold, most=n_kept - 1)
    assert len(found.latents) == int((pre > threshold).sum())  # a kept zero is a pair, too
    check_order(found)


def decoding_dots_and_sums_are_products_with_the_dense_codes(
    kernels: ModuleType, dtype: torch.dtype, share: float, n_rows: int, n_latents: int, d: int, seed: int
) -> None:
    """`dtype` is that of matrices and rows; what belongs to a pair is float32 where that is a 16-bit type."""
    kind = torch.float64 if dtype == torch.float64 else torch.float32
    close = {"rtol": 1e-10, "atol": 1e-10} if dtype == torch.float64 else {"rtol": 1e-4, "atol": 1e-4}
    pre = draw(n_rows, n_latents, seed=seed, dtype=kind)
    pairs = from_dense(draw(n_rows, n_latents, seed=seed + 1).abs() < share, pre)
    codes = dense(pairs, n_latents)
    W_dec, target = draw(n_latents, d, seed=seed + 2, dtype=dtype), draw(n_rows, d, seed=seed + 3, dtype=kind)
    directions = W_dec.to(kind)
    out = kernels.decode(pairs, pairs.values, W_dec, target.clone())
    torch.testing.assert_close(out, reference.decode(codes, directions) + target, **close)

    sources = draw(2, n_rows, d, seed=seed + 4, dtype=dtype)
    source_of = (torch.arange(n_latents) % 2).to(torch.uint8)
    found = kernels.dots(pairs, sources, source_of, W_dec)
    both = [reference.dots(source.to(kind), directions) for source in sources]
    expected = torch.where(source_of.bool(), both[1], both[0])
    torch.testing.assert_close(found, expected[pairs.rows, pairs.latents.long()], **close)

    d_product, read = draw(len(pairs.values), seed=seed + 5, dtype=kind), draw(n_rows, d, seed=seed + 6, dtype=dtype)
    by_latent = kernels.by_latent(pairs, n_latents)
    no_pull = torch.zeros(n_latents, dtype=kind)
    back = Backward(by_latent, d_product, pairs.values, read, sources, source_of, no_pull, (0, d), False)
    d_enc, d_dec = kernels.gradients(back, W_dec)
    torch.testing.assert_close(d_enc, reference.sums(dense(pairs, n_latents, d_product), read.to(kind)), **close)
    both = [reference.sums(codes, source.to(kind)) for source in sources]
    torch.testing.assert_close(d_dec, torch.where(source_of.bool()[:, None], both[1], both[0]), **close)
    first, last = n_latents // 3, n_latents - n_latents // 4
    for some, whole in zip(kernels.gradients(back, W_dec, first, last), (d_enc, d_dec), strict=True):
        assert torch.equal(some, whole[first:last])
    squares = kernels.squared_lengths(back, W_dec)
    torch.testing.assert_close(squares, d_enc.square().sum(1) + d_dec.square().sum(1), **close)
    weights = draw(n_latents, seed=seed + 7, dtype=dtype)
    summed = (weights.double() @ W_dec.double()).to(kind)
    loose = close if dtype == kind else {"rtol": 2e-2, "atol": 0.2}
    torch.testing.assert_close(kernels.weighted_sum(weights, W_dec).to(kind), summed, **loose)
    for summed in (by_latent.sums(d_product), *kernels.sums_by_latent(pairs, [d_product, d_product], n_latents)):
        torch.testing.assert_close(summed, dense(pairs, n_latents, d_product).sum(0), **close)
    wanted = d_product > 0
    some = Backward(**(vars(back) | {"by_latent": kernels.by_latent(pairs, n_latents, wanted)}))
    expected = reference.sums(dense(pairs, n_latents, d_product * wanted), read.to(kind))
    torch.testing.assert_close(kernels.gradients(some, W_dec)[0], expected, **close)


def some_backward(
    kernels: ModuleType, *, is_unit: bool, n_latents: int = 1300, dtype: torch.dtype = torch.float64
) -> tuple[Backward, Moving, Moving]:
    n_rows, d = 64, 10
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


def no_gradient_is_longer_than_its_bound(kernels: ModuleType, n_latents: int = 1300) -> None:
    """Nor much shorter, where its rows do not cancel. Of a bad number there is no bound."""
    for is_unit in (True, False):
        for dtype in (torch.float32, torch.float64):
            back, _, decoder = some_backward(kernels, is_unit=is_unit, n_latents=n_latents, dtype=dtype)
            back = Backward(**(vars(back) | {"values": draw(len(back.values), seed=9, dtype=dtype)}))
            squares, bounds = kernels.squared_lengths(back, decoder.weight), kernels.squares_at_most(back)
            assert (squares.double() <= bounds).all()
    codes = torch.eye(9, n_latents)  # a pair a latent: nothing to cancel
    by_latent = kernels.by_latent(from_dense(codes > 0, codes), n_latents)
    read, sources, none = draw(9, 10, seed=0), draw(2, 9, 7, seed=1), torch.zeros(n_latents)
    source_of = (torch.arange(n_latents) % 2).to(torch.uint8)
    alone = Backward(by_latent, draw(9, seed=2), torch.ones(9), read, sources, source_of, none, (0, 7), False)
    squares, bounds = kernels.squared_lengths(alone, draw(n_latents, 7, seed=3)), kernels.squares_at_most(alone)
    assert (squares <= bounds).all()
    torch.testing.assert_close(squares, bounds.float(), rtol=1e-4, atol=0.0)
    pulled = Backward(**(vars(alone) | {"norm_gradient": none + 3.0, "sites": (0, 4, 7)}))
    along = draw(n_latents, 7, seed=3)
    assert (kernels.squared_lengths(pulled, along) <= kernels.squares_at_most(pulled)).all()
    assert kernels.squares_at_most(pulled)[20] == pytest.approx(18.0, rel=1e-4)  # 3 at each of two sites
    d_product = alone.d_product.clone()
    d_product[4] = torch.nan
    bounds = kernels.squares_at_most(Backward(**(vars(alone) | {"d_product": d_product})))
    assert bounds.isnan().tolist() == [latent == 4 for latent in range(n_latents)]


def adam_moves_as_torchs_adam_does(
    kernels: ModuleType, *, is_unit: bool, n_latents: int = 1300, n_steps: int = 12
) -> None:
    """Gradients of every size, over many steps, against torch.optim.Adam on the gradient tensors."""
    back, encoder, decoder = some_backward(kernels, is_unit=is_unit, n_latents=n_latents)
    theirs = [encoder.weight.clone(), decoder.weight.clone()]
    adam = torch.optim.Adam(theirs, lr=0.01, eps=6.25e-10)
    for step in range(n_steps):
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
        torch.testing.assert_close(decoder.weight.norm(dim=1), torch.ones(n_latents, dtype=torch.float64))


def the_gradient_of_lengths_is_autograds(kernels: ModuleType, n_latents: int = 1300) -> None:
    back, _, decoder = some_backward(kernels, is_unit=False, n_latents=n_latents)
    W_dec = decoder.weight.clone().requires_grad_()
    lengths = W_dec[:, :4].norm(dim=1) + W_dec[:, 4:].norm(dim=1)
    (expected,) = torch.autograd.grad((lengths * back.norm_gradient).sum(), W_dec)
    without = Backward(**(vars(back) | {"norm_gradient": torch.zeros_like(back.norm_gradient)}))
    found = kernels.gradients(back, decoder.weight)[1] - kernels.gradients(without, decoder.weight)[1]
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    decoder.weight[3] = 0.0  # a row of length zero has no direction, and no NaN
    assert kernels.gradients(back, decoder.weight)[1].isfinite().all()


def the_moments_of_a_silent_latent_do_not_become_denormal(
    kernels: ModuleType, n_latents: int = 1300, n_steps: int = 1200, beta1: float = 0.9
) -> None:
    back, encoder, decoder = some_backward(kernels, is_unit=True, n_latents=n_latents, dtype=torch.float32)
    kernels.adam(back, encoder, decoder, AdamStep(0.01, 1, beta1=beta1), shrink=1e-3)
    empty = torch.zeros(64, n_latents)
    none = kernels.by_latent(from_dense(empty > 1, empty), n_latents)
    silent = Backward(**(vars(back) | {"by_latent": none, "d_product": back.d_product[:0], "values": back.values[:0]}))
    for step in range(n_steps):
        kernels.adam(silent, encoder, decoder, AdamStep(0.01, step + 2, beta1=beta1))
    tiny = torch.finfo(torch.float32).tiny
    for moment in (encoder.mean, encoder.square, decoder.mean, decoder.square):
        assert ((moment == 0) | (moment.abs() >= tiny)).all()
    assert (encoder.mean == 0).all()
    assert (encoder.square > 0).any()
