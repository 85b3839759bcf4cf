"""A few latents of rows, and rows that terms move: what the loops say is what their formulas say, number by number."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mohole.kernels import HAS_NUMBA
from mohole.kernels import few as module
from mohole.kernels.few import MOST_LOOKED_ON, FewLatents, Movements, TopLatents, is_few, is_looped, kept_of

pytestmark = pytest.mark.skipif(not HAS_NUMBA, reason="needs numba")


def numbers(random: np.random.Generator, *shape: int) -> np.ndarray:
    return random.standard_normal(shape).astype(np.float32)


def top(random: np.random.Generator, n_latents: int, d: int, k: int, latents: list[int]) -> TopLatents:
    """Every third encoder row is a copy of the one before, with its bias: equal activations, to the bit."""
    W_enc, b_enc = numbers(random, n_latents, d), numbers(random, n_latents)
    W_enc[2::3], b_enc[2::3] = W_enc[1::3][: len(W_enc[2::3])], b_enc[1::3][: len(b_enc[2::3])]
    return TopLatents(W_enc, b_enc, numbers(random, d), k, np.array(latents, np.int64))


def kept(own: TopLatents, rows: Tensor) -> np.ndarray:
    """In double, by sorting: of equal ones the lower latent first."""
    before = (rows.double().numpy() - own.origin) @ own.W_enc.astype(np.float64).T + own.b_enc
    order = np.argsort(-before, axis=1, kind="stable")[:, : own.k]
    found = np.zeros_like(before)
    np.put_along_axis(found, order, np.take_along_axis(before, order, axis=1), axis=1)
    return np.maximum(found, 0)[:, own.latents]


@given(
    n_latents=st.integers(1, 70),
    d=st.sampled_from([1, 2, 7, 8, 31, 64, 129]),
    k=st.integers(1, 70),
    seed=st.integers(0, 10**6),
)
def test_what_top_k_keeps_is_read_of_any_of_its_latents(n_latents: int, d: int, k: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    latents = random.permutation(n_latents)[:9].tolist()
    own = top(random, n_latents, d, min(k, n_latents), latents)
    rows = torch.from_numpy(numbers(random, 5, d))
    found, is_open = own(rows)
    assert not is_open.any()
    np.testing.assert_allclose(found, kept(own, rows), rtol=1e-4, atol=1e-4)


def test_of_equal_latents_the_lower_numbers_are_kept_to_the_last_one() -> None:
    """All are equal, so exactly the first k are kept, whatever the width and wherever a latent stands."""
    for d in (1, 3, 8, 16, 17, 33, 64, 100, 128, 257):
        way = np.linspace(0.5, 1.5, d, dtype=np.float32)
        own = TopLatents(np.tile(way, (40, 1)), np.zeros(40, np.float32), np.zeros(d, np.float32), 23, np.arange(40))
        found, _ = own(torch.full((3, d), 0.1))
        assert (found[:, :23] > 0).all()
        assert (found[:, 23:] == 0).all()


def test_rows_that_are_not_settled_are_open_unless_they_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three latents are looked at: two before the one that is read are enough to silence it, one is not."""
    monkeypatch.setattr(module, "_LEAST", 3)
    own = TopLatents(np.eye(9, dtype=np.float32), np.zeros(9, np.float32), np.zeros(9, np.float32), 2, np.array([5]))
    rows = torch.zeros(4, 9)
    rows[:, 5] = 1.0
    rows[0, [0, 2]] = 2.0  # silent: both are seen
    rows[1, [0, 8]] = 2.0  # silent, and the second is not seen
    rows[2, 0] = 2.0  # kept
    rows[3, 5] = -1.0  # silent by itself
    found, is_open = own(rows)
    assert found[:, 0].tolist() == [0.0, 0.0, 1.0, 0.0]
    assert not is_open.any()
    found, is_open = own(rows.repeat(9, 1))
    assert is_open.tolist() == [False, True, True, False] * 9
    assert (found[~is_open] == 0).all()


