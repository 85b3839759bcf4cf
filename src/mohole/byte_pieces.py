"""Vocabulary entries that are parts of characters: written as their bytes, <0xE2>, and put together again to text.

A tokenizer whose entries are bytes may cut a character in several; alone none of them is text. Written as bytes each keeps what
it is, and the characters can be had back from a row of them, which a replacement character would not allow.
"""

import re
from collections.abc import Iterable

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_BROKEN = re.compile(rf"<0x[0-9A-F]{{2}}>|{REPLACEMENT}")


def shown_bytes(data: bytes) -> str:
    """Bytes as text, those that are no whole character as <0xNN>.

    >>> shown_bytes("é".encode()), shown_bytes(b" \\xe2\\x80"), shown_bytes(b"a\\xffb")
    ('é', ' <0xE2><0x80>', 'a<0xFF>b')
    """
    parts, at = [], 0
    while at < len(data):
        try:
            parts.append(data[at:].decode("utf-8"))
            break
        except UnicodeDecodeError as error:
            broken = range(at + error.start, at + error.end)
            parts.append(data[at : broken.start].decode("utf-8"))
            parts.extend(f"<0x{data[place]:02X}>" for place in broken)
            at = broken.stop
    return "".join(parts)


def is_broken(piece: str) -> bool:
    """Has it a part of a character in it? In a corpus made before bytes were written, that is a replacement character.

    >>> is_broken(" <0xE2>"), is_broken("\ufffd"), is_broken("<0x")
    (True, True, False)
    """
    return _BROKEN.search(piece) is not None


def joined(pieces: Iterable[str]) -> str:
    """The text of pieces in a row: bytes that make up characters together are those characters. Letters that spell a byte, one
    piece after the other, stay letters.

    >>> joined(["a ", "<0xE9>", "<0x87><0x91>", "门"]), joined(["<0x87>", "<0xE9>"]), joined("<0x41>")
    ('a 金门', '<0x87><0xE9>', '<0x41>')
    """
    return shown_bytes(b"".join(map(bytes_of, pieces)))


def bytes_of(piece: str) -> bytes:
    """What a piece stands for.

    >>> bytes_of(" <0xE2><0x80>"), bytes_of("é")
    (b' \xe2\x80', b'\xc3\xa9')
    """
    if "<0x" not in piece:
        return piece.encode()
    parts = _BYTE.split(piece)  # every second one is two hexadecimal digits
    return b"".join(bytes.fromhex(part) if i % 2 else part.encode() for i, part in enumerate(parts))
