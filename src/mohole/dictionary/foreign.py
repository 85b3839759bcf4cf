"""Files that somebody else wrote, read with suspicion: settings value by value, tensors name by name and shape by shape.

Nothing is ever unpickled beyond tensors and plain values, no name in a file is followed out of its folder, and whatever is not
as its format says is refused with the file, the value and the next step. What is wrong with one file must not be a traceback.
"""

import json
import pickle
import struct
import sys
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mohole.dictionary.laws import fits_float32, is_text
from mohole.errors import ArtifactError
from mohole.visible import visible

_SETTINGS_BYTES = 1 << 24
_UNPACKED_BYTES = 1 << 30
_UNPACKED_RATIO = 100
"""An archive that says it holds a hundred times its own size is not weights."""
_UNREADABLE = (
    OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, AssertionError, SyntaxError,
    MemoryError, ArithmeticError, struct.error,
)  # fmt: skip
"""What numpy's and PyTorch's readers raise for bytes that are none of theirs; each was seen, or stands in their code."""
_MOST = 1 << 40
"""Of anything that is counted here. More is nobody's, and not every number beyond fits where it goes."""
AGAIN = "fetch it again, or ask who made it"


class Settings:
    """A table of a JSON or YAML file; each value is asked for with the type that it must have."""

    def __init__(self, path: Path, values: Mapping[str, Any], prefix: str = "") -> None:
        self.path, self.values, self._prefix = path, values, prefix

    def __contains__(self, key: str) -> bool:
        return self.values.get(key) is not None

    def text(self, key: str, default: str | None = None) -> str:
        """A string. Raises: ArtifactError: another type, or missing where there is no default."""
        value = self._get(key, default)
        if not isinstance(value, str) or not is_text(value):
            raise self.wrong(key, "a text is needed")
        return value

    def whole(self, key: str) -> int:
        """A number of things, at least 1. Raises: ArtifactError: anything else."""
        value = self._get(key, None)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not _is_count(value):
            raise self.wrong(key, "a whole number of at least 1 is needed")
        return int(value)

    def wholes(self, key: str) -> list[int]:
        """A list of numbers of things. Raises: ArtifactError: anything else."""
        value = self._get(key, None)
        if not isinstance(value, list) or not all(map(_is_count, value)):
            raise self.wrong(key, "a list of whole numbers from 1 is needed")
        return value

    def number(self, key: str) -> float:
        """A positive finite number. Raises: ArtifactError: anything else."""
        value = self._get(key, None)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= sys.float_info.max:
            raise self.wrong(key, "a number above 0 is needed")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        """True or false. Raises: ArtifactError: another type."""
        value = self._get(key, default)
        if not isinstance(value, bool):
            raise self.wrong(key, "true or false is needed")
        return value

    def texts(self, key: str) -> list[str]:
        """A list of strings. Raises: ArtifactError: anything else."""
        value = self._get(key, None)
        if not isinstance(value, list) or not all(map(is_text, value)):
            raise self.wrong(key, "a list of texts is needed")
        return value

    def table(self, key: str) -> "Settings":
        """A table inside this one; an empty one where it is missing. Raises: ArtifactError: another type."""
        value = self._get(key, {})
        if not isinstance(value, dict):
            raise self.wrong(key, "a table is needed")
        return Settings(self.path, value, f"{self._prefix}{key}.")

    def wrong(self, key: str, why: str) -> ArtifactError:
        """The error that says what is wrong with a value."""
        return ArtifactError(f"{self.path}: {self._prefix}{key}: {short(self.values.get(key))}; {why}")

    def _get(self, key: str, default: Any) -> Any:
        value = self.values.get(key)
        return default if value is None else value


