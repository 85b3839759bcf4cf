"""The sparse autoencoder: codes and reconstructions are what the dense formula says, and survive saving."""

import itertools
import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from mohole import artifact
from mohole.config import TopK
from mohole.dictionary import Dictionary, SparseAutoencoder, files, load_dictionary
from mohole.errors import ArtifactError
from mohole.kernels import reference

K, N_LATENTS, D = 5, 70, 16


def some_sae(seed: int = 0, k: int = K) -> SparseAutoencoder:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    W_dec = draw(N_LATENTS, D)
    return SparseAutoencoder(
        "resid_post.1", TopK(k=k), draw(N_LATENTS, D), draw(N_LATENTS), W_dec / W_dec.norm(dim=1, keepdim=True), draw(D)
    )


def some_rows(n: int = 50, seed: int = 1) -> torch.Tensor:
    return torch.randn(n, D, generator=torch.Generator().manual_seed(seed))


def save(sae: SparseAutoencoder, path: Path) -> Path:
    with artifact.create(path, artifact.Inputs(kind="dictionary", config={}, seed=0)) as draft:
        files.save(sae, draft)
    return path


def test_it_is_a_dictionary() -> None:
    sae = some_sae()
    assert isinstance(sae, Dictionary)
    assert (sae.n_latents, sae.d_model) == (N_LATENTS, D)
    assert torch.equal(sae.directions(torch.tensor([3, 1])), sae.W_dec[[3, 1]])


def test_encoding_keeps_the_k_largest_positive_readings() -> None:
    sae, rows = some_sae(), some_rows()
    codes = sae.encode(rows)
    pre = (rows - sae.b_dec) @ sae.W_enc.T + sae.b_enc
    torch.testing.assert_close(codes.dense(), reference.codes(pre, K), rtol=1e-5, atol=1e-5)
    assert (codes.n_active == K).all()


def test_fewer_than_k_are_kept_where_fewer_are_positive() -> None:
    sae = some_sae()
    sae.W_enc.zero_()
    sae.b_enc.fill_(-1.0)
    assert sae.encode(some_rows(3)).n_active.tolist() == [0, 0, 0]
    torch.testing.assert_close(sae.decode(sae.encode(some_rows(3))), sae.b_dec.expand(3, D))
    sae.b_enc[[2, 60]] = 0.5
    codes = sae.encode(some_rows(3))
    assert codes.latents.tolist() == [2, 60] * 3
    sae.b_enc.zero_()  # exactly zero is not active
    assert sae.encode(some_rows(3)).n_active.tolist() == [0, 0, 0]


def test_ties_go_to_the_lowest_latent() -> None:
    sae = some_sae()
    sae.W_enc.zero_()
    sae.b_enc.fill_(1.0)
    sae.b_enc[40] = 2.0
    assert sae.encode(some_rows(4)).latents.tolist() == [0, 1, 2, 3, 40] * 4


@given(cuts=st.lists(st.integers(0, 50), max_size=4))
def test_a_batch_may_be_cut_anywhere(cuts: list[int]) -> None:
    sae, rows = some_sae(), some_rows()
    edges = [0, *sorted(cuts), 50]
    parts = [sae.encode(rows[a:b]).dense() for a, b in itertools.pairwise(edges)]
    torch.testing.assert_close(torch.cat(parts), sae.encode(rows).dense(), rtol=1e-5, atol=1e-5)


def test_decoding_is_the_product_of_dense_codes_and_directions() -> None:
    sae, codes = some_sae(), some_sae().encode(some_rows())
    torch.testing.assert_close(sae.decode(codes), codes.dense() @ sae.W_dec + sae.b_dec)
    assert sae.decode(sae.encode(some_rows(0))).shape == (0, D)


def test_one_unit_of_a_code_moves_the_row_by_one_unit() -> None:
    sae, codes = some_sae(), some_sae().encode(some_rows(1))
    before = sae.decode(codes)
    codes.values[2] += 1.0
    moved = sae.decode(codes) - before
    torch.testing.assert_close(moved.norm(), torch.tensor(1.0))
    torch.testing.assert_close(moved[0], sae.W_dec[codes.latents[2]], rtol=1e-4, atol=1e-5)


def test_what_is_saved_is_what_is_opened(tmp_path: Path) -> None:
    sae = some_sae(k=9)
    opened = load_dictionary(save(sae, tmp_path / "sae"))
    assert (opened.hookpoint, opened.nonlinearity) == ("resid_post.1", TopK(k=9))
    for name in ("W_enc", "b_enc", "W_dec", "b_dec"):
        assert torch.equal(getattr(opened, name), getattr(sae, name))
    rows = some_rows()
    assert torch.equal(opened.encode(rows).dense(), sae.encode(rows).dense())
    library = safetensors.torch.load_file(tmp_path / "sae" / "dictionary.safetensors")
    assert {name: tuple(tensor.shape) for name, tensor in library.items()} == {
        "W_enc": (N_LATENTS, D), "b_enc": (N_LATENTS,), "W_dec": (N_LATENTS, D), "b_dec": (D,)
    }  # fmt: skip
    assert (tmp_path / "sae" / "dictionary.json").read_text() == json.dumps(
        {"hookpoint": "resid_post.1", "kind": "sae", "nonlinearity": {"k": 9, "kind": "topk"}, "training": {}}, indent=1
    ) + "\n"


def test_a_damaged_dictionary_is_named(tmp_path: Path) -> None:
    weights = save(some_sae(), tmp_path / "a") / "dictionary.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ArtifactError, match=r"a/dictionary.safetensors"):
        load_dictionary(tmp_path / "a")
    with artifact.create(tmp_path / "b", artifact.Inputs(kind="dictionary", config={}, seed=0)) as draft:
        files.save(some_sae(), draft)
        (draft / "dictionary.json").write_text('{"hookpoint": "x"}')
    with pytest.raises(ArtifactError, match=r"b/dictionary.json: has no nonlinearity"):
        load_dictionary(tmp_path / "b")
    with pytest.raises(ArtifactError, match="nowhere: no artifact there"):
        load_dictionary(tmp_path / "nowhere")


def test_a_dictionary_is_shown_by_its_sizes() -> None:
    """What a notebook prints: no tensor."""
    sizes = f"n_latents={N_LATENTS}, d_model={D}"
    assert (
        repr(some_sae())
        == f"SparseAutoencoder(hookpoint='resid_post.1', {sizes}, nonlinearity=TopK(kind='topk', k={K}))"
    )
