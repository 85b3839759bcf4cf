"""Dictionaries: what is learned. Rows of activations into a few active latents and back."""

from mohole.dictionary.codes import SparseCodes
from mohole.dictionary.crosscoder import Crosscoder
from mohole.dictionary.dictionary import Dictionary
from mohole.dictionary.files import AnyDictionary
from mohole.dictionary.formats import load_dictionary
from mohole.dictionary.latents import Latents
from mohole.dictionary.normalised import Autoencoder, NormalisedAutoencoder
from mohole.dictionary.row_norm import LayerNorm, LengthNorm, RowNorm, RowUnits
from mohole.dictionary.sae import SparseAutoencoder
from mohole.dictionary.transcoder import CrossLayerTranscoder, Transcoder

__all__ = [
    "AnyDictionary",
    "Autoencoder",
    "CrossLayerTranscoder",
    "Crosscoder",
    "Dictionary",
    "Latents",
    "LayerNorm",
    "LengthNorm",
    "NormalisedAutoencoder",
    "RowNorm",
    "RowUnits",
    "SparseAutoencoder",
    "SparseCodes",
    "Transcoder",
    "load_dictionary",
]
