"""Safetensors files: read as memory-mapped numpy arrays, nothing copied until it is used; written from arrays. No torch."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mohole.errors import ArtifactError

_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "<i1", "U8": "<u1",
    "U16": "<u2", "U32": "<u4", "U64": "<u8", "BOOL": "?",
}  # fmt: skip
_NAMES = {np.dtype(dtype): name for name, dtype in _DTYPES.items()}
_ALIGNMENT_BYTES = 64


def write_tensors(path: Path, tensors: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays as one safetensors file. The same arrays are the same bytes.

    Not the library's own writer: on a full disk that one raises an error of its own kind without the file's name, and its
    columns are not aligned for memory mapping.
    """
    header: dict[str, Any] = {}
    offset = 0
    ordered = dict(
        sorted(tensors.items(), key=lambda item: (-item[1].itemsize, item[0]))
    )  # wide types first: all aligned
    for name, array in ordered.items():
        header[name] = {
            "dtype": _NAMES[array.dtype],
            "shape": array.shape,
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes
    with path.open("wb") as file:
        file.write(header_bytes(header))
        for array in ordered.values():
            file.write(np.ascontiguousarray(array).data)


def header_bytes(header: Mapping[str, Any]) -> bytes:
    """A safetensors header, padded with spaces so that the data after it stands aligned."""
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % _ALIGNMENT_BYTES)
    return struct.pack("<Q", len(text)) + text


def open_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """All tensors of a file as read-only arrays mapped from it. Format: huggingface/safetensors, README "Format".

    Raises:
        ArtifactError: the file is missing, truncated, or no safetensors file.
    """
    try:
        n_bytes = path.stat().st_size
        with path.open("rb") as file:
            (header_bytes,) = struct.unpack("<Q", file.read(8))
            if header_bytes > n_bytes - 8:
                raise ArtifactError(f"{path}: truncated, its header alone needs {header_bytes} bytes of {n_bytes}")
            header = json.loads(file.read(header_bytes))
        header.pop("__metadata__", None)
        return {name: _map(path, entry, 8 + header_bytes, n_bytes) for name, entry in header.items()}
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such file") from None
    except (struct.error, json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError, AttributeError):
        raise ArtifactError(f"{path}: not a readable safetensors file; delete its folder and make it again") from None


def _map(path: Path, entry: dict[str, Any], offset: int, n_bytes: int) -> NDArray[Any]:
    start, end = entry["data_offsets"]
    shape, dtype = tuple(entry["shape"]), np.dtype(_DTYPES[entry["dtype"]])
    if offset + end > n_bytes or end - start != dtype.itemsize * int(np.prod(shape, dtype=np.int64)):
        raise ArtifactError(f"{path}: truncated, or its sizes disagree; delete its folder and make it again")
    if end == start:
        return np.zeros(shape, dtype=dtype)
    return np.memmap(path, mode="r", dtype=dtype, shape=shape, offset=offset + start)