class Weights:
    """The tensors of one file. Axes are named by letters, and a letter has one size in all of them: `take("W_enc", "D F")`.

    Raises:
        ArtifactError: one of them is no plain table of numbers that stand in the file.
    """

    def __init__(self, path: Path, tensors: Mapping[str, Any], sizes: dict[str, int] | None = None) -> None:
        self.path, self.sizes = path, {} if sizes is None else sizes
        self._left = dict(tensors)
        for name, found in self._left.items():
            if isinstance(found, Tensor) and not is_plain(found):
                raise ArtifactError(
                    f"{path}: {visible(str(name))[:80]}: a tensor without a number of its own for each place; save it dense, "
                    "then ask again"
                )

    def __contains__(self, name: str) -> bool:
        return name in self._left

    def take(self, name: str, axes: str) -> Tensor:
        """A tensor in float32 (float64 stays). Raises: ArtifactError: missing, of another shape, not numbers, not finite in
        float32."""
        if name not in self._left:
            held = ", ".join(map(short, sorted(map(str, self._left))[:12]))
            raise ArtifactError(f"{self.path}: has no tensor {name} (it has {held or 'none'}); {AGAIN}")
        found = self._left.pop(name)
        if not isinstance(found, Tensor):
            raise ArtifactError(f"{self.path}: {name}: {short(found)}, where a tensor is needed; {AGAIN}")
        self._check_shape(name, found, axes.split())
        tensor = found if found.dtype == torch.float64 else found.float()
        if not fits_float32(tensor):
            finite = bool(torch.isfinite(tensor).all())
            what = "holds numbers too large for float32" if finite else "holds NaN or infinity"
            raise ArtifactError(f"{self.path}: {name}: {what}; such weights mean nothing, {AGAIN}")
        return tensor

    def value(self, name: str) -> Any:
        """Something that is no tensor, or a tensor of one number as a plain one; None where it is missing."""
        found = self.peek(name)
        self._left.pop(name, None)
        return found

    def peek(self, name: str) -> Any:
        """As `value`, and it may be asked for again."""
        found = self._left.get(name)
        return found.item() if isinstance(found, Tensor) and found.numel() == 1 else found

    def ignore(self, *names: str) -> None:
        """Tensors that do not matter to what the dictionary computes."""
        for name in names:
            self._left.pop(name, None)

    def finish(self) -> None:
        """Raises: ArtifactError: something was not asked for: a part of a function that would silently be another one."""
        if self._left:
            raise ArtifactError(
                f"{self.path}: holds {short(sorted(map(str, self._left))[0])}, which its format does not have; "
                "without it the numbers could be wrong, so it is not loaded"
            )

    def _check_shape(self, name: str, found: Tensor, axes: list[str]) -> None:
        if not (found.is_floating_point() or found.dtype in (torch.int32, torch.int64)):
            raise ArtifactError(f"{self.path}: {name}: numbers of type {found.dtype}, where floats are needed; {AGAIN}")
        shape = tuple(found.shape)
        if len(shape) == len(axes) and 0 not in shape:
            for axis, size in zip(axes, shape, strict=True):
                self.sizes.setdefault(axis, size)
        wanted = tuple(self.sizes.get(axis) for axis in axes)
        if shape != wanted:
            words = ", ".join(f"{axis} {size or 'of any size but 0'}" for axis, size in zip(axes, wanted, strict=True))
            raise ArtifactError(f"{self.path}: {name}: shape {list(shape)}, where ({words}) is needed; {AGAIN}")


def read_json_settings(path: Path) -> Settings:
    """A file that must hold one JSON object. Raises: ArtifactError: it does not."""
    try:
        return Settings(path, _object(path, json.loads(_small(path))))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise ArtifactError(f"{path}: not readable JSON ({_first_line(error)}); {AGAIN}") from None


def read_yaml_settings(path: Path) -> Settings:
    """A file that must hold one YAML table of plain values. Raises: ArtifactError: it does not."""
    try:
        return Settings(path, _object(path, yaml.safe_load(_small(path))))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise ArtifactError(f"{path}: not readable YAML of plain values ({_first_line(error)}); {AGAIN}") from None


