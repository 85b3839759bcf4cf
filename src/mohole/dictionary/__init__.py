"""Dictionaries: what is learned. Rows of activations into a few active latents and back."""

from mohole.dictionary.codes import SparseCodes
from mohole.dictionary.sae import Dictionary, SparseAutoencoder, load_dictionary

__all__ = ["Dictionary", "SparseAutoencoder", "SparseCodes", "load_dictionary"]
