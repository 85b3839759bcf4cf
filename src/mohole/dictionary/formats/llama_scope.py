"""Llama Scope (`hyperparams.json` or a distilled `config.json`) and llamascopium 2 (`config.json` with `sae_type`). Read only.

Rows are multiplied by s = sqrt(d) / (their mean length in the data), and predictions divided by the same of the output; nothing
is subtracted. With norm_activation token-wise, s is sqrt(d) / (the row's own length): of autoencoders only. With
sparsity_include_decoder_norm, the activation sees pre |W_D row|, and the code is divided by that length again: a threshold on
pre is threshold / |W_D row|, and topk, which ranks by the product, becomes one with unit rows. The first release's one threshold
is in the model's units, where pre is smaller by s: on pre it is threshold x s.
Source: OpenMOSS/Language-Model-SAEs, src/llamascopium/models/*.py; for the first release SAELens 6.54 (pull request 645).
"""

import math
from pathlib import Path

import torch
from torch import Tensor

from mohole.config import ReLU, TopK
from mohole.dictionary.crosscoder import Crosscoder
from mohole.dictionary.foreign import Settings, Weights, read_json_settings, read_weights
from mohole.dictionary.formats import names
from mohole.dictionary.formats.assemble import Parts, decoder_lengths, jumprelu, latents_of, thresholds
from mohole.dictionary.formats.imported import ROW_NORM_NOTE, UNNAMED, Imported, Units
from mohole.dictionary.normalised import NormalisedAutoencoder
from mohole.dictionary.row_norm import LengthNorm
from mohole.dictionary.transcoder import CrossLayerTranscoder
from mohole.errors import ArtifactError

NAME = "llama-scope"
FIRST, CONFIG = "hyperparams.json", "config.json"
_FIRST_WEIGHTS = ("checkpoints/final.safetensors", "checkpoints/final.pt")
_WEIGHTS = ("sae_weights.safetensors", "sae_weights.pt")
_NORM = "dataset_average_activation_norm."


def is_here(path: Path) -> bool:
    """Its config is in the folder: the first's by its name, the second's by the weights beside it."""
    return (path / FIRST).is_file() or ((path / CONFIG).is_file() and any((path / name).is_file() for name in _WEIGHTS))


def read(folder: Path) -> Imported:
    """The dictionary in a folder.

    Raises:
        ArtifactError: damaged, normalised row by row, or with an activation that looks at several rows.
    """
    if (folder / FIRST).is_file():
        config = read_json_settings(folder / FIRST)
        return _read_first(config, _weights(folder, _FIRST_WEIGHTS))
    config, weights = read_json_settings(folder / CONFIG), _weights(folder, _WEIGHTS)
    if "log_jumprelu_threshold" in weights:
        return _read_distilled(config, weights)
    if config.flag("use_glu_encoder", False):
        raise config.wrong("use_glu_encoder", "a gate on every pre-activation is no dictionary of mohole's")
    match config.text("sae_type", "sae"):
        case "sae":
            return _read_sae(config, weights)
        case "crosscoder":
            return _read_crosscoder(config, weights)
        case "clt":
            return _read_clt(config, weights)
        case _:
            raise config.wrong("sae_type", "sae, crosscoder and clt are understood")


def _read_first(config: Settings, weights: Weights) -> Imported:
    """The release of 2024: one threshold for all, the scale in the config."""
    norms, root = config.table("dataset_average_activation_norm"), math.sqrt(config.whole("d_model"))
    scale_in, scale_out = (root / norms.number(end) if end in norms else 1.0 for end in ("in", "out"))
    threshold = torch.tensor(config.number("jump_relu_threshold") * scale_in, dtype=torch.float64)
    return _linear(config, weights, threshold, Units(scale_in, scale_out, pre_bias=False))


def _read_distilled(config: Settings, weights: Weights) -> Imported:
    """The release of 2025: a threshold for each latent, the scale among the weights."""
    hooks = config.text("hook_point_in", UNNAMED), config.text("hook_point_out", UNNAMED)
    scale_in, scale_out = (_scale(config, weights, hook) for hook in hooks)
    weights.ignore(*(f"{_NORM}{hook}" for hook in hooks))
    threshold = weights.take("log_jumprelu_threshold", "F").double().exp()
    return _linear(config, weights, threshold, Units(scale_in, scale_out, pre_bias=False))


