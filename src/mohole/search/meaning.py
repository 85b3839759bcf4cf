"""What a search by meaning needs: texts as vectors. The kinds that come with mohole are company.py and minilm.py."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

_BLOCK = 1 << 16


@runtime_checkable
class Embedder(Protocol):
    """Turns texts into vectors whose cosine says how near they are in meaning.

    A text's vector does not depend on the texts beside it. Its length is 1; or less, down to 0, where less of the text is known.
    """

    @property
    def least(self) -> float:
        """The cosine from which on two texts are worth calling near."""
        ...

    def embed(self, texts: Sequence[str]) -> Float[np.ndarray, "text d"]:
        """One row of float32 for each text."""
        ...


class Vectors:
    """Rows of length 1 at most, kept in half the bytes. A cosine is right to 0.001."""

    def __init__(self, rows: Float[np.ndarray, "text d"]) -> None:
        self._rows = rows.astype(np.float16, copy=False)

    def cosines(self, query: Float[np.ndarray, " d"]) -> NDArray[np.float32]:
        """Of every row with the query."""
        found = np.empty(len(self._rows), dtype=np.float32)
        for start in range(0, len(self._rows), _BLOCK):
            found[start : start + _BLOCK] = self._rows[start : start + _BLOCK].astype(np.float32) @ query
        return found


def unit(rows: Float[np.ndarray, "row d"]) -> Float[np.ndarray, "row d"]:
    """Each row divided by its length; rows of length 0 stay."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(lengths > 0, lengths, 1.0), dtype=np.float32)
