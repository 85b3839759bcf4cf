"""Every kind of text as documents, and what tells that a source has changed. The formats have files of their own."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mohole.config import DatasetCorpus, TextCorpus
from mohole.corpus.documents import Document, pieces_of
from mohole.corpus.files import File, find_files
from mohole.corpus.hub import dataset_identity, read_dataset
from mohole.corpus.plain import read_plain
from mohole.corpus.records import read_json_lines, read_parquet

Source = TextCorpus | DatasetCorpus


def read_documents(source: Source) -> Iterator[Document]:
    """The documents of a source in its order, files by name; long ones in pieces, those of white space alone left out.

    Reads as it goes: what is in memory is a block of a file, a few records, or one document.

    Raises:
        CorpusError: no such source, or what cannot be read in it, and where.
    """
    texts = read_dataset(source) if isinstance(source, DatasetCorpus) else _texts_of_files(source)
    for text in texts:
        for piece in pieces_of(text, source.max_document_chars):
            yield Document(piece)


def identity(source: Source) -> Any:
    """Plain JSON that changes when the source's content does; cheap beside reading it.

    Of local files their checksums, in the order they are read; of remote ones size and what their place says of the version;
    of a dataset on the hub its commit.

    Raises:
        CorpusError: no such source.
    """
    if isinstance(source, DatasetCorpus):
        return dataset_identity(source)
    return [file.identity() for file in find_files(source.path)]


def display_name(source: Source) -> str:
    """The source without the folder it lies in on this machine."""
    if isinstance(source, TextCorpus):
        return Path(source.path).name
    return Path(source.name).resolve().name if Path(source.name).exists() else source.name


def _texts_of_files(source: TextCorpus) -> Iterator[str]:
    for file in find_files(source.path):
        yield from _texts_of(file, source)


def _texts_of(file: File, source: TextCorpus) -> Iterator[str]:
    name = file.format_name
    if name.endswith(".parquet"):
        return read_parquet(file, source.field)
    if name.removesuffix(".gz").removesuffix(".zst").endswith((".jsonl", ".ndjson")):
        return read_json_lines(file, source.field)
    return read_plain(file, source.separator, source.max_document_chars)