def _linear(config: Settings, weights: Weights, threshold: Tensor, units: Units) -> Imported:
    weights.sizes |= {"D": config.whole("d_model")} | ({"F": config.whole("d_sae")} if "d_sae" in config else {})
    W_enc, b_enc = weights.take("encoder.weight", "F D"), weights.take("encoder.bias", "F")
    W_dec, b_dec = weights.take("decoder.weight", "D F").T, weights.take("decoder.bias", "D")
    weights.finish()
    limits = thresholds(threshold, len(W_enc))
    if config.flag("sparsity_include_decoder_norm", False):
        limits = _on_pre(limits, W_dec)
    return _one_layer(config, Parts(jumprelu(), W_enc, b_enc, W_dec, b_dec, limits), units)


def _read_sae(config: Settings, weights: Weights) -> Imported:
    hooks = config.text("hook_point_in", UNNAMED), config.text("hook_point_out", UNNAMED)
    weights.sizes["D"] = config.whole("d_model")
    W_enc, b_enc, W_dec = weights.take("W_E", "D F").T, weights.take("b_E", "F"), weights.take("W_D", "F D")
    b_dec = weights.take("b_D", "D") if config.flag("use_decoder_bias", True) else torch.zeros(W_dec.shape[1])
    parts, unit_decoder = _activation(config, weights, Parts(ReLU(), W_enc, b_enc, W_dec, b_dec))
    by_row = config.text("norm_activation", "dataset-wise") == "token-wise"
    if by_row and hooks[0] != hooks[1]:
        why = f"of a transcoder it divides rows of {hooks[1]} by their own length, which is not known where they are predicted"
        raise config.wrong("norm_activation", why)
    scale_in, scale_out = (1.0 if by_row else _scale(config, weights, hook) for hook in hooks)
    weights.ignore(*(f"{_NORM}{hook}" for hook in hooks))
    weights.finish()
    if by_row:
        sae = parts.with_pre_bias().sae(names.to_mohole(hooks[0]))
        units = Units(unit_decoder=unit_decoder, pre_bias=False)
        return Imported(NormalisedAutoencoder(sae, LengthNorm()), NAME, units, (ROW_NORM_NOTE,))
    return _one_layer(config, parts, Units(scale_in, scale_out, unit_decoder=unit_decoder, pre_bias=False))


def _one_layer(config: Settings, parts: Parts, units: Units) -> Imported:
    reads, writes = (names.to_mohole(config.text(f"hook_point_{end}", UNNAMED)) for end in ("in", "out"))
    scales = units.input_scale, units.output_scale
    if reads != writes:
        return Imported(parts.scaled(*scales).transcoder(reads, writes), NAME, units)
    if scales[0] != scales[1]:
        raise ArtifactError(
            f"{config.path}: rows of {reads} are scaled by {scales[0]:g} and by {scales[1]:g}; fetch it again"
        )
    return Imported(parts.with_pre_bias().scaled(*scales).sae(reads), NAME, units)


def _activation(config: Settings, weights: Weights, parts: Parts) -> tuple[Parts, bool]:
    """The parts with their nonlinearity, and whether decoder rows have been made unit vectors."""
    by_length = config.flag("sparsity_include_decoder_norm", True)
    match config.text("act_fn", "relu").lower():
        case "relu":
            return parts, False
        case "jumprelu":
            threshold = weights.take("activation_function.log_jumprelu_threshold", "F").double().exp()
            return _with_threshold(parts, _on_pre(threshold, parts.W_dec) if by_length else threshold), False
        case "topk":
            if (k := config.whole("top_k")) > len(parts.W_enc):
                raise config.wrong("top_k", f"more than its {len(parts.W_enc)} latents")
            parts = Parts(TopK(k=k), parts.W_enc, parts.b_enc, parts.W_dec, parts.b_dec)
            return (parts.unit_decoder() if by_length else parts), by_length
        case _:
            why = "it looks at several rows at once; make it a jumprelu first (the library can), then save again"
            raise config.wrong("act_fn", why)


def _with_threshold(parts: Parts, threshold: Tensor) -> Parts:
    return Parts(jumprelu(), parts.W_enc, parts.b_enc, parts.W_dec, parts.b_dec, threshold)


def _on_pre(threshold: Tensor, W_dec: Tensor) -> Tensor:
    """Of a threshold on pre x length, that on pre. A row of length 0 is never active."""
    return (threshold.double() / decoder_lengths(W_dec)).clamp(max=torch.finfo(torch.float32).max)


def _scale(config: Settings, weights: Weights, hook: str) -> float:
    """What rows of a hookpoint are multiplied by."""
    match config.text("norm_activation", "dataset-wise"):
        case "inference":
            return 1.0
        case "dataset-wise":
            norm = weights.peek(f"{_NORM}{hook}")
            if isinstance(norm, float) and 0 < norm < math.inf:
                return math.sqrt(config.whole("d_model")) / norm
            raise config.wrong(
                "norm_activation", f"the weights hold no mean length of rows of {hook}; save it again with the library"
            )
        case "token-wise":
            why = "each row is divided by its own length, which mohole reads in autoencoders of llamascopium 2 only"
            raise config.wrong("norm_activation", why)
        case _:
            raise config.wrong("norm_activation", "token-wise, dataset-wise and inference are understood")


