"""Documents: texts with what is known about them, from files or from a generator. No tokens."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mohole.errors import CorpusError


@dataclass(frozen=True, slots=True)
class Span:
    """A truth about the characters [start, end) of a document's text."""

    start: int
    end: int
    label: str
    every: bool = False
    """True: it holds at every token of the span. False: at the span's last token, where a word is complete."""


@dataclass(frozen=True, slots=True)
class Document:
    """A text, with truth about its characters where the writer knows it."""

    text: str
    spans: tuple[Span, ...] = ()


@dataclass(frozen=True, slots=True)
class Task:
    """Prompts with one right continuation each: what a model must still be able to do."""

    name: str
    prompts: tuple[str, ...]
    answers: tuple[str, ...]


def read_documents(path: str, separator: str) -> Iterator[Document]:
    """The documents of a UTF-8 file, of a folder's .txt files, or of files matching a pattern, in name order.

    Raises:
        CorpusError: no such file, or bytes that are not text.
    """
    for file in text_files(path):
        yield from _documents_in(file, separator)


def text_files(path: str) -> list[Path]:
    """The files a corpus path stands for, in name order."""
    place = Path(path)
    if place.is_file():
        return [place]
    if place.is_dir():
        files = sorted(place.glob("*.txt"))
        if not files:
            raise CorpusError(f"{path}: a folder without .txt files; name a file, or a pattern such as {path}/*.md")
        return files
    anchor = Path(place.anchor) if place.is_absolute() else Path()
    pattern = str(place.relative_to(place.anchor)) if place.is_absolute() else path
    files = sorted(file for file in anchor.glob(pattern) if file.is_file()) if any(c in path for c in "*?[") else []
    if not files:
        raise CorpusError(f"{path}: no such file, folder or pattern; set corpus.path to UTF-8 text")
    return files


def _documents_in(file: Path, separator: str) -> Iterator[Document]:
    try:
        data = file.read_bytes()
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CorpusError(f"{file}: not UTF-8 text (byte {error.start}); convert it, or name another file") from None
    if "\x00" in text:
        raise CorpusError(f"{file}: holds zero bytes, so it is binary, not text; name another file")
    text = text.replace("\r\n", "\n")
    for part in text.split(separator) if separator else [text]:
        if part.strip():
            yield Document(part)
