"""Every intervention by loops and by torch's operators: one law, two ways. And what a bank shares."""

from dataclasses import replace

import pytest
import torch
from tests.act.test_clamp import CATALOGUE
from tests.act.test_interventions import ALL, A, B
from tests.act.tiny import D_MODEL, HOOKPOINT, N_LATENTS, random_sae, tiny_model

from mohole.act import (
    Ablate,
    Add,
    Cap,
    Clamp,
    Direction,
    Intervention,
    Latent,
    Orthogonalise,
    Plan,
    Scale,
    Sources,
    Swap,
    When,
    make_plan,
)  # fmt: skip
from mohole.act import bank as bank_module
from mohole.act.bank import banks_of
from mohole.config import BatchTopK, Gated, JumpReLU, Nonlinearity, ReLU, TopK
from mohole.dictionary import LayerNorm, NormalisedAutoencoder, SparseAutoencoder
from mohole.dictionary import readout as readout_module
from mohole.dictionary.codes import SparseCodes
from mohole.dictionary.files import AnyDictionary
from mohole.dictionary.latents import needed
from mohole.dictionary.readout import Steerable
from mohole.errors import NumericsError, StageError
from mohole.kernels import HAS_NUMBA

CPU = torch.device("cpu")
EVERYWHERE = (
    Clamp(3, value=20.0), Clamp(4, value=-2.0, when=When(Latent(2), 0.2)), Scale(5, 3.0), Add(A, times_norm=0.3),
    Cap(Latent(6), low=0.5, high=1.0), Cap(B, low=-0.1), Add(B, value=2.0, when=When(A, 0.1, bias=0.2)),
    Swap(Latent(7), Latent(8)), Swap(A, B), Ablate(9), Orthogonalise(A),
)  # fmt: skip


def sae(nonlinearity: Nonlinearity) -> SparseAutoencoder:
    plain = random_sae()
    optional = {name: torch.full((N_LATENTS,), 0.3) for name in needed(nonlinearity)}
    return SparseAutoencoder(HOOKPOINT, nonlinearity, plain.W_enc, plain.b_enc, plain.W_dec, plain.b_dec, **optional)


def plan_of(dictionary: Steerable, *listed: Intervention) -> Plan:
    sources = Sources.of([dictionary], [CATALOGUE], [Direction(HOOKPOINT, torch.tensor(A.values), "v")])
    return make_plan(tiny_model(), listed, sources)


def acted(plans: list[Plan], rows: torch.Tensor, held: float | None) -> list[torch.Tensor]:
    """Rows and what moved, after each group of terms in its turn."""
    found, seen = [], {}
    for hookpoint, banks in banks_of(plans, CPU).items():
        own = rows.clone()
        for number, bank in enumerate(banks):
            draw = torch.Generator().manual_seed(number)
            mask = None if held is None else torch.rand(rows.shape[:2], generator=draw) < held
            own, has_moved = bank.act(own, seen, None if mask is None else dict.fromkeys(bank.wheres, mask))
            found += [own, has_moved]
        seen[hookpoint] = own.reshape(-1, own.shape[-1])
    return found


