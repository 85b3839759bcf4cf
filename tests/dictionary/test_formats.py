"""Files of every format, made by hand from the documented names, compute what their library's dense formula says."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from tests.dictionary.peer_cases import SOME_SAES, some_clt, some_crosscoder, some_rows, some_sae, some_transcoder
from torch import Tensor

from mohole import artifact
from mohole.config import Gated, JumpReLU, ReLU, TopK
from mohole.dictionary import (
    Crosscoder,
    CrossLayerTranscoder,
    NormalisedAutoencoder,
    SparseAutoencoder,
    Transcoder,
    load_dictionary,
)
from mohole.dictionary.files import AnyDictionary, kind_of
from mohole.dictionary.formats import Imported, export_dictionary, import_dictionary
from mohole.dictionary.formats.export import Format, convert
from mohole.dictionary.formats.known_batch import FILE, reconstruction
from mohole.errors import ArtifactError, ConfigError

D, F, E, N, K = 16, 48, 12, 3, 5


def draw(*shape: int, seed: int = 0) -> Tensor:
    return 0.5 * torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape) + 31 * seed))


W_ENC, B_ENC, W_DEC, B_DEC = draw(F, D), draw(F), draw(F, D, seed=1), draw(D)
THRESHOLD = draw(F, seed=2).abs() + 0.1


def jump(pre: Tensor, threshold: Tensor | float) -> Tensor:
    return torch.where(pre > threshold, pre, 0.0)


def top(pre: Tensor, k: int = K) -> Tensor:
    best = pre.relu().topk(k, dim=1)
    return torch.zeros_like(pre).scatter(1, best.indices, best.values)


def norms_of(hooks: Sequence[str]) -> dict[str, Tensor]:
    """Mean lengths 2 and 8 of rows of two hookpoints."""
    prefix = "dataset_average_activation_norm."
    return {prefix + hook: torch.tensor(size) for hook, size in zip(hooks, (2.0, 8.0), strict=True)}


def folder_of(path: Path, settings: Mapping[str, Any], name: str, tensors: Mapping[str, Any], weights: str) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / weights).parent.mkdir(parents=True, exist_ok=True)
    if name:
        (path / name).write_text(json.dumps(settings))
    match Path(weights).suffix:
        case ".safetensors":
            save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path / weights)
        case ".npz":
            np.savez(path / weights, **{key: tensor.numpy() for key, tensor in tensors.items()})
        case _:
            torch.save(dict(tensors), path / weights)
    return path


def agrees(found: Imported, codes: Tensor, out: Tensor, rows: Tensor | None = None) -> AnyDictionary:
    dictionary = found.dictionary
    rows = some_rows() if rows is None else rows
    encoded = dictionary.encode(rows)
    dense = torch.stack([layer.dense() for layer in encoded]) if isinstance(encoded, tuple) else encoded.dense()
    assert 0 < int((codes != 0).sum()) < codes.numel()
    torch.testing.assert_close(dense, codes, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(reconstruction(dictionary, rows), out, rtol=1e-5, atol=1e-5)
    return dictionary


def test_saelens_before_version_6(tmp_path: Path) -> None:
    flat = {
        "d_in": D, "d_sae": F, "hook_point": "blocks.7.hook_resid_pre", "activation_fn_str": "topk",
        "activation_fn_kwargs": {"k": K}, "normalize_activations": False, "dtype": "torch.float32",
    }  # fmt: skip
    tensors = {"W_enc": W_ENC.T, "b_enc": B_ENC, "W_dec": W_DEC, "b_dec": B_DEC, "scaling_factor": torch.ones(F)}
    found = import_dictionary(folder_of(tmp_path, flat, "cfg.json", tensors, "sae_weights.safetensors"))
    codes = top((some_rows() - B_DEC) @ W_ENC.T + B_ENC)
    dictionary = agrees(found, codes, codes @ W_DEC + B_DEC)
    assert isinstance(dictionary, SparseAutoencoder)
    assert (dictionary.hookpoint, dictionary.nonlinearity) == ("resid_pre.7", TopK(k=K))


def test_saelens_with_a_scale_beside_it(tmp_path: Path) -> None:
    config = {
        "architecture": "jumprelu", "d_in": D, "d_sae": F, "normalize_activations": "expected_average_only_in",
        "apply_b_dec_to_input": False, "metadata": {"sae_lens_version": "6.1.0", "hook_name": "blocks.2.hook_mlp_out"},
    }  # fmt: skip
    tensors = {"W_enc": W_ENC.T, "b_enc": B_ENC, "W_dec": W_DEC, "b_dec": B_DEC, "threshold": THRESHOLD}
    place = folder_of(tmp_path, config, "cfg.json", tensors, "sae_weights.safetensors")
    with pytest.raises(ArtifactError, match=r"normalize_activations.*a factor that is not in the folder; write"):
        load_dictionary(place)
    (place / "activation_scaler.json").write_text('{"scaling_factor": 0.25}')
    found = import_dictionary(place)
    codes = jump(0.25 * some_rows() @ W_ENC.T + B_ENC, THRESHOLD)
    agrees(found, codes, (codes @ W_DEC + B_DEC) / 0.25)
    assert (found.units.input_scale, found.units.output_scale, found.units.pre_bias) == (0.25, 0.25, False)


@pytest.mark.parametrize("has_pre_bias", [True, False])
def test_saelens_topk_that_ranks_by_length_times_strength(has_pre_bias: bool, tmp_path: Path) -> None:
    """Left out, other latents are chosen wherever decoder rows differ in length."""
    config = {
        "architecture": "topk", "k": K, "d_in": D, "d_sae": F, "rescale_acts_by_decoder_norm": True,
        "apply_b_dec_to_input": has_pre_bias, "metadata": {"sae_lens_version": "6.0.0"},
    }  # fmt: skip
    tensors = {"W_enc": W_ENC.T, "b_enc": B_ENC, "W_dec": W_DEC, "b_dec": B_DEC}
    found = import_dictionary(folder_of(tmp_path, config, "cfg.json", tensors, "sae_weights.safetensors"))
    lengths = W_DEC.norm(dim=1)
    pre = (some_rows() - has_pre_bias * B_DEC) @ W_ENC.T + B_ENC
    codes = top(pre * lengths)
    assert not torch.equal(codes > 0, top(pre) > 0)  # else this test could not see it left out
    agrees(found, codes, (codes / lengths) @ W_DEC + B_DEC)
    assert found.units.unit_decoder


@pytest.mark.parametrize("architecture", ["abstopk", "temporal", "matching_pursuit", "no such"])
def test_saelens_architectures_that_compute_something_else_are_refused(architecture: str, tmp_path: Path) -> None:
    config = {"architecture": architecture, "d_in": D, "d_sae": F, "metadata": {"sae_lens_version": "6.0.0"}}
    place = folder_of(tmp_path, config, "cfg.json", {"W_enc": W_ENC.T}, "sae_weights.safetensors")
    with pytest.raises(ArtifactError, match=f"cfg.json: architecture: '{architecture}'; mohole reads standard, topk"):
        load_dictionary(place)


@pytest.mark.parametrize("has_pre_bias", [True, False])
def test_saelens_rows_normalised_by_themselves(has_pre_bias: bool, tmp_path: Path) -> None:
    config = {"architecture": "standard", "d_in": D, "d_sae": F, "metadata": {"sae_lens_version": "6.0.0"}}
    config |= {"apply_b_dec_to_input": has_pre_bias}
    tensors = {"W_enc": W_ENC.T, "b_enc": B_ENC, "W_dec": W_DEC, "b_dec": B_DEC}
    rows = 9.0 * some_rows() + 2.0
    mean, deviation = rows.mean(1, keepdim=True), rows.std(1, keepdim=True)
    by_hand = {
        "layer_norm": ((rows - mean) / (deviation + 1e-5), deviation, mean),
        "constant_norm_rescale": (
            rows * 4.0 / rows.norm(dim=1, keepdim=True),
            rows.norm(dim=1, keepdim=True) / 4.0,
            0.0,
        ),
    }
    for normalisation, (own, scale, origin) in by_hand.items():
        config["normalize_activations"] = normalisation
        place = folder_of(tmp_path, config, "cfg.json", tensors, "sae_weights.safetensors")
        codes = ((own - has_pre_bias * B_DEC) @ W_ENC.T + B_ENC).relu()
        found = agrees(import_dictionary(place), codes, (codes @ W_DEC + B_DEC) * scale + origin, rows)
        assert isinstance(found, NormalisedAutoencoder)


def test_saelens_normalisations_that_cannot_be_undone_are_refused(tmp_path: Path) -> None:
    config = {"architecture": "standard", "d_in": D, "d_sae": F, "metadata": {"sae_lens_version": "6.0.0"}}
    tensors = {"W_enc": W_ENC.T, "b_enc": B_ENC, "W_dec": W_DEC, "b_dec": B_DEC}
    threshold = {"threshold": THRESHOLD}
    for change, match in (
        ({"normalize_activations": "covariance_whitening"}, "normalize_activations: 'covariance_whitening'; not under"),
        *(
            (
                {"normalize_activations": kind, "architecture": architecture, "d_out": D},
                f"'{kind}'; of a transcoder it is done to each row that is read and not to what is predicted",
            )
            for kind in ("layer_norm", "constant_norm_rescale")
            for architecture in ("transcoder", "jumprelu_transcoder")
        ),
    ):
        more = threshold if "jumprelu" in str(change) else {}
        place = folder_of(tmp_path, config | change, "cfg.json", tensors | more, "sae_weights.safetensors")
        with pytest.raises(ArtifactError, match=match):
            load_dictionary(place)


def test_sparsify_names_its_hookpoint_by_its_folder(tmp_path: Path) -> None:
    tensors = {"encoder.weight": W_ENC, "encoder.bias": B_ENC, "W_dec": W_DEC, "b_dec": B_DEC}
    config = {"d_in": D, "num_latents": 0, "expansion_factor": 3, "k": K}
    place = folder_of(tmp_path / "layers.10" / "seed1", config, "cfg.json", tensors, "sae.safetensors")
    codes = top((some_rows() - B_DEC) @ W_ENC.T + B_ENC)
    dictionary = agrees(import_dictionary(place), codes, codes @ W_DEC + B_DEC)
    assert isinstance(dictionary, SparseAutoencoder)
    assert dictionary.hookpoint == "resid_post.10"
    place = folder_of(tmp_path / "layers.4.mlp", config | {"transcode": True}, "cfg.json", tensors, "sae.safetensors")
    codes = top(some_rows() @ W_ENC.T + B_ENC)
    dictionary = agrees(import_dictionary(place), codes, codes @ W_DEC + B_DEC)
    assert isinstance(dictionary, Transcoder)
    assert (dictionary.reads, dictionary.writes) == ("mlp_in.4", "mlp_out.4")
    for change in ({"activation": "groupmax"}, {"signed": True}, {"k": 49}, {"num_latents": 47}):
        folder_of(place, config | change, "cfg.json", tensors, "sae.safetensors")
        with pytest.raises(ArtifactError, match=r"layers\.4\.mlp"):
            load_dictionary(place)


def test_dictionary_learning_is_told_apart_by_its_class(tmp_path: Path) -> None:
    tensors: dict[str, Tensor] = {
        "encoder.weight": W_ENC, "encoder.bias": B_ENC, "decoder.weight": W_DEC.T, "b_dec": B_DEC,
        "k": torch.tensor(K), "threshold": torch.tensor(0.8),
    }  # fmt: skip
    trainer = {"dict_class": "BatchTopKSAE", "k": K, "layer": 4}
    found = import_dictionary(folder_of(tmp_path, {"trainer": trainer}, "config.json", tensors, "ae.pt"))
    codes = jump((some_rows() - B_DEC) @ W_ENC.T + B_ENC, 0.8)
    dictionary = agrees(found, codes, codes @ W_DEC + B_DEC)
    assert isinstance(dictionary, SparseAutoencoder)
    assert dictionary.hookpoint == "resid_post.4"
    assert "names a layer and no module" in found.notes[0]
    for change in ({"dict_class": "IdentityDict"}, {"k": 6}, {"k": "5"}):
        folder_of(tmp_path, {"trainer": trainer | change}, "config.json", tensors, "ae.pt")
        with pytest.raises(
            ArtifactError, match=f"config.json: trainer.{next(iter(change))}: {next(iter(change.values()))!r}"
        ):
            load_dictionary(tmp_path)
    folder_of(tmp_path, {"trainer": trainer}, "config.json", {"ae": tensors, "step": 3, "optimizer": {}}, "ae.pt")
    with pytest.raises(ArtifactError, match=r"ae.pt: a backup of a training that has not ended"):
        load_dictionary(tmp_path)


def test_gemma_scope_1(tmp_path: Path) -> None:
    tensors = {"W_enc": W_ENC.T, "b_enc": B_ENC, "W_dec": W_DEC, "b_dec": B_DEC, "threshold": THRESHOLD}
    codes = jump(some_rows() @ W_ENC.T + B_ENC, THRESHOLD)
    for release, hookpoint in (("res", "resid_post.20"), ("mlp", "mlp_out.20"), ("att", "z.20")):
        place = tmp_path / f"gemma-scope-2b-pt-{release}" / "layer_20" / "width_16k" / "average_l0_71"
        dictionary = agrees(
            import_dictionary(folder_of(place, {}, "", tensors, "params.npz")), codes, codes @ W_DEC + B_DEC
        )
        assert isinstance(dictionary, SparseAutoencoder)
        assert dictionary.hookpoint == hookpoint
    place = tmp_path / "gemma-scope-2b-pt-transcoders" / "layer_3" / "width_16k"
    dictionary = agrees(
        import_dictionary(folder_of(place, {}, "", tensors, "params.npz")), codes, codes @ W_DEC + B_DEC
    )
    assert isinstance(dictionary, Transcoder)
    assert dictionary.writes == "mlp_out.3"
    place = tmp_path / "gemma-scope-2b-pt-res" / "embedding" / "width_4k"
    found = import_dictionary(folder_of(place, {}, "", tensors, "params.npz"))
    codes = jump(some_rows() / 4.0 @ W_ENC.T + B_ENC, THRESHOLD)  # sqrt(d) = 4
    agrees(found, codes, (codes @ W_DEC + B_DEC) * 4.0)


def test_gemma_scope_2(tmp_path: Path) -> None:
    tensors = {"w_enc": W_ENC.T, "b_enc": B_ENC, "w_dec": W_DEC, "b_dec": B_DEC, "threshold": THRESHOLD}
    config = {"architecture": "jump_relu", "model_name": "gemma-v3-1b-pt", "hf_hook_point_in": "model.layers.5.output"}
    codes = jump(some_rows() @ W_ENC.T + B_ENC, THRESHOLD)
    place = folder_of(tmp_path / "sae", config, "config.json", tensors, "params.safetensors")
    dictionary = agrees(import_dictionary(place), codes, codes @ W_DEC + B_DEC)
    assert isinstance(dictionary, SparseAutoencoder)
    assert dictionary.hookpoint == "resid_post.5"
    skip = draw(D, D, seed=9)
    ends = {
        "hf_hook_point_in": "model.layers.5.pre_feedforward_layernorm.output",
        "hf_hook_point_out": "model.layers.5.post_feedforward_layernorm.output",
    }
    tensors["affine_skip_connection"] = skip
    place = folder_of(tmp_path / "transcoder", config | ends, "config.json", tensors, "params.safetensors")
    dictionary = agrees(import_dictionary(place), codes, codes @ W_DEC + B_DEC + some_rows() @ skip)
    assert isinstance(dictionary, Transcoder)
    assert (dictionary.reads, dictionary.writes) == ("mlp_in.5", "mlp_out.5")


def test_gemma_scope_2_across_layers(tmp_path: Path) -> None:
    rows = torch.stack([some_rows(seed) for seed in range(N)])
    codes, out = [], torch.zeros(N, 20, D)
    for layer in range(N):
        W_enc, W_dec, b_dec = draw(F, D, seed=layer), draw(F, N, D, seed=layer), draw(D, seed=layer)
        W_dec[:, :layer] = 0.0
        tensors = {"w_enc": W_enc.T, "b_enc": B_ENC, "w_dec": W_dec, "b_dec": b_dec, "threshold": THRESHOLD}
        folder_of(tmp_path, {"architecture": "jump_relu"}, "config.json", tensors, f"params_layer_{layer}.safetensors")
        codes.append(jump(rows[layer] @ W_enc.T + B_ENC, THRESHOLD))
        out += torch.einsum("bf,fnd->nbd", codes[-1], W_dec)
        out[layer] += b_dec
    found = import_dictionary(tmp_path)
    assert isinstance(agrees(found, torch.stack(codes), out, rows), CrossLayerTranscoder)


def test_llama_scope_1(tmp_path: Path) -> None:
    tensors = {"encoder.weight": W_ENC, "encoder.bias": B_ENC, "decoder.weight": W_DEC.T, "decoder.bias": B_DEC}
    hook = "blocks.8.hook_resid_post"
    config = {
        "d_model": D, "d_sae": F, "hook_point_in": hook, "hook_point_out": hook, "jump_relu_threshold": 0.3,
        "dataset_average_activation_norm": {"in": 2.0, "out": 2.0}, "act_fn": "jumprelu",
    }  # fmt: skip
    found = import_dictionary(folder_of(tmp_path, config, "hyperparams.json", tensors, "checkpoints/final.safetensors"))
    scale = math.sqrt(D) / 2.0
    codes = jump(scale * some_rows() @ W_ENC.T + B_ENC, 0.3 * scale)
    agrees(found, codes, (codes @ W_DEC + B_DEC) / scale)
    assert found.units.input_scale == scale


def test_llama_scope_distilled(tmp_path: Path) -> None:
    tensors = {"encoder.weight": W_ENC, "encoder.bias": B_ENC, "decoder.weight": W_DEC.T, "decoder.bias": B_DEC}
    tensors["log_jumprelu_threshold"] = THRESHOLD.log()
    hook = "blocks.15.hook_resid_post"
    config = {"d_model": D, "hook_point_in": hook, "hook_point_out": hook, "norm_activation": "inference"}
    found = import_dictionary(folder_of(tmp_path, config, "config.json", tensors, "sae_weights.safetensors"))
    codes = jump(some_rows() @ W_ENC.T + B_ENC, THRESHOLD)
    agrees(found, codes, codes @ W_DEC + B_DEC)


@pytest.mark.parametrize("act_fn", ["relu", "jumprelu", "topk"])
@pytest.mark.parametrize("by_length", [True, False])
@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_llamascopium(act_fn: str, by_length: bool, suffix: str, tmp_path: Path) -> None:
    ends = "blocks.3.hook_mlp_in", "blocks.3.hook_mlp_out"
    tensors = {"W_E": W_ENC.T, "b_E": B_ENC, "W_D": W_DEC, "b_D": B_DEC}
    norms = norms_of(ends)
    if act_fn == "jumprelu":
        tensors["activation_function.log_jumprelu_threshold"] = THRESHOLD.log()
    config = {
        "sae_type": "sae", "d_model": D, "expansion_factor": F / D, "act_fn": act_fn, "top_k": K,
        "norm_activation": "dataset-wise", "sparsity_include_decoder_norm": by_length,
        "hook_point_in": ends[0], "hook_point_out": ends[1],
    }  # fmt: skip
    whole: dict[str, Any] = tensors | norms
    content = whole if suffix == "safetensors" else {"sae": whole, "version": "2.0.0"}
    found = import_dictionary(folder_of(tmp_path, config, "config.json", content, f"sae_weights.{suffix}"))
    length = W_DEC.norm(dim=1) if by_length else torch.ones(F)
    pre = (2.0 * some_rows() @ W_ENC.T + B_ENC) * length
    codes = {"relu": pre.relu(), "jumprelu": jump(pre, THRESHOLD), "topk": top(pre)}[act_fn] / length
    ours = codes * length if act_fn == "topk" and by_length else codes
    agrees(found, ours, (codes @ W_DEC + B_DEC) / 0.5)
    assert found.units.unit_decoder == (act_fn == "topk" and by_length)


def test_llamascopium_crosscoder_and_clt(tmp_path: Path) -> None:
    hooks = ["blocks.1.hook_resid_post", "blocks.2.hook_resid_post"]
    W_E, b_E, W_D, b_D = draw(2, D, F), draw(2, F), draw(2, F, D), draw(2, D)
    norms = norms_of(hooks)
    config: dict[str, Any] = {"sae_type": "crosscoder", "d_model": D, "act_fn": "relu", "hook_points": hooks}
    tensors = {"W_E": W_E, "b_E": b_E, "W_D": W_D, "b_D": b_D} | norms
    place = folder_of(tmp_path / "crosscoder", config, "config.json", tensors, "sae_weights.safetensors")
    rows, scales = some_rows(columns=2 * D), torch.tensor([2.0, 0.5])
    heads = rows.view(20, 2, D) * scales[:, None]
    codes = (torch.einsum("bhd,hdf->bf", heads, W_E) + b_E.sum(0)).relu()
    out = (torch.einsum("bf,hfd->bhd", codes, W_D) + b_D) / scales[:, None]
    dictionary = agrees(import_dictionary(place), codes, out.flatten(1), rows)
    assert isinstance(dictionary, Crosscoder)
    assert dictionary.hookpoints == ("resid_post.1", "resid_post.2")
    folder_of(place, config | {"act_fn": "topk"}, "config.json", tensors, "sae_weights.safetensors")
    with pytest.raises(ArtifactError, match="act_fn: 'topk'; each site gates"):
        load_dictionary(place)
    clt = {
        "sae_type": "clt", "d_model": D, "act_fn": "jumprelu", "sparsity_include_decoder_norm": False,
        "norm_activation": "inference",
        "hook_points_in": ["blocks.0.ln2.hook_normalized", "blocks.1.ln2.hook_normalized"],
        "hook_points_out": ["blocks.0.hook_mlp_out", "blocks.1.hook_mlp_out"],
    }  # fmt: skip
    threshold = draw(2, F, seed=3).abs() + 0.1
    tensors = {"W_E": W_E, "b_E": b_E, "W_D.0": draw(1, F, D), "W_D.1": W_D, "b_D.0": b_D[0], "b_D.1": b_D[1]}
    tensors["activation_function.log_jumprelu_threshold"] = threshold.log()
    place = folder_of(tmp_path / "clt", clt, "config.json", tensors, "sae_weights.safetensors")
    rows = torch.stack([some_rows(1), some_rows(2)])
    codes = jump(torch.einsum("lbd,ldf->lbf", rows, W_E) + b_E[:, None], threshold[:, None])
    out = torch.stack([codes[0] @ tensors["W_D.0"][0] + b_D[0], codes[0] @ W_D[0] + codes[1] @ W_D[1] + b_D[1]])
    assert isinstance(agrees(import_dictionary(place), codes, out, rows), CrossLayerTranscoder)


def test_circuit_tracer_topk(tmp_path: Path) -> None:
    tensors = {"W_enc": W_ENC, "b_enc": B_ENC, "W_dec": W_DEC, "b_dec": B_DEC}
    config = {"model_kind": "transcoder_set", "activation": "topk", "k": K, "feature_input_hook": "mlp.hook_in"}
    folder_of(tmp_path, config, "config.yaml", tensors, "layer_0.safetensors")
    pre = some_rows() @ W_ENC.T + B_ENC
    codes = pre * torch.zeros_like(pre).scatter(-1, pre.topk(K, dim=-1).indices, 1.0)  # as its TopK makes them
    assert bool((codes >= 0).all())
    found = import_dictionary(tmp_path)
    transcoder = agrees(found, codes, codes @ W_DEC + B_DEC)
    assert isinstance(transcoder, Transcoder)
    assert (transcoder.reads, transcoder.writes) == ("mlp_in.0", "mlp_out.0")
    assert "keeps negative ones; here those are 0" in found.notes[0]
    threshold = {"activation_function.threshold": THRESHOLD}
    for change, more, match in (
        ({"k": F + 1}, {}, f"k: {F + 1}; more than its {F} latents"),
        ({"k": None}, {}, "k: None; a whole number"),
        ({"activation": "groupmax"}, {}, "activation: 'groupmax'; relu, jump_relu, jumprelu, topk are understood"),
        ({}, threshold, "activation: 'topk'; layer_0.safetensors holds thresholds"),
    ):
        folder_of(tmp_path, config | change, "config.yaml", tensors | more, "layer_0.safetensors")
        with pytest.raises(ArtifactError, match=match):
            load_dictionary(tmp_path)
    for change, k in (
        ({}, K),
        ({"k": None}, K),
        ({"k": None, "activation": None}, K),
    ):  # as the library's own files have it
        folder_of(tmp_path, config | change, "config.yaml", tensors | {"k": torch.tensor(k)}, "layer_0.safetensors")
        again = import_dictionary(tmp_path)
        agrees(again, codes, codes @ W_DEC + B_DEC)
        assert again.notes == found.notes
    for change, k, match in (
        ({}, K + 1, f"k: {K}; layer_0.safetensors is of topk with k {K + 1}"),
        ({"k": None, "activation": "relu"}, K, f"activation: 'relu'; layer_0.safetensors is of topk with k {K}"),
        ({"k": None}, F + 1, f"k: {F + 1}; more than its {F} latents"),
        ({"k": None}, 0, "k: 0; a whole number of at least 1"),
        ({"k": None}, [1, 2], "k: a tensor of shape"),
    ):
        folder_of(tmp_path, config | change, "config.yaml", tensors | {"k": torch.tensor(k)}, "layer_0.safetensors")
        with pytest.raises(ArtifactError, match=match):
            load_dictionary(tmp_path)


def test_circuit_tracer_topk_is_written_with_a_word_about_who_reads_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The config says that it is topk: without that, what is read is relu."""
    for layer in range(2):
        export_dictionary(some_transcoder(TopK(k=5), layer=layer), tmp_path / f"{layer}", "mohole")
    convert([tmp_path / "0", tmp_path / "1"], tmp_path / "set", "circuit-tracer")
    assert "circuit-tracer: note: topk needs circuit-tracer from after 0.5.0" in capsys.readouterr().err
    config = yaml.safe_load((tmp_path / "set" / "config.yaml").read_text())
    assert (config["model_kind"], config["activation"], config["k"]) == ("transcoder_set", "topk", 5)
    assert set(load_file(tmp_path / "set" / "layer_0.safetensors")) == {"W_enc", "b_enc", "W_dec", "b_dec"}
    again = load_dictionary(tmp_path / "set" / "layer_1.safetensors")
    assert isinstance(again, Transcoder)
    assert again.latents.nonlinearity == TopK(k=5)
    for other in (TopK(k=6), ReLU()):
        export_dictionary(some_transcoder(other, layer=1), tmp_path / other.kind / "other", "mohole")
        with pytest.raises(ArtifactError, match="a set has one for all layers"):
            convert([tmp_path / "0", tmp_path / other.kind / "other"], tmp_path / "mixed", "circuit-tracer")
    for refused, words in ((some_clt(TopK(k=5)), "across layers relu and jumprelu, not topk"), (
        some_transcoder(Gated(), layer=0), "relu, jumprelu and topk, not gated"
    )):  # fmt: skip
        with pytest.raises(
            ArtifactError, match=f"circuit-tracer: cannot hold this .*: it has {words}; --to mohole can"
        ):
            export_dictionary(refused, tmp_path / "no", "circuit-tracer")
    assert not (tmp_path / "mixed").exists()
    assert not (tmp_path / "no").exists()


