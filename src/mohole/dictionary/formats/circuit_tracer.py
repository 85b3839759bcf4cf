"""circuit-tracer: transcoders of every layer (`layer_0.safetensors`, ...) and cross-layer transcoders. Read and written.

Of each layer (PLT), beside `config.yaml`: W_enc, W_dec [latent, d], b_enc, b_dec, and where they are there
activation_function.threshold [latent] (else relu, or topk where the config says activation: topk and k; a file that the library
itself writes of one holds k too, and is refused by its own reader) and W_skip [d, d], which adds x W_skip^T.
Across layers (CLT): `W_enc_i.safetensors` with W_enc_i [latent, d], b_enc_i, b_dec_i and perhaps threshold_i;
`W_dec_i.safetensors` with W_dec_i [latent, n_layers - i, d]: what layer i's latents write to layer i and each later one.
Nothing is subtracted from what is read. Source: circuit-tracer 0.5, transcoder/*.py; of topk its main branch (pull request 94),
which 0.5.0 does not have: that takes such a set for relu, and no file could tell it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
import yaml
from torch import Tensor

from mohole.config import BatchTopK, JumpReLU, ReLU, TopK
from mohole.dictionary.files import AnyDictionary
from mohole.dictionary.foreign import Settings, inside, read_weights, read_yaml_settings
from mohole.dictionary.formats import names
from mohole.dictionary.formats.assemble import Parts, jumprelu, latents_of
from mohole.dictionary.formats.imported import Imported, Units
from mohole.dictionary.formats.write import refuse, write_weights
from mohole.dictionary.latents import Latents
from mohole.dictionary.transcoder import CrossLayerTranscoder, Transcoder
from mohole.errors import ArtifactError
from mohole.progress import tell

NAME = "circuit-tracer"
CONFIG, FIRST_ENCODER = "config.yaml", "W_enc_0.safetensors"
_THRESHOLD = "activation_function.threshold"
_TOPK_NOTE = (
    "Of a row with fewer than k positive pre-activations, circuit-tracer keeps negative ones; here those are 0."
)
_TOPK_WRITTEN = (
    "note: topk needs circuit-tracer from after 0.5.0, which would take it for relu without a word; of a row with fewer than k "
    "positive pre-activations it keeps negative ones, which are 0 here"
)
_HOOKS = ("hook_resid_mid", "hook_mlp_out")
"""What the library takes where a config names none."""


def is_here(path: Path) -> bool:
    """A folder with a config of its own or the encoder of a first layer; or the file of one layer."""
    if path.suffix == ".safetensors":
        return _layer(path) is not None and (path.parent / CONFIG).is_file()
    return (path / FIRST_ENCODER).is_file() or ((path / CONFIG).is_file() and bool(_layers(path)))


def read(path: Path) -> Imported:
    """A cross-layer transcoder, or the transcoder of one layer: of the only one in a folder, or of the file that is named.

    Raises:
        ArtifactError: damaged; or a folder with several layers, which are several dictionaries.
    """
    if path.suffix == ".safetensors":
        return _read_layer(path, _config(path.parent))
    if (path / FIRST_ENCODER).is_file():
        return _read_clt(path, _config(path))
    files = _layers(path)
    if len(files) != 1:
        raise ArtifactError(f"{path}: holds the transcoders of {len(files)} layers; name one, such as {files[0]}")
    return _read_layer(files[0], _config(path))


def write(dictionary: AnyDictionary, folder: Path) -> None:
    """Write a cross-layer transcoder, or a set of one transcoder.

    Raises:
        ArtifactError: a dictionary that the library does not have.
    """
    match dictionary:
        case CrossLayerTranscoder():
            _write_clt(dictionary, folder)
        case Transcoder():
            write_set([dictionary], folder)
        case _:
            raise refuse(NAME, dictionary, "it has transcoders only")


def write_set(transcoders: Sequence[Transcoder], folder: Path) -> list[Path]:
    """Write transcoders of layers 0, 1, ... as one set, and give the file of each.

    Raises:
        ArtifactError: a layer is missing or twice there, they are of different widths or places, gated, or some of topk and some
            of another k or none.
    """
    layers = [names.layer_of(transcoder.writes) for transcoder in transcoders]
    if sorted(-1 if layer is None else layer for layer in layers) != list(range(len(transcoders))):
        raise ArtifactError(
            f"{NAME}: transcoders of layers {layers}; a set has every layer from 0 on once, in any order"
        )
    widths = {(transcoder.n_latents, *transcoder.latents.W_enc.shape[1:]) for transcoder in transcoders}
    hooks = {(_hook(transcoder.reads), _hook(transcoder.writes)) for transcoder in transcoders}
    if len(widths) > 1 or len(hooks) > 1:
        raise ArtifactError(f"{NAME}: transcoders of different sizes {widths} or places {hooks}; a set has one of each")
    ks = {_k_of(transcoder) for transcoder in transcoders}
    if len(ks) > 1:
        raise ArtifactError(
            f"{NAME}: transcoders of topk with k of {ks} (None: not topk); a set has one for all layers"
        )
    for layer, transcoder in zip(layers, transcoders, strict=True):
        own = transcoder.latents
        tensors = {"W_enc": own.W_enc, "b_enc": own.b_enc, "W_dec": own.W_dec, "b_dec": transcoder.b_dec}
        if (threshold := _threshold(transcoder, own)) is not None:
            tensors[_THRESHOLD] = threshold
        if transcoder.W_skip is not None:
            tensors["W_skip"] = transcoder.W_skip
        write_weights(folder / f"layer_{layer}.safetensors", tensors)
    (k,) = ks
    _write_config(folder, "transcoder_set", *hooks.pop(), {} if k is None else {"activation": "topk", "k": k})
    if k is not None:
        tell(f"{NAME}: {_TOPK_WRITTEN}")
    return [folder / f"layer_{layer}.safetensors" for layer in layers]


def _read_layer(path: Path, config: Settings) -> Imported:
    weights = read_weights(path)
    W_enc, b_enc = weights.take("W_enc", "F D"), weights.take("b_enc", "F")
    W_dec, b_dec = weights.take("W_dec", "F E"), weights.take("b_dec", "E")
    threshold = weights.take(_THRESHOLD, "F") if _THRESHOLD in weights else None
    W_skip = weights.take("W_skip", "E D") if "W_skip" in weights else None
    own_k = weights.value("k")
    weights.finish()
    k = _k(config, own_k, path, len(W_enc))
    if k is not None and threshold is not None:
        raise config.wrong("activation", f"{path.name} holds thresholds, which topk has no use for; fetch it again")
    nonlinearity = jumprelu() if threshold is not None else ReLU() if k is None else TopK(k=k)
    parts = Parts(nonlinearity, W_enc, b_enc, W_dec, b_dec, threshold)
    reads, writes = _places(config, _layer(path) or 0)
    notes = () if k is None else (_TOPK_NOTE,)
    return Imported(parts.transcoder(reads, writes, W_skip), NAME, Units(pre_bias=False), notes)


def _k(config: Settings, own: Any, path: Path, n_latents: int) -> int | None:
    """None: not topk. `own`: what the layer's file says. Raises: ArtifactError: it and the config differ, or k is none."""
    if own is None:
        if config.text("activation", "relu") != "topk":
            return None
        if (k := config.whole("k")) > n_latents:
            raise config.wrong("k", f"more than its {n_latents} latents")
        return k
    k = Settings(path, {"k": own}).whole("k")
    if k > n_latents:
        raise Settings(path, {"k": own}).wrong("k", f"more than its {n_latents} latents")
    if config.text("activation", "topk") != "topk" or ("k" in config and config.whole("k") != k):
        raise config.wrong(
            "k" if "k" in config else "activation", f"{path.name} is of topk with k {k}; fetch both again"
        )
    return k


