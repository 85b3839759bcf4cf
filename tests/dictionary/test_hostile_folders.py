"""Folders in mohole's own format that are damaged or mean harm, with a manifest and without: one line, never other numbers."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.dictionary.peer_cases import F, some_clt, some_crosscoder, some_latents, some_sae, some_transcoder

from mohole import artifact
from mohole.config import BatchTopK, Gated, JumpReLU, TopK
from mohole.dictionary import Crosscoder, CrossLayerTranscoder, SparseAutoencoder, Transcoder, load_dictionary
from mohole.dictionary.files import AnyDictionary, read
from mohole.dictionary.formats import export_dictionary
from mohole.dictionary.formats.export import convert
from mohole.errors import ArtifactError, ConfigError

NAN, INF = float("nan"), float("inf")
KINDS: dict[str, Callable[[], AnyDictionary]] = {
    "sae": lambda: some_sae(TopK(k=5)),
    "batchtopk": lambda: some_sae(BatchTopK(k=5)),
    "jumprelu": lambda: some_sae(JumpReLU()),
    "gated": lambda: some_sae(Gated()),
    "transcoder": lambda: some_transcoder(TopK(k=5)),
    "skip": lambda: some_transcoder(TopK(k=5), skip=True),
    "crosscoder": lambda: some_crosscoder(TopK(k=5)),
    "clt": lambda: some_clt(JumpReLU()),
}
Tensors = dict[str, torch.Tensor]
Facts = dict[str, Any]


def folder(kind: str, place: Path) -> Path:
    """As it comes from the hub: proved by its known batch."""
    export_dictionary(KINDS[kind](), place, "mohole")
    (place / artifact.MANIFEST).unlink(missing_ok=True)
    return place


def sealed(place: Path) -> Path:
    """The same files in an artifact whose manifest is right."""
    target = place.parent / "sealed"
    with artifact.create(target, artifact.Inputs(kind="dictionary", config={}, seed=0)) as draft:
        for file in place.iterdir():
            (draft / file.name).write_bytes(file.read_bytes())
    return target


def with_tensors(place: Path, change: Callable[[Tensors], object]) -> None:
    tensors = load_file(place / "dictionary.safetensors")
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, place / "dictionary.safetensors")


def with_facts(place: Path, change: Callable[[Facts], object]) -> None:
    facts = json.loads((place / "dictionary.json").read_text())
    change(facts)
    (place / "dictionary.json").write_text(json.dumps(facts))


def refused(place: Path, match: str) -> None:
    """By whoever loads it, with a manifest and without, and before anything is written."""
    for there in (place, sealed(place)):
        with pytest.raises(ArtifactError, match=match) as caught:
            load_dictionary(there)
        text = str(caught.value)
        assert "\n" not in text
        assert text.startswith(str(there))
        assert ";" in text, f"no next step: {text}"
        with pytest.raises(ArtifactError):
            convert([str(there)], place.parent / "out", "mohole")
        assert not (place.parent / "out").exists()


TENSORS: list[tuple[str, str, Callable[[torch.Tensor], torch.Tensor], str]] = [
    ("sae", "b_dec", lambda t: t[:1], r"b_dec: shape \[1\], where \(D 16\)"),
    ("sae", "b_dec", lambda t: t[None], r"b_dec: shape \[1, 16\], where \(D 16\)"),
    ("sae", "b_enc", lambda t: t[:10], r"b_enc: shape \[10\], where \(F 48\)"),
    ("sae", "b_enc", lambda t: t[:1], r"b_enc: shape \[1\]"),
    ("sae", "b_enc", lambda t: torch.cat([t, t]), r"b_enc: shape \[96\]"),
    ("sae", "W_dec", lambda t: t[:24], r"W_dec: shape \[24, 16\], where \(F 48, D 16\)"),
    ("sae", "W_dec", lambda t: torch.cat([t, t]), r"W_dec: shape \[96, 16\]"),
    ("sae", "W_enc", lambda t: t.flatten(), r"W_enc: shape \[768\]"),
    ("sae", "W_enc", lambda t: t[:, :8], r"W_dec: shape \[48, 16\], where \(F 48, D 8\)"),
    ("sae", "W_enc", lambda t: t[:0], r"W_enc: shape \[0, 16\]"),
    ("sae", "W_dec", lambda t: t.double(), r"W_dec: numbers of type torch.float64, where float32"),
    ("sae", "W_dec", lambda t: t.half(), r"W_dec: numbers of type torch.float16, where float32"),
    ("sae", "W_dec", lambda t: t.int(), r"W_dec: numbers of type torch.int32, where float32"),
    ("sae", "W_dec", lambda t: t * NAN, "W_dec: holds NaN or infinity"),
    ("sae", "W_enc", lambda t: t * NAN, "W_enc: holds NaN or infinity"),
    ("sae", "b_dec", lambda t: torch.cat([torch.tensor([NAN]), t[1:]]), "b_dec: holds NaN or infinity"),
    ("sae", "b_enc", lambda t: torch.cat([t[1:], torch.tensor([-INF])]), "b_enc: holds NaN or infinity"),
    ("batchtopk", "threshold", lambda t: t[:1], r"threshold: shape \[1\], where \(F 48\)"),
    ("jumprelu", "threshold", lambda t: t * NAN, "threshold: holds NaN or infinity"),
    ("gated", "r_mag", lambda t: t[:-1], r"r_mag: shape \[47\]"),
    ("gated", "b_mag", lambda t: t * INF, "b_mag: holds NaN or infinity"),
    ("transcoder", "b_dec", lambda t: t[:1], r"b_dec: shape \[1\], where \(E 16\)"),
    ("transcoder", "b_enc", lambda t: t[:1], r"b_enc: shape \[1\]"),
    ("skip", "W_skip", lambda t: t[:, :3], r"W_skip: shape \[16, 3\], where \(E 16, D 16\)"),
    ("skip", "W_skip", lambda t: t[0], r"W_skip: shape \[16\]"),
    ("skip", "W_skip", lambda t: t * NAN, "W_skip: holds NaN or infinity"),
    ("crosscoder", "b_dec", lambda t: t[:16], r"b_dec: shape \[16\], where \(D 32\)"),
    ("crosscoder", "W_dec", lambda t: t[:, :16], r"W_dec: shape \[48, 16\], where \(F 48, D 32\)"),
    ("clt", "b_dec", lambda t: t[:, :1], r"W_dec.0: shape \[48, 48\], where \(F0 48, E0 3\)"),
    ("clt", "b_dec", lambda t: t[:2], r"b_dec: shape \[2, 16\], where \(L 3"),
    ("clt", "W_dec.1", lambda t: t[:, :16], r"W_dec.1: shape \[48, 16\], where \(F1 48, E1 32\)"),
    ("clt", "W_enc.2", lambda t: t[:, :4], r"W_enc.2: shape \[48, 4\], where \(F2 48, D 16\)"),
    ("clt", "b_enc.2", lambda t: t[:1], r"b_enc.2: shape \[1\]"),
    ("clt", "threshold.2", lambda t: t[:1], r"threshold.2: shape \[1\]"),
    ("clt", "b_dec", lambda t: t * NAN, "b_dec: holds NaN or infinity"),
]


@pytest.mark.parametrize(("kind", "name", "change", "match"), TENSORS)
def test_tensors_of_other_shapes_types_and_values_are_named(
    kind: str, name: str, change: Callable[[torch.Tensor], torch.Tensor], match: str, tmp_path: Path
) -> None:
    place = folder(kind, tmp_path / "there")
    with_tensors(place, lambda tensors: tensors.update({name: change(tensors[name])}))
    refused(place, f"dictionary.safetensors: {match}")


@pytest.mark.parametrize(
    ("kind", "name"), [("sae", "b_enc"), ("skip", "W_dec"), ("clt", "W_dec.1"), ("gated", "b_mag")]
)
def test_a_missing_tensor_is_named(kind: str, name: str, tmp_path: Path) -> None:
    place = folder(kind, tmp_path / "there")
    with_tensors(place, lambda tensors: tensors.pop(name))
    refused(place, rf"dictionary.safetensors: has no tensor {name} \(it has")


@pytest.mark.parametrize(
    ("kind", "name"), [("sae", "extra"), ("sae", "threshold"), ("transcoder", "hookpoint"), ("clt", "W_enc.3")]
)
def test_a_tensor_too_many_is_named(kind: str, name: str, tmp_path: Path) -> None:
    place = folder(kind, tmp_path / "there")
    with_tensors(place, lambda tensors: tensors.update({name: torch.zeros(F)}))
    refused(place, rf"dictionary.safetensors: holds '{name}', which its format does not have")


FACTS: list[tuple[str, Facts, str]] = [
    ("sae", {"nonlinearity": {"kind": "topk", "k": 49}}, "k: 49 is more than its 48 latents"),
    ("sae", {"nonlinearity": {"kind": "topk", "k": 10**9}}, "k: 1000000000 is more than its 48 latents"),
    ("sae", {"nonlinearity": {"kind": "topk", "k": 0}}, r"nonlinearity.*k: 0"),
    ("sae", {"nonlinearity": {"kind": "topk", "k": "5"}}, r"nonlinearity.*k: '5'"),
    ("sae", {"nonlinearity": {"kind": "sigmoid"}}, "nonlinearity: .*sigmoid"),
    ("sae", {"nonlinearity": {"kind": "topk", "a\nb": 1}}, "nonlinearity.topk.a⏎b: 1; "),
    ("sae", {"nonlinearity": {"kind": "a\nb" * 90}}, r"nonlinearity: dict of 1; .{0,200}$"),
    ("sae", {"nonlinearity": 3}, "nonlinearity: 3"),
    ("batchtopk", {"nonlinearity": {"kind": "batchtopk", "k": 49}}, "k: 49 is more than its 48 latents"),
    ("sae", {"hookpoint": 5}, "hookpoint: 5; a text is needed"),
    ("sae", {"hookpoint": None}, "hookpoint: None; a text is needed"),
    ("sae", {"hookpoint": "\ud800"}, r"hookpoint: '\\ud800'; a text is needed"),
    ("sae", {"kind": "vase"}, "kind: 'vase'; .*sae, transcoder, crosscoder and cross_layer_transcoder"),
    ("sae", {"kind": ["sae"]}, "kind: list of 1"),
    ("transcoder", {"reads": ["mlp_in.3"]}, "reads: list of 1; a text is needed"),
    ("transcoder", {"writes": None}, "writes: None; a text is needed"),
    ("crosscoder", {"widths": [1, 2]}, "widths: 3 columns in all, where its latents read 32"),
    ("crosscoder", {"widths": [32]}, r"widths: \[32\], where a width is needed for each of 2 hookpoints"),
    ("crosscoder", {"widths": [33, -1]}, "widths: list of 2; a list of whole numbers from 1 is needed"),
    ("crosscoder", {"widths": [True, 31]}, "widths: list of 2; a list of whole numbers from 1 is needed"),
    ("crosscoder", {"widths": 32}, "widths: 32; a list of whole numbers from 1 is needed"),
    ("crosscoder", {"hookpoints": ["resid_post.1"] * 2}, "hookpoints: resid_post.1 is named twice"),
    ("crosscoder", {"hookpoints": [1, 2]}, "hookpoints: list of 2; a list of texts is needed"),
    ("crosscoder", {"hookpoints": "ab"}, "hookpoints: 'ab'; a list of texts is needed"),
    ("crosscoder", {"hookpoints": [], "widths": []}, "hookpoints: none; "),
    ("clt", {"reads": 3}, "reads: 3; a list of texts is needed"),
    ("clt", {"reads": ["a", "a", "b"]}, "reads: a is named twice"),
    ("clt", {"reads": ["\n\x1b" + "a" * 200] * 3}, "reads: ⏎⟨001B⟩a{70,80} is named twice"),
    ("clt", {"writes": ["a", "b", "a"]}, "writes: a is named twice"),
    ("clt", {"writes": ["a", "b"]}, "writes: 2 for 3 layers"),
    ("clt", {"reads": [], "writes": []}, "reads: none; "),
    ("clt", {"nonlinearity": {"kind": "topk", "k": 2}}, "holds 'threshold.0', which its format does not have"),
]


@pytest.mark.parametrize(("kind", "change", "match"), FACTS)
def test_facts_that_cannot_be_are_named(kind: str, change: Facts, match: str, tmp_path: Path) -> None:
    place = folder(kind, tmp_path / "there")
    with_facts(place, lambda facts: facts.update(change))
    refused(place, rf"dictionary.(json|safetensors): {match}")


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"nonlinearity": ' + "9" * 10_000 + "}", "[]", "3", "", "\x00", '{"kind": "sae"}'],
    ids=["deep", "long", "list", "number", "empty", "zero", "lacking"],
)  # fmt: skip
def test_facts_that_are_no_table_are_named(text: str, tmp_path: Path) -> None:
    place = folder("sae", tmp_path / "there")
    (place / "dictionary.json").write_text(text)
    refused(place, "dictionary.json: ")


@pytest.mark.parametrize("header", [b"[" * 100_000, b"9" * 10_000, b"[]", b"null", b"{}"])
def test_weights_without_a_header_are_named(header: bytes, tmp_path: Path) -> None:
    place = folder("sae", tmp_path / "there")
    (place / "dictionary.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    refused(place, "dictionary.safetensors: ")


@pytest.mark.parametrize("training", [{"note": "\ud800"}, {"\ud800": 1}, "deep"], ids=["value", "key", "deep"])
def test_what_is_remembered_of_a_training_and_cannot_be_written_is_named(training: Any, tmp_path: Path) -> None:
    place = folder("sae", tmp_path / "there")
    if training == "deep":  # read in half the stack that writing it takes
        training = {}
        for _ in range(450):
            training = {"a": training}
    with_facts(place, lambda facts: facts.update(training=training))
    with pytest.raises(ArtifactError, match=r"dictionary.json: training: .*; take it out"):
        convert([str(place)], tmp_path / "out", "mohole")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_a_good_one_of_every_kind_is_loaded_as_it_was(kind: str, tmp_path: Path) -> None:
    place = folder(kind, tmp_path / "there")
    for there in (place, sealed(place)):
        assert type(load_dictionary(there)) is type(KINDS[kind]())
    held = load_file(place / "dictionary.safetensors")
    b_dec = read(place).b_dec
    assert torch.equal(b_dec, held["b_dec"])


def test_reading_changes_and_holds_no_file(tmp_path: Path) -> None:
    place = folder("sae", tmp_path / "there")
    before = (place / "dictionary.safetensors").read_bytes()
    dictionary = load_dictionary(place)
    assert isinstance(dictionary, SparseAutoencoder)
    dictionary.W_dec.zero_()
    assert (place / "dictionary.safetensors").read_bytes() == before


def test_a_known_batch_is_no_proof_of_a_dictionary_that_computes_nan(tmp_path: Path) -> None:
    sae = some_sae(TopK(k=5))
    sae.W_dec.fill_(3e38)  # finite, and two of them are not
    with pytest.raises(ArtifactError, match=r"come out as NaN or infinity.*too large for float32; "):
        export_dictionary(sae, tmp_path / "there", "mohole")
    place = folder("sae", tmp_path / "good")
    with_tensors(place, lambda tensors: tensors["W_dec"].fill_(3e38))
    refused(place, "100% of the rows in known_batch.safetensors come out differently")


def test_dictionaries_whose_tensors_do_not_fit_cannot_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as outside of tests
    own, zeros = some_latents(TopK(k=5)), torch.zeros
    sae = some_sae(TopK(k=5))
    with pytest.raises(ValueError, match=r"b_dec: shape \[1\], where \[16\] is needed"):
        SparseAutoencoder("x", sae.nonlinearity, sae.W_enc, sae.b_enc, sae.W_dec, zeros(1))
    with pytest.raises(ValueError, match=r"W_dec: shape \[48, 8\], where \[48, 16\] is needed"):
        SparseAutoencoder("x", sae.nonlinearity, sae.W_enc, sae.b_enc, sae.W_dec[:, :8], zeros(8))
    with pytest.raises(ValueError, match=r"k: 49 is more than its 48 latents"):
        some_latents(TopK(k=49))
    with pytest.raises(ValueError, match=r"b_dec: shape \[1\], where \[16\]"):
        Transcoder("a", "b", own, zeros(1))
    with pytest.raises(ValueError, match=r"W_skip: shape \[16, 1\], where \[16, 16\]"):
        Transcoder("a", "b", own, zeros(16), zeros(16, 1))
    with pytest.raises(ValueError, match=r"widths: 17 columns in all, where its latents read 16"):
        Crosscoder(("a", "b"), (16, 1), own, zeros(16))
    with pytest.raises(ValueError, match=r"layer 0: W_dec: shape \[48, 16\], where \[48, 32\]"):
        CrossLayerTranscoder(("a", "b"), ("c", "d"), (own, own), zeros(2, 16))
    with pytest.raises(ValueError, match=r"layer 1: TopK\(.*, where layer 0 has JumpReLU"):
        CrossLayerTranscoder(("a", "b"), ("c", "d"), (some_latents(JumpReLU(), d_out=32), own), zeros(2, 16))


def test_a_hookpoint_that_no_file_can_hold_is_refused(tmp_path: Path) -> None:
    place = folder("sae", tmp_path / "there")
    with pytest.raises(ConfigError, match=r"hookpoint='\\udcff': "):
        load_dictionary(place, hookpoint="\udcff")


def test_no_number_is_written_beyond_its_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    """What corrupted memory: columns of a decoder written behind the end of a narrower output."""
    own = some_latents(TopK(k=5))
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    codes = own.encode(torch.from_numpy(np.ones((4, 16), dtype=np.float32)))
    with pytest.raises(ValueError, match=r"out: shape \[4, 1\], where \[4, 16\]"):
        own.add_to(torch.zeros(4, 1), codes)