def test_llamascopium_rows_divided_by_their_own_length(tmp_path: Path) -> None:
    tensors = {"W_E": W_ENC.T, "b_E": B_ENC, "W_D": W_DEC, "b_D": B_DEC}
    hook = "blocks.1.hook_resid_post"
    tensors[f"dataset_average_activation_norm.{hook}"] = torch.tensor(float("nan"))  # left as it was allocated
    config = {"sae_type": "sae", "d_model": D, "hook_point_in": hook, "hook_point_out": hook}
    config |= {"norm_activation": "token-wise", "act_fn": "topk", "top_k": K, "sparsity_include_decoder_norm": False}
    folder_of(tmp_path, config, "config.json", tensors, "sae_weights.safetensors")
    rows = 9.0 * some_rows() + 2.0
    factor = math.sqrt(D) / rows.norm(2, dim=-1, keepdim=True)
    codes = top(rows * factor @ W_ENC.T + B_ENC)
    found = agrees(import_dictionary(tmp_path), codes, (codes @ W_DEC + B_DEC) / factor, rows)
    assert isinstance(found, NormalisedAutoencoder)
    assert found.hookpoint == "resid_post.1"


def test_llamascopium_activations_of_several_rows_are_refused(tmp_path: Path) -> None:
    tensors = {"W_E": W_ENC.T, "b_E": B_ENC, "W_D": W_DEC, "b_D": B_DEC}
    for change, match in (
        ({"act_fn": "batchtopk"}, "act_fn: 'batchtopk'; it looks at several rows"),
        ({"norm_activation": "batch-wise"}, "norm_activation: 'batch-wise'; token-wise, dataset-wise and inference"),
        ({"norm_activation": "token-wise", "hook_point_out": "b"}, "norm_activation: 'token-wise'; of a transcoder"),
        ({"use_glu_encoder": True}, "use_glu_encoder: True; a gate"),
        ({"sae_type": "lorsa"}, "sae_type: 'lorsa'"),
        ({}, "no mean length of rows of blocks.1"),
    ):
        config = {"sae_type": "sae", "d_model": D, "hook_point_in": "blocks.1", "hook_point_out": "blocks.1"} | change
        folder_of(tmp_path, config, "config.json", tensors, "sae_weights.safetensors")
        with pytest.raises(ArtifactError, match=match):
            load_dictionary(tmp_path)


