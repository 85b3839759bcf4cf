"""Rows of activations on disk, in the order of the corpus or in the shuffled order."""

from mohole.store.shuffle import shuffle
from mohole.store.store import Store, StoreWriter

__all__ = ["Store", "StoreWriter", "shuffle"]
