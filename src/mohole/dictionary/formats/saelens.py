"""SAELens: `cfg.json` and `sae_weights.safetensors`. Version 6 read and written, earlier ones read.

Sparse autoencoders and transcoders. With pre = x W_enc + b_enc (SAELens 6.54, saes/*.py, loading/pretrained_sae_loaders.py):

    standard   relu(pre)                      topk   relu of the k largest pre; with rescale_acts_by_decoder_norm, of pre |W_dec|
    jumprelu   relu(pre) where pre > threshold       (batchtopk is saved as one of these)
    gated      relu(x W_enc exp(r_mag) + b_mag) where x W_enc + b_gate > 0

x is x - b_dec where apply_b_dec_to_input. Transcoders never subtract it; W_skip [d_out, d_in] adds x W_skip^T. With
normalize_activations layer_norm or constant_norm_rescale, x is a row in its own units (row_norm.py), and the output is undone; of
transcoders it is not, which is refused.
"""

from pathlib import Path
from typing import Any, assert_never

from torch import Tensor

from mohole.config import BatchTopK, Gated, JumpReLU, ReLU, TopK
from mohole.dictionary.files import AnyDictionary
from mohole.dictionary.foreign import Settings, Weights, read_json_settings, read_weights
from mohole.dictionary.formats import names
from mohole.dictionary.formats.assemble import Parts, jumprelu, parts_of
from mohole.dictionary.formats.imported import ROW_NORM_NOTE, UNNAMED, Imported, Units
from mohole.dictionary.formats.write import no_negative_thresholds, refuse, write_weights
from mohole.dictionary.latents import Latents
from mohole.dictionary.normalised import NormalisedAutoencoder
from mohole.dictionary.row_norm import LayerNorm, LengthNorm, RowNorm
from mohole.dictionary.sae import SparseAutoencoder
from mohole.dictionary.transcoder import Transcoder
from mohole.errors import ArtifactError
from mohole.record import write_json
from mohole.version import __version__

NAME = "saelens"
CONFIG, WEIGHTS, SCALER = "cfg.json", "sae_weights.safetensors", "activation_scaler.json"
_FIRST_OF_THIS_CONFIG = "6.0.0"
_VERSION_DIGITS = 20
_EPS = 1e-5
"""Of layer_norm: no setting there, so in none of its files."""
_ACTIVATIONS = {
    "standard": "relu", "topk": "topk", "jumprelu": "jumprelu", "gated": "gated", "transcoder": "relu",
    "skip_transcoder": "relu", "jumprelu_transcoder": "jumprelu", "jumprelu_skip_transcoder": "jumprelu",
}  # fmt: skip


def is_here(path: Path) -> bool:
    """Its two files are in the folder."""
    return (path / CONFIG).is_file() and (path / WEIGHTS).is_file()


def read(folder: Path) -> Imported:
    """The dictionary in a folder.

    Raises:
        ArtifactError: damaged, or of an architecture or normalisation that is no function of rows which mohole has.
    """
    config = _in_version_6(read_json_settings(folder / CONFIG))
    architecture = config.text("architecture")
    if architecture not in _ACTIVATIONS:
        raise config.wrong(
            "architecture", f"mohole reads {', '.join(_ACTIVATIONS)}; no other of its dictionaries computes the same"
        )
    if config.text("reshape_activations", "none") not in ("none", "hook_z"):
        raise config.wrong("reshape_activations", "none or hook_z is understood")
    weights = read_weights(folder / WEIGHTS, {"D": config.whole("d_in"), "F": config.whole("d_sae")})
    is_transcoder = architecture.endswith("transcoder")
    parts, unit_decoder = _parts(config, weights, _ACTIVATIONS[architecture], is_transcoder)
    W_skip = weights.take("W_skip", "E D") if "skip" in architecture else None
    weights.finish()
    row_norm, scale = _row_norm(config), _scale(config, folder)
    if is_transcoder and row_norm is not None:
        why = "of a transcoder it is done to each row that is read and not to what is predicted, which mohole has not"
        raise config.wrong("normalize_activations", f"{why}; no release does; train it on rows as they are")
    if is_transcoder and scale != 1.0:
        raise config.wrong(
            "normalize_activations", "of a transcoder it does not say how the output is scaled; fold it in SAELens"
        )
    pre_bias = config.flag("apply_b_dec_to_input", True) and not is_transcoder
    units = Units(scale, scale, unit_decoder=unit_decoder, pre_bias=pre_bias)
    where = names.to_mohole(config.table("metadata").text("hook_name", UNNAMED))
    parts = parts.never_negative()
    if is_transcoder:
        writes = names.to_mohole(config.table("metadata").text("hook_name_out", UNNAMED))
        return Imported(parts.transcoder(where, writes, W_skip), NAME, units)
    parts = (parts if pre_bias else parts.with_pre_bias()).scaled(scale, scale)
    sae, notes = parts.sae(where), _notes(config)
    if row_norm is None:
        return Imported(sae, NAME, units, notes)
    return Imported(NormalisedAutoencoder(sae, row_norm), NAME, units, (ROW_NORM_NOTE, *notes))