def test_openai(tmp_path: Path) -> None:
    tensors: dict[str, Any] = {
        "pre_bias": B_DEC, "encoder.weight": W_ENC, "latent_bias": B_ENC, "decoder.weight": W_DEC.T, "activation": "ReLU",
        "activation_state_dict": {}, "stats_last_nonzero": torch.zeros(F, dtype=torch.long),
        "latents_activation_frequency": torch.ones(F), "latents_mean_square": torch.zeros(F),
    }  # fmt: skip
    folder_of(tmp_path, {}, "", tensors, "6.pt")
    codes = ((some_rows() - B_DEC) @ W_ENC.T + B_ENC).relu()
    found = import_dictionary(tmp_path / "6.pt", hookpoint="mlp_out.6")
    dictionary = agrees(found, codes, codes @ W_DEC + B_DEC)
    assert isinstance(dictionary, SparseAutoencoder)
    assert (found.format, dictionary.hookpoint) == ("openai", "mlp_out.6")
    rows = 9.0 * some_rows() + 2.0
    mean, deviation = rows.mean(1, keepdim=True), rows.std(1, keepdim=True)
    codes = top(((rows - mean) / (deviation + 1e-5) - B_DEC) @ W_ENC.T + B_ENC)
    tensors |= {"activation": "TopK", "activation_state_dict": {"k": K, "postact_fn": "ReLU"}}
    folder_of(tmp_path, {}, "", tensors, "6.pt")
    found = import_dictionary(tmp_path / "6.pt", hookpoint="resid_post.6")
    normalised = agrees(found, codes, (codes @ W_DEC + B_DEC) * deviation + mean, rows)
    assert isinstance(normalised, NormalisedAutoencoder)
    assert (found.format, normalised.hookpoint) == ("openai", "resid_post.6")
    for place, hookpoint in (
        ("resid_post_mlp_v5_32k", "resid_post.6"), ("resid_delta_mlp", "mlp_out.6"), ("resid_delta_attn_v5_128k", "attn_out.6"),
        ("resid_post_attn_v5_32k", "unnamed"),
    ):  # fmt: skip
        folder_of(tmp_path / place / "autoencoders", {}, "", tensors, "6.pt")
        published = load_dictionary(tmp_path / place / "autoencoders" / "6.pt")
        assert isinstance(published, NormalisedAutoencoder)
        assert published.hookpoint == hookpoint
    for change, match in (
        ({"activation": "Tanh"}, "activation: 'Tanh'; ReLU and TopK are understood"),
        ({"activation_state_dict": {"postact_fn": "ReLU"}}, "activation_state_dict.k: None; a whole number"),
        ({"activation_state_dict": {"k": F + 1}}, f"activation_state_dict.k: {F + 1}; more than its {F} latents"),
        ({"activation_state_dict": {"k": K, "postact_fn": "Identity"}}, "postact_fn: 'Identity'; only ReLU"),
        ({"activation_state_dict": 5}, "activation_state_dict: 5, where a table with k is needed"),
    ):
        folder_of(tmp_path, {}, "", tensors | change, "6.pt")
        with pytest.raises(ArtifactError, match=match):
            load_dictionary(tmp_path / "6.pt")


