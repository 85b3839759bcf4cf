"""Dictionaries on disk: `dictionary.json` says what it is, `dictionary.safetensors` holds its tensors. Every kind, both ways."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, assert_never

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from mohole import artifact
from mohole.config import Nonlinearity
from mohole.config.train import AnyNonlinearity
from mohole.dictionary.crosscoder import Crosscoder
from mohole.dictionary.foreign import AGAIN, Settings, Weights, short
from mohole.dictionary.latents import OPTIONAL, Latents, needed
from mohole.dictionary.laws import need_names
from mohole.dictionary.normalised import Autoencoder, NormalisedAutoencoder
from mohole.dictionary.row_norm import LayerNorm, LengthNorm, RowNorm
from mohole.dictionary.sae import SparseAutoencoder
from mohole.dictionary.transcoder import CrossLayerTranscoder, Transcoder
from mohole.errors import ArtifactError
from mohole.record import read_json, write_json
from mohole.tensors import open_tensors, write_tensors
from mohole.visible import visible

WEIGHTS_FILE = "dictionary.safetensors"
FACTS_FILE = "dictionary.json"

AnyDictionary = SparseAutoencoder | NormalisedAutoencoder | Transcoder | Crosscoder | CrossLayerTranscoder


def save(dictionary: AnyDictionary, out: Path, *, training: Mapping[str, Any] | None = None) -> None:
    """Write a dictionary's two files into `out`. `training` is kept for readers who ask how it was made."""
    tensors, facts = _parts(dictionary)
    write_tensors(out / WEIGHTS_FILE, {name: tensor.numpy() for name, tensor in tensors.items()})
    write_json(out / FACTS_FILE, facts | {"training": training or {}})


def open_dictionary(path: Path | str) -> AnyDictionary:
    """Open a finished dictionary of any kind: an artifact of its own, or a member of a finished sweep.

    Raises:
        ArtifactError: missing, unfinished, damaged, or no dictionary.
    """
    path = Path(path)
    if artifact.is_part(path, of="sweep"):
        artifact.open_part(path)
    else:
        artifact.open_artifact(path, kind="dictionary")
    return read(path)


def trained_with(folder: Path) -> str | None:
    """The language model that a dictionary's training recorded: a hub id, or a folder's name. None: it says none.

    Raises:
        ArtifactError: missing, or damaged.
    """
    training = read_json(folder / FACTS_FILE).get("training", {})
    model = training.get("model") if isinstance(training, dict) else None
    return model if isinstance(model, str) else None


def open_sae(path: Path | str) -> SparseAutoencoder:
    """Open a finished dictionary artifact that must be a sparse autoencoder.

    Raises:
        ArtifactError: as `open_dictionary`, or of another kind.
    """
    found = open_dictionary(path)
    if not isinstance(found, SparseAutoencoder):
        raise ArtifactError(f"{path}: a {kind_of(found)}, where a sparse autoencoder is needed")
    return found


def open_autoencoder(path: Path | str) -> Autoencoder:
    """Open a finished dictionary artifact that must be a sparse autoencoder, one that normalises rows or not.

    Raises:
        ArtifactError: as `open_dictionary`, or of another kind.
    """
    found = open_dictionary(path)
    if not isinstance(found, SparseAutoencoder | NormalisedAutoencoder):
        raise ArtifactError(f"{path}: a {kind_of(found)}, where a sparse autoencoder is needed")
    return found


def open_directions(path: Path | str) -> NDArray[np.float32]:
    """The decoder rows [latent, d] of a finished autoencoder, mapped from its file: only what is looked at is read.

    Raises:
        ArtifactError: missing, unfinished, truncated, or no autoencoder.
    """
    path = Path(path)
    artifact.open_artifact(path, kind="dictionary", verify=False)
    kind = str(read_json(path / FACTS_FILE).get("kind", "sae"))
    found = open_tensors(path / WEIGHTS_FILE).get("W_dec")
    if kind not in ("sae", "normalised_sae") or found is None or found.ndim != 2 or found.dtype != np.float32:
        raise ArtifactError(
            f"{path}: {visible(kind)[:80]}: directions are of an autoencoder with rows of float32; {AGAIN}"
        )
    return found


