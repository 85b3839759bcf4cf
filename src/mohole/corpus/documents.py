"""Documents: texts with what is known about them, and where a long text is cut. No files, no tokens."""

from collections.abc import Iterator
from dataclasses import dataclass


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


def pieces_of(text: str, max_chars: int) -> Iterator[str]:
    """A text in pieces of at most `max_chars` characters; together they are the text, but for pieces of white space alone."""
    while len(text) > max_chars:
        end = place_to_cut(text, max_chars)
        if not text[:end].isspace():
            yield text[:end]
        text = text[end:]
    if text and not text.isspace():
        yield text


def place_to_cut(text: str, max_chars: int) -> int:
    """Where a longer text is cut: after the last newline among its first `max_chars` characters, else the last space.

    >>> place_to_cut("one two three", 9), place_to_cut("onetwothree", 9)
    (8, 9)
    """
    return text.rfind("\n", 0, max_chars) + 1 or text.rfind(" ", 0, max_chars) + 1 or max_chars