def test_goodfire(tmp_path: Path) -> None:
    tensors = {
        "encoder_linear.weight": W_ENC.bfloat16(), "encoder_linear.bias": B_ENC.bfloat16(),
        "decoder_linear.weight": W_DEC.T.bfloat16(), "decoder_linear.bias": B_DEC.bfloat16(),
    }  # fmt: skip
    folder_of(tmp_path, {}, "", tensors, "Llama-3.1-8B-Instruct-SAE-l19.pth")
    codes = (some_rows() @ W_ENC.bfloat16().float().T + B_ENC.bfloat16().float()).relu()
    found = import_dictionary(tmp_path)
    dictionary = agrees(found, codes, codes @ W_DEC.bfloat16().float() + B_DEC.bfloat16().float())
    assert isinstance(dictionary, SparseAutoencoder)
    assert (found.format, dictionary.hookpoint) == ("goodfire", "resid_post.19")
    assert dictionary.W_enc.dtype == torch.float32


def test_qwen_scope(tmp_path: Path) -> None:
    wide, bias, back = draw(1024, D), draw(1024), draw(1024, D, seed=1)
    tensors = {"W_enc": wide, "b_enc": bias, "W_dec": back.T, "b_dec": B_DEC}
    place = folder_of(tmp_path / "SAE-Res-Qwen3-1.7B-Base-W1K-L0_5", {}, "", tensors, "layer3.sae.pt")
    codes = top(some_rows() @ wide.T + bias)
    found = import_dictionary(place / "layer3.sae.pt")
    dictionary = agrees(found, codes, codes @ back + B_DEC)
    assert isinstance(dictionary, SparseAutoencoder)
    assert (found.format, dictionary.hookpoint) == ("qwen-scope", "resid_post.3")
    other = folder_of(tmp_path / "elsewhere", {}, "", tensors, "layer3.sae.pt")
    with pytest.raises(ArtifactError, match=r"layer3.sae.pt: how many latents are active is in its repository's name"):
        load_dictionary(other / "layer3.sae.pt")


