"""Sparse autoencoders that are one file: OpenAI, Goodfire, Qwen Scope, and a plain one. Told apart by tensor names. Read only.

    OpenAI      relu(encoder(x - pre_bias) + latent_bias), decoder(f) + pre_bias; its topk ones with layer norm
    Goodfire    relu(encoder_linear(x)), decoder_linear(f)
    Qwen Scope  the k largest of W_enc x + b_enc, W_dec f + b_dec; k is in the name of the repository (...-L0_50)
    plain       relu((x - pre_bias) encoder_weights + encoder_bias), f decoder_weights + pre_bias

None of them says where it belongs; a layer is taken from the file's name where that is certain, else pass hookpoint=.
Source: openai/sparse_autoencoder, model.py and paths.py; SAELens 6.54's loaders of the others; prestoj/tinystories_sae.
"""

import re
from pathlib import Path
from typing import Any

from mohole.config import ReLU, TopK
from mohole.dictionary.foreign import AGAIN, Settings, Weights, read_weights, short
from mohole.dictionary.formats.assemble import Parts
from mohole.dictionary.formats.imported import ROW_NORM_NOTE, UNNAMED, Imported, Units
from mohole.dictionary.normalised import NormalisedAutoencoder
from mohole.dictionary.row_norm import LayerNorm
from mohole.errors import ArtifactError

NAME = "single-file"
_OPENAI_EPS = 1e-5
_OPENAI_PLACES = {"resid_delta_attn": "attn_out", "resid_delta_mlp": "mlp_out", "resid_post_mlp": "resid_post"}
"""Not resid_post_attn, between attention and MLP, nor mlp_post_act, inside of the MLP: no hookpoints of mohole's."""
_SUFFIXES = (".pt", ".pth", ".th", ".bin", ".safetensors")
_UNNAMED_NOTE = "Its file does not say where in the model it belongs; pass hookpoint=."


def is_here(path: Path) -> bool:
    """A file that may be one; or a folder with one such file and nothing else of its kind."""
    return path.suffix in _SUFFIXES if path.is_file() else len(_files(path)) == 1


def read(path: Path) -> Imported:
    """The sparse autoencoder in a file.

    Raises:
        ArtifactError: damaged, none of the four, or one that mohole cannot compute.
    """
    file = path if path.is_file() else _files(path)[0]
    weights = read_weights(file)
    if "latent_bias" in weights:
        return _openai(weights)
    if "encoder_linear.weight" in weights:
        return _goodfire(weights)
    if "encoder_weights" in weights:
        return _plain(weights)
    if "W_enc" in weights and "W_dec" in weights and file.name.endswith(".sae.pt"):
        return _qwen(weights)
    raise ArtifactError(
        f"{file}: no dictionary that mohole knows by its tensors; if its library has a config, name the folder with both"
    )


def _openai(weights: Weights) -> Imported:
    activation, state = weights.value("activation") or "ReLU", weights.value("activation_state_dict") or {}
    weights.ignore("stats_last_nonzero", "latents_activation_frequency", "latents_mean_square")
    W_enc, b_enc, b_dec = (
        weights.take("encoder.weight", "F D"),
        weights.take("latent_bias", "F"),
        weights.take("pre_bias", "D"),
    )
    tied = "decoder.linear.weight" in weights
    W_dec = weights.take("decoder.linear.weight", "F D") if tied else weights.take("decoder.weight", "D F").T
    weights.finish()
    where = _openai_place(weights.path)
    notes = (_UNNAMED_NOTE,) if where == UNNAMED else ()
    match activation:
        case "ReLU":
            return Imported(Parts(ReLU(), W_enc, b_enc, W_dec, b_dec).sae(where), "openai", Units(), notes)
        case "TopK":
            # The file does not say that rows are normalised: there its reader takes it from the activation's name.
            sae = Parts(TopK(k=_openai_k(weights.path, state, len(W_enc))), W_enc, b_enc, W_dec, b_dec).sae(where)
            normalised = NormalisedAutoencoder(sae, LayerNorm(eps=_OPENAI_EPS))
            return Imported(normalised, "openai", Units(), (ROW_NORM_NOTE, *notes))
        case _:
            raise ArtifactError(f"{weights.path}: activation: {short(activation)}; ReLU and TopK are understood")


