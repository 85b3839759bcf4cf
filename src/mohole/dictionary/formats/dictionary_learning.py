"""dictionary_learning (saprmarks): `ae.pt` and `config.json`. Read and written. Sparse autoencoders of seven classes.

    AutoEncoder          relu(encoder(x - bias))           its loader makes decoder rows unit vectors, and so do we
    AutoEncoderNew       relu(encoder(x))                  decoder.bias
    GatedAutoEncoder     as mohole's gated                 on x - decoder_bias
    JumpReluAutoEncoder  relu(x W_enc + b_enc) above a threshold
    AutoEncoderTopK      the k largest of relu(encoder(x - b_dec))
    BatchTopKSAE, MatryoshkaBatchTopKSAE    relu(...) above one threshold, on x - b_dec

encoder.weight [latent, d], decoder.weight [d, latent]; W_enc [d, latent], W_dec [latent, d]. Where training normalises rows, the
library multiplies biases and thresholds by `norm_factor` when it saves: the file is in the model's units already.
Source: dictionary_learning 0.1, dictionary.py and trainers/*.py.
"""

from pathlib import Path
from typing import assert_never

import torch
from torch import Tensor

from mohole.config import BatchTopK, Gated, JumpReLU, ReLU, TopK
from mohole.dictionary.files import AnyDictionary
from mohole.dictionary.foreign import Settings, Weights, read_json_settings, read_weights
from mohole.dictionary.formats import names
from mohole.dictionary.formats.assemble import Parts, decoder_lengths, jumprelu, parts_of, thresholds
from mohole.dictionary.formats.imported import UNNAMED, Imported, Units
from mohole.dictionary.formats.write import NO_ROW_NORM, no_negative_thresholds, refuse
from mohole.dictionary.normalised import NormalisedAutoencoder
from mohole.dictionary.sae import SparseAutoencoder
from mohole.errors import ArtifactError
from mohole.record import write_json

NAME = "dictionary-learning"
CONFIG, WEIGHTS = "config.json", "ae.pt"
_NO_PRE_BIAS = ("AutoEncoderNew", "JumpReluAutoEncoder")


def is_here(path: Path) -> bool:
    """Its weights are in the folder."""
    return (path / WEIGHTS).is_file()


def read(folder: Path) -> Imported:
    """The autoencoder in a folder.

    Raises:
        ArtifactError: damaged, of an unknown class, or the backup of a training that has not ended.
    """
    trainer = read_json_settings(folder / CONFIG).table("trainer")
    weights = read_weights(folder / WEIGHTS)
    if "ae" in weights and "step" in weights:
        raise ArtifactError(
            f"{weights.path}: a backup of a training that has not ended; end it, or save its `ae` alone"
        )
    parts, unit_decoder = _parts(trainer, weights)
    weights.finish()
    has_pre_bias = trainer.text("dict_class") not in _NO_PRE_BIAS
    parts = parts.never_negative()
    parts = parts if has_pre_bias else parts.with_pre_bias()
    factor = trainer.number("norm_factor") if "norm_factor" in trainer else None
    units = Units(folded_by_library=factor, unit_decoder=unit_decoder, pre_bias=has_pre_bias)
    where, notes = _hookpoint(trainer)
    return Imported(parts.sae(where), NAME, units, notes)