def read(folder: Path) -> AnyDictionary:
    """The dictionary whose two files stand in `folder`, with or without a manifest beside them.

    Raises:
        ArtifactError: they are missing, damaged, or not what a dictionary has.
    """
    facts = Settings(folder / FACTS_FILE, read_json(folder / FACTS_FILE, "nonlinearity"))
    found = {name: torch.from_numpy(array.copy()) for name, array in open_tensors(folder / WEIGHTS_FILE).items()}
    for name, tensor in found.items():
        if tensor.dtype != torch.float32:
            raise ArtifactError(
                f"{folder / WEIGHTS_FILE}: {visible(name)[:80]}: numbers of type {tensor.dtype}, where float32 is needed; {AGAIN}"
            )
    weights = Weights(folder / WEIGHTS_FILE, found)
    nonlinearity = _read_nonlinearity(facts)
    try:
        dictionary = _build(facts, nonlinearity, weights)
    except ValueError as error:  # what its class asks of names, widths and k
        raise ArtifactError(f"{folder / FACTS_FILE}: {error}; {AGAIN}") from None
    weights.finish()
    return dictionary


def _read_nonlinearity(facts: Settings) -> Nonlinearity:
    try:
        return TypeAdapter[Nonlinearity](AnyNonlinearity).validate_python(facts.values["nonlinearity"])
    except ValidationError as error:
        wrong = error.errors()[0]
        key = ".".join(map(str, ("nonlinearity", *wrong["loc"])))
        said = f"{visible(key)[:80]}: {short(wrong['input'])}; {visible(wrong['msg'])[:200]}"
        raise ArtifactError(f"{facts.path}: {said}") from None


def tensors_of(dictionary: AnyDictionary) -> dict[str, Tensor]:
    """All its tensors by their names in a file."""
    return _parts(dictionary)[0]


