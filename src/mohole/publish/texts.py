"""Texts as columns: each one once, and everything else names it by its number."""

from collections.abc import Iterable

import numpy as np

from mohole.catalogue.blocks import Columns


class Texts:
    """A table of texts that grows as it is asked for numbers."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._numbers: dict[str, int] = {}
        for text in texts:
            self.number(text)

    def number(self, text: str) -> int:
        return self._numbers.setdefault(text, len(self._numbers))

    def columns(self, name: str) -> Columns:
        """`NAME_bytes`, all texts one after the other in UTF-8, and `NAME_length`, the bytes of each."""
        return text_columns(name, self._numbers)


def text_columns(name: str, texts: Iterable[str]) -> Columns:
    """As `Texts.columns`, of texts that may be equal. Half of a surrogate pair becomes a question mark."""
    encoded = [text.encode("utf-8", "replace") for text in texts]
    return {
        f"{name}_bytes": np.frombuffer(b"".join(encoded), dtype=np.uint8),
        f"{name}_length": np.asarray([len(each) for each in encoded], dtype=np.int64),
    }