@pytest.mark.shared
@pytest.mark.parametrize("width", [128, 512, 1024])
def test_real_autoencoders_of_somebody_else(width: int, shared_dir: Path) -> None:
    dictionary = load_dictionary(shared_dir / "data" / "sae-tinystories1m" / f"sae_{width}_layer4.safetensors")
    assert isinstance(dictionary, SparseAutoencoder)
    assert (dictionary.n_latents, dictionary.d_model, dictionary.hookpoint) == (width, 64, "resid_post.4")
    lengths = dictionary.W_dec.norm(dim=1)
    assert 0.9 < float(lengths.mean()) < 1.1
    rows = dictionary.b_dec + 5.0 * dictionary.W_dec[:7]  # a decoder direction alone makes its own latent active
    assert (dictionary.encode(rows).dense()[torch.arange(7), torch.arange(7)] > 0).all()


WRITERS: dict[Format, tuple[str, ...]] = {
    "mohole": ("sae", "transcoder", "crosscoder", "cross_layer_transcoder"),
    "saelens": ("sae", "transcoder"),
    "sparsify": (),
    "dictionary-learning": ("sae",),
    "circuit-tracer": ("transcoder", "cross_layer_transcoder"),
}


@pytest.mark.parametrize("to", WRITERS)
def test_what_is_written_is_read_again(to: Format, tmp_path: Path) -> None:
    made: dict[str, AnyDictionary] = {name: make() for name, make in SOME_SAES.items()} | {
        "transcoder": some_transcoder(ReLU(), layer=0), "skip": some_transcoder(JumpReLU(), skip=True, layer=0),
        "crosscoder": some_crosscoder(ReLU()), "clt": some_clt(JumpReLU()),
    }  # fmt: skip
    for name, dictionary in made.items():
        place = tmp_path / name
        if kind_of(dictionary) not in WRITERS[to] and not (to == "sparsify" and name == "topk"):
            with pytest.raises(ArtifactError, match=rf"{to}: cannot hold this {kind_of(dictionary)}.*--to mohole can"):
                export_dictionary(dictionary, place, to)
            left = [path.name for path in tmp_path.glob(f"*{name}*")]
            assert left == [f".{name}.lock"], (
                "something half-written is left beside the lock, which an artifact leaves too"
            )
            continue
        export_dictionary(dictionary, place, to)
        one = place / "layer_0.safetensors" if to == "circuit-tracer" and name in ("transcoder", "skip") else place
        again = load_dictionary(one)
        assert type(again) is type(dictionary)
        rows = some_rows(columns=2 * D if name == "crosscoder" else D)
        rows = torch.stack([rows] * 3) if name == "clt" else rows
        torch.testing.assert_close(reconstruction(again, rows), reconstruction(dictionary, rows), rtol=1e-5, atol=1e-5)
        with pytest.raises(ArtifactError, match="already there"):
            export_dictionary(dictionary, place, to)