def _parts(dictionary: AnyDictionary) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and facts of each kind. Tensors of a layer carry its number: `W_enc.3`."""
    kind: dict[str, Any] = {"kind": kind_of(dictionary)}
    match dictionary:
        case SparseAutoencoder():
            facts = kind | {"hookpoint": dictionary.hookpoint}
            return _tensors(dictionary.latents) | {"b_dec": dictionary.b_dec}, facts | _nonlinearity(dictionary.latents)
        case NormalisedAutoencoder(own=own):
            tensors, facts = _parts(own)
            return tensors, facts | kind | {"row_norm": _row_norm_facts(dictionary.row_norm)}
        case Transcoder():
            skip = {} if dictionary.W_skip is None else {"W_skip": dictionary.W_skip}
            facts = kind | {"reads": dictionary.reads, "writes": dictionary.writes}
            tensors = _tensors(dictionary.latents) | {"b_dec": dictionary.b_dec} | skip
            return tensors, facts | _nonlinearity(dictionary.latents)
        case Crosscoder():
            facts = kind | {"hookpoints": list(dictionary.hookpoints), "widths": list(dictionary.widths)}
            return _tensors(dictionary.latents) | {"b_dec": dictionary.b_dec}, facts | _nonlinearity(dictionary.latents)
        case CrossLayerTranscoder():
            facts = kind | {"reads": list(dictionary.reads), "writes": list(dictionary.writes)}
            tensors = {"b_dec": dictionary.b_dec}
            for number, layer in enumerate(dictionary.layers):
                tensors |= {f"{name}.{number}": tensor for name, tensor in _tensors(layer).items()}
            return tensors, facts | _nonlinearity(dictionary.layers[0])
        case _:
            assert_never(dictionary)


def _build(facts: Settings, nonlinearity: Nonlinearity, weights: Weights) -> AnyDictionary:
    """Raises: ArtifactError, or ValueError where each part is as it must be and they do not go together."""
    match facts.text("kind", "sae"):
        case "sae" | "normalised_sae" as kind:
            own = _latents(nonlinearity, weights, "D", "D")
            optional = {name: getattr(own, name) for name in OPTIONAL}
            b_dec = weights.take("b_dec", "D")
            sae = SparseAutoencoder(
                facts.text("hookpoint"), nonlinearity, own.W_enc, own.b_enc, own.W_dec, b_dec, **optional
            )
            return sae if kind == "sae" else NormalisedAutoencoder(sae, _read_row_norm(facts.table("row_norm")))
        case "transcoder":
            own = _latents(nonlinearity, weights, "D", "E")
            W_skip = weights.take("W_skip", "E D") if "W_skip" in weights else None
            return Transcoder(facts.text("reads"), facts.text("writes"), own, weights.take("b_dec", "E"), W_skip)
        case "crosscoder":
            hookpoints, widths = tuple(facts.texts("hookpoints")), tuple(facts.wholes("widths"))
            own = _latents(nonlinearity, weights, "D", "D")
            return Crosscoder(hookpoints, widths, own, weights.take("b_dec", "D"))
        case "cross_layer_transcoder":
            reads, writes = tuple(facts.texts("reads")), tuple(facts.texts("writes"))
            need_names("reads", reads)
            n_layers = weights.sizes["L"] = len(reads)
            b_dec = weights.take("b_dec", "L E")
            weights.sizes |= {f"E{n}": (n_layers - n) * b_dec.shape[1] for n in range(n_layers)}
            layers = tuple(_latents(nonlinearity, weights, "D", f"E{n}", f".{n}") for n in range(n_layers))
            return CrossLayerTranscoder(reads, writes, layers, b_dec)
        case _:
            raise facts.wrong(
                "kind", "sae, normalised_sae, transcoder, crosscoder and cross_layer_transcoder are understood"
            )


def _row_norm_facts(row_norm: RowNorm) -> dict[str, Any]:
    match row_norm:
        case LayerNorm(eps=eps):
            return {"kind": "layer_norm", "eps": eps}
        case LengthNorm():
            return {"kind": "length"}
        case _:
            assert_never(row_norm)


def _read_row_norm(facts: Settings) -> RowNorm:
    match facts.text("kind", "none"):
        case "layer_norm":
            return LayerNorm(facts.number("eps"))
        case "length":
            return LengthNorm()
        case _:
            raise facts.wrong("kind", "layer_norm and length are understood")


def _latents(nonlinearity: Nonlinearity, weights: Weights, reads: str, writes: str, layer: str = "") -> Latents:
    """The latents of a layer; `reads` and `writes` are the axes of their columns."""
    latent = f"F{layer.removeprefix('.')}"
    W_enc, b_enc = weights.take(f"W_enc{layer}", f"{latent} {reads}"), weights.take(f"b_enc{layer}", latent)
    optional = {name: weights.take(f"{name}{layer}", latent) for name in needed(nonlinearity)}
    return Latents(nonlinearity, W_enc, b_enc, weights.take(f"W_dec{layer}", f"{latent} {writes}"), **optional)


def kind_of(dictionary: AnyDictionary) -> str:
    """Its kind, as in `dictionary.json`."""
    match dictionary:
        case SparseAutoencoder():
            return "sae"
        case NormalisedAutoencoder():
            return "normalised_sae"
        case Transcoder():
            return "transcoder"
        case Crosscoder():
            return "crosscoder"
        case CrossLayerTranscoder():
            return "cross_layer_transcoder"
        case _:
            assert_never(dictionary)


def _tensors(latents: Latents) -> dict[str, Tensor]:
    optional = {name: getattr(latents, name) for name in OPTIONAL if getattr(latents, name) is not None}
    return {"W_enc": latents.W_enc, "b_enc": latents.b_enc, "W_dec": latents.W_dec} | optional


def _nonlinearity(latents: Latents) -> dict[str, Any]:
    return {"nonlinearity": latents.nonlinearity.model_dump()}