@pytest.mark.skipif(not HAS_NUMBA, reason="needs numba")
@pytest.mark.parametrize("held", [None, 0.5])
@pytest.mark.parametrize("nonlinearity", [ReLU(), JumpReLU(), BatchTopK(k=4), Gated(), TopK(k=6)])
@pytest.mark.parametrize("is_normalised", [False, True])
def test_loops_and_operators_are_one_law(
    nonlinearity: Nonlinearity, is_normalised: bool, held: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = sae(nonlinearity)
    dictionary: AnyDictionary = NormalisedAutoencoder(plain, LayerNorm()) if is_normalised else plain
    rows = torch.randn(len(EVERYWHERE) + 2, 12, D_MODEL, generator=torch.Generator().manual_seed(0)) * 3
    each = [plan_of(dictionary, one) for one in EVERYWHERE]
    batches = [[*each, plan_of(dictionary, *EVERYWHERE), plan_of(dictionary)], *([one] for one in each)]
    looped = [acted(plans, rows, held) for plans in batches]
    for module in (bank_module, readout_module):
        monkeypatch.setattr(module, "is_looped", lambda numbers: False)
    plainly = [acted(plans, rows, held) for plans in batches]
    for one, other in zip(looped, plainly, strict=True):
        assert len(one) == len(other) >= 2
        for a, b in zip(one, other, strict=True):
            if a.dtype == torch.bool:
                assert torch.equal(a, b)
            else:
                torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    assert sum(bool(one[1].any()) for one in looped) >= len(looped) - 1
    assert {type(one) for one in EVERYWHERE} == {type(one) for one in ALL}


def test_a_term_that_holds_everywhere_is_still_its_own_rows_alone() -> None:
    """Behind everybody's first token, where another hookpoint has a window and this one has none."""
    plans = [plan_of(random_sae(), Add(A, value=1.0)), plan_of(random_sae(), Add(B, value=1.0))]
    (bank,) = banks_of(plans, CPU)[HOOKPOINT]
    rows = torch.zeros(2, 3, D_MODEL)
    for masks in (None, dict.fromkeys(bank.wheres)):
        moved, _ = bank.act(rows, {}, masks)
        torch.testing.assert_close(moved, torch.tensor([A.values, B.values])[:, None].expand(2, 3, -1))


@pytest.mark.parametrize(
    "intervention", [Clamp(3, value=20.0), Scale(5, 3.0), Add(A, times_norm=0.3), Clamp(3, value=2.0)]
)
def test_a_bank_does_to_each_pass_what_one_of_its_own_does(intervention: Intervention) -> None:
    """What it made ready for the pass before is of that pass's shape, and of no windows and no norms."""
    plans = [plan_of(random_sae(), intervention), plan_of(random_sae(), Clamp(9, value=3.0))]
    draw = torch.Generator().manual_seed(0)
    for given in (plans, plans[:1]):
        (bank,) = banks_of(given, CPU)[HOOKPOINT]
        for n_positions, has_window in (
            (1, False),
            (1, False),
            (1, True),
            (1, False),
            (3, False),
            (3, True),
            (3, False),
        ):
            rows = torch.randn(2, n_positions, D_MODEL, generator=draw) * 3
            held = torch.rand(2, n_positions, generator=draw) < 0.5
            masks = dict.fromkeys(bank.wheres, held) if has_window else None
            (alone,) = banks_of(given, CPU)[HOOKPOINT]
            for one, other in zip(bank.act(rows, {}, masks), alone.act(rows, {}, masks), strict=True):
                assert torch.equal(one, other)


def test_rows_that_become_no_numbers_are_refused_by_each_way() -> None:
    draw = torch.Generator().manual_seed(0)
    large = 3e38 * torch.tensor(A.values).sign().expand(2, 3, -1)
    for intervention, rows in (
        (Add(A, value=3e38), large),
        (Scale(5, 3e38), torch.randn(2, 3, D_MODEL, generator=draw) * 1e3),
    ):
        (bank,) = banks_of([plan_of(random_sae(), intervention)], CPU)[HOOKPOINT]
        for given in (rows, rows.clone().requires_grad_(), rows.repeat(1, 200, 1)):  # one loop; products; two loops
            with pytest.raises(NumericsError, match=f"{HOOKPOINT}: the edit returned a NaN or an infinity"):
                bank.act(given, {}, None)


def test_a_row_that_is_no_number_and_that_nothing_moves_is_handed_on_by_each_way() -> None:
    """It is the model's own, as of a padding: no strength is too large for it. Where it does move, it is refused."""
    draw = torch.Generator().manual_seed(0)
    for intervention in (Clamp(3, value=20.0), Add(A, value=1.0)):
        (bank,) = banks_of([plan_of(sae(ReLU()), intervention)], CPU)[HOOKPOINT]
        rows = torch.randn(2, 3, D_MODEL, generator=draw)
        rows[0, 0] = torch.nan
        for given in (rows, rows.clone().requires_grad_(), rows.repeat(1, 200, 1)):  # one loop; products; two loops
            masks = dict.fromkeys(bank.wheres, ~given.isnan().any(dim=-1))
            moved, has_moved = bank.act(given, {}, masks)
            assert torch.equal(has_moved, masks[bank.wheres[0]])
            assert moved[has_moved].isfinite().all()
            with pytest.raises(NumericsError, match=HOOKPOINT):
                bank.act(given, {}, None)


@pytest.mark.skipif(not HAS_NUMBA, reason="needs numba")
def test_a_reading_that_stays_open_is_read_by_all_latents(monkeypatch: pytest.MonkeyPatch) -> None:
    from mohole.kernels import few

    rows = torch.randn(50, 1, D_MODEL, generator=torch.Generator().manual_seed(0)) * 3
    plans = [plan_of(random_sae(), Clamp(3, value=20.0), Clamp(9, value=1.0))]
    settled = acted(plans, rows, None)
    monkeypatch.setattr(few, "_LEAST", 5)
    monkeypatch.setattr(few, "_SHARE", 10**6)
    (bank,) = banks_of(plans, CPU)[HOOKPOINT]
    assert bank.only_loop is not None
    assert not bank.only_loop.settles(len(rows))
    for a, b in zip(settled, acted(plans, rows, None), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_gradients_go_through_a_bank() -> None:
    (bank,) = banks_of([plan_of(sae(ReLU()), Scale(3, 2.0))], CPU)[HOOKPOINT]
    rows = torch.randn(2, 3, D_MODEL, generator=torch.Generator().manual_seed(0)).requires_grad_()
    bank.act(rows, {}, None)[0].sum().backward()
    assert rows.grad is not None
    assert not torch.equal(rows.grad, torch.ones_like(rows))  # or the latent's own part would be missing


def test_gradients_go_to_a_dictionary_that_wants_them() -> None:
    """Whichever of its tensors it is: none is cut off without a word."""
    rows = torch.randn(2, 3, D_MODEL, generator=torch.Generator().manual_seed(0))
    for nonlinearity in (ReLU(), TopK(k=6)):
        for name in ("W_enc", "b_enc", "W_dec", "b_dec"):
            wanting = getattr(sae(nonlinearity), name).clone().requires_grad_()
            with torch.enable_grad():
                dictionary = replace(sae(nonlinearity), **{name: wanting})
                (bank,) = banks_of([plan_of(dictionary, Scale(3, 2.0))], CPU)[HOOKPOINT]
                bank.act(rows, {}, None)[0].sum().backward()
            assert wanting.grad is not None, (nonlinearity, name)
            assert wanting.grad.any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_somebody_elses_dictionary_may_give_its_codes_in_another_type(dtype: torch.dtype) -> None:
    class Theirs:
        hookpoint, n_latents, d_model = HOOKPOINT, N_LATENTS, D_MODEL

        def encode(self, rows: torch.Tensor) -> SparseCodes:
            codes = random_sae().encode(rows)
            return replace(codes, values=codes.values.to(dtype))

        def reconstruct(self, rows: torch.Tensor) -> torch.Tensor:
            return random_sae().reconstruct(rows)

        def scale_of(self, rows: torch.Tensor) -> torch.Tensor:
            return torch.ones(len(rows), 1)

        def directions(self, latents: torch.Tensor) -> torch.Tensor:
            return random_sae().directions(latents)

    rows = torch.randn(2, 6, D_MODEL, generator=torch.Generator().manual_seed(0)) * 3
    (bank,) = banks_of([plan_of(Theirs(), Scale(3, 2.0))], CPU)[HOOKPOINT]
    (own,) = banks_of([plan_of(random_sae(), Scale(3, 2.0))], CPU)[HOOKPOINT]
    moved, has_moved = bank.act(rows, {}, None)
    assert has_moved.any()
    torch.testing.assert_close(moved, own.act(rows, {}, None)[0], rtol=2e-2, atol=2e-2)


def test_rows_of_another_model_are_refused() -> None:
    (bank,) = banks_of([plan_of(sae(ReLU()), Scale(3, 2.0))], CPU)[HOOKPOINT]
    for width in (D_MODEL - 1, 2 * D_MODEL):
        with pytest.raises(StageError, match=f"{HOOKPOINT}: rows of {width} numbers.* of {D_MODEL}"):
            bank.act(torch.zeros(2, 3, width), {}, None)


def test_requests_of_one_key_are_one_plan() -> None:
    """Sixty-four who ask for the same variant cost one clamp, not sixty-four of each other's."""
    dictionary = random_sae()
    apart = [plan_of(dictionary, Clamp(3, value=20.0)) for _ in range(64)]
    (bank,) = banks_of(apart, CPU)[HOOKPOINT]
    assert len(bank.along_TD) == 1
    assert bank.own_BT is None
    mixed = [*apart, plan_of(dictionary, Clamp(4, value=20.0))]
    (bank,) = banks_of(mixed, CPU)[HOOKPOINT]
    assert len(bank.along_TD) == 2


def test_a_latent_that_two_dictionaries_share_is_read_by_each() -> None:
    """All numbers of the latent are the same; what stands around it, and so what it is, is not."""
    one = sae(TopK(k=6))
    rows = torch.randn(1, 40, D_MODEL, generator=torch.Generator().manual_seed(0)) * 3
    rest = torch.arange(N_LATENTS)[:, None] != 3
    for other in (
        replace(one, b_dec=one.b_dec - 2),
        replace(one, W_enc=torch.where(rest, one.W_enc * 50, one.W_enc)),
    ):
        plans = [plan_of(each, Scale(3, 2.0)) for each in (one, other)]
        alone = [acted([plan], rows, None)[0] for plan in plans]
        assert not torch.equal(*alone)
        assert torch.equal(acted(plans, torch.cat([rows, rows]), None)[0], torch.cat(alone))