def test_negative_thresholds_are_not_written_where_a_relu_would_cut_them(tmp_path: Path) -> None:
    sae = some_sae(JumpReLU())
    assert sae.threshold is not None
    sae.threshold[7] = -0.5
    for to in ("saelens", "dictionary-learning"):
        with pytest.raises(ArtifactError, match=f"{to}: the threshold of latent 7 is -0.5"):
            export_dictionary(sae, tmp_path / to, to)  # type: ignore[arg-type]


def test_a_set_has_every_layer_once(tmp_path: Path) -> None:
    for layers in ((0, 2), (1,), (0, 0)):
        for number, layer in enumerate(layers):
            export_dictionary(some_transcoder(ReLU(), layer=layer), tmp_path / f"{layers}-{number}", "mohole")
        sources = [tmp_path / f"{layers}-{number}" for number in range(len(layers))]
        with pytest.raises(ArtifactError, match="a set has every layer from 0 on once"):
            convert(sources, tmp_path / "set", "circuit-tracer")
    with pytest.raises(ArtifactError, match="2 sources: several go together only as transcoders"):
        convert(sources, tmp_path / "set", "saelens")


def test_a_folder_of_several_names_them(tmp_path: Path) -> None:
    for layer in (0, 1):
        export_dictionary(some_sae(TopK(k=5)), tmp_path / f"layers.{layer}", "sparsify")
    with pytest.raises(ArtifactError, match=r"no dictionary itself; name one of what it holds: layers.0, layers.1"):
        load_dictionary(tmp_path)
    run = tmp_path / "run"
    export_dictionary(some_sae(TopK(k=5)), run / "resid_post.3" / "dictionary", "mohole")
    with pytest.raises(
        ArtifactError, match=r"run: no dictionary itself; name one of what it holds: resid_post.3/dictionary"
    ):
        load_dictionary(run)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtifactError, match="no dictionary that mohole reads"):
        load_dictionary(tmp_path / "empty")