def _openai_place(path: Path) -> str:
    """Of a file in folders as they are published: resid_post_mlp_v5_32k/autoencoders/6.pt."""
    found = re.search(
        r"(?:^|/)(resid_(?:delta|post)_(?:attn|mlp))(?:_v\w+)?/autoencoders/(\d{1,9})\.pt$", path.as_posix()
    )
    kind = _OPENAI_PLACES.get(found[1]) if found else None
    return f"{kind}.{int(found[2])}" if found and kind else UNNAMED


def _openai_k(path: Path, state: Any, n_latents: int) -> int:
    """Raises: ArtifactError: no k, or values that may be negative."""
    if not isinstance(state, dict):
        raise ArtifactError(f"{path}: activation_state_dict: {short(state)}, where a table with k is needed; {AGAIN}")
    settings = Settings(path, state, "activation_state_dict.")
    if settings.text("postact_fn", "ReLU") != "ReLU":
        raise settings.wrong("postact_fn", "only ReLU is understood: mohole's topk has no negative activations")
    if (k := settings.whole("k")) > n_latents:
        raise settings.wrong("k", f"more than its {n_latents} latents")
    return k


def _goodfire(weights: Weights) -> Imported:
    W_enc, b_enc = weights.take("encoder_linear.weight", "F D"), weights.take("encoder_linear.bias", "F")
    W_dec, b_dec = weights.take("decoder_linear.weight", "D F").T, weights.take("decoder_linear.bias", "D")
    weights.finish()
    found = re.search(r"-l(\d+)", weights.path.name)  # Llama-3.1-8B-Instruct-SAE-l19.pth: what leaves layer 19
    where, notes = (f"resid_post.{int(found[1])}", ()) if found else (UNNAMED, (_UNNAMED_NOTE,))
    parts = Parts(ReLU(), W_enc, b_enc, W_dec, b_dec).with_pre_bias()
    return Imported(parts.sae(where), "goodfire", Units(pre_bias=False), notes)


def _qwen(weights: Weights) -> Imported:
    W_enc, b_enc = weights.take("W_enc", "F D"), weights.take("b_enc", "F")
    W_dec, b_dec = weights.take("W_dec", "D F").T, weights.take("b_dec", "D")
    weights.finish()
    place = weights.path.absolute().as_posix()
    found = re.findall(r"-W(\d+)K-L0_(\d+)", place)
    if not found:
        raise ArtifactError(
            f"{weights.path}: how many latents are active is in its repository's name (-W32K-L0_50); keep it in a folder's"
        )
    width, k = (int(number) for number in found[-1])
    if width * 1024 != len(W_enc) or not 0 < k <= len(W_enc):
        raise ArtifactError(
            f"{weights.path}: {len(W_enc)} latents, where its folder's name says W{width}K-L0_{k}; fetch it again"
        )
    layer = re.match(r"layer(\d+)\.sae", weights.path.name)
    where, notes = (f"resid_post.{int(layer[1])}", ()) if layer else (UNNAMED, (_UNNAMED_NOTE,))
    parts = Parts(TopK(k=k), W_enc, b_enc, W_dec, b_dec).with_pre_bias()
    return Imported(parts.sae(where), "qwen-scope", Units(pre_bias=False), notes)


def _plain(weights: Weights) -> Imported:
    W_enc, b_enc = weights.take("encoder_weights", "D F").T, weights.take("encoder_bias", "F")
    W_dec, b_dec = weights.take("decoder_weights", "F D"), weights.take("pre_bias", "D")
    weights.finish()
    found = re.search(r"layer(\d+)", weights.path.stem)
    where = f"resid_post.{int(found[1])}" if found else UNNAMED
    note = "Neither its nonlinearity nor its place is in the file: taken as relu, on what leaves the layer in its name."
    return Imported(Parts(ReLU(), W_enc, b_enc, W_dec, b_dec).sae(where), "plain", Units(), (note,))


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*") if path.suffix in (".pt", ".pth") and path.is_file()]