def _read_clt(folder: Path, config: Settings) -> Imported:
    n_layers = len(list(folder.glob("W_enc_*.safetensors")))
    sizes: dict[str, int] = {}
    layers, biases = [], []
    for i in range(n_layers):
        weights = read_weights(folder / f"W_enc_{i}.safetensors", sizes)
        W_enc, b_enc = weights.take(f"W_enc_{i}", "F D"), weights.take(f"b_enc_{i}", "F")
        biases.append(weights.take(f"b_dec_{i}", "E"))
        threshold = weights.take(f"threshold_{i}", "F") if f"threshold_{i}" in weights else None
        weights.finish()
        decoders = read_weights(folder / f"W_dec_{i}.safetensors", sizes | {"N": n_layers - i})
        W_dec = decoders.take(f"W_dec_{i}", "F N E").flatten(1)
        decoders.finish()
        nonlinearity = ReLU() if threshold is None else jumprelu()
        layers.append(latents_of(nonlinearity, W_enc, b_enc, W_dec, threshold=threshold))
    if len({layer.nonlinearity.kind for layer in layers}) > 1:
        raise ArtifactError(f"{folder}: some layers have thresholds and some none; fetch it again")
    reads, writes = zip(*(_places(config, layer) for layer in range(n_layers)), strict=True)
    return Imported(
        CrossLayerTranscoder(reads, writes, tuple(layers), torch.stack(biases).float()), NAME, Units(pre_bias=False)
    )


