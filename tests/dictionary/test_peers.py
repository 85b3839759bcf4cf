"""What other libraries write, mohole reads, and the other way round: same rows, same codes, same output, to 1e-5.

They conflict with mohole's own dependencies, so each runs in the interpreter that MOHOLE_PEERS_PYTHON names:

    python -m venv peers && peers/bin/pip install torch sae-lens eai-sparsify
    peers/bin/pip install --no-deps dictionary-learning circuit-tracer nnsight && peers/bin/pip install greenlet zstandard
"""

import json
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.dictionary.peer_cases import SOME_SAES, some_clt, some_latents, some_rows, some_sae, some_transcoder

from mohole.config import JumpReLU, Nonlinearity, ReLU, TopK
from mohole.dictionary import (
    CrossLayerTranscoder,
    LayerNorm,
    LengthNorm,
    NormalisedAutoencoder,
    SparseAutoencoder,
    Transcoder,
)
from mohole.dictionary.files import AnyDictionary
from mohole.dictionary.formats import export_dictionary, import_dictionary
from mohole.dictionary.formats.export import convert, into_new_folder
from mohole.dictionary.formats.known_batch import reconstruction

SCRIPTS = Path(__file__).resolve().parent / "peers"
pytestmark = pytest.mark.peers


def peer(script: str, what: str, place: Path) -> None:
    python = os.environ.get("MOHOLE_PEERS_PYTHON")
    if not python:
        pytest.skip("MOHOLE_PEERS_PYTHON names no interpreter with the other libraries (see this file's head)")
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
    command = [python, str(SCRIPTS / f"with_{script}.py"), what, str(place)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    if missing := re.search(r"ModuleNotFoundError: No module named '([\w.]+)'", done.stderr):
        pytest.skip(f"{python} has no {missing[1]} (see this file's head)")
    assert done.returncode == 0, done.stderr[-3000:]


def same(dictionary: AnyDictionary, folder: Path) -> None:
    """Does mohole make of the rows what was left?"""
    left = load_file(folder / "expected.safetensors")
    found = dictionary.encode(left["rows"])
    codes = torch.stack([layer.dense() for layer in found]) if isinstance(found, tuple) else found.dense()
    torch.testing.assert_close(codes, left["codes"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(reconstruction(dictionary, left["rows"]), left["out"], rtol=1e-5, atol=1e-5)
    assert int((codes != 0).sum()) > 0


def leave(dictionary: AnyDictionary, folder: Path, rows: torch.Tensor) -> None:
    found = dictionary.encode(rows)
    codes = torch.stack([layer.dense() for layer in found]) if isinstance(found, tuple) else found.dense()
    tensors = {"rows": rows, "codes": codes, "out": reconstruction(dictionary, rows)}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "expected.safetensors")


@pytest.mark.parametrize("library", ["saelens", "sparsify", "dictionary_learning"])
def test_what_a_library_writes_computes_the_same_here(library: str, tmp_path: Path) -> None:
    peer(library, "write", tmp_path)
    folders = sorted(path for path in tmp_path.iterdir() if path.is_dir())
    assert len(folders) >= 5
    for folder in folders:
        found = import_dictionary(folder)
        assert found.format == library.replace("_", "-")
        same(found.dictionary, folder)
        assert isinstance(found.dictionary, NormalisedAutoencoder) == ("norm" in folder.name)
        if isinstance(found.dictionary, SparseAutoencoder) and library != "sparsify":
            assert found.dictionary.hookpoint == "resid_post.3"
        if isinstance(found.dictionary, SparseAutoencoder) and found.dictionary.nonlinearity.kind != "gated":
            assert found.units.folded_by_library == (
                3.0 if folder.name in ("BatchTopKSAE", "JumpReluAutoEncoder") else None
            )


def test_what_circuit_tracer_writes_computes_the_same_here(tmp_path: Path) -> None:
    peer("circuit_tracer", "write", tmp_path)
    for name in ("clt-relu", "clt-jump_relu"):
        clt = import_dictionary(tmp_path / name).dictionary
        assert isinstance(clt, CrossLayerTranscoder)
        assert clt.reads == ("mlp_in.0", "mlp_in.1", "mlp_in.2")
        same(clt, tmp_path / name)
    for name in ("plt-relu", "plt-jumprelu", "plt-skip"):
        left = load_file(tmp_path / name / "expected.safetensors")
        for layer in range(3):
            transcoder = import_dictionary(tmp_path / name / f"layer_{layer}.safetensors").dictionary
            assert isinstance(transcoder, Transcoder)
            assert (transcoder.reads, transcoder.writes) == (f"mlp_in.{layer}", f"mlp_out.{layer}")
            rows = left["rows"][layer]
            torch.testing.assert_close(transcoder.encode(rows).dense(), left["codes"][layer], rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(reconstruction(transcoder, rows), left["out"][layer], rtol=1e-5, atol=1e-5)


def test_saelens_computes_the_same_of_what_is_written_here(tmp_path: Path) -> None:
    for name, make in SOME_SAES.items():
        export_dictionary(make(), tmp_path / name, "saelens")
        leave(make(), tmp_path / name, some_rows())
    for name, row_norm in {"layer-norm": LayerNorm(), "length-norm": LengthNorm()}.items():
        for kind in ("topk", "jumprelu", "gated"):
            normalised = NormalisedAutoencoder(SOME_SAES[kind](), row_norm)
            export_dictionary(normalised, tmp_path / f"{kind}-{name}", "saelens")
            leave(normalised, tmp_path / f"{kind}-{name}", 0.05 * some_rows() + 0.02)
    for name, transcoder in {
        "transcoder": some_transcoder(ReLU()), "skip": some_transcoder(ReLU(), skip=True),
        "jumprelu-transcoder": some_transcoder(JumpReLU()), "jumprelu-skip": some_transcoder(JumpReLU(), skip=True),
    }.items():  # fmt: skip
        export_dictionary(transcoder, tmp_path / name, "saelens")
        leave(transcoder, tmp_path / name, some_rows())
    peer("saelens", "check", tmp_path)


def test_sparsify_computes_the_same_of_what_is_written_here(tmp_path: Path) -> None:
    made: dict[str, AnyDictionary] = {
        "sae": some_sae(TopK(k=5)),
        "transcoder": some_transcoder(TopK(k=5)),
        "skip": some_transcoder(TopK(k=5), skip=True),
    }
    for name, dictionary in made.items():
        export_dictionary(dictionary, tmp_path / name, "sparsify")
        leave(dictionary, tmp_path / name, some_rows())
    peer("sparsify", "check", tmp_path)


def test_dictionary_learning_computes_the_same_of_what_is_written_here(tmp_path: Path) -> None:
    for name, make in SOME_SAES.items():
        export_dictionary(make(), tmp_path / name, "dictionary-learning")
        leave(make(), tmp_path / name, some_rows())
    peer("dictionary_learning", "check", tmp_path)


def test_circuit_tracer_computes_the_same_of_what_is_written_here(tmp_path: Path) -> None:
    for name, nonlinearity in {"clt-relu": ReLU(), "clt-jumprelu": JumpReLU()}.items():
        clt = some_clt(nonlinearity)
        export_dictionary(clt, tmp_path / name, "circuit-tracer")
        leave(clt, tmp_path / name, torch.stack([some_rows(seed) for seed in range(3)]))
    sets: dict[str, tuple[Nonlinearity, bool]] = {
        "plt": (JumpReLU(), False), "plt-skip": (JumpReLU(), True), "plt-topk": (TopK(k=5), False),
    }  # fmt: skip
    for name, (own_nonlinearity, skip) in sets.items():
        layers = [some_transcoder(own_nonlinearity, skip=skip, layer=layer) for layer in range(3)]
        for transcoder in layers:
            into_new_folder(
                tmp_path / "parts" / name / transcoder.writes,
                lambda draft, transcoder=transcoder: _save(transcoder, draft),
            )
        sources = [tmp_path / "parts" / name / transcoder.writes for transcoder in reversed(layers)]
        convert(sources, tmp_path / "out" / name, "circuit-tracer")
        rows = torch.stack([some_rows(seed) for seed in range(3)])
        codes = torch.stack([one.encode(own).dense() for one, own in zip(layers, rows, strict=True)])
        out = torch.stack([reconstruction(one, own) for one, own in zip(layers, rows, strict=True)])
        save_file({"rows": rows, "codes": codes, "out": out}, tmp_path / "out" / name / "expected.safetensors")
    for name in ("clt-relu", "clt-jumprelu"):
        (tmp_path / name).rename(tmp_path / "out" / name)
    peer("circuit_tracer", "check", tmp_path / "out")


def _save(transcoder: Transcoder, draft: Path) -> None:
    from mohole.dictionary.formats.export import write_as

    write_as(transcoder, draft, "mohole")


def test_releases_of_others_compute_what_saelens_makes_of_them(tmp_path: Path) -> None:
    own = some_latents(JumpReLU())
    assert own.threshold is not None
    b_dec = some_sae(JumpReLU()).b_dec
    weights = {"W_enc": own.W_enc.T, "W_dec": own.W_dec, "b_enc": own.b_enc, "b_dec": b_dec, "threshold": own.threshold}
    linear = {
        "encoder.weight": own.W_enc,
        "encoder.bias": own.b_enc,
        "decoder.weight": own.W_dec.T,
        "decoder.bias": b_dec,
    }
    for place in ("gemma-scope-2b-pt-res/layer_20/width_16k/l0", "gemma-scope-2b-pt-transcoders/layer_3/width_16k/l0"):
        put(tmp_path / place / "params.npz", weights)
    lower = {name.replace("W_", "w_"): tensor for name, tensor in weights.items()}
    for kind, more in {"resid_post": {}, "transcoder": {"affine_skip_connection": own.W_enc[:16]}}.items():
        point = {"hf_hook_point_in": f"in-{kind}", "hf_hook_point_out": "in-resid_post"}
        config = {"architecture": "jump_relu", "model_name": "gemma-v3-1b-pt", "affine_connection": bool(more)}
        put(
            tmp_path / "gemma-scope-2-1b-pt" / kind / "layer_5_width_16k" / "params.safetensors",
            lower | more,
            config | point,
        )
    hook = {
        "d_model": 16,
        "d_sae": 48,
        "hook_point_in": "blocks.8.hook_resid_post",
        "hook_point_out": "blocks.8.hook_resid_post",
    }
    scaled = hook | {"jump_relu_threshold": 0.3, "dataset_average_activation_norm": {"in": 2.5, "out": 2.5}}
    coarse = {name: tensor.bfloat16() for name, tensor in linear.items()}
    put(tmp_path / "Llama3_1-8B-Base-LXR-8x" / "L8R" / "checkpoints" / "final.safetensors", coarse)
    (tmp_path / "Llama3_1-8B-Base-LXR-8x" / "L8R" / "hyperparams.json").write_text(json.dumps(scaled))
    distilled = linear | {"log_jumprelu_threshold": own.threshold.log()}
    distilled["dataset_average_activation_norm.blocks.8.hook_resid_post"] = torch.tensor(2.5)
    put(
        tmp_path / "Llama-Scope-R1-Distill" / "L8R" / "sae_weights.safetensors",
        distilled,
        hook | {"expansion_factor": 3},
    )
    goodfire = {name.replace("coder", "coder_linear"): tensor for name, tensor in linear.items()}
    put(tmp_path / "Llama-3.1-8B-Instruct-SAE-l19" / "Llama-3.1-8B-Instruct-SAE-l19.pth", goodfire)
    wide = torch.randn(1024, 16, generator=torch.Generator().manual_seed(0))
    qwen = {"W_enc": wide, "b_enc": wide[:, 0] * 0.3, "W_dec": wide.T.flip(1), "b_dec": b_dec}
    put(tmp_path / "SAE-Res-Qwen3-1.7B-Base-W1K-L0_5" / "layer3.sae.pt", qwen)
    for file in sorted(path for path in tmp_path.rglob("*") if path.suffix in (".npz", ".safetensors", ".pt", ".pth")):
        place = file.parent.parent if file.parent.name == "checkpoints" else file.parent
        leave(import_dictionary(file if file.suffix in (".pt", ".pth") else place).dictionary, place, some_rows())
    peer("saelens_loaders", "check", tmp_path)


def put(path: Path, tensors: dict[str, torch.Tensor], config: dict[str, object] | None = None) -> None:
    """A file of weights, and a config beside it."""
    path.parent.mkdir(parents=True)
    if config is not None:
        (path.parent / "config.json").write_text(json.dumps(config))
    tensors = {name: tensor.contiguous().clone() for name, tensor in tensors.items()}
    match path.suffix:
        case ".npz":
            np.savez(path, **{name: tensor.numpy() for name, tensor in tensors.items()})
        case ".safetensors":
            save_file(tensors, path)
        case _:
            torch.save(tensors, path)