def write(dictionary: AnyDictionary, folder: Path) -> None:
    """Write what SAE.load_from_disk reads, of a sparse autoencoder, or of a transcoder with relu or a threshold.

    Raises:
        ArtifactError: SAELens has no dictionary that computes the same.
    """
    match dictionary:
        case SparseAutoencoder():
            _write_sae(dictionary, folder, "none")
        case NormalisedAutoencoder(own=own):
            _write_sae(own, folder, _normalize_activations(dictionary))
        case Transcoder():
            _write_transcoder(dictionary, folder)
        case _:
            raise refuse(NAME, dictionary, "it has sparse autoencoders and transcoders of one layer only")


def _in_version_6(config: Settings) -> Settings:
    """Earlier files are one flat table with other names and defaults."""
    values, metadata = dict(config.values), config.table("metadata")
    version = config.text("sae_lens_version", metadata.text("sae_lens_version", "0"))
    major = version.split(".")[0]
    if len(major) > _VERSION_DIGITS:
        raise (config if "sae_lens_version" in config else metadata).wrong(
            "sae_lens_version", "no version is that long"
        )
    if major.isdecimal() and int(major) >= 6:
        return config
    for old, new in (("hook_point", "hook_name"), ("activation_fn_str", "activation_fn")):
        if old in values:
            values[new] = values.pop(old)
    flat = Settings(config.path, values)
    values.setdefault("architecture", "standard")
    values.setdefault("apply_b_dec_to_input", True)
    if isinstance(normalised := values.get("normalize_activations"), bool):
        values["normalize_activations"] = "expected_average_only_in" if normalised else "none"
    match flat.text("activation_fn", "relu"):
        case "topk":
            values["architecture"], values["k"] = "topk", flat.table("activation_fn_kwargs").whole("k")
        case "relu":
            pass
        case _:
            raise flat.wrong("activation_fn", "relu and topk are understood")
    values["metadata"] = {key: values[key] for key in ("hook_name", "hook_name_out", "model_name") if key in values}
    return flat


def _parts(config: Settings, weights: Weights, activation: str, is_transcoder: bool) -> tuple[Parts, bool]:
    """The weights as they are, and whether activations are to be measured in lengths of decoder rows."""
    out = "E" if is_transcoder else "D"
    W_enc = weights.take("W_enc", "D F").T
    _no_finetuning(weights)
    W_dec, b_dec = weights.take("W_dec", f"F {out}"), weights.take("b_dec", out)
    if activation == "gated":
        b_mag, r_mag = weights.take("b_mag", "F"), weights.take("r_mag", "F")
        return Parts(Gated(), W_enc, weights.take("b_gate", "F"), W_dec, b_dec, b_mag=b_mag, r_mag=r_mag), False
    b_enc = weights.take("b_enc", "F")
    if activation == "jumprelu":
        return Parts(jumprelu(), W_enc, b_enc, W_dec, b_dec, weights.take("threshold", "F")), False
    if activation == "relu":
        return Parts(ReLU(), W_enc, b_enc, W_dec, b_dec), False
    if (k := config.whole("k")) > len(W_enc):
        raise config.wrong("k", f"more than its {len(W_enc)} latents")
    parts = Parts(TopK(k=k), W_enc, b_enc, W_dec, b_dec)
    rescaled = config.flag("rescale_acts_by_decoder_norm", False)
    return (parts.unit_decoder() if rescaled else parts), rescaled


def _no_finetuning(weights: Weights) -> None:
    """Early files may hold a factor for each latent. Where all are 1, it is none."""
    if "scaling_factor" in weights and not bool((weights.take("scaling_factor", "F") == 1).all()):
        raise ArtifactError(
            f"{weights.path}: scaling_factor is not 1 everywhere, which no later SAELens computes; not loaded"
        )


def _row_norm(config: Settings) -> RowNorm | None:
    """What is done to each row by itself."""
    match config.text("normalize_activations", "none"):
        case "layer_norm":
            return LayerNorm(_EPS)
        case "constant_norm_rescale":
            return LengthNorm()
        case _:
            return None


