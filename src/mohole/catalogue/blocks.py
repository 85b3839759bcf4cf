"""Blocks: the evidence of a few dozen neighbouring latents as named columns, compressed together, with a checksum.

A block is a zstd frame (with its content checksum) around a safetensors file, so any reader of those two reads it.
"""

from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

from mohole.catalogue.layout import AGAIN
from mohole.errors import ArtifactError
from mohole.tensors import tensor_bytes, tensors_from_bytes

Columns = dict[str, NDArray[Any]]

_LEVEL = 9
_MOST_BYTES = 1 << 28
"""Of an opened block: a damaged frame that says it is larger is not believed."""


def pack(columns: Columns, level: int = _LEVEL) -> bytes:
    """One block. Whole numbers take the narrowest type that holds them all; readers need not know which.

    Args:
        level: of zstd.
    """
    narrow = {name: narrowest(column) for name, column in columns.items()}
    return zstandard.ZstdCompressor(level=level, write_checksum=True).compress(tensor_bytes(narrow))


def unpack(data: bytes, where: str) -> Columns:
    """Raises:
    ArtifactError: not what `pack` gave; `where` names the block.
    """
    try:
        if not 0 < zstandard.frame_content_size(data) <= _MOST_BYTES:
            raise ArtifactError(f"{where}: damaged (not a block); {AGAIN}")
        whole = zstandard.ZstdDecompressor().decompress(data)
    except zstandard.ZstdError as error:
        raise ArtifactError(f"{where}: damaged ({error}); {AGAIN}") from None
    return tensors_from_bytes(whole, where)


def narrowest(column: NDArray[Any]) -> NDArray[Any]:
    """Whole numbers in the narrowest type that holds them; other types as they are."""
    if column.dtype.kind not in "iu" or not column.size:
        return column
    low, high = int(column.min()), int(column.max())
    for name in ("u1", "u2", "u4", "u8") if low >= 0 else ("i1", "i2", "i4", "i8"):
        bounds = np.iinfo(name)
        if bounds.min <= low and high <= bounds.max:
            return column.astype(f"<{name}")
    return column
