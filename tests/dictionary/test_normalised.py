"""Autoencoders that normalise each row by itself: what is done to a row is undone, and its codes do not know its scale."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.dictionary.peer_cases import SOME_SAES, some_rows, some_sae
from torch import Tensor

from mohole.config import JumpReLU, TopK
from mohole.dictionary import (
    Dictionary,
    LayerNorm,
    LengthNorm,
    NormalisedAutoencoder,
    RowNorm,
    RowUnits,
    SparseAutoencoder,
    files,
    load_dictionary,
)
from mohole.dictionary.clamped import ClampedLatents
from mohole.dictionary.formats import export_dictionary, import_dictionary
from mohole.dictionary.formats.known_batch import FILE
from mohole.dictionary.row_norm import normalise
from mohole.errors import ArtifactError

NORMS: dict[str, RowNorm] = {"layer_norm": LayerNorm(), "length": LengthNorm()}


def lift(rows: Tensor) -> Tensor:
    """As a model has them: each of another length, and away from zero."""
    return torch.linspace(0.1, 40.0, len(rows))[:, None] * rows + torch.linspace(-9.0, 5.0, len(rows))[:, None]


ROWS = lift(some_rows())


def openai(sae: SparseAutoencoder, rows: Tensor, k: int, eps: float = 1e-5) -> tuple[Tensor, Tensor]:
    """Codes and output of OpenAI's TopK autoencoder with normalize, as its model.py computes them, in plain torch."""
    mu = rows.mean(dim=-1, keepdim=True)
    std = (rows - mu).std(dim=-1, keepdim=True)
    pre = ((rows - mu) / (std + eps) - sae.b_dec) @ sae.W_enc.T + sae.b_enc
    best = pre.topk(k, dim=-1)
    codes = torch.zeros_like(pre).scatter(-1, best.indices, best.values.relu())
    return codes, (codes @ sae.W_dec + sae.b_dec) * std + mu


def test_known_answers_of_a_row_in_its_own_units() -> None:
    row = torch.tensor([[1.0, 2.0, 3.0, 6.0]])  # mean 3; squares 4 + 1 + 0 + 9 = 14, over 3; length sqrt(50)
    own, units = normalise(row, LayerNorm(eps=0.5))
    assert units.origin.item() == 3.0
    assert units.scale.item() == pytest.approx((14 / 3) ** 0.5)
    torch.testing.assert_close(own, torch.tensor([[-2.0, -1.0, 0.0, 3.0]]) / ((14 / 3) ** 0.5 + 0.5))
    own, units = normalise(row, LengthNorm())
    assert units.origin.item() == 0.0
    assert units.scale.item() == pytest.approx(50**0.5 / 2)
    torch.testing.assert_close(own, row * 2 / 50**0.5)
    torch.testing.assert_close(units.undo(own), row)


def test_openai_s_own_formula() -> None:
    sae = some_sae(TopK(k=5))
    dictionary = NormalisedAutoencoder(sae, LayerNorm())
    codes, out = openai(sae, ROWS, 5)
    torch.testing.assert_close(dictionary.encode(ROWS).dense(), codes, rtol=1e-5, atol=1e-5)
    found = dictionary.decode(dictionary.encode(ROWS), dictionary.units_of(ROWS))
    torch.testing.assert_close(found, out, rtol=1e-5, atol=1e-4)  # rows of length 200
    assert torch.equal(found, dictionary.reconstruct(ROWS))