def read_weights(path: Path, sizes: dict[str, int] | None = None) -> Weights:
    """All tensors of a `.safetensors`, `.npz` or `.pt` file. Of a `.pt`, tensors and plain values only: no code is run.

    Raises:
        ArtifactError: missing, truncated, of another kind, or with a pickle that asks for more.
    """
    if not path.is_file():
        raise ArtifactError(f"{path}: no such file; {AGAIN}")
    match path.suffix:
        case ".safetensors":
            tensors = load_safetensors(path)
        case ".npz":
            tensors = _npz(path)
        case ".pt" | ".pth" | ".th" | ".bin":
            tensors = _torch(path)
        case other:
            raise ArtifactError(f"{path}: weights in a {other or 'nameless'} file; .safetensors, .npz and .pt are read")
    return Weights(path, tensors, sizes)


def inside(folder: Path, name: str, where: Path) -> Path:
    """The file that a name in `where` means, inside `folder`. Raises: ArtifactError: the name leads out of it."""
    path = Path(name)
    if not name or path.is_absolute() or ".." in path.parts or "\x00" in name or "://" in name or "\\" in name:
        raise ArtifactError(
            f"{where}: names {short(name)}, which leads out of its folder; copy that file into {folder}"
        )
    return folder / path


def load_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        ArtifactError: it cannot be read.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise ArtifactError(f"{path}: not a readable safetensors file ({_first_line(error)}); {AGAIN}") from None


def _npz(path: Path) -> dict[str, Tensor]:
    try:
        with zipfile.ZipFile(path) as archive:
            n_bytes = sum(entry.file_size for entry in archive.infolist())
        if n_bytes > max(_UNPACKED_BYTES, _UNPACKED_RATIO * path.stat().st_size):
            raise ArtifactError(f"{path}: unpacks to {n_bytes} bytes, which no weights do; it is not loaded")
        with np.load(path, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(np.asarray(arrays[name])) for name in arrays.files}
    except (zipfile.BadZipFile, zlib.error, *_UNREADABLE) as error:
        raise ArtifactError(f"{path}: not a readable .npz file of numbers ({_first_line(error)}); {AGAIN}") from None


def _torch(path: Path) -> dict[str, Any]:
    return dict(_object(path, load_torch(path)))


def load_torch(path: Path) -> Any:
    """What a PyTorch file holds: tensors and plain values, or it is not loaded.

    Raises:
        ArtifactError: its pickle asks for more, or it cannot be read.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # of a pickle's protocol; what it holds is what matters
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ArtifactError(
            f"{path}: its pickle asks for more than tensors and plain values, so it could run code; "
            "it is not loaded: ask for a safetensors file"
        ) from None
    except _UNREADABLE as error:
        raise ArtifactError(f"{path}: not a readable PyTorch file ({_first_line(error)}); {AGAIN}") from None


def _small(path: Path) -> str:
    if not path.is_file():
        raise ArtifactError(f"{path}: no such file; {AGAIN}")
    if path.stat().st_size > _SETTINGS_BYTES:
        raise ArtifactError(
            f"{path}: {path.stat().st_size} bytes of settings; more than {_SETTINGS_BYTES} are not read"
        )
    return path.read_text(encoding="utf-8")


def _object(path: Path, loaded: Any) -> Mapping[str, Any]:
    if not isinstance(loaded, dict) or not all(isinstance(key, str) for key in loaded):
        raise ArtifactError(f"{path}: holds {short(loaded)}, where a table of names is needed; {AGAIN}")
    return loaded


def short(value: Any) -> str:
    """A value from a file, for an error: on one line, and not much of it."""
    match value:
        case Tensor():
            text = f"a tensor of shape {list(value.shape)}"
        case dict() | list():
            text = f"{type(value).__name__} of {len(value)}"
        case int() if value.bit_length() > 1 << 10:  # Python refuses to print those of thousands of digits
            text = f"a number of {value.bit_length()} bits"
        case _:
            text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _MOST


def is_plain(tensor: Tensor) -> bool:
    """Not sparse, nested or without numbers, and not more numbers than its file holds: what is stretched is out of one."""
    if tensor.is_nested or tensor.layout != torch.strided or tensor.is_meta:
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
