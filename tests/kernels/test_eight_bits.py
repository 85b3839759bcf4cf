"""Encoder rows in eight bits: what TopK keeps is the same to the bit, whatever the numbers; and when they are made anew."""

import gc
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mohole.kernels import HAS_NUMBA, few
from mohole.kernels import eight_bits as module
from mohole.kernels.eight_bits import NOT_ROUNDED, EightBits, eight_bits_of, rounded
from mohole.kernels.few import TopLatents

pytestmark = pytest.mark.skipif(not HAS_NUMBA, reason="needs numba")


def numbers(random: np.random.Generator, *shape: int) -> np.ndarray:
    return random.standard_normal(shape).astype(np.float32)


def hard_encoder(random: np.random.Generator, n_latents: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    """Copies, near copies, zeros, rows with one large number (which leaves the others no bits), and of very different length."""
    W_enc, b_enc = numbers(random, n_latents, d), numbers(random, n_latents) * random.choice([0, 1, 1000])
    kinds = random.integers(0, 7, n_latents)
    W_enc[kinds == 1], b_enc[kinds == 1] = W_enc[0], b_enc[0]
    W_enc[kinds == 2] = W_enc[0] + 1e-6 * W_enc[kinds == 2]
    W_enc[kinds == 3] = 0
    W_enc[kinds == 4, 0] *= 1000
    W_enc[kinds == 5] *= np.float32(10.0) ** random.integers(-38, 30, (int((kinds == 5).sum()), 1))
    return W_enc, b_enc


@given(
    n_latents=st.integers(1, 150),
    d=st.sampled_from([1, 2, 7, 8, 15, 16, 17, 31, 64, 129]),
    k=st.integers(1, 150),
    n=st.integers(0, 16),
    scale=st.sampled_from([1e-38, 1e-25, 1e-22, 1e-3, 1.0, 1e6, 1e18, 1e37]),
    seed=st.integers(0, 10**6),
)
def test_what_is_kept_is_the_same_to_the_bit(n_latents: int, d: int, k: int, n: int, scale: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    W_enc, b_enc = hard_encoder(random, n_latents, d)
    origin = numbers(random, d) * np.float32(scale) * random.choice([0, 1])
    rows = torch.from_numpy(numbers(random, n, d) * np.float32(scale))
    latents = random.permutation(n_latents)[:9]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(few, "_LEAST", int(random.integers(1, 20)))  # the codes are for what is behind
        plain = TopLatents(W_enc, b_enc, origin, min(k, n_latents), latents)
        near = TopLatents(W_enc, b_enc, origin, min(k, n_latents), latents, rounded(W_enc))
        for one, other in zip(plain(rows), near(rows), strict=True):
            assert torch.equal(one, other)


def nearly_equal(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """All numbers of a row are of one size, so that nothing is missed by rounding; and rows are a few last places apart."""
    signs = random.choice([-1.0, 1.0], 33)
    last_places = 1 + random.integers(-3, 4, (60, 1)) * 2.0**-23
    return (signs * last_places).astype(np.float32), np.zeros(60, np.float32)


def of_sizes_too_small(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Products with them are below the normal numbers, and lose their last places one by one."""
    return (random.choice([-1e-25, 1e-25], (60, 33))).astype(np.float32), np.zeros(60, np.float32)


def beside_a_large_bias(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """What is added to it is worth a few of its last places."""
    return numbers(random, 60, 33) * np.float32(1e-4), np.full(60, 1000, np.float32)


def drawn(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return numbers(random, 60, 33), np.zeros(60, np.float32)


@pytest.mark.parametrize(
    ("encoder", "scale"),
    [(nearly_equal, 1.0), (of_sizes_too_small, 1e-19), (beside_a_large_bias, 1.0), (drawn, 1e-25), (drawn, 1e25)],
)
def test_what_sums_lose_decides_nothing_otherwise(
    encoder: Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]],
    scale: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(few, "_LEAST", 1)
    random = np.random.default_rng(2)
    for _ in range(100):
        W_enc, b_enc = encoder(random)
        rows = torch.from_numpy(numbers(random, 16, 33) * np.float32(scale))
        given_all = W_enc, b_enc, np.zeros(33, np.float32), int(random.integers(2, 40)), random.permutation(60)[:6]
        plain, near = TopLatents(*given_all), TopLatents(*given_all, rounded(W_enc))
        assert torch.equal(plain(rows)[0], near(rows)[0])


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 3e38])
def test_numbers_that_are_none_decide_nothing_otherwise(wrong: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """3e38 is one; times a code, or with others, it is not."""
    monkeypatch.setattr(few, "_LEAST", 2)
    random = np.random.default_rng(1)
    for _ in range(100):
        W_enc, b_enc, rows = numbers(random, 40, 16), numbers(random, 40), numbers(random, 12, 16)
        W_enc[random.integers(40), random.integers(16)] = wrong
        b_enc[random.integers(40)] = random.choice([wrong, 0])
        rows[random.integers(12), random.integers(16)] = random.choice([wrong, 0])
        given_all = W_enc, b_enc, np.zeros(16, np.float32), 7, random.permutation(40)[:6]
        found = [
            own(torch.from_numpy(rows))[0] for own in (TopLatents(*given_all), TopLatents(*given_all, rounded(W_enc)))
        ]
        torch.testing.assert_close(*found, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("k", [1, 700, 1500, 2900])
@pytest.mark.parametrize("n", [1, 6, 16])
def test_however_many_latents_are_in_doubt_each_is_counted_once(
    n: int, k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most are, tile after tile: a large number leaves the others of its row no bits. In whole numbers, whose sums are exact."""
    monkeypatch.setattr(few, "_LEAST", 1)
    monkeypatch.setattr(few, "_SHARE", 10**6)
    random = np.random.default_rng(n)
    W_enc = random.integers(-2, 3, (3000, 64)).astype(np.float32)
    W_enc[random.random(3000) < 0.8, 0] = 1024
    rows = random.integers(-1, 2, (n, 64)).astype(np.float32) * (1 + np.arange(n)[:, None] % 3)
    rows[:, 0] = 0
    pre = rows @ W_enc.T + 300
    order = np.argsort(-pre, axis=1, kind="stable")
    expected = np.zeros_like(pre)
    np.put_along_axis(expected, order[:, :k], np.take_along_axis(pre, order[:, :k], axis=1), axis=1)
    for latents in order[:, max(k - 2, 0) : k + 2]:  # one more or one less counted, and these would not be as they are
        bias, origin = np.full(3000, 300, np.float32), np.zeros(64, np.float32)
        found, _ = TopLatents(W_enc, bias, origin, k, latents, rounded(W_enc))(torch.from_numpy(rows))
        np.testing.assert_array_equal(found, expected[:, latents])


@pytest.mark.parametrize("d", [9000, 40000])
def test_rows_wider_than_a_tile_has_numbers_are_read(d: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of a crosscoder of many layers. In whole numbers, whose sums are exact."""
    monkeypatch.setattr(few, "_LEAST", 3)
    random = np.random.default_rng(0)
    W_enc, rows = (random.integers(-2, 3, (n, d)).astype(np.float32) for n in (9, 5))
    given_all = W_enc, np.full(9, 1e5, np.float32), np.zeros(d, np.float32), 4, np.arange(9)
    pre = rows.astype(np.float64) @ W_enc.T + 1e5
    expected = np.where(np.argsort(np.argsort(-pre, axis=1, kind="stable"), axis=1) < 4, pre, 0)
    for own in (TopLatents(*given_all), TopLatents(*given_all, rounded(W_enc))):
        np.testing.assert_array_equal(own(torch.from_numpy(rows))[0], expected)


def test_parts_of_sums_that_overflow_decide_nothing_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """2 x 3e38 less nearly as much is infinite, or no number; of codes, which are small, the sum is a small number."""
    monkeypatch.setattr(few, "_LEAST", 1)
    random = np.random.default_rng(3)
    W_enc = np.zeros((16, 40), np.float32)
    W_enc[0, 5], W_enc[12, [0, 16]] = 1, (3e38, -3e38)
    rows: np.ndarray = np.zeros((16, 40), np.float32)
    rows[:, 5], rows[:, 0], rows[:, 16] = 1, 2, 2 + random.uniform(-0.1, 0.1, 16)
    given_all = W_enc, np.zeros(16, np.float32), np.zeros(40, np.float32), 1, np.array([0])
    plain, near = TopLatents(*given_all), TopLatents(*given_all, rounded(W_enc))
    assert torch.equal(plain(torch.from_numpy(rows))[0], near(torch.from_numpy(rows))[0])


def test_a_row_whose_length_has_no_bits_decides_nothing_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """1.4 times the smallest number of float32 is that number; and large numbers times it are not small."""
    monkeypatch.setattr(few, "_LEAST", 1)
    unit = np.float32(2e36)
    W_enc = np.zeros((16, 4), np.float32)
    W_enc[0, 1], W_enc[12] = 0.8 * unit, (127 * unit, 0.49 * unit, 0.49 * unit, 0)
    rows = torch.tensor([[0, 1.4e-45, 1.4e-45, 0]])
    given_all = W_enc, np.zeros(16, np.float32), np.zeros(4, np.float32), 1, np.array([0])
    for own in (TopLatents(*given_all), TopLatents(*given_all, rounded(W_enc))):
        assert own(rows)[0].item() == 0


@given(d=st.integers(1, 300), scale=st.sampled_from([1e-20, 1.0, 1e15]), seed=st.integers(0, 10**6))
def test_products_with_codes_are_as_near_as_it_is_said(d: int, scale: float, seed: int) -> None:
    """The worst other vector is the one along what was missed."""
    random = np.random.default_rng(seed)
    W_enc, _ = hard_encoder(random, 30, d)
    with np.errstate(over="ignore"):
        W_enc = W_enc * np.float32(scale)
    W_enc = W_enc[np.isfinite(W_enc).all(axis=1)]
    found = rounded(W_enc)
    missed = W_enc.astype(np.float64) - found.codes.astype(np.float64) * found.units[:, None].astype(np.float64)
    lengths = np.linalg.norm(missed, axis=1)
    assert (lengths <= found.errors).all()
    usual = found.units > 1e-37  # below, a unit itself has lost its bits
    largest = abs(W_enc).max(axis=1)
    assert (lengths <= 0.51 * found.units * np.sqrt(d) + 1e-45)[usual].all()
    np.testing.assert_array_equal(abs(found.codes).max(axis=1)[usual], 127 * (largest[usual] > 0))


def test_few_encoder_rows_are_read_besides_the_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are read are poisoned, one at a time: where it is far from the one that is judged, nobody notices."""
    monkeypatch.setattr(few, "_LEAST", 8)
    random = np.random.default_rng(0)
    W_enc, rows = numbers(random, 400, 64), torch.from_numpy(numbers(random, 1, 64))
    W_enc /= np.linalg.norm(W_enc, axis=1, keepdims=True)
    before = W_enc @ rows[0].numpy()
    judged = int(np.argsort(-before)[30])
    codes, n_noticed = rounded(W_enc), 0
    for latent in set(range(50, 400)) - {judged}:
        poisoned = W_enc.copy()
        poisoned[latent] = np.nan
        own = TopLatents(poisoned, np.zeros(400, np.float32), np.zeros(64, np.float32), 31, np.array([judged]), codes)
        above = TopLatents(poisoned, np.zeros(400, np.float32), np.zeros(64, np.float32), 30, np.array([judged]), codes)
        is_ahead = before[latent] > before[judged]
        # 30 stand before it: with 31 kept it is on, with 30 it is off, and on if one of them is not seen to.
        n_noticed += bool(above(rows)[0][0, 0] > 0)
        assert own(rows)[0][0, 0] > 0
        assert is_ahead or above(rows)[0][0, 0] == 0
    assert n_noticed < 10


@pytest.fixture
def small_ones_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LEAST_NUMBERS", 0)


def same(one: EightBits, other: EightBits) -> bool:
    return np.array_equal(one.codes, other.codes) and np.array_equal(one.units, other.units)


def test_an_encoder_is_rounded_once_until_it_is_written_to(small_ones_too: None) -> None:
    W_enc = torch.randn(20, 8, generator=torch.Generator().manual_seed(0))
    first = eight_bits_of(W_enc)
    assert eight_bits_of(W_enc) is first
    writes = (
        lambda: W_enc.mul_(2),
        lambda: W_enc[3].zero_(),
        lambda: W_enc.view(-1)[:4].copy_(torch.ones(4)),
        lambda: setattr(W_enc, "data", W_enc.data * 3),
    )
    for write in writes:
        write()
        again = eight_bits_of(W_enc)
        assert again is not first
        assert same(again, rounded(W_enc.numpy()))
        first = again


def test_numbers_that_take_the_place_of_others_in_memory_are_rounded(small_ones_too: None) -> None:
    """As where the first are given back and others get their memory: one address, and nobody has written to the tensor."""
    random = np.random.default_rng(0)
    memory = numbers(random, 20, 8)
    W_enc = torch.empty(0)
    W_enc.data = torch.from_numpy(memory)
    address, version = W_enc.data_ptr(), W_enc._version
    eight_bits_of(W_enc)
    memory[:] = numbers(random, 20, 8)
    W_enc.data = torch.from_numpy(memory)
    assert (W_enc.data_ptr(), W_enc._version) == (address, version)
    assert same(eight_bits_of(W_enc), rounded(memory))


def test_what_was_rounded_goes_with_its_encoder(small_ones_too: None) -> None:
    gc.collect()
    before = len(module._KEPT)
    W_enc = torch.randn(20, 8)
    eight_bits_of(W_enc)
    assert len(module._KEPT) == before + 1
    del W_enc
    gc.collect()
    assert len(module._KEPT) == before


def test_an_encoder_that_does_not_count_its_writes_is_not_rounded(small_ones_too: None) -> None:
    with torch.inference_mode():
        assert eight_bits_of(torch.randn(20, 8)) is NOT_ROUNDED


def test_a_small_encoder_is_not_rounded() -> None:
    assert eight_bits_of(torch.zeros(511, 128)) is NOT_ROUNDED
    assert eight_bits_of(torch.zeros(512, 128)) is not NOT_ROUNDED


def test_codes_of_another_encoder_are_refused() -> None:
    """A loop does not look where an array ends."""
    W_enc: np.ndarray = np.zeros((20, 8), np.float32)
    with pytest.raises(ValueError, match=r"rounded: shape \[20, 7\], where \[20, 8\] is needed"):
        TopLatents(
            W_enc, np.zeros(20, np.float32), np.zeros(8, np.float32), 3, np.array([1]), rounded(W_enc[:, :7].copy())
        )


def test_encoder_rows_that_do_not_lie_one_behind_the_other_are_refused() -> None:
    W_enc: np.ndarray = np.zeros((20, 8), np.float32)
    for apart in (np.asfortranarray(W_enc), W_enc[:, :7], W_enc[::2]):
        n, d = apart.shape
        with pytest.raises(ValueError, match=r"W_enc: numbers of stride \[.*\], where rows lie one behind the other"):
            TopLatents(apart, np.zeros(n, np.float32), np.zeros(d, np.float32), 3, np.array([1]))


def test_rows_are_rounded_alike_in_other_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    W_enc = numbers(np.random.default_rng(0), 70, 33)
    one = rounded(W_enc)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert same(one, rounded(W_enc))
    assert np.array_equal(one.errors, rounded(W_enc).errors)


def products(rows: Tensor, W_enc: Tensor) -> np.ndarray:
    """Of every row and latent, by `few_products`, in blocks, and what is left."""
    from mohole.kernels import few_products

    left, found = np.arange(len(rows)), np.zeros((few_products.ROWS, len(W_enc)), np.float32)
    n_rows = few_products.products_of(rows.numpy(), left, 0, len(rows), W_enc.numpy(), 0, len(W_enc), found)
    assert n_rows == len(rows)
    return found[:n_rows]


@given(d=st.integers(1, 100), n_latents=st.integers(1, 9), seed=st.integers(0, 10**6))
def test_a_product_is_the_same_to_the_bit_with_whatever_others(d: int, n_latents: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    rows, W_enc = torch.from_numpy(numbers(random, 4, d)), torch.from_numpy(numbers(random, n_latents, d))
    together = products(rows, W_enc)
    np.testing.assert_allclose(together, rows.double() @ W_enc.double().T, rtol=1e-4, atol=1e-5)
    for row in range(4):
        np.testing.assert_array_equal(products(rows[row : row + 1], W_enc)[0], together[row])
        for latent in range(n_latents):
            alone = products(rows[row : row + 1], W_enc[latent : latent + 1])
            assert alone[0, 0] == together[row, latent]
