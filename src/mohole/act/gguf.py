"""GGUF files, as far as control vectors need them: numbers, texts, rows of F32 or F16. What it does not know is an error.

Format: ggml-org/ggml, docs/gguf.md, versions 2 and 3, little-endian. Ours and not the `gguf` package, which memory-maps whatever
sizes a file claims, and brings what quantised models need; a control vector is a few kilobytes.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mohole.errors import ArtifactError

_MAGIC = b"GGUF"
_ALIGNMENT = 32
_MOST = 1 << 16
"""Keys, tensors, dimensions of an array: a control vector has tens."""
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY, _U32 = 8, 9, 4
_DTYPES: dict[int, np.dtype[Any]] = {0: np.dtype("<f4"), 1: np.dtype("<f2")}
_F32 = 0


@dataclass
class _Bytes:
    """A file's bytes, read from the front."""

    data: bytes
    where: str
    at: int = 0

    def take(self, n: int) -> bytes:
        if not 0 <= n <= len(self.data) - self.at:
            raise ArtifactError(
                f"{self.where}: truncated at byte {self.at}, or its sizes are wrong; get the file again"
            )
        self.at += n
        return self.data[self.at - n : self.at]

    def number(self, kind: str) -> Any:
        return struct.unpack(kind, self.take(struct.calcsize(kind)))[0]

    def count(self, what: str) -> int:
        n: int = self.number("<Q")
        if n > _MOST:
            raise ArtifactError(f"{self.where}: {n} {what}, which no control vector has; is it a whole model?")
        return n

    def text(self) -> str:
        try:
            return self.take(self.count("bytes of a text")).decode("utf-8")
        except UnicodeDecodeError:
            raise ArtifactError(
                f"{self.where}: a text before byte {self.at} is not UTF-8; get the file again"
            ) from None

    def value(self, kind: int, depth: int = 0) -> Any:
        if kind in _SCALARS:
            return self.number(_SCALARS[kind])
        if kind == _STRING:
            return self.text()
        if kind == _ARRAY and depth == 0:
            own = self.number("<I")
            return [self.value(own, 1) for _ in range(self.count("values of an array"))]
        raise ArtifactError(
            f"{self.where}: a value of type {kind} before byte {self.at}, which is none; get the file again"
        )


def read_gguf(data: bytes, where: str) -> tuple[dict[str, Any], dict[str, NDArray[np.float32]]]:
    """(its keys, its tensors in float32 with their axes in numpy's order). `where` names it in errors.

    Raises:
        ArtifactError: no GGUF, truncated, of another version, or with tensors of a type that is not F32 or F16.
    """
    file = _Bytes(data, where)
    if data[:4] != _MAGIC:
        raise ArtifactError(f"{where}: not a GGUF file; it begins with {data[:4]!r}")
    file.take(4)
    version = file.number("<I")
    if version not in (2, 3):
        raise ArtifactError(f"{where}: GGUF version {version}; 2 and 3 in little-endian order are read")
    n_tensors, n_keys = file.count("tensors"), file.count("keys")
    facts = {file.text(): file.value(file.number("<I")) for _ in range(n_keys)}
    infos = [_info(file) for _ in range(n_tensors)]
    alignment = facts.get("general.alignment", _ALIGNMENT)
    if not isinstance(alignment, int) or not 1 <= alignment <= _MOST:
        raise ArtifactError(f"{where}: general.alignment {alignment!r}; a number of bytes is needed")
    start = -(-file.at // alignment) * alignment
    return facts, {name: _tensor(file, start + offset, shape, kind) for name, offset, shape, kind in infos}


def _info(file: _Bytes) -> tuple[str, int, tuple[int, ...], int]:
    name, n_axes = file.text(), file.number("<I")
    if n_axes > 4:
        raise ArtifactError(f"{file.where}: {name!r:.80} has {n_axes} axes; 4 is the most")
    shape = tuple(file.number("<Q") for _ in range(n_axes))
    kind, offset = file.number("<I"), file.number("<Q")
    if kind not in _DTYPES:
        raise ArtifactError(f"{file.where}: {name!r:.80} is of ggml type {kind}; F32 (0) and F16 (1) are read")
    return name, offset, shape, kind


def _tensor(file: _Bytes, start: int, shape: tuple[int, ...], kind: int) -> NDArray[np.float32]:
    n = 1
    for size in shape:
        n *= size
    file.at = min(start, len(file.data))
    own = file.take(n * _DTYPES[kind].itemsize)
    return np.frombuffer(own, dtype=_DTYPES[kind]).astype(np.float32).reshape(shape[::-1])


def gguf_bytes(facts: Mapping[str, str | int], tensors: Mapping[str, NDArray[np.float32]]) -> bytes:
    """A version 3 file of texts, whole numbers and F32 tensors. The same values are the same bytes."""
    head = [_MAGIC, struct.pack("<IQQ", 3, len(tensors), len(facts))]
    for key, value in facts.items():
        kind = struct.pack("<I", _STRING if isinstance(value, str) else _U32)
        head += [_text(key), kind, _text(value) if isinstance(value, str) else struct.pack("<I", value)]
    body, offset = [], 0
    for name, tensor in tensors.items():
        own = np.ascontiguousarray(tensor, dtype="<f4").tobytes()
        shape = tensor.shape[::-1]
        head.append(_text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, _F32, offset))
        padding = -len(own) % _ALIGNMENT
        body.append(own + b"\0" * padding)
        offset += len(own) + padding
    front = b"".join(head)
    return front + b"\0" * (-len(front) % _ALIGNMENT) + b"".join(body)


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data