def test_a_known_batch_catches_changed_units(tmp_path: Path) -> None:
    place = tmp_path / "sae"
    export_dictionary(some_sae(TopK(k=5)), place, "saelens")
    assert isinstance(load_dictionary(place), SparseAutoencoder)
    config = json.loads((place / "cfg.json").read_text())
    (place / "cfg.json").write_text(json.dumps(config | {"apply_b_dec_to_input": False}))
    with pytest.raises(ArtifactError, match=rf"of the rows in {FILE} come out differently"):
        load_dictionary(place)
    export_dictionary(some_transcoder(ReLU()), tmp_path / "other", "saelens")
    (place / "cfg.json").write_text(json.dumps(config))
    save_file({"rows": torch.zeros(3, 5), "reconstruction": torch.zeros(3, 5)}, place / FILE)
    with pytest.raises(ArtifactError, match="rows of 5 columns, for a dictionary of 16"):
        load_dictionary(place)


def test_an_imported_artifact_remembers_its_units(tmp_path: Path) -> None:
    trainer = {"dict_class": "AutoEncoder", "submodule_name": "resid_post_layer_3", "norm_factor": 2.5}
    tensors = {"encoder.weight": W_ENC, "encoder.bias": B_ENC, "decoder.weight": W_DEC.T, "bias": B_DEC}
    place = folder_of(tmp_path / "theirs", {"trainer": trainer}, "config.json", tensors, "ae.pt")
    convert([place], tmp_path / "ours", "mohole")
    manifest = artifact.open_artifact(tmp_path / "ours", kind="dictionary")
    units = manifest.inputs.config["imported"]["units"]
    assert (units["folded_by_library"], units["unit_decoder"], units["input_scale"]) == (2.5, True, 1.0)
    facts = json.loads((tmp_path / "ours" / "dictionary.json").read_text())
    assert facts["training"]["imported"]["format"] == "dictionary-learning"
    assert "source" in manifest.inputs.parents
    lengths = load_dictionary(tmp_path / "ours").latents.W_dec.norm(dim=1)  # type: ignore[union-attr]
    torch.testing.assert_close(lengths, torch.ones(F))