@given(n=st.integers(0, 6), k=st.integers(1, 20), d=st.sampled_from([1, 5, 16, 130]), seed=st.integers(0, 10**6))
def test_few_latents_are_their_formula(n: int, k: int, d: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    coefficients, floor = numbers(random, 4, k), random.choice([-np.inf, 0.0]).astype(np.float32)
    own = FewLatents(numbers(random, k, d), numbers(random, d), coefficients, floor)
    rows, (bias, threshold, gain, offset) = torch.from_numpy(numbers(random, n, d)), coefficients
    product = ((rows.numpy() - own.origin) @ own.directions.T).astype(np.float64)
    near = abs(product + bias - threshold) < 1e-4
    expected = np.where(product + bias > threshold, np.maximum(gain * product + offset, floor), 0)
    wanted = random.random((n, k)) < 0.5
    for which in (None, wanted):
        here = expected if which is None else np.where(which, expected, 0)
        np.testing.assert_allclose(np.where(near, 0, own(rows, which)), np.where(near, 0, here), rtol=1e-4, atol=1e-4)


def movements(random: np.random.Generator, n_terms: int, n_read: int, d: int) -> Movements:
    columns = random.integers(-1, n_read, (2, n_terms))
    of_terms = numbers(random, 5, n_terms)
    of_terms[2:4] = np.sort(of_terms[2:4], axis=0)
    of_terms[2:4, random.random(n_terms) < 0.5] = [[-np.inf], [np.inf]]
    return Movements(columns, of_terms, numbers(random, n_terms, d))


def moved_in_double(
    own: Movements, rows: Tensor, found: Tensor, factor: Tensor | None, held: Tensor | None
) -> tuple[np.ndarray, np.ndarray]:
    """Rows [N, D] and which of them moved, term by term."""
    n_positions, n_terms, d = rows.shape[1], len(own.along), rows.shape[2]
    expected = rows.double().reshape(-1, d).numpy().copy()
    moves = np.zeros(len(expected), np.bool_)
    constant, slope, low, high, bound = own.numbers.astype(np.float64)
    for row, term in np.ndindex(len(expected), n_terms):
        read, when = own.columns[:, term]
        text, position = divmod(row, n_positions)
        if held is not None and not held.expand(-1, n_positions, n_terms)[text, position, term]:
            continue
        if when >= 0 and not found[row, when] > bound[term]:
            continue
        r = float(found[row, read]) if read >= 0 else 0.0
        by = constant[term] + (slope[term] * r + np.clip(r, low[term], high[term]) - r if read >= 0 else 0.0)
        by *= 1.0 if factor is None else float(factor[row, term])
        expected[row] += by * own.along[term]
        moves[row] |= by != 0
    return expected, moves


@given(
    n_texts=st.integers(0, 4),
    n_positions=st.integers(1, 3),
    n_terms=st.integers(1, 6),
    seed=st.integers(0, 10**6),
)
def test_rows_move_by_their_terms_and_those_that_do_not_keep_their_bits(
    n_texts: int, n_positions: int, n_terms: int, seed: int
) -> None:
    random, d, n_read = np.random.default_rng(seed), 11, 3
    own = movements(random, n_terms, n_read, d)
    rows = torch.from_numpy(numbers(random, n_texts, n_positions, d))
    n = n_texts * n_positions
    found = torch.from_numpy(numbers(random, n, n_read))
    factor = torch.from_numpy(numbers(random, n, n_terms)) if random.random() < 0.5 else None
    held = torch.from_numpy(
        random.random((n_texts, random.choice([1, n_positions]), random.choice([1, n_terms]))) < 0.5
    )
    held = held if random.random() < 0.7 else None
    expected, moves = moved_in_double(own, rows, found, factor, held)
    moved, has_moved = own(rows, found, factor, held)
    np.testing.assert_allclose(moved.reshape(n, d), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(has_moved.reshape(n), moves)
    still = ~has_moved
    assert torch.equal(moved[still], rows[still])


def test_a_clip_that_holds_moves_nothing_however_large_the_reading() -> None:
    """(clip(r) - r) is taken as written: 0, where slope r is 1e30 times as large as what would be lost of it."""
    of_term = np.array([[0.0], [0.0], [-np.inf], [np.inf], [-np.inf]], np.float32)
    own = Movements(np.array([[0], [-1]]), of_term, np.ones((1, 4), np.float32))
    rows = torch.randn(1, 2, 4, generator=torch.Generator().manual_seed(0))
    moved, has_moved = own(rows, torch.tensor([[3.3e38], [-1.7e7]]), None, None)
    assert torch.equal(moved, rows)
    assert not has_moved.any()


def test_a_constant_is_not_lost_beside_a_large_reading() -> None:
    """Taken in another order it would be: 1 + 1.7e8 - 1.7e8 is 0 in float32."""
    law = np.array([[1.0], [0.0], [-np.inf], [np.inf], [-np.inf]], np.float32)
    own = Movements(np.array([[0], [-1]]), law, np.ones((1, 4), np.float32))
    moved, _ = own(torch.zeros(1, 2, 4), torch.tensor([[1.7e8], [-1.7e8]]), None, None)
    assert torch.equal(moved, torch.ones(1, 2, 4))


def test_what_is_not_held_is_not_felt_even_where_it_is_no_number() -> None:
    of_terms = np.array([[np.inf, 1.0], [0, 0], [-np.inf, -np.inf], [np.inf, np.inf], [0, 0]], np.float32)
    own = Movements(np.full((2, 2), -1), of_terms, np.ones((2, 3), np.float32))
    moved, _ = own(torch.zeros(2, 1, 3), None, None, torch.tensor([[[True, False]], [[False, True]]]))
    assert moved[0].isinf().all()
    assert (moved[1] == 1).all()


@pytest.mark.parametrize("n_positions", [1, 3])
def test_reading_and_moving_in_one_loop_is_both_loops(n_positions: int) -> None:
    random = np.random.default_rng(3)
    few = FewLatents(numbers(random, 3, 16), numbers(random, 16), numbers(random, 4, 3), np.float32(0))
    own, rows = movements(random, 5, 3, 16), torch.from_numpy(numbers(random, 40, n_positions, 16))
    flat = rows.reshape(-1, 16)
    wanted = random.random((len(flat), 3)) < 0.7
    held = torch.from_numpy(random.random((40, 1, 5)) < 0.7)
    for reader in (few, top(random, 50, 16, 9, [4, 0, 49])):
        for which in (None, wanted):
            together = own.after_reading(reader, rows.shape, which, None, held)(rows)
            found = reader(flat, which)
            found = found if isinstance(found, Tensor) else found[0]
            *at_once, are_finite = together
            assert are_finite
            for one, other in zip(at_once, own(rows, found, None, held), strict=True):
                assert torch.equal(one, other)


def test_rows_that_may_stay_open_are_not_read_and_moved_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(3)
    own, reader = movements(random, 2, 2, 16), top(random, 50, 16, 40, [4, 0])
    assert reader.settles(200)
    own.after_reading(reader, torch.Size((200, 1, 16)), None, None, None)
    monkeypatch.setattr(module, "_LEAST", 3)
    again = TopLatents(reader.W_enc, reader.b_enc, reader.origin, reader.k, reader.latents)
    assert again.settles(MOST_LOOKED_ON)
    assert not again(torch.from_numpy(numbers(random, MOST_LOOKED_ON, 16)))[1].any()
    own.after_reading(again, torch.Size((MOST_LOOKED_ON, 1, 16)), None, None, None)
    with pytest.raises(ValueError, match=f"rows: {MOST_LOOKED_ON + 1}, of which some may be left open"):
        own.after_reading(again, torch.Size((MOST_LOOKED_ON + 1, 1, 16)), None, None, None)


@given(
    n_latents=st.integers(1, 60),
    k=st.integers(1, 60),
    n=st.integers(0, 5),
    seed=st.integers(0, 10**6),
)
def test_what_is_kept_of_pre_activations_is_what_sorting_keeps(n_latents: int, k: int, n: int, seed: int) -> None:
    """Whole numbers, so that many are equal: of these the lower latents are kept. NaN stands before nothing and is not kept."""
    random = np.random.default_rng(seed)
    pre = torch.from_numpy(random.integers(-3, 4, (n, n_latents)).astype(np.float32))
    latents = random.permutation(n_latents)[:7].tolist()
    expected = np.zeros((n, n_latents), np.float32)
    for row, own in enumerate(pre.numpy()):
        best = np.argsort(-own, kind="stable")[:k]
        expected[row, best] = np.maximum(own[best], 0)
    np.testing.assert_array_equal(kept_of(pre, k, latents), expected[:, latents])
    pre[:, random.random(n_latents) < 0.3] = torch.nan
    found = kept_of(pre, k, latents)
    assert (found[pre[:, latents].isnan()] == 0).all()
    without = pre.nan_to_num(nan=-1.0)
    np.testing.assert_array_equal(found, kept_of(without, k, latents))
    with pytest.raises(ValueError, match=r"latents: .* where there are"):
        kept_of(pre, k, [n_latents])


def test_a_row_is_what_it_is_alone_and_in_other_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(4)
    few = FewLatents(numbers(random, 3, 65), numbers(random, 65), numbers(random, 4, 3), np.float32(0))
    many, own = top(random, 90, 65, 7, [4, 0, 89]), movements(random, 5, 3, 65)
    rows = torch.from_numpy(numbers(random, 600, 65))

    def all_of(part: Tensor) -> list[Tensor]:
        return [few(part), *many(part), *own(part[:, None], few(part), None, None)]

    whole = all_of(rows)
    alone = [torch.cat(each) for each in zip(*(all_of(row[None]) for row in rows), strict=True)]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    for one, other, threaded in zip(whole, alone, all_of(rows), strict=True):
        assert torch.equal(one, other)
        assert torch.equal(one, threaded)


def test_rows_that_are_no_numbers_do_not_stop_a_loop() -> None:
    random = np.random.default_rng(5)
    rows = torch.from_numpy(numbers(random, 3, 16))
    rows[0, 3], rows[1, 2] = torch.nan, torch.inf
    many = top(random, 50, 16, 9, [4, 0, 49])
    np.testing.assert_allclose(many(rows)[0][2:], kept(many, rows[2:]), rtol=1e-4, atol=1e-4)
    moved, _ = movements(random, 3, 3, 16)(rows[:, None], many(rows)[0], None, None)
    assert not moved[:2].isfinite().all(dim=-1).any()


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_rows_that_move_to_no_number_are_told_of_and_others_are_not(wrong: float) -> None:
    """One of 3e38 is a number, though the sum of two is not; a row that nothing moves is not looked at."""
    random = np.random.default_rng(8)
    few = FewLatents(numbers(random, 1, 16), numbers(random, 16), numbers(random, 4, 1), np.float32(0))
    many = top(random, 50, 16, 9, [4])
    by = np.array([[1.0], [0], [-np.inf], [np.inf], [0]], np.float32)
    own = Movements(np.full((2, 1), -1), by, np.ones((1, 16), np.float32))
    for reader in (few, many):
        for row, held in ((0, True), (5, True), (5, False)):
            rows = torch.full((3, 2, 16), 3e38)
            is_held = torch.ones(3, 2, 1, dtype=torch.bool)
            call = own.after_reading(reader, rows.shape, None, None, is_held)
            done = call(rows)
            assert done[2]
            rows.view(6, 16)[row, 15], is_held.view(6)[row] = wrong, held
            done = own.after_reading(reader, rows.shape, None, None, is_held)(rows)
            assert done[2] is not held


def test_what_is_ready_for_one_shape_refuses_another(no_shape_checks: None) -> None:
    random = np.random.default_rng(9)
    few = FewLatents(numbers(random, 3, 16), numbers(random, 16), numbers(random, 4, 3), np.float32(0))
    ready = movements(random, 3, 3, 16).after_reading(few, torch.Size((4, 1, 16)), None, None, None)
    rows = [torch.zeros(shape) for shape in ((4, 1, 17), (5, 1, 16), (2, 2, 16))]
    plain = torch.zeros(4, 1, 16)
    for wrong in (*rows, plain.double(), plain.half(), plain.to("meta"), plain.clone().requires_grad_()):
        with pytest.raises(ValueError, match=r"rows: torch\.\w+ of shape .* where float32 of \[4, 1, 16\] is needed"):
            ready(wrong)


def test_which_rows_moved_stays_said_however_many_passes_follow() -> None:
    """Its memory is made for many passes at once, and is no other pass's as long as anybody holds it."""
    random = np.random.default_rng(12)
    reader = FewLatents(numbers(random, 1, 16), numbers(random, 16), numbers(random, 4, 1), np.float32(0))
    held = torch.ones(5, 1, 1, dtype=torch.bool)
    own = Movements(
        np.full((2, 1), -1), np.array([[1.0], [0], [-np.inf], [np.inf], [0]], np.float32), np.ones((1, 16), np.float32)
    )
    held[2] = False
    some, rows = own.after_reading(reader, torch.Size((5, 1, 16)), None, None, held), torch.zeros(5, 1, 16)
    said = [some(rows)[1] for _ in range(200)]
    assert len({each.data_ptr() for each in said}) == 200
    said[100].fill_(True)
    assert all(torch.equal(each, held[..., 0]) for i, each in enumerate(said) if i != 100)


def test_what_a_loop_would_read_as_another_type_is_refused() -> None:
    random = np.random.default_rng(13)
    shape, wide = torch.Size((4, 1, 16)), numbers(random, 3, 16).astype(np.float64)
    few = FewLatents(wide, numbers(random, 16), numbers(random, 4, 3), np.float32(0))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="an array of float64, where a loop reads float32"):
        movements(random, 3, 3, 16).after_reading(few, shape, None, None, None)


def test_rows_that_do_not_stand_side_by_side_are_moved_as_those_that_do() -> None:
    random = np.random.default_rng(10)
    few = FewLatents(numbers(random, 3, 16), numbers(random, 16), numbers(random, 4, 3), np.float32(0))
    spread = torch.from_numpy(numbers(random, 5, 2, 16, 3))[..., 1]
    assert not spread.is_contiguous()
    before = spread.clone()
    for reader in (few, top(random, 50, 16, 9, [4, 0, 49])):
        ready = movements(random, 5, 3, 16).after_reading(reader, spread.shape, None, None, None)
        apart, together = ready(spread), ready(spread.contiguous())
        assert torch.equal(apart[0], together[0])
        assert torch.equal(apart[1], together[1])
        assert torch.equal(spread, before)


def test_loops_are_for_float32_here_and_without_gradients() -> None:
    plain = torch.zeros(2, 3)
    assert is_looped(plain)
    assert not any(map(is_looped, (plain.half(), plain.double(), plain.to("meta"), plain.clone().requires_grad_())))
    assert is_looped(torch.nn.Parameter(plain, requires_grad=False))


class WithoutMemory(Tensor):
    """Says all that a tensor here says, and its numbers are elsewhere, as those of a `DTensor`: its address is 0."""

    @staticmethod
    def __new__(cls, like: Tensor) -> "WithoutMemory":
        return Tensor._make_wrapper_subclass(cls, like.shape, dtype=like.dtype)

    @classmethod
    def __torch_dispatch__(cls, func: object, *rest: object) -> object:
        raise NotImplementedError(f"{func} of what has no memory")


def test_what_lies_otherwise_in_memory_than_it_reads_is_for_no_loop() -> None:
    """Taken by address, the one would end the process, and the other be read with the wrong sign."""
    random = np.random.default_rng(11)
    few = FewLatents(numbers(random, 3, 16), numbers(random, 16), numbers(random, 4, 3), np.float32(0))
    ready = movements(random, 4, 3, 16).after_reading(few, torch.Size((4, 1, 16)), None, None, None)
    rows = torch.from_numpy(numbers(random, 4, 1, 16))
    for wrong in (WithoutMemory(rows), torch._neg_view(rows)):
        assert not is_looped(wrong)
        with pytest.raises(ValueError, match=r"where float32 of \[4, 1, 16\] is needed"):
            ready(wrong)


def test_few_are_few_of_each_row() -> None:
    wanted = np.zeros((4, 100), np.bool_)
    wanted[:, :16] = True
    assert is_few(16, None)
    assert not is_few(17, None)
    assert is_few(100, wanted)
    wanted[0, 16] = True
    assert not is_few(100, wanted)


@pytest.mark.parametrize("width", [15, 17])
def test_rows_that_are_not_as_wide_as_what_they_meet_are_refused(width: int, no_shape_checks: None) -> None:
    """A loop does not look where an array ends: it would read what lies behind."""
    random = np.random.default_rng(6)
    few = FewLatents(numbers(random, 3, 16), numbers(random, 16), numbers(random, 4, 3), np.float32(0))
    many, own = top(random, 50, 16, 9, [4, 0, 49]), movements(random, 3, 3, 16)
    rows = torch.zeros(2, 1, width)
    for call in (
        lambda: few(rows[:, 0]),
        lambda: many(rows[:, 0]),
        lambda: own(rows, torch.zeros(2, 3), None, None),
        lambda: own.after_reading(few, rows.shape, None, None, None)(rows),
        lambda: own.after_reading(many, rows.shape, None, None, None)(rows),
        lambda: movements(random, 3, 3, width).after_reading(few, rows.shape, None, None, None),
    ):
        with pytest.raises(ValueError, match=f"{width} columns, where 16"):
            call()


def test_what_goes_with_rows_is_of_as_many(no_shape_checks: None) -> None:
    random = np.random.default_rng(7)
    few = FewLatents(numbers(random, 3, 16), numbers(random, 16), numbers(random, 4, 3), np.float32(0))
    many, own, rows = top(random, 50, 16, 9, [4, 0, 49]), movements(random, 3, 3, 16), torch.zeros(4, 1, 16)
    found, less, odd = torch.zeros(4, 3), torch.ones(3, 3), np.ones((4, 2), np.bool_)
    for call in (
        lambda: few(rows[:, 0], less.bool().numpy()),
        lambda: many(rows[:, 0], odd),
        lambda: own(rows, less, None, None),
        lambda: own(rows, found, less, None),
        lambda: own(rows, found, None, less[:, None].bool()),
        lambda: own.after_reading(few, rows.shape, odd, None, None)(rows),
        lambda: own.after_reading(many, rows.shape, None, less, None)(rows),
    ):
        with pytest.raises(ValueError, match="where"):
            call()
    with pytest.raises(ValueError, match="latents"):
        TopLatents(many.W_enc, many.b_enc, many.origin, 9, np.array([50]))
