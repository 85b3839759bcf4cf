"""Files that are damaged or mean harm are refused with one line: the file, the value, what to do. Nothing in them is run."""

import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.dictionary.peer_cases import some_clt, some_sae

from mohole.config import JumpReLU, TopK
from mohole.dictionary import SparseAutoencoder, foreign, load_dictionary
from mohole.dictionary.formats import export_dictionary
from mohole.dictionary.formats.known_batch import FILE
from mohole.errors import ArtifactError


class Harm:
    """What a pickle does when it is read by whoever trusts it."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.mark),)


def refused(place: Path, match: str) -> None:
    with pytest.raises(ArtifactError, match=match) as caught:
        load_dictionary(place)
    text = str(caught.value)
    assert "\n" not in text
    assert ";" in text, f"no next step: {text}"


def saelens(tmp_path: Path) -> Path:
    """A good one, without its known batch: what is wrong must be seen by itself."""
    export_dictionary(some_sae(TopK(k=5)), tmp_path / "sae", "saelens")
    (tmp_path / "sae" / FILE).unlink()
    return tmp_path / "sae"


def with_config(place: Path, **change: Any) -> None:
    config = json.loads((place / "cfg.json").read_text())
    (place / "cfg.json").write_text(json.dumps(config | change))


def with_tensors(place: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(place / "sae_weights.safetensors")
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, place / "sae_weights.safetensors")


@pytest.mark.parametrize("in_archive", [True, False])
@pytest.mark.parametrize("name", ["model.pt", "model.pth", "theirs/ae.pt"])
def test_a_pickle_that_runs_code_is_not_run(name: str, in_archive: bool, tmp_path: Path) -> None:
    mark = tmp_path / "harmed"
    (tmp_path / name).parent.mkdir(exist_ok=True)
    if in_archive:
        torch.save({"encoder.weight": Harm(mark)}, tmp_path / name)
    else:
        (tmp_path / name).write_bytes(pickle.dumps({"encoder.weight": Harm(mark)}))
    (tmp_path / "theirs").mkdir(exist_ok=True)
    (tmp_path / "theirs" / "config.json").write_text('{"trainer": {"dict_class": "AutoEncoder"}}')
    place = tmp_path / "theirs" if name.startswith("theirs") else tmp_path / name
    refused(place, rf"{Path(name).name}: its pickle asks for more than tensors.*ask for a safetensors file")
    assert not mark.exists()


def test_an_npz_with_objects_is_not_unpickled(tmp_path: Path) -> None:
    mark = tmp_path / "harmed"
    np.savez(tmp_path / "params.npz", W_enc=np.array([Harm(mark)], dtype=object))
    refused(tmp_path, r"params.npz: not a readable .npz file of numbers \(Object arrays cannot be loaded")
    assert not mark.exists()


def test_an_npz_that_unpacks_to_far_more_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreign, "_UNPACKED_BYTES", 16 << 20)  # a gigabyte takes half a minute to pack
    np.savez_compressed(tmp_path / "params.npz", W_enc=np.zeros(1 << 23, dtype=np.float32))
    refused(tmp_path, r"params.npz: unpacks to 3355\d+ bytes")


@pytest.mark.parametrize("n_bytes", [1 << 60, (1 << 64) - 1, 1 << 27, 0])
def test_a_safetensors_header_of_any_size_is_not_believed(n_bytes: int, tmp_path: Path) -> None:
    place = saelens(tmp_path)
    weights = place / "sae_weights.safetensors"
    weights.write_bytes(struct.pack("<Q", n_bytes) + weights.read_bytes()[8:])
    refused(place, "sae_weights.safetensors: not a readable safetensors file")


@pytest.mark.parametrize("keep", [0, 7, 100, -4])
def test_a_truncated_file_is_named(keep: int, tmp_path: Path) -> None:
    place = saelens(tmp_path)
    weights = place / "sae_weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:keep])
    refused(place, "sae_weights.safetensors: not a readable safetensors file")
    (tmp_path / "cut.pt").write_bytes(b"PK\x03\x04 not really")
    refused(tmp_path / "cut.pt", "cut.pt")
    (tmp_path / "params.npz").write_bytes(b"")
    refused(tmp_path / "params.npz", "params.npz: not a readable .npz")


def test_tensors_of_other_shapes_names_and_values_are_named(tmp_path: Path) -> None:
    place = saelens(tmp_path)
    good = (place / "sae_weights.safetensors").read_bytes()
    cases: tuple[tuple[Callable[[dict[str, torch.Tensor]], object], str], ...] = (
        (lambda t: t.pop("b_enc"), r"has no tensor b_enc \(it has"),
        (lambda t: t.update(W_enc=t["W_enc"].T), r"W_enc: shape \[48, 16\], where \(D 16, F 48\) is needed"),
        (lambda t: t.update(b_dec=t["b_dec"][:-1]), r"b_dec: shape \[15\], where \(D 16\) is needed"),
        (lambda t: t.update(b_dec=t["b_dec"][None]), r"b_dec: shape \[1, 16\]"),
        (lambda t: t["W_dec"][3].fill_(float("nan")), "W_dec: holds NaN or infinity"),
        (lambda t: t["b_enc"][:1].fill_(float("inf")), "b_enc: holds NaN or infinity"),
        (lambda t: t.update(W_dec=t["W_dec"].double() * 1e300), "W_dec: holds numbers too large for float32"),
        (lambda t: t.update(b_dec=t["b_dec"].double() - 1e39), "b_dec: holds numbers too large for float32"),
        (lambda t: t.update(b_enc=t["b_enc"].bool()), r"b_enc: numbers of type torch.bool"),
        (
            lambda t: t.update({"../../outside": t["b_enc"].clone()}),
            r"holds '../../outside', which its format does not have",
        ),
        (lambda t: t.update(W_skip=t["W_enc"].clone()), "holds 'W_skip', which its format does not have"),
    )
    for change, match in cases:
        (place / "sae_weights.safetensors").write_bytes(good)
        with_tensors(place, change)
        refused(place, rf"sae_weights.safetensors: {match}")
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"k": "5"}, "k: '5'; a whole number"),
        ({"k": True}, "k: True; a whole number"),
        ({"k": 0}, "k: 0; a whole number"),
        ({"k": 1 << 40}, "k: 1099511627776; more than its 48 latents"),
        ({"d_in": None}, "d_in: None; a whole number"),
        ({"d_in": -16}, "d_in: -16"),
        ({"architecture": ["topk"]}, "architecture: list of 1; a text"),
        ({"metadata": "hook"}, "metadata: 'hook'; a table"),
        ({"apply_b_dec_to_input": "yes"}, "apply_b_dec_to_input: 'yes'; true or false"),
        ({"rescale_acts_by_decoder_norm": 1}, "rescale_acts_by_decoder_norm: 1; true or false"),
        ({"metadata": {"hook_name": 3, "sae_lens_version": "6.0.0"}}, "metadata.hook_name: 3; a text"),
        ({"normalize_activations": "x" * 500}, "normalize_activations: 'x{70,80}"),
        ({"d_in": 10**400}, "d_in: a number of 1329 bits; a whole number"),
        ({"d_sae": 1e300}, r"d_sae: 1e\+300; a whole number"),
        ({"sae_lens_version": "9" * 5000}, "sae_lens_version: '9{70,80}.*no version is that long"),
        ({"metadata": {"sae_lens_version": "9" * 5000}}, "metadata.sae_lens_version: '9{70,80}"),
        ({"metadata": {"hook_name": "\ud800", "sae_lens_version": "6.0.0"}}, r"metadata.hook_name: '\\ud800'; a text"),
        ({"architecture": "\ud800"}, r"architecture: '\\ud800'; a text"),
    ],
)
def test_settings_of_other_types_are_named(change: dict[str, Any], match: str, tmp_path: Path) -> None:
    place = saelens(tmp_path)
    with_config(place, **change)
    refused(place, rf"cfg.json: {match}")


@pytest.mark.parametrize("text", ["", "[]", "null", '{"a":', "\ufeff\ufeff", '"' + "[" * 5, "[" * 100_000, '{"a":1} x'])
def test_settings_that_are_no_table_are_named(text: str, tmp_path: Path) -> None:
    place = saelens(tmp_path)
    (place / "cfg.json").write_text(text)
    refused(place, "cfg.json: ")


def test_settings_without_end_are_not_read(tmp_path: Path) -> None:
    place = saelens(tmp_path)
    with (place / "cfg.json").open("wb") as file:
        file.truncate(1 << 25)
    refused(place, "cfg.json: 33554432 bytes of settings")
    (place / "cfg.json").write_bytes(b"\xff\xfe\x00bad")
    refused(place, "cfg.json: not readable JSON")


@pytest.mark.parametrize("name", ["../../other/layer_0.safetensors", "/etc/passwd", "hf://a/b/c", "a\\..\\b", ""])
def test_names_that_lead_out_of_the_folder_are_not_followed(name: str, tmp_path: Path) -> None:
    place = tmp_path / "set"
    place.mkdir()
    (place / "config.yaml").write_text(json.dumps({"model_kind": "transcoder_set", "transcoders": [name]}))
    refused(place, r"config.yaml: names '.*', which leads out of its folder")


@pytest.mark.parametrize(
    "text",
    ["!!python/object/apply:os.mkdir [MARK]", "- a\n- b", "a: [", "&a [*a, *a]", "{? [a] : b}", "a: b: c", "\x00"],
)
def test_yaml_is_plain_values_only(text: str, tmp_path: Path) -> None:
    export_dictionary(some_clt(JumpReLU()), tmp_path / "clt", "circuit-tracer")
    mark = tmp_path / "harmed"
    (tmp_path / "clt" / "config.yaml").write_text(text.replace("MARK", str(mark)))
    refused(tmp_path / "clt", "config.yaml: ")
    assert not mark.exists()


def test_a_missing_layer_is_named(tmp_path: Path) -> None:
    export_dictionary(some_clt(JumpReLU()), tmp_path / "clt", "circuit-tracer")
    (tmp_path / "clt" / "W_dec_1.safetensors").unlink()
    refused(tmp_path / "clt", r"W_dec_1.safetensors: no such file")


def test_a_file_that_is_no_dictionary_is_named(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.pt")
    refused(tmp_path / "list.pt", "list.pt: holds list of 2, where a table of names is needed")
    torch.save({"a": torch.zeros(2)}, tmp_path / "other.pt")
    refused(tmp_path / "other.pt", "other.pt: no dictionary that mohole knows by its tensors")
    torch.save({"pre_bias": "x", "latent_bias": torch.zeros(3), "encoder.weight": 4}, tmp_path / "text.pt")
    refused(tmp_path / "text.pt", "text.pt: encoder.weight: 4, where a tensor is needed")
    (tmp_path / "notes.txt").write_text("hello")
    refused(tmp_path / "notes.txt", "notes.txt: no dictionary that mohole reads")


@pytest.mark.parametrize("seed", range(8))
def test_random_bytes_in_place_of_weights_are_an_error_of_ours(seed: int, tmp_path: Path) -> None:
    generator = np.random.default_rng(seed)
    place = saelens(tmp_path)
    for weights in (place / "sae_weights.safetensors", tmp_path / "a.pt", tmp_path / "params.npz"):
        data = bytearray(weights.read_bytes() if weights.exists() else b"PK\x03\x04" + bytes(400))
        for at in generator.integers(0, min(len(data), 300), 40):
            data[at] = generator.integers(0, 256)
        weights.write_bytes(bytes(data))
        with pytest.raises(ArtifactError, match=weights.name):
            load_dictionary(place if weights.parent == place else weights)


@pytest.mark.parametrize("digits", [9, 5000])
def test_a_layer_of_any_number_is_a_name(digits: int, tmp_path: Path) -> None:
    place, name = saelens(tmp_path), f"blocks.{'9' * digits}.hook_resid_post"
    with_config(place, metadata={"hook_name": name, "sae_lens_version": "6.0.0"})
    found = load_dictionary(place)
    assert isinstance(found, SparseAutoencoder)
    assert found.hookpoint == ("resid_post.999999999" if digits == 9 else name)


@pytest.mark.parametrize("scale", [1e-300, 1e300])
def test_a_scale_that_makes_weights_infinite_is_refused(scale: float, tmp_path: Path) -> None:
    place = saelens(tmp_path)
    with_config(place, normalize_activations="expected_average_only_in")
    (place / "activation_scaler.json").write_text(json.dumps({"scaling_factor": scale}))
    refused(place, r"/sae: W_(enc|dec) comes to NaN or infinity once scales and lengths are in it")


def learned(place: Path, tensors: dict[str, Any], **trainer: Any) -> Path:
    place.mkdir()
    good = {"encoder.weight": torch.ones(48, 16), "encoder.bias": torch.zeros(48)}
    good |= {"decoder.weight": torch.ones(16, 48), "decoder.bias": torch.zeros(16)}
    torch.save(good | tensors, place / "ae.pt")
    (place / "config.json").write_text(json.dumps({"trainer": {"dict_class": "AutoEncoderNew", "layer": 1} | trainer}))
    return place


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.zeros(48).to_sparse(),
        lambda: torch.zeros(48, device="meta"),
        lambda: torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]),
        lambda: torch.zeros(1).expand(1 << 40),
        lambda: torch.zeros(1).to_sparse(),
        lambda: torch.zeros(1, device="meta"),
    ],
    ids=["sparse", "meta", "nested", "stretched", "sparse-one", "meta-one"],
)
@pytest.mark.parametrize("name", ["encoder.bias", "unknown", "k"])
def test_tensors_without_numbers_of_their_own_are_named(
    name: str, make: Callable[[], torch.Tensor], tmp_path: Path
) -> None:
    refused(learned(tmp_path / "theirs", {name: make()}), f"ae.pt: {name}: a tensor without a number of its own")


@pytest.mark.parametrize(
    ("factor", "match"),
    [(10**400, "a number of 1329 bits"), (float("inf"), "inf"), (-(10**400), "a number of"), (0, "0")],
    ids=["long", "infinite", "below", "zero"],
)
def test_a_factor_that_is_no_float_is_named(factor: float, match: str, tmp_path: Path) -> None:
    place = learned(tmp_path / "theirs", {}, norm_factor=factor)
    refused(place, f"config.json: trainer.norm_factor: {match}.*; a number above 0")


def test_a_number_too_long_to_print_is_named(tmp_path: Path) -> None:
    """YAML reads hexadecimal numbers of any length, which Python then refuses to print."""
    export_dictionary(some_clt(JumpReLU()), tmp_path / "clt", "circuit-tracer")
    (tmp_path / "clt" / "config.yaml").write_text("model_kind: 0x" + "f" * 5000)
    refused(tmp_path / "clt", "config.yaml: model_kind: a number of 20000 bits; a text")