def test_only_an_autoencoder_takes_a_hookpoint(tmp_path: Path) -> None:
    export_dictionary(some_transcoder(ReLU()), tmp_path / "one", "saelens")
    with pytest.raises(ConfigError, match="hookpoint='x'"):
        load_dictionary(tmp_path / "one", hookpoint="x")


def test_a_hub_id_is_fetched_only_where_that_is_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def snapshot_download(repository: str, **more: Any) -> str:
        asked.append({"repository": repository, **more})
        return str(tmp_path)

    listed = ["cfg.json", "sae.safetensors", "layer_9/sae.safetensors", "checkpoints/final.safetensors"]
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", lambda self, repository: listed)
    export_dictionary(some_sae(TopK(k=5)), tmp_path / "layers.3", "sparsify")
    monkeypatch.chdir(tmp_path.parent)
    assert isinstance(load_dictionary("user/name/layers.3"), SparseAutoencoder)
    assert asked.pop() == {"repository": "user/name", "allow_patterns": None, "local_files_only": True}
    load_dictionary("user/name/layers.3", allow_download=True)
    assert asked.pop()["allow_patterns"] == ["layers.3/*", "layers.3"]
    with pytest.raises(ArtifactError, match=r"no dictionary itself; name one of what it holds: layers\.3"):
        load_dictionary("user/name", allow_download=True)
    assert asked.pop()["allow_patterns"] == ["cfg.json", "sae.safetensors", "checkpoints/final.safetensors"]
    with pytest.raises(ArtifactError, match=r"user/name/layers\.4: the repository is here, layers\.4 in it is not"):
        load_dictionary("user/name/layers.4")


def test_what_is_not_in_the_cache_is_not_fetched() -> None:
    with pytest.raises(
        ArtifactError, match="nobody/nothing/layer_3: no such folder, and not in the local Hugging Face cache; allow_"
    ):
        load_dictionary("nobody/nothing/layer_3")
    for place in ("nobody/../secret", "/nowhere/at/all", "https://elsewhere/x", "one-word"):
        with pytest.raises(ArtifactError, match="no artifact there, no file, and no hub id"):
            load_dictionary(place)


def test_what_the_files_leave_open_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Plain weights: nobody wrote down the nonlinearity, and a wrong guess would be silent."""
    sae = some_sae(ReLU())
    tensors = {
        "encoder_weights": sae.W_enc.T,
        "encoder_bias": sae.b_enc,
        "decoder_weights": sae.W_dec,
        "pre_bias": sae.b_dec,
    }
    place = tmp_path / "sae_layer4.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, place)
    load_dictionary(place)
    assert (
        f"{place}: note: Neither its nonlinearity nor its place is in the file: taken as relu"
        in capsys.readouterr().err
    )
    with pytest.raises(ArtifactError, match=r"name one of what it holds: sae_layer4\.safetensors"):
        load_dictionary(tmp_path)
