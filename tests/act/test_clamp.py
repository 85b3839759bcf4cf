"""The clamp on rows alone: what must be true of x' = x + sum (c - f) d."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.act.tiny import D_MODEL, HOOKPOINT, N_LATENTS, random_sae, tiny_model

from mohole.act import Clamp, Sources, make_plan
from mohole.act.bank import Bank
from mohole.config import TopK
from mohole.dictionary import SparseAutoencoder
from mohole.errors import ConfigError, StageError


@dataclass(frozen=True)
class FakeCatalogue:
    hookpoint: str
    maximum: np.ndarray


CATALOGUE = FakeCatalogue(HOOKPOINT, np.arange(N_LATENTS, dtype=np.float32))  # latent 0 is dead, latent i reaches i
ROWS = torch.randn(50, D_MODEL, generator=torch.Generator().manual_seed(1)) * 3


@dataclass(frozen=True)
class Held:
    """Clamps of one dictionary as rows see them, without a model around them."""

    values: torch.Tensor
    bank: Bank

    def apply(self, rows):
        everywhere = torch.ones(1, len(rows), dtype=torch.bool)
        masks = dict.fromkeys(self.bank.wheres, everywhere)
        return self.bank.act(rows[None], {}, masks)[0][0]


def held(sae, *clamps):
    ((group,),) = make_plan(tiny_model(), clamps, Sources.of([sae], [CATALOGUE])).stages.values()
    return Held(torch.tensor([term.constant for term in group]), Bank(sae.hookpoint, [group], torch.device("cpu")))


def resolve(clamps, dictionaries, catalogues=()):
    return make_plan(tiny_model(), clamps, Sources.of(dictionaries, catalogues))


@given(
    latents=st.lists(st.integers(0, N_LATENTS - 1), min_size=1, max_size=5, unique=True),
    strength=st.floats(-20, 20, width=32),
)
def test_rows_move_by_exactly_c_minus_f_along_the_directions(latents, strength):
    sae = random_sae()
    moved = held(sae, *(Clamp(latent, value=strength) for latent in latents)).apply(ROWS)
    codes = sae.encode(ROWS).dense()
    by_hand = sum(
        ((strength - codes[:, latent])[:, None] * sae.W_dec[latent] for latent in latents), torch.zeros_like(ROWS)
    )
    torch.testing.assert_close(moved - ROWS, by_hand, rtol=1e-4, atol=2e-5)


def test_what_the_dictionary_does_not_explain_is_kept():
    sae = random_sae()
    codes = sae.encode(ROWS)
    unexplained = ROWS - sae.decode(codes)
    assert unexplained.norm() > 0.5 * ROWS.norm()  # else this test could not see it lost
    dense = codes.dense()
    dense[:, 4] = 7.0
    expected = dense @ sae.W_dec + sae.b_dec + unexplained  # SAE(f with f_i = c) + error
    torch.testing.assert_close(held(sae, Clamp(4, value=7.0)).apply(ROWS), expected, rtol=1e-5, atol=1e-5)


def test_a_clamp_sets_and_does_not_add():
    """With orthogonal directions and room for every latent, the clamped latent reads c, and no other latent changes."""
    directions = torch.linalg.qr(torch.randn(D_MODEL, D_MODEL, generator=torch.Generator().manual_seed(2)))[0]
    zero = torch.zeros(D_MODEL)
    sae = SparseAutoencoder(HOOKPOINT, TopK(k=D_MODEL), directions, zero, directions, zero)
    before, after = (sae.encode(rows).dense() for rows in (ROWS, held(sae, Clamp(3, value=5.0)).apply(ROWS)))
    assert (before[:, 3] > 1).any()
    # a latent whose pre-activation is negative reads 0, so its row moves by the whole of c and ends below it
    on = before[:, 3] > 0
    torch.testing.assert_close(after[on, 3], torch.full((int(on.sum()),), 5.0))
    others = [latent for latent in range(D_MODEL) if latent != 3]
    torch.testing.assert_close(after[:, others], before[:, others], rtol=1e-5, atol=1e-5)


def test_f_is_the_code_after_top_k():
    """A latent with a positive pre-activation that is not among the k largest counts as zero."""
    sae = random_sae(k=2)
    pre, codes = (ROWS - sae.b_dec) @ sae.W_enc.T + sae.b_enc, sae.encode(ROWS).dense()
    latent = int(((pre > 0.5) & (codes == 0)).sum(0).argmax())
    left_out = (pre[:, latent] > 0.5) & (codes[:, latent] == 0)
    assert left_out.any()
    kept = held(sae, Clamp(latent, value=0.0)).apply(ROWS)
    assert torch.equal(kept[left_out], ROWS[left_out])


def test_clamps_act_together_so_their_order_does_not_matter():
    sae = random_sae(k=3)
    clamps = [Clamp(latent, value=float(latent)) for latent in (2, 9, 17)]
    forwards, backwards = held(sae, *clamps).apply(ROWS), held(sae, *reversed(clamps)).apply(ROWS)
    torch.testing.assert_close(forwards, backwards, rtol=0, atol=1e-5)


def test_an_inactive_latent_clamped_to_zero_keeps_every_bit():
    sae = random_sae()
    latent = int((sae.encode(ROWS).dense() > 0).sum(0).argmin())
    off = sae.encode(ROWS).column(latent) == 0
    rows = torch.where(
        torch.rand(ROWS.shape, generator=torch.Generator().manual_seed(3)) < 0.1, torch.tensor(-0.0), ROWS
    )
    off = sae.encode(rows).column(latent) == 0
    assert off.any()
    kept = held(sae, Clamp(latent, value=0.0)).apply(rows)
    assert torch.equal(kept[off].view(torch.int32), rows[off].view(torch.int32))  # bits: -0.0 stays -0.0


def test_strength_is_in_units_of_the_maximum():
    sae = random_sae()
    assert held(sae, Clamp(6, times_max=2.5)).values.tolist() == [15.0]
    assert held(sae, Clamp(6, times_max=-1.0), Clamp(2, value=0.5)).values.tolist() == [-6.0, 0.5]


@pytest.mark.parametrize(
    ("clamp", "error", "words"),
    [
        (lambda: Clamp(0, times_max=2.0), StageError, "latent 0 at resid_post.1: never active"),
        (lambda: Clamp(N_LATENTS, value=1.0), ConfigError, "latents 0 to 39"),
        (lambda: Clamp(-1, value=1.0), ConfigError, "latents 0 to 39"),
        (lambda: Clamp(3), ConfigError, "exactly one"),
        (lambda: Clamp(3, times_max=1.0, value=1.0), ConfigError, "exactly one"),
        (lambda: Clamp(3, value=float("nan")), ConfigError, "finite"),
        (lambda: Clamp(3, value=1.0, hookpoint="resid_post.9"), ConfigError, "only for resid_post.1"),
    ],
)
def test_a_clamp_that_cannot_be_meant_is_refused(clamp, error, words):
    with pytest.raises(error, match=words):
        held(random_sae(), clamp())


def test_a_dead_latent_can_still_be_clamped_by_value():
    assert held(random_sae(), Clamp(0, value=1.5)).values.tolist() == [1.5]


def test_a_latent_has_one_strength_and_a_clamp_one_dictionary():
    sae, other = random_sae(), random_sae("resid_post.0")
    with pytest.raises(ConfigError, match="clamped twice"):
        resolve([Clamp(3, value=1.0), Clamp(3, value=2.0)], [sae])
    with pytest.raises(ConfigError, match="say at which hookpoint"):
        resolve([Clamp(3, value=1.0)], [sae, other])
    with pytest.raises(ConfigError, match=r"times_max needs the catalogue of resid_post\.0"):
        resolve([Clamp(3, times_max=1.0, hookpoint="resid_post.0")], [sae, other], [CATALOGUE])
    with pytest.raises(ConfigError, match="made for 5 latents"):
        resolve([Clamp(3, times_max=1.0)], [sae], [FakeCatalogue(HOOKPOINT, np.ones(5, dtype=np.float32))])