@pytest.mark.parametrize("name", SOME_SAES)
def test_codes_do_not_know_a_row_s_scale_and_outputs_do(name: str) -> None:
    for row_norm, shift in ((LayerNorm(eps=1e-9), 3.0), (LengthNorm(), 0.0)):
        dictionary = NormalisedAutoencoder(SOME_SAES[name](), row_norm)
        codes, moved = dictionary.encode(ROWS), dictionary.encode(7.0 * ROWS + shift)
        assert len(codes.values) > 20
        torch.testing.assert_close(moved.dense(), codes.dense(), rtol=1e-4, atol=1e-4)
        expected = 7.0 * dictionary.reconstruct(ROWS) + shift
        torch.testing.assert_close(dictionary.reconstruct(7.0 * ROWS + shift), expected, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("norm", NORMS)
def test_rows_that_its_own_units_hold_come_back_exactly_in_model_units(norm: str) -> None:
    directions = torch.linalg.qr(torch.randn(16, 16, generator=torch.Generator().manual_seed(2)))[0]
    both = torch.cat([directions, -directions])  # every row is a sum of sixteen of these
    sae = SparseAutoencoder("resid_post.3", TopK(k=16), both, torch.zeros(32), both, torch.zeros(16))
    dictionary = NormalisedAutoencoder(sae, NORMS[norm])
    torch.testing.assert_close(dictionary.reconstruct(ROWS), ROWS, rtol=1e-4, atol=1e-4)


def test_a_row_is_the_same_in_any_batch() -> None:
    for row_norm in NORMS.values():
        own, units = normalise(ROWS, row_norm)
        for row in range(len(ROWS)):
            alone, its = normalise(ROWS[row : row + 1], row_norm)
            assert torch.equal(alone[0], own[row])
            assert (its.origin.item(), its.scale.item()) == (units.origin[row].item(), units.scale[row].item())


def test_rows_without_a_scale_come_back_as_they_are_and_nothing_moves_them() -> None:
    for row_norm, row in ((LayerNorm(), torch.full((1, 16), 2.5)), (LengthNorm(), torch.zeros(1, 16))):
        dictionary = NormalisedAutoencoder(some_sae(TopK(k=5)), row_norm)
        assert torch.equal(normalise(row, row_norm)[0], torch.zeros(1, 16))
        assert torch.equal(dictionary.reconstruct(row), row)
        held = ClampedLatents(dictionary, torch.tensor([3]), torch.tensor([100.0]))
        assert torch.equal(held.apply(row), row)


@pytest.mark.parametrize("norm", NORMS)
def test_a_clamp_moves_each_row_by_its_own_scale(norm: str) -> None:
    dictionary = NormalisedAutoencoder(some_sae(TopK(k=5)), NORMS[norm])
    held = ClampedLatents(dictionary, torch.tensor([3, 11]), torch.tensor([2.0, -1.0]))
    codes, scale = dictionary.encode(ROWS).dense().double(), dictionary.units_of(ROWS).scale.double()
    by_hand = (2.0 - codes[:, [3]]) * dictionary.own.W_dec[3] + (-1.0 - codes[:, [11]]) * dictionary.own.W_dec[11]
    moved = (held.apply(ROWS).double() - ROWS.double()) / scale
    torch.testing.assert_close(moved, by_hand.double(), rtol=1e-4, atol=1e-4)
    # The same as decoding the changed codes and keeping what was not explained.
    dense = codes.clone()
    dense[:, 3], dense[:, 11] = 2.0, -1.0
    units = dictionary.units_of(ROWS)
    changed = units.undo((dense @ dictionary.own.W_dec.double() + dictionary.own.b_dec).float())
    expected = changed + ROWS - dictionary.reconstruct(ROWS)
    torch.testing.assert_close(held.apply(ROWS), expected, rtol=1e-4, atol=1e-3)


def test_it_is_a_dictionary_and_no_sparse_autoencoder() -> None:
    dictionary = NormalisedAutoencoder(some_sae(TopK(k=5)), LayerNorm())
    assert isinstance(dictionary, Dictionary)
    assert not isinstance(dictionary, SparseAutoencoder)  # what reads W_dec as model units must not take it
    assert not hasattr(dictionary, "W_dec")
    with pytest.raises(TypeError, match="units"):
        dictionary.decode(dictionary.encode(ROWS))  # type: ignore[call-arg]
    one = dictionary.units_of(ROWS[:1])
    with pytest.raises(ValueError, match=r"units.scale: shape \[1, 1\], where \[20, 1\] is needed"):
        dictionary.decode(dictionary.encode(ROWS), RowUnits(one.origin, one.scale))
    narrow = SparseAutoencoder("a", TopK(k=1), torch.ones(2, 1), torch.zeros(2), torch.ones(2, 1), torch.zeros(1))
    with pytest.raises(ValueError, match="layer_norm of rows of 1 number"):
        NormalisedAutoencoder(narrow, LayerNorm())
    with pytest.raises(ValueError, match=r"eps: 0.0; a number above 0"):
        LayerNorm(eps=0.0)


@pytest.mark.parametrize("norm", NORMS)
def test_it_is_saved_and_read_back_and_proved_by_its_known_batch(norm: str, tmp_path: Path) -> None:
    dictionary = NormalisedAutoencoder(some_sae(JumpReLU()), NORMS[norm])
    export_dictionary(dictionary, tmp_path / "own", "mohole")
    scales = dictionary.scale_of(load_file(tmp_path / "own" / FILE)["rows"])
    assert scales.max() > 50 * scales.min()  # a scale that is not undone cannot hide in any of them
    found = load_dictionary(tmp_path / "own", hookpoint="resid_pre.2")
    assert isinstance(found, NormalisedAutoencoder)
    assert (found.row_norm, found.hookpoint) == (NORMS[norm], "resid_pre.2")
    assert torch.equal(found.reconstruct(ROWS), dictionary.reconstruct(ROWS))
    # As a plain autoencoder, or with the other norm, the same weights are another function: the known batch says so.
    (tmp_path / "own" / "manifest.json").unlink()
    facts = json.loads((tmp_path / "own" / files.FACTS_FILE).read_text())
    other = {"kind": "length"} if norm == "layer_norm" else {"kind": "layer_norm", "eps": 1e-5}
    for change in ({"kind": "sae"}, {"row_norm": other}):
        (tmp_path / "own" / files.FACTS_FILE).write_text(json.dumps(facts | change))
        with pytest.raises(ArtifactError, match=rf"% of the rows in {FILE} come out differently"):
            load_dictionary(tmp_path / "own")
    (tmp_path / "own" / files.FACTS_FILE).write_text(json.dumps(facts | {"row_norm": {"kind": "batch"}}))
    with pytest.raises(ArtifactError, match=r"row_norm.kind: 'batch'; layer_norm and length are understood"):
        load_dictionary(tmp_path / "own")


def test_what_a_library_has_no_word_for_is_refused_by_name(tmp_path: Path) -> None:
    dictionary = NormalisedAutoencoder(some_sae(TopK(k=5)), LayerNorm())
    for to in ("sparsify", "dictionary-learning"):
        with pytest.raises(ArtifactError, match=rf"{to}: .*nothing in it normalises each row by itself"):
            export_dictionary(dictionary, tmp_path / to, to)  # type: ignore[arg-type]
    with pytest.raises(ArtifactError, match="circuit-tracer: cannot hold this normalised_sae: it has transcoders only"):
        export_dictionary(dictionary, tmp_path / "ct", "circuit-tracer")
    other = NormalisedAutoencoder(dictionary.own, LayerNorm(eps=1e-6))
    with pytest.raises(ArtifactError, match=r"saelens: .*the eps of its layer_norm is always 1e-05, not 1e-06"):
        export_dictionary(other, tmp_path / "sl", "saelens")
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", SOME_SAES)
def test_saelens_files_hold_it(name: str, norm: str, tmp_path: Path) -> None:
    dictionary = NormalisedAutoencoder(SOME_SAES[name](), NORMS[norm])
    export_dictionary(dictionary, tmp_path / "sl", "saelens")
    config = json.loads((tmp_path / "sl" / "cfg.json").read_text())
    assert config["normalize_activations"] == {"layer_norm": "layer_norm", "length": "constant_norm_rescale"}[norm]
    found = import_dictionary(tmp_path / "sl")
    assert isinstance(found.dictionary, NormalisedAutoencoder)
    assert found.dictionary.row_norm == NORMS[norm]
    assert found.notes == (
        "It normalises each row by itself: its codes and decoder rows are in units of each row's own scale.",
    )
    torch.testing.assert_close(found.dictionary.reconstruct(ROWS), dictionary.reconstruct(ROWS))
