"""Reading a few latents must say what encoding everything says, whatever the nonlinearity and the kind."""

import pytest
import torch

from mohole.config import BatchTopK, Gated, JumpReLU, Nonlinearity, ReLU, TopK
from mohole.dictionary import Latents, LayerNorm, NormalisedAutoencoder, SparseAutoencoder, Transcoder
from mohole.dictionary import readout as module
from mohole.dictionary.latents import needed
from mohole.dictionary.readout import readout
from mohole.kernels import HAS_NUMBA, eight_bits, few
from mohole.kernels.eight_bits import NOT_ROUNDED
from mohole.kernels.few import TopLatents

D, N = 12, 30
DRAW = torch.Generator().manual_seed(0)
ROWS = torch.randn(200, D, generator=DRAW) * 4
LATENTS = [3, 17, 3 + 10, 29, 0]


def sae(nonlinearity: Nonlinearity) -> SparseAutoencoder:
    draw = torch.Generator().manual_seed(1)
    weights = [torch.randn(*shape, generator=draw) * 0.5 for shape in ((N, D), (N,), (N, D), (D,))]
    optional = {name: torch.rand(N, generator=draw) for name in needed(nonlinearity)}
    return SparseAutoencoder("resid_post.1", nonlinearity, *weights, **optional)


@pytest.mark.parametrize("nonlinearity", [ReLU(), JumpReLU(), BatchTopK(k=4), Gated(), TopK(k=12)])
def test_a_few_are_read_as_all_are_encoded(nonlinearity: Nonlinearity) -> None:
    plain = sae(nonlinearity)
    transcoder = Transcoder("mlp_in.1", "mlp_out.1", plain.latents, plain.b_dec)
    for dictionary in (plain, NormalisedAutoencoder(plain, LayerNorm()), transcoder):
        whole = dictionary.encode(ROWS).dense()[:, LATENTS]
        few = readout(dictionary, 0, LATENTS, torch.device("cpu"))(ROWS)
        assert (whole > 0).any(dim=0).all()
        assert (whole == 0).any(dim=0).all()
        torch.testing.assert_close(few, whole, rtol=1e-5, atol=1e-5)


def test_of_equal_latents_top_k_keeps_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """By counting, by encoding, and in pieces: all keep the same of latents that tie."""
    twins = torch.eye(D)[:1].repeat(6, 1)  # every latent reads the first column
    zeros = torch.zeros(6)
    dictionary = SparseAutoencoder("resid_post.1", TopK(k=2), twins, zeros, twins, torch.zeros(D))
    expected = dictionary.encode(ROWS).dense()
    assert (expected > 0).sum(1).max() == 2
    read = readout(dictionary, 0, range(6), torch.device("cpu"))
    assert torch.equal(read(ROWS), expected)
    monkeypatch.setattr(module, "_TILE_NUMBERS", 7)
    assert torch.equal(read(ROWS), expected)
    monkeypatch.setattr(module, "_COUNTED", 0)
    assert torch.equal(read(ROWS), expected)


@pytest.mark.skipif(not HAS_NUMBA, reason="needs numba")
def test_a_large_top_k_is_read_by_eight_bits_as_by_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(few, "_LEAST", 4)
    dictionary = sae(TopK(k=12))
    loop = readout(dictionary, 0, LATENTS, torch.device("cpu")).loop()
    assert isinstance(loop, TopLatents)
    assert loop.rounded is NOT_ROUNDED
    monkeypatch.setattr(eight_bits, "_LEAST_NUMBERS", N * D)
    read = readout(dictionary, 0, LATENTS, torch.device("cpu"))
    loop = read.loop()
    assert isinstance(loop, TopLatents)
    assert loop.rounded is eight_bits.eight_bits_of(dictionary.W_enc)
    torch.testing.assert_close(read(ROWS[:16]), dictionary.encode(ROWS[:16]).dense()[:, LATENTS], rtol=1e-5, atol=1e-5)


def test_only_their_encoder_rows_are_needed_where_that_is_enough() -> None:
    """Every other encoder row is poisoned, and nobody notices; TopK, which needs them, does."""
    for nonlinearity, is_enough in ((ReLU(), True), (JumpReLU(), True), (BatchTopK(k=4), True), (TopK(k=4), False)):
        dictionary = sae(nonlinearity)
        before = readout(dictionary, 0, LATENTS, torch.device("cpu"))(ROWS)
        others = [latent for latent in range(N) if latent not in LATENTS]
        dictionary.W_enc[others] = 100.0
        after = readout(dictionary, 0, LATENTS, torch.device("cpu"))(ROWS)
        assert torch.equal(before, after) == is_enough


def test_no_rows_are_no_activations() -> None:
    for nonlinearity in (ReLU(), TopK(k=4)):
        assert readout(sae(nonlinearity), 0, LATENTS, torch.device("cpu"))(ROWS[:0]).shape == (0, 5)


def test_latents_of_a_class_of_its_own_are_read_by_encoding() -> None:
    class Other:
        """Keeps to the law of a dictionary, and shows nothing else."""

        hookpoint, n_latents, d_model = "resid_post.1", N, D
        encode = sae(ReLU()).encode
        directions = sae(ReLU()).directions
        reconstruct = sae(ReLU()).reconstruct
        scale_of = sae(ReLU()).scale_of

    found = readout(Other(), 0, LATENTS, torch.device("cpu"))(ROWS)  # type: ignore[arg-type]
    torch.testing.assert_close(found, sae(ReLU()).encode(ROWS).dense()[:, LATENTS])


def test_the_parts_of_latents_fit() -> None:
    assert isinstance(
        readout(sae(BatchTopK(k=20)), 0, [1], torch.device("cpu")).few, Latents
    )  # k above the one that is read