def _write_clt(clt: CrossLayerTranscoder, folder: Path) -> None:
    n_layers, d_out = clt.b_dec.shape
    if (
        len({(layer.n_latents, layer.W_enc.shape[1]) for layer in clt.layers}) > 1
        or clt.layers[0].W_enc.shape[1] != d_out
    ):
        raise refuse(NAME, clt, "its layers are of one size, and read and write rows of one width")
    hooks = {(_hook(reads), _hook(writes)) for reads, writes in zip(clt.reads, clt.writes, strict=True)}
    if len(hooks) > 1 or [names.layer_of(name) for name in clt.writes] != list(range(n_layers)):
        raise refuse(
            NAME,
            clt,
            f"it reads and writes the same places of layers 0, 1, ...; this one writes {', '.join(clt.writes)}",
        )
    for i, layer in enumerate(clt.layers):
        tensors = {f"W_enc_{i}": layer.W_enc, f"b_enc_{i}": layer.b_enc, f"b_dec_{i}": clt.b_dec[i]}
        if (threshold := _threshold(clt, layer)) is not None:
            tensors[f"threshold_{i}"] = threshold
        write_weights(folder / f"W_enc_{i}.safetensors", tensors)
        write_weights(folder / f"W_dec_{i}.safetensors", {f"W_dec_{i}": layer.W_dec.view(-1, n_layers - i, d_out)})
    _write_config(folder, "cross_layer_transcoder", *hooks.pop())


def _threshold(dictionary: AnyDictionary, layer: Latents) -> Tensor | None:
    """None for relu, and for topk, of a layer by itself. Raises: ArtifactError: another nonlinearity."""
    has_topk = isinstance(dictionary, Transcoder)
    if isinstance(layer.nonlinearity, ReLU | JumpReLU | BatchTopK) or (has_topk and _k_of(dictionary) is not None):
        return layer.threshold
    kinds = "relu, jumprelu and topk" if has_topk else "across layers relu and jumprelu"
    raise refuse(NAME, dictionary, f"it has {kinds}, not {layer.nonlinearity.kind}")


def _k_of(dictionary: AnyDictionary) -> int | None:
    """Of a transcoder of topk."""
    own = dictionary.latents.nonlinearity if isinstance(dictionary, Transcoder) else None
    return own.k if isinstance(own, TopK) else None


def _config(folder: Path) -> Settings:
    if not (folder / CONFIG).is_file():
        return Settings(folder / CONFIG, {})
    config = read_yaml_settings(folder / CONFIG)
    if config.text("model_kind", "transcoder_set") not in ("transcoder_set", "cross_layer_transcoder"):
        raise config.wrong("model_kind", "transcoder_set and cross_layer_transcoder are understood")
    has_topk = config.text("model_kind", "transcoder_set") == "transcoder_set"
    kinds = ("relu", "jump_relu", "jumprelu", *(["topk"] if has_topk else []))
    if config.text("activation", "relu") not in kinds:
        raise config.wrong("activation", f"{', '.join(kinds)} are understood")
    return config


def _places(config: Settings, layer: int) -> tuple[str, str]:
    reads, writes = config.text("feature_input_hook", _HOOKS[0]), config.text("feature_output_hook", _HOOKS[1])
    return names.to_mohole(f"blocks.{layer}.{reads}"), names.to_mohole(f"blocks.{layer}.{writes}")


def _hook(hookpoint: str) -> str:
    """A hookpoint's name without its layer, as the config has it."""
    return names.to_transformer_lens(hookpoint).partition(".")[2].partition(".")[2] or hookpoint


def _layers(folder: Path) -> list[Path]:
    """The files of the layers, in order: those in the folder, or those that the config names."""
    found = [path for path in folder.glob("layer_*.safetensors") if _layer(path) is not None]
    if not found and "transcoders" in (config := _config(folder)):
        return [inside(folder, name, config.path) for name in config.texts("transcoders")]
    return sorted(found, key=lambda path: _layer(path) or 0)


def _layer(path: Path) -> int | None:
    number = path.stem.removeprefix("layer_")
    return int(number) if path.stem.startswith("layer_") and number.isdecimal() else None


def _write_config(
    folder: Path, kind: str, reads: str, writes: str, more: Mapping[str, Any] = MappingProxyType({})
) -> None:
    config: dict[str, Any] = {
        "model_name": None,
        "model_kind": kind,
        "feature_input_hook": reads,
        "feature_output_hook": writes,
        "scan": None,
        **more,
    }
    (folder / CONFIG).write_text(yaml.safe_dump(config, sort_keys=True), encoding="utf-8")
