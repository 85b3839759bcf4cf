"""Safetensors files: read as memory-mapped numpy arrays, nothing copied until it is used; written from arrays. No torch."""

import json
import math
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mohole.errors import ArtifactError

_CODES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "<i1", "U8": "<u1",
    "U16": "<u2", "U32": "<u4", "U64": "<u8", "BOOL": "?",
}  # fmt: skip
_DTYPES = {name: np.dtype(code) for name, code in _CODES.items()}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_ALIGNMENT_BYTES = 64
_UNREADABLE = (
    struct.error, KeyError, TypeError, ValueError, AttributeError, RecursionError, OverflowError, MemoryError
)  # fmt: skip
"""What bytes that are no header raise. ValueError is also json's and the codec's; the last three are sizes and depths."""


def write_tensors(path: Path, tensors: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays as one safetensors file. The same arrays are the same bytes.

    Not the library's own writer: on a full disk that one raises an error of its own kind without the file's name, and its
    columns are not aligned for memory mapping.
    """
    with tensor_writer(path, {name: (array.dtype, array.shape) for name, array in tensors.items()}) as write:
        for name, array in tensors.items():
            write(name, 0, array)


@contextmanager
def tensor_writer(
    path: Path, tensors: Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]]
) -> Iterator[Callable[[str, int, NDArray[Any]], None]]:
    """Write the file of `write_tensors` from stretches of its arrays, in any order: `write(name, first_item, stretch)`.

    For arrays that are not in memory. What is never written reads as zeros.
    """
    header, n_bytes = _laid_out(tensors)
    head = header_bytes(header)
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + n_bytes)

        def write(name: str, first_item: int, stretch: NDArray[Any]) -> None:
            assert stretch.dtype == tensors[name][0], name
            file.seek(len(head) + header[name]["data_offsets"][0] + first_item * stretch.itemsize)
            file.write(np.ascontiguousarray(stretch).data)

        yield write


def tensor_bytes(tensors: Mapping[str, NDArray[Any]]) -> bytes:
    """What `write_tensors` writes."""
    header, n_bytes = _laid_out({name: (array.dtype, array.shape) for name, array in tensors.items()})
    in_order = sorted(tensors, key=lambda name: header[name]["data_offsets"])
    data = b"".join(
        [header_bytes(header), *(np.ascontiguousarray(tensors[name]).data for name in in_order)]
    )  # copied once
    assert len(data) == len(header_bytes(header)) + n_bytes
    return data


def _laid_out(tensors: Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]]) -> tuple[dict[str, Any], int]:
    """The header of arrays of these types and shapes, and how many bytes they take together."""
    header: dict[str, Any] = {}
    n_bytes = 0
    # wide types first: all aligned
    for name, (dtype, shape) in sorted(tensors.items(), key=lambda item: (-item[1][0].itemsize, item[0])):
        end = n_bytes + dtype.itemsize * math.prod(shape)
        header[name] = {"dtype": _NAMES[dtype], "shape": shape, "data_offsets": [n_bytes, end]}
        n_bytes = end
    return header, n_bytes


def header_bytes(header: Mapping[str, Any]) -> bytes:
    """A safetensors header, padded with spaces so that the data after it stands aligned."""
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % _ALIGNMENT_BYTES)
    return struct.pack("<Q", len(text)) + text


def tensors_from_bytes(data: bytes, where: str) -> dict[str, NDArray[Any]]:
    """As `open_tensors`, of a file that has been read already. `where` names it in errors."""
    try:
        (header_bytes,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8 : 8 + header_bytes])
        header.pop("__metadata__", None)
        tensors = {}
        for name, entry in header.items():
            start, end = entry["data_offsets"]
            dtype, shape = _DTYPES[entry["dtype"]], entry["shape"]
            n_items = math.prod(shape)
            if not 0 <= start <= end or end - start != n_items * dtype.itemsize:
                raise ValueError(name)
            # Not a slice of the bytes: a block has two dozen columns, and an answer of the server takes half a millisecond.
            flat = np.frombuffer(data, dtype, n_items, 8 + header_bytes + start)
            tensors[name] = flat if len(shape) == 1 else flat.reshape(shape)
        return tensors
    except _UNREADABLE:
        raise ArtifactError(f"{where}: not a readable safetensors file, or truncated; make it again") from None


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
                raise ArtifactError(
                    f"{path}: truncated, its header alone needs {header_bytes} bytes of {n_bytes}; make it again"
                )
            header = json.loads(file.read(header_bytes))
        header.pop("__metadata__", None)
        return {name: _map(path, entry, 8 + header_bytes, n_bytes) for name, entry in header.items()}
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such file") from None
    except _UNREADABLE:
        raise ArtifactError(f"{path}: not a readable safetensors file; delete its folder and make it again") from None


def _map(path: Path, entry: dict[str, Any], offset: int, n_bytes: int) -> NDArray[Any]:
    start, end = entry["data_offsets"]
    shape, dtype = tuple(entry["shape"]), _DTYPES[entry["dtype"]]
    if start < 0 or offset + end > n_bytes or end - start != dtype.itemsize * int(np.prod(shape, dtype=np.int64)):
        raise ArtifactError(f"{path}: truncated, or its sizes disagree; delete its folder and make it again")
    if end == start:
        return np.zeros(shape, dtype=dtype)
    return np.memmap(path, mode="r", dtype=dtype, shape=shape, offset=offset + start)
