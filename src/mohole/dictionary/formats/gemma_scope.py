"""Gemma Scope 1 (`params.npz`) and 2 (`params.safetensors`, `config.json`): jumprelu dictionaries of Google DeepMind. Read only.

    f = relu(x W_enc + b_enc) where that exceeds the latent's threshold        y^ = f W_dec + b_dec [+ x affine_skip_connection]

Nothing is subtracted, rows are as the model makes them; the first's dictionaries of embeddings read x / sqrt(d) (the rows of the
embedding matrix, which Gemma multiplies by sqrt(d)). Where a dictionary of the first belongs is in the names of its folders only.
Source: Lieberum et al. 2024 (arXiv 2408.05147); the second's technical paper; SAELens 6.54 and circuit-tracer 0.5 read them so.
"""

import math
import re
from pathlib import Path

import torch

from mohole.dictionary.foreign import Settings, Weights, read_json_settings, read_weights
from mohole.dictionary.formats import names
from mohole.dictionary.formats.assemble import Parts, jumprelu, latents_of
from mohole.dictionary.formats.imported import UNNAMED, Imported, Units
from mohole.dictionary.transcoder import CrossLayerTranscoder
from mohole.errors import ArtifactError

NAME = "gemma-scope"
FIRST, SECOND, CONFIG = "params.npz", "params.safetensors", "config.json"
_LAYER_FILE = re.compile(r"params_layer_(\d+)\.safetensors")


def is_here(path: Path) -> bool:
    """Its weights are in the folder, or it is the file."""
    return (path / FIRST).is_file() or (path / SECOND).is_file() or path.name == FIRST or bool(_layer_files(path))


def read(path: Path) -> Imported:
    """The dictionary in a folder of either release.

    Raises:
        ArtifactError: damaged, or a cross-layer transcoder with a linear path, which mohole has not.
    """
    folder = path.parent if path.is_file() else path
    if (folder / FIRST).is_file():
        return _read_first(folder)
    config = read_json_settings(folder / CONFIG)
    if config.text("architecture") != "jump_relu":
        raise config.wrong("architecture", "jump_relu is understood")
    return _read_second(folder, config) if (folder / SECOND).is_file() else _read_across_layers(folder, config)


def _read_first(folder: Path) -> Imported:
    weights = read_weights(folder / FIRST)
    upper = "W_enc" in weights
    parts = _parts(weights, "W" if upper else "w", "E")
    _no_finetuning(weights)
    weights.finish()
    place = folder.resolve().as_posix()
    layer = re.search(r"layer_(\d+)", place)
    where = f".{int(layer[1])}" if layer else ""
    units = Units(pre_bias=False)
    if "transcoder" in place:
        reads = f"blocks{where}.ln2.hook_normalized" if layer else UNNAMED
        return Imported(parts.transcoder(reads, f"mlp_out{where}" if layer else UNNAMED), NAME, units)
    if "embedding" in place:
        scale = 1.0 / math.sqrt(parts.W_enc.shape[1])
        note = "It reads embeddings before Gemma multiplies them by sqrt(d); that is now inside: rows are hookpoint embed's."
        scaled = parts.with_pre_bias().scaled(scale, scale)
        return Imported(scaled.sae("embed"), NAME, Units(scale, scale, pre_bias=False), (note,))
    hookpoint, notes = _first_hookpoint(place, where)
    return Imported(parts.with_pre_bias().sae(hookpoint), NAME, units, notes)


def _first_hookpoint(place: str, where: str) -> tuple[str, tuple[str, ...]]:
    kinds = {"res": "resid_post", "mlp": "mlp_out", "att": "z"}
    found = re.search(r"(?:pt|it)-(res|mlp|att)(?:-|/|$)", place)
    if not found or not where:
        return UNNAMED, ("Its folders' names do not say where in the model it belongs; pass hookpoint=.",)
    if found[1] == "att":
        return f"z{where}", ("Its rows are the outputs of all heads, side by side.",)
    return f"{kinds[found[1]]}{where}", ()


def _read_second(folder: Path, config: Settings) -> Imported:
    weights = read_weights(folder / SECOND)
    parts = _parts(weights, "w", "E")
    W_skip = weights.take("affine_skip_connection", "D E").T if "affine_skip_connection" in weights else None
    weights.finish()
    reads = names.to_mohole(config.text("hf_hook_point_in", UNNAMED))
    writes = names.to_mohole(config.text("hf_hook_point_out", config.text("hf_hook_point_in", UNNAMED)))
    if reads == writes and W_skip is None:
        return Imported(parts.with_pre_bias().sae(reads), NAME, Units(pre_bias=False))
    return Imported(parts.transcoder(reads, writes, W_skip), NAME, Units(pre_bias=False))


def _read_across_layers(folder: Path, config: Settings) -> Imported:
    """A file for each layer; w_dec [latent, layer, d] has a row for every layer, of which those before its own are zero."""
    files = _layer_files(folder)
    numbers = [int(match[1]) for path in files if (match := _LAYER_FILE.fullmatch(path.name))]
    if numbers != list(range(len(files))):
        raise ArtifactError(
            f"{folder}: layers {numbers}, where every layer from 0 on is needed; fetch the missing files"
        )
    layers, biases, sizes = [], [], {"N": len(files)}
    for layer, path in enumerate(files):
        weights = read_weights(path, sizes)
        if "affine_skip_connection" in weights:
            raise ArtifactError(
                f"{path}: affine_skip_connection: mohole's cross-layer transcoders have no linear path; take one without"
            )
        W_enc, W_dec = weights.take("w_enc", "D F").T, weights.take("w_dec", "F N E")
        if bool(W_dec[:, :layer].any()):
            raise ArtifactError(f"{path}: w_dec: writes to layers before its own, which no transcoder can; not loaded")
        biases.append(weights.take("b_dec", "E"))
        b_enc, threshold = weights.take("b_enc", "F"), weights.take("threshold", "F").clamp(min=0.0)
        weights.finish()
        layers.append(latents_of(jumprelu(), W_enc, b_enc, W_dec[:, layer:].flatten(1), threshold=threshold))
    ends = [(f"mlp_in.{layer}", f"mlp_out.{layer}") for layer in range(len(files))]
    reads, writes = zip(*ends, strict=True)
    return Imported(
        CrossLayerTranscoder(reads, writes, tuple(layers), torch.stack(biases).float()), NAME, Units(pre_bias=False)
    )


def _parts(weights: Weights, letter: str, out: str) -> Parts:
    W_enc, W_dec = weights.take(f"{letter}_enc", "D F").T, weights.take(f"{letter}_dec", f"F {out}")
    b_enc, b_dec = weights.take("b_enc", "F"), weights.take("b_dec", out)
    return Parts(jumprelu(), W_enc, b_enc, W_dec, b_dec, weights.take("threshold", "F")).never_negative()


def _no_finetuning(weights: Weights) -> None:
    if "scaling_factor" in weights and not bool((weights.take("scaling_factor", "F") == 1).all()):
        raise ArtifactError(
            f"{weights.path}: scaling_factor is not 1 everywhere, which nobody computes any more; not loaded"
        )


def _layer_files(folder: Path) -> list[Path]:
    found = [path for path in folder.glob("params_layer_*.safetensors") if _LAYER_FILE.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(path.stem.rpartition("_")[2]))