def _normalize_activations(dictionary: NormalisedAutoencoder) -> str:
    match dictionary.row_norm:
        case LayerNorm(eps=eps) if eps != _EPS:
            raise refuse(NAME, dictionary, f"the eps of its layer_norm is always {_EPS:g}, not {eps:g}")
        case LayerNorm():
            return "layer_norm"
        case LengthNorm():
            return "constant_norm_rescale"
        case _:
            assert_never(dictionary.row_norm)


def _scale(config: Settings, folder: Path) -> float:
    """What all rows are multiplied by before they are encoded."""
    match config.text("normalize_activations", "none"):
        case "none" | "layer_norm" | "constant_norm_rescale":
            return 1.0
        case "expected_average_only_in" if (folder / SCALER).is_file():
            return read_json_settings(folder / SCALER).number("scaling_factor")
        case "expected_average_only_in":
            why = (
                f"rows must be multiplied by a factor that is not in the folder; "
                f'write {{"scaling_factor": sqrt(d_in) / mean norm}} into {SCALER}'
            )
            raise config.wrong("normalize_activations", why)
        case _:
            raise config.wrong(
                "normalize_activations", "not understood; fold it into the weights in SAELens and save again"
            )


def _notes(config: Settings) -> tuple[str, ...]:
    if config.text("reshape_activations", "none") == "hook_z":
        return ("Its rows are the outputs of all heads, side by side.",)
    return ()


def _write_sae(sae: SparseAutoencoder, folder: Path, normalize_activations: str) -> None:
    parts = parts_of(sae)
    more: dict[str, Any] = {}
    tensors = {"W_enc": parts.W_enc.T, "W_dec": parts.W_dec, "b_dec": parts.b_dec}
    match sae.nonlinearity:
        case TopK(k=k):
            architecture, more = "topk", {"k": k, "rescale_acts_by_decoder_norm": False}
        case ReLU():
            architecture = "standard"
        case JumpReLU() | BatchTopK():
            architecture, tensors["threshold"] = "jumprelu", no_negative_thresholds(NAME, sae.latents)
        case Gated():
            architecture = "gated"
            assert parts.b_mag is not None
            assert parts.r_mag is not None
            tensors |= {"b_mag": parts.b_mag, "r_mag": parts.r_mag}
        case _:
            assert_never(sae.nonlinearity)
    tensors["b_gate" if architecture == "gated" else "b_enc"] = parts.b_enc
    metadata = {"hook_name": names.to_transformer_lens(sae.hookpoint), "training_architecture": sae.nonlinearity.kind}
    more |= {"apply_b_dec_to_input": True, "normalize_activations": normalize_activations}
    _write(folder, tensors, architecture, sae.d_model, sae.n_latents, metadata, more)


def _write_transcoder(transcoder: Transcoder, folder: Path) -> None:
    own: Latents = transcoder.latents
    tensors = {"W_enc": own.W_enc.T, "b_enc": own.b_enc, "W_dec": own.W_dec, "b_dec": transcoder.b_dec}
    architecture = "transcoder"
    if transcoder.W_skip is not None:
        architecture, tensors["W_skip"] = "skip_transcoder", transcoder.W_skip
    match own.nonlinearity:
        case ReLU():
            pass
        case JumpReLU() | BatchTopK():
            architecture, tensors["threshold"] = f"jumprelu_{architecture}", no_negative_thresholds(NAME, own)
        case TopK() | Gated():
            raise refuse(NAME, transcoder, f"its transcoders have no {own.nonlinearity.kind}; sparsify's have topk")
        case _:
            assert_never(own.nonlinearity)
    metadata = {
        "hook_name": names.to_transformer_lens(transcoder.reads),
        "hook_name_out": names.to_transformer_lens(transcoder.writes),
    }
    more = {"apply_b_dec_to_input": False, "d_out": own.W_dec.shape[1]}
    _write(folder, tensors, architecture, own.W_enc.shape[1], own.n_latents, metadata, more)


def _write(
    folder: Path,
    tensors: dict[str, Tensor],
    architecture: str,
    d_in: int,
    d_sae: int,
    metadata: dict[str, str],
    more: dict[str, Any],
) -> None:
    write_weights(folder / WEIGHTS, tensors)
    config = {
        "architecture": architecture, "d_in": d_in, "d_sae": d_sae, "dtype": "float32", "device": "cpu",
        "normalize_activations": "none", "reshape_activations": "none",
        "metadata": metadata | {"sae_lens_version": _FIRST_OF_THIS_CONFIG, "made_by": f"mohole {__version__}"},
    }  # fmt: skip
    write_json(folder / CONFIG, config | more)