def _read_crosscoder(config: Settings, weights: Weights) -> Imported:
    hooks = config.texts("hook_points")
    if config.text("act_fn", "relu").lower() != "relu":
        why = "each site gates a latent by its own decoder row there, so one latent has several codes; only relu is one code"
        raise config.wrong("act_fn", why)
    weights.sizes |= {"H": len(hooks), "D": config.whole("d_model")}
    W_E, b_E = weights.take("W_E", "H D F"), weights.take("b_E", "H F")
    W_D, b_D = weights.take("W_D", "H F D"), weights.take("b_D", "H D")
    scales = torch.tensor([_scale(config, weights, hook) for hook in hooks], dtype=torch.float64)
    weights.ignore(*(f"{_NORM}{hook}" for hook in hooks))
    weights.finish()
    W_enc = (W_E * scales[:, None, None]).permute(2, 0, 1).flatten(1)
    W_dec = (W_D / scales[:, None, None]).permute(1, 0, 2).flatten(1)
    parts = Parts(ReLU(), W_enc, b_E.double().sum(0), W_dec, (b_D / scales[:, None]).flatten()).with_pre_bias()
    sites = tuple(names.to_mohole(hook) for hook in hooks)
    crosscoder = Crosscoder(sites, (config.whole("d_model"),) * len(hooks), parts.latents(), parts.b_dec.float())
    scale = float(scales[0]) if bool((scales == scales[0]).all()) else 1.0
    notes = (f"Rows of its sites were multiplied by {', '.join(f'{float(s):g}' for s in scales)}; now inside.",)
    return Imported(crosscoder, NAME, Units(scale, scale, pre_bias=False), notes)


def _read_clt(config: Settings, weights: Weights) -> Imported:
    reads, writes = config.texts("hook_points_in"), config.texts("hook_points_out")
    n_layers = len(reads)
    if n_layers == 0 or len(writes) != n_layers:
        raise config.wrong("hook_points_out", f"as many as hook_points_in, {n_layers}, are needed")
    act_fn = config.text("act_fn", "relu").lower()
    if act_fn not in ("relu", "jumprelu") or (
        act_fn == "jumprelu" and config.flag("sparsity_include_decoder_norm", True)
    ):
        raise config.wrong(
            "act_fn", "of a clt, relu is understood, and jumprelu where sparsity_include_decoder_norm is false"
        )
    weights.sizes |= {"L": n_layers, "D": config.whole("d_model")}
    W_E, b_E = weights.take("W_E", "L D F"), weights.take("b_E", "L F")
    into = [weights.take(f"W_D.{layer}", f"N{layer} F D") for layer in range(n_layers)]
    b_D = [weights.take(f"b_D.{layer}", "D") for layer in range(n_layers)]
    threshold = (
        weights.take("activation_function.log_jumprelu_threshold", "L F").double().exp()
        if act_fn == "jumprelu"
        else None
    )
    scale_in = [_scale(config, weights, hook) for hook in reads]
    scale_out = [_scale(config, weights, hook) for hook in writes]
    weights.ignore(*(f"{_NORM}{hook}" for hook in (*reads, *writes)))
    weights.finish()
    layers = []
    for layer in range(n_layers):
        W_dec = torch.cat([into[to][layer].double() / scale_out[to] for to in range(layer, n_layers)], dim=1)
        own = jumprelu() if threshold is not None else ReLU()
        limit = None if threshold is None else threshold[layer]
        layers.append(latents_of(own, W_E[layer].T.double() * scale_in[layer], b_E[layer], W_dec, threshold=limit))
    b_dec = torch.stack([bias.double() / scale for bias, scale in zip(b_D, scale_out, strict=True)]).float()
    ends = [tuple(names.to_mohole(name) for name in side) for side in (reads, writes)]
    return Imported(CrossLayerTranscoder(ends[0], ends[1], tuple(layers), b_dec), NAME, Units(pre_bias=False))


def _weights(folder: Path, candidates: tuple[str, ...]) -> Weights:
    for name in candidates:
        if (folder / name).is_file():
            weights = read_weights(folder / name)
            if not name.endswith(".pt"):
                return weights
            state = weights.value("sae")
            if not isinstance(state, dict):
                raise ArtifactError(f"{folder / name}: holds no table called sae; fetch it again")
            return Weights(folder / name, state)
    raise ArtifactError(
        f"{folder}: has none of {', '.join(candidates)}; fetch it again, or save it as safetensors with its library"
    )
