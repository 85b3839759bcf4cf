"""Plain UTF-8 text, block by block, into the texts between separators. Holds one document, however long the file is."""

import codecs
from collections.abc import Iterable, Iterator

from mohole.corpus.documents import pieces_of, place_to_cut
from mohole.corpus.files import File, blocks
from mohole.errors import CorpusError


def read_plain(file: File, separator: str, max_chars: int) -> Iterator[str]:
    """The texts of a file, in order; one longer than `max_chars` in pieces.

    Raises:
        CorpusError: bytes that are not UTF-8 text, and where.
    """
    with file.open() as data:
        yield from split(decode(blocks(data), file.name), separator, max_chars)


def decode(data: Iterable[bytes], name: str) -> Iterator[str]:
    """Blocks of UTF-8 as text, without a byte order mark, lines ended by newlines alone. A character may straddle blocks."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    n_bytes, held = 0, ""
    try:
        for block in data:
            n_bytes += len(block)
            text = decoder.decode(block)
            if n_bytes == len(block):
                text = text.removeprefix("\ufeff")
            if "\x00" in text:
                raise CorpusError(f"{name}: holds zero bytes, so it is binary, not text; name another file")
            text = held + text
            held = "\r" if text.endswith("\r") else ""  # the newline that goes with it may be in the next block
            yield text.removesuffix(held).replace("\r\n", "\n")
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        place = n_bytes - len(error.object) + error.start
        raise CorpusError(f"{name}: not UTF-8 text (byte {place}); convert it, or name another file") from None
    yield held


def split(texts: Iterable[str], separator: str, max_chars: int) -> Iterator[str]:
    """The texts between separators, those of white space alone left out. Where `texts` is cut does not matter.

    A text longer than `max_chars` is cut as `pieces_of` does it, without being held whole.
    """
    held = ""
    for text in texts:
        *whole, held = (held + text).split(separator) if separator else [held + text]
        for part in whole:
            yield from pieces_of(part, max_chars)
        # A separator that begins at or before the limit would be whole in this many characters, and so have been found.
        while len(held) >= max_chars + max(len(separator), 1):
            end = place_to_cut(held, max_chars)
            yield from pieces_of(held[:end], max_chars)
            held = held[end:]
    yield from pieces_of(held, max_chars)
