"""Dictionaries on disk: `dictionary.json` says what it is, `dictionary.safetensors` holds its tensors. Every kind, both ways."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, assert_never

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from mohole import artifact
from mohole.config import Nonlinearity
from mohole.config.train import AnyNonlinearity
from mohole.dictionary.crosscoder import Crosscoder
from mohole.dictionary.latents import OPTIONAL, Latents
from mohole.dictionary.sae import SparseAutoencoder
from mohole.dictionary.transcoder import CrossLayerTranscoder, Transcoder
from mohole.errors import ArtifactError
from mohole.record import read_json, write_json
from mohole.tensors import open_tensors, write_tensors

WEIGHTS_FILE = "dictionary.safetensors"
FACTS_FILE = "dictionary.json"

AnyDictionary = SparseAutoencoder | Transcoder | Crosscoder | CrossLayerTranscoder


def save(dictionary: AnyDictionary, out: Path, *, training: Mapping[str, Any] | None = None) -> None:
    """Write a dictionary's two files into `out`. `training` is kept for readers who ask how it was made."""
    tensors, facts = _parts(dictionary)
    write_tensors(out / WEIGHTS_FILE, {name: tensor.numpy() for name, tensor in tensors.items()})
    write_json(out / FACTS_FILE, facts | {"training": training or {}})


def open_dictionary(path: Path | str) -> AnyDictionary:
    """Open a finished dictionary artifact of any kind.

    Raises:
        ArtifactError: missing, unfinished, damaged, or no dictionary.
    """
    path = Path(path)
    artifact.open_artifact(path, kind="dictionary")
    return read(path)


def open_sae(path: Path | str) -> SparseAutoencoder:
    """Open a finished dictionary artifact that must be a sparse autoencoder.

    Raises:
        ArtifactError: as `open_dictionary`, or of another kind.
    """
    found = open_dictionary(path)
    if not isinstance(found, SparseAutoencoder):
        raise ArtifactError(f"{path}: a {kind_of(found)}, where a sparse autoencoder is needed")
    return found


def read(folder: Path) -> AnyDictionary:
    """The dictionary whose two files stand in `folder`, with or without a manifest beside them.

    Raises:
        ArtifactError: they are missing, damaged, or not what a dictionary has.
    """
    tensors = {name: torch.from_numpy(array.copy()) for name, array in open_tensors(folder / WEIGHTS_FILE).items()}
    facts = read_json(folder / FACTS_FILE, "nonlinearity")
    try:
        nonlinearity = TypeAdapter[Nonlinearity](AnyNonlinearity).validate_python(facts["nonlinearity"])
        return _build(facts, nonlinearity, tensors)
    except (TypeError, KeyError, ValueError, ValidationError) as error:
        raise ArtifactError(f"{folder}: not a dictionary mohole can read ({error!r})") from None


def _parts(dictionary: AnyDictionary) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and facts of each kind. Tensors of a layer carry its number: `W_enc.3`."""
    kind: dict[str, Any] = {"kind": kind_of(dictionary)}
    match dictionary:
        case SparseAutoencoder():
            facts = kind | {"hookpoint": dictionary.hookpoint}
            return _tensors(dictionary.latents) | {"b_dec": dictionary.b_dec}, facts | _nonlinearity(dictionary.latents)
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


def _build(facts: dict[str, Any], nonlinearity: Nonlinearity, tensors: dict[str, Tensor]) -> AnyDictionary:
    match facts.get("kind", "sae"):
        case "sae":
            return SparseAutoencoder(facts["hookpoint"], nonlinearity, **tensors)
        case "transcoder":
            b_dec, W_skip = tensors.pop("b_dec"), tensors.pop("W_skip", None)
            return Transcoder(facts["reads"], facts["writes"], Latents(nonlinearity, **tensors), b_dec, W_skip)
        case "crosscoder":
            b_dec = tensors.pop("b_dec")
            sites = tuple(facts["hookpoints"]), tuple(facts["widths"])
            return Crosscoder(*sites, Latents(nonlinearity, **tensors), b_dec)
        case "cross_layer_transcoder":
            b_dec, n_layers = tensors.pop("b_dec"), len(facts["reads"])
            layers = tuple(
                Latents(
                    nonlinearity,
                    **{name[: -len(f".{n}")]: tensor for name, tensor in tensors.items() if name.endswith(f".{n}")},
                )
                for n in range(n_layers)
            )
            return CrossLayerTranscoder(tuple(facts["reads"]), tuple(facts["writes"]), layers, b_dec)
        case other:
            raise ValueError(f"kind {other!r}")


def kind_of(dictionary: AnyDictionary) -> str:
    """Its kind, as in `dictionary.json`."""
    match dictionary:
        case SparseAutoencoder():
            return "sae"
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