def write(dictionary: AnyDictionary, folder: Path) -> None:
    """Write what load_dictionary of its utils reads.

    Raises:
        ArtifactError: no sparse autoencoder, or with thresholds below zero.
    """
    if isinstance(dictionary, NormalisedAutoencoder):
        raise refuse(NAME, dictionary, NO_ROW_NORM)
    if not isinstance(dictionary, SparseAutoencoder):
        raise refuse(NAME, dictionary, "it has sparse autoencoders only")
    dict_class, tensors = _tensors(dictionary)
    torch.save({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / WEIGHTS)
    trainer = {
        "dict_class": dict_class, "activation_dim": dictionary.d_model, "dict_size": dictionary.n_latents,
        "layer": names.layer_of(dictionary.hookpoint), "submodule_name": _submodule(dictionary.hookpoint), "lm_name": None,
    }  # fmt: skip
    if "k" in tensors:
        trainer["k"] = int(tensors["k"])
    write_json(folder / CONFIG, {"trainer": trainer, "buffer": {}})


def _parts(trainer: Settings, weights: Weights) -> tuple[Parts, bool]:
    """The weights, and whether decoder rows have been made unit vectors."""
    match trainer.text("dict_class"):
        case "AutoEncoder":
            W_enc, b_enc, W_dec = _linear(weights)
            parts = Parts(ReLU(), W_enc, b_enc, W_dec, weights.take("bias", "D"))
            is_unit = bool(torch.allclose(decoder_lengths(W_dec).float(), torch.ones(len(W_dec))))
            return (parts if is_unit else parts.unit_decoder()), not is_unit
        case "AutoEncoderNew":
            return Parts(ReLU(), *_linear(weights), weights.take("decoder.bias", "D")), False
        case "GatedAutoEncoder":
            W_enc, W_dec = weights.take("encoder.weight", "F D"), weights.take("decoder.weight", "D F").T
            b_mag, r_mag, b_dec = (
                weights.take(n, s) for n, s in (("mag_bias", "F"), ("r_mag", "F"), ("decoder_bias", "D"))
            )
            return Parts(Gated(), W_enc, weights.take("gate_bias", "F"), W_dec, b_dec, b_mag=b_mag, r_mag=r_mag), False
        case "JumpReluAutoEncoder":
            return Parts(jumprelu(), *_plain(weights), weights.take("threshold", "F")), False
        case "AutoEncoderTopK":
            W_enc, b_enc, W_dec = _linear(weights)
            weights.ignore("threshold")  # learned beside, and not used unless asked for
            return Parts(
                TopK(k=_k(trainer, weights, len(W_enc))), W_enc, b_enc, W_dec, weights.take("b_dec", "D")
            ), False
        case "BatchTopKSAE":
            W_enc, b_enc, W_dec = _linear(weights)
            return _batch_topk(trainer, weights, W_enc, b_enc, W_dec, weights.take("b_dec", "D")), False
        case "MatryoshkaBatchTopKSAE":
            weights.ignore("group_sizes")
            return _batch_topk(trainer, weights, *_plain(weights)), False
        case _:
            raise trainer.wrong(
                "dict_class", "no class that mohole reads; ask for AutoEncoder, TopK, BatchTopK, JumpRelu, Gated"
            )


def _linear(weights: Weights) -> tuple[Tensor, Tensor, Tensor]:
    return (
        weights.take("encoder.weight", "F D"),
        weights.take("encoder.bias", "F"),
        weights.take("decoder.weight", "D F").T,
    )


def _plain(weights: Weights) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    W_enc, b_enc = weights.take("W_enc", "D F").T, weights.take("b_enc", "F")
    return W_enc, b_enc, weights.take("W_dec", "F D"), weights.take("b_dec", "D")


def _batch_topk(
    trainer: Settings, weights: Weights, W_enc: Tensor, b_enc: Tensor, W_dec: Tensor, b_dec: Tensor
) -> Parts:
    n_latents, threshold = len(W_enc), weights.take("threshold", "")
    return Parts(
        BatchTopK(k=_k(trainer, weights, n_latents)), W_enc, b_enc, W_dec, b_dec, thresholds(threshold, n_latents)
    )


def _k(trainer: Settings, weights: Weights, n_latents: int) -> int:
    k, stored = trainer.whole("k"), weights.value("k")
    if k > n_latents or stored not in (None, k):
        raise trainer.wrong("k", f"its weights have {n_latents} latents, and {stored} for k")
    return k


def _hookpoint(trainer: Settings) -> tuple[str, tuple[str, ...]]:
    if "submodule_name" in trainer:
        return names.to_mohole(trainer.text("submodule_name")), ()
    layer = trainer.values.get("layer")
    if not isinstance(layer, int) or isinstance(layer, bool):
        return UNNAMED, ()
    return f"resid_post.{layer}", ("Its config names a layer and no module; taken as what leaves that layer.",)


def _submodule(hookpoint: str) -> str:
    kind, _, layer = hookpoint.partition(".")
    return f"{kind}_layer_{layer}" if kind in ("resid_pre", "resid_post", "mlp_out", "attn_out") else hookpoint


def _tensors(sae: SparseAutoencoder) -> tuple[str, dict[str, Tensor]]:
    """The class that computes the same, and its tensors."""
    linear = {"encoder.weight": sae.W_enc, "encoder.bias": sae.b_enc, "decoder.weight": sae.W_dec.T}
    match sae.nonlinearity:
        case TopK(k=k):
            more = {"b_dec": sae.b_dec, "k": torch.tensor(k, dtype=torch.int), "threshold": torch.tensor(-1.0)}
            return "AutoEncoderTopK", linear | more
        case ReLU() if bool(torch.allclose(decoder_lengths(sae.W_dec).float(), torch.ones(sae.n_latents))):
            return "AutoEncoder", linear | {"bias": sae.b_dec}
        case ReLU():  # its AutoEncoder would be loaded with other codes: decoder rows of length 1
            bias = parts_of(sae).with_pre_bias(-1.0).b_enc.float()
            return "AutoEncoderNew", linear | {"encoder.bias": bias, "decoder.bias": sae.b_dec}
        case BatchTopK(k=k) if bool((no_negative_thresholds(NAME, sae.latents) == sae.latents.threshold[0]).all()):  # type: ignore[index]
            threshold = no_negative_thresholds(NAME, sae.latents)[0].clone()
            return "BatchTopKSAE", linear | {
                "b_dec": sae.b_dec,
                "k": torch.tensor(k, dtype=torch.int),
                "threshold": threshold,
            }
        case JumpReLU() | BatchTopK():
            bias = parts_of(sae).with_pre_bias(-1.0).b_enc.float()
            plain = {"W_enc": sae.W_enc.T, "b_enc": bias, "W_dec": sae.W_dec, "b_dec": sae.b_dec}
            return "JumpReluAutoEncoder", plain | {"threshold": no_negative_thresholds(NAME, sae.latents)}
        case Gated():
            assert sae.b_mag is not None
            assert sae.r_mag is not None
            del linear["encoder.bias"]
            more = {"decoder_bias": sae.b_dec, "gate_bias": sae.b_enc, "mag_bias": sae.b_mag, "r_mag": sae.r_mag}
            return "GatedAutoEncoder", linear | more
        case _:
            assert_never(sae.nonlinearity)
