"""What the tasks of a catalogue work on: model, dictionary, text and rows, by name, and opened once in a process."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, runtime_checkable

from mohole import config
from mohole.catalogue.vocabulary import Unembedding
from mohole.corpus import Corpus
from mohole.dictionary import Dictionary
from mohole.dictionary.files import open_autoencoder
from mohole.model.shared import shared_model
from mohole.store import Store


@runtime_checkable
class Sources(Protocol):
    """A task carries it to its worker."""

    def model(self) -> Unembedding: ...

    def dictionary(self) -> Dictionary: ...

    def corpus(self) -> Corpus: ...

    def store(self) -> Store: ...


@dataclass(frozen=True)
class InMemory:
    """Objects that are there already: for tasks that run in this process."""

    own_model: Unembedding
    own_dictionary: Dictionary
    own_corpus: Corpus
    own_store: Store

    def model(self) -> Unembedding:
        return self.own_model

    def dictionary(self) -> Dictionary:
        return self.own_dictionary

    def corpus(self) -> Corpus:
        return self.own_corpus

    def store(self) -> Store:
        return self.own_store


@dataclass(frozen=True)
class OnDisk:
    """Where they are. The digests tell what lies there now from what lay there before."""

    model_settings: config.Model
    dictionary_at: str
    dictionary_digest: str
    corpus_at: str
    corpus_digest: str
    rows_at: str
    rows_digest: str

    def model(self) -> Unembedding:
        return shared_model(self.model_settings)

    def dictionary(self) -> Dictionary:
        return _dictionary(self.dictionary_at, self.dictionary_digest)

    def corpus(self) -> Corpus:
        return _corpus(self.corpus_at, self.corpus_digest)

    def store(self) -> Store:
        return _store(self.rows_at, self.rows_digest)


@lru_cache(maxsize=1)
def _dictionary(folder: str, digest: str) -> Dictionary:
    return open_autoencoder(folder)


@lru_cache(maxsize=1)
def _corpus(folder: str, digest: str) -> Corpus:
    """Not verified: the driver has read its checksums."""
    return Corpus.open(folder, verify=False)


@lru_cache(maxsize=1)
def _store(place: str, digest: str) -> Store:
    return Store.open(place)
