"""Where a dictionary belongs: the hookpoints it reads and writes, how wide its rows are there, and the same at others."""

from dataclasses import replace
from typing import assert_never

from mohole.config.train import CrosscoderOf, CrossLayerOf, Learns, Sae, TranscoderOf
from mohole.dictionary.crosscoder import Crosscoder
from mohole.dictionary.files import AnyDictionary, kind_of
from mohole.dictionary.normalised import NormalisedAutoencoder, at
from mohole.dictionary.sae import SparseAutoencoder
from mohole.dictionary.transcoder import CrossLayerTranscoder, Transcoder
from mohole.errors import ConfigError


def places_of(dictionary: AnyDictionary) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(hookpoints it reads, hookpoints it writes)."""
    match dictionary:
        case SparseAutoencoder(hookpoint=hookpoint) | NormalisedAutoencoder(hookpoint=hookpoint):
            return (hookpoint,), (hookpoint,)
        case Transcoder(reads=reads, writes=writes):
            return (reads,), (writes,)
        case Crosscoder(hookpoints=hookpoints):
            return hookpoints, hookpoints
        case CrossLayerTranscoder(reads=many, writes=targets):
            return many, targets
        case _:
            assert_never(dictionary)


def widths_of(dictionary: AnyDictionary) -> tuple[int, ...]:
    """Columns of each of what it reads, then of each of what it writes."""
    match dictionary:
        case SparseAutoencoder(d_model=width) | NormalisedAutoencoder(d_model=width):
            return width, width
        case Transcoder(latents=latents):
            return latents.W_enc.shape[1], latents.W_dec.shape[1]
        case Crosscoder(widths=widths):
            return widths + widths
        case CrossLayerTranscoder(layers=layers, b_dec=b_dec):
            return (layers[0].W_enc.shape[1],) * len(layers) + (b_dec.shape[1],) * len(layers)
        case _:
            assert_never(dictionary)


def as_learned(dictionary: AnyDictionary) -> Learns:
    """What has been learned, in the words of a recipe."""
    match dictionary:
        case SparseAutoencoder() | NormalisedAutoencoder():
            return Sae()
        case Transcoder(reads=reads, writes=writes):
            return TranscoderOf(reads=reads, writes=writes, skip=dictionary.W_skip is not None)
        case Crosscoder(hookpoints=hookpoints):
            return CrosscoderOf(hookpoints=hookpoints)
        case CrossLayerTranscoder(reads=many, writes=targets):
            return CrossLayerOf(reads=many, writes=targets)
        case _:
            assert_never(dictionary)


def put(dictionary: AnyDictionary, learns: Learns, hookpoint: str | None, path: str) -> AnyDictionary:
    """The same dictionary at the places that are said; `hookpoint` is a sparse autoencoder's.

    Raises:
        ConfigError: it is of another kind, or of another number of hookpoints. `path` names it.
    """
    match dictionary, learns:
        case SparseAutoencoder() | NormalisedAutoencoder(), Sae():
            return dictionary if hookpoint is None else at(dictionary, hookpoint)
        case Transcoder(), TranscoderOf(reads=reads, writes=writes):
            return replace(dictionary, reads=reads, writes=writes)
        case Crosscoder(), CrosscoderOf(hookpoints=hookpoints) if len(hookpoints) == len(dictionary.hookpoints):
            return replace(dictionary, hookpoints=hookpoints)
        case CrossLayerTranscoder(), CrossLayerOf(reads=many, writes=targets) if len(many) == len(dictionary.reads):
            return replace(dictionary, reads=many, writes=targets)
        case _:
            raise ConfigError(
                f"{path}: {_described(dictionary)}, and the recipe says {_said(learns)}; say what it is in [[dictionary]]: "
                "hookpoint for a sparse autoencoder, learns for other kinds"
            )


def _described(dictionary: AnyDictionary) -> str:
    reads, _ = places_of(dictionary)
    return f"a {kind_of(dictionary)}" + (f" of {len(reads)} hookpoints" if len(reads) > 1 else "")


def _said(learns: Learns) -> str:
    if isinstance(learns, Sae):
        return "a sae"
    n = len(learns.hookpoints if isinstance(learns, CrosscoderOf) else learns.reads)
    return f"a {learns.kind}" + ("" if isinstance(learns, TranscoderOf) else f" of {n} hookpoints")
