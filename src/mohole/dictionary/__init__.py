"""Dictionaries: what is learned. Rows of activations into a few active latents and back."""

from mohole.dictionary.codes import SparseCodes
from mohole.dictionary.crosscoder import Crosscoder
from mohole.dictionary.dictionary import Dictionary
from mohole.dictionary.files import AnyDictionary
from mohole.dictionary.formats import load_dictionary
from mohole.dictionary.latents import Latents
from mohole.dictionary.sae import SparseAutoencoder
from mohole.dictionary.transcoder import CrossLayerTranscoder, Transcoder

__all__ = [
    "AnyDictionary",
    "CrossLayerTranscoder",
    "Crosscoder",
    "Dictionary",
    "Latents",
    "SparseAutoencoder",
    "SparseCodes",
    "Transcoder",
    "load_dictionary",
]
