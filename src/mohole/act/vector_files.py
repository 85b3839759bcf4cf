"""Files of directions, read and written: safetensors, GGUF control vectors, `.pt` of persona vectors and of refusal directions.

Whichever row of a file is which place in the model is written nowhere in most of them, and every library counts otherwise:

    GGUF       direction.N        what block N puts out: resid_post.N        llama.cpp refuses N = 0
    persona    [layers + 1, d]    row r is transformers' hidden_states[r]: row 0 resid_pre.0, row r resid_post.(r-1); the last row
                                  is behind the final norm, so no direction of the stream, and is left out
    refusal    [positions, layers, d]    what goes into block l: resid_pre.l, one for each of the prompt's last tokens

So a direction has its hookpoint by name from the moment it is read, and what mohole writes says it.
"""

import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mohole.act.direction import Direction
from mohole.act.gguf import gguf_bytes, read_gguf
from mohole.dictionary.foreign import is_plain, load_safetensors, load_torch
from mohole.errors import ArtifactError, ConfigError, HookpointError
from mohole.model.hookpoints import parse_hookpoint
from mohole.tensors import header_bytes
from mohole.visible import visible

_MOST_BYTES = 1 << 30
_FORMAT = "mohole.directions"


def read_directions(
    path: Path | str, *, name: str | None = None, hookpoint: str | None = None
) -> tuple[Direction, ...]:
    """Every direction of a file, each with its hookpoint.

    Args:
        name: what they are to be called. None: as in the file, else as the file.
        hookpoint: of a file that holds a single row of numbers and does not say.

    Raises:
        ArtifactError: missing, damaged, a pickle of more than tensors, or not one of the formats above.
        ConfigError: a single row that does not say its hookpoint, or numbers that are none.
    """
    path = Path(path)
    if not path.is_file():
        raise ArtifactError(f"{path}: no such file; .safetensors, .gguf and .pt files of directions are read")
    if path.stat().st_size > _MOST_BYTES:
        raise ArtifactError(f"{path}: {path.stat().st_size} bytes; no file of directions is larger than {_MOST_BYTES}")
    match path.suffix:
        case ".safetensors":
            found = _safetensors(path, hookpoint)
        case ".gguf":
            found = _gguf(path)
        case ".pt" | ".pth":
            found = _torch(path, hookpoint)
        case _:
            raise ArtifactError(f"{path}: {path.suffix or 'no ending'}; .safetensors, .gguf and .pt are read")
    if not found:
        raise ArtifactError(f"{path}: no direction in it; one that is all 0 is none")
    own = name or path.stem
    return tuple(
        Direction(at, vector.float(), own if name or not said else said, f"read from {path.name}{why}")
        for at, said, vector, why in found
    )


def write_directions(
    path: Path | str, directions: Sequence[Direction], *, model: str = "unknown", n_layers: int = 0
) -> None:
    """Write directions of one name, at one or more hookpoints, as the file's ending says.

    Args:
        model, n_layers: what llama.cpp is told a control vector is for.

    Raises:
        ConfigError: none, several names, a hookpoint twice, or one that the format has no place for.
    """
    path = Path(path)
    at = [each.hookpoint for each in directions]
    if not directions or len(set(at)) != len(at) or len({each.name for each in directions}) != 1:
        raise ConfigError(f"{path}: one name and each hookpoint once is needed; got {', '.join(at) or 'no direction'}")
    match path.suffix:
        case ".safetensors":
            path.write_bytes(_safetensors_bytes(directions))
        case ".gguf":
            path.write_bytes(_gguf_bytes(directions, model, n_layers))
        case _:
            raise ConfigError(f"{path}: {path.suffix or 'no ending'}; .safetensors and .gguf are written")


_Found = list[tuple[str, str, Tensor, str]]
"""Hookpoint, name in the file, vector, what to add to the origin."""


def _safetensors(path: Path, hookpoint: str | None) -> _Found:
    rows, facts = load_safetensors(path), _metadata(path.read_bytes())
    if len(rows) == 1 and hookpoint is not None:
        rows = {hookpoint: next(iter(rows.values()))}
    found = []
    for key, row in rows.items():
        try:
            at = str(parse_hookpoint(key))
        except HookpointError:
            raise ArtifactError(
                f"{path}: {visible(key)[:80]} is no hookpoint, so nobody knows where the row belongs; name the tensors after "
                "their hookpoints, such as resid_post.3, or say it for a file of one"
            ) from None
        found.append((at, facts.get("name", ""), row, f"; {facts['origin']}" if facts.get("origin") else ""))
    return found


def _metadata(data: bytes) -> dict[str, str]:
    """What mohole wrote beside the numbers; nothing of another's."""
    (length,) = struct.unpack("<Q", data[:8])
    raw = json.loads(data[8 : 8 + length]).get("__metadata__", {})
    if not isinstance(raw, dict) or raw.get("format") != _FORMAT:
        return {}
    return {key: visible(str(raw.get(key, "")))[:200] for key in ("name", "origin")}


def _safetensors_bytes(directions: Sequence[Direction]) -> bytes:
    header: dict[str, Any] = {
        "__metadata__": {"format": _FORMAT, "name": directions[0].name, "origin": directions[0].origin}
    }
    parts, start = [], 0
    for each in directions:
        own = each.vector.detach().cpu().float().numpy().astype("<f4").tobytes()
        offsets = [start, start + len(own)]
        header[each.hookpoint] = {"dtype": "F32", "shape": [len(each.vector)], "data_offsets": offsets}
        parts.append(own)
        start += len(own)
    return header_bytes(header) + b"".join(parts)


def _gguf(path: Path) -> _Found:
    facts, tensors = read_gguf(path.read_bytes(), str(path))
    if facts.get("general.architecture") != "controlvector":
        what = visible(str(facts.get("general.architecture")))[:80]
        raise ArtifactError(f"{path}: a GGUF file of {what}, not a control vector")
    found = []
    for key, array in tensors.items():
        kind, _, layer = key.partition(".")
        if kind != "direction" or not layer.isascii() or not layer.isdecimal() or array.ndim != 1:
            raise ArtifactError(
                f"{path}: {visible(key)[:80]} of shape {list(array.shape)}; direction.N of one axis is needed"
            )
        at, said = f"resid_post.{int(layer)}", facts.get(f"mohole.hookpoint.{int(layer)}")
        if said not in (None, at):
            raise ArtifactError(
                f"{path}: {key} says that it is of {visible(str(said))[:40]}, and its number that it is of {at}"
            )
        if array.any():  # repeng fills layers it has none for with zeros
            found.append((at, str(facts.get("mohole.name", "")), torch.from_numpy(array), ""))
    return found


def _gguf_bytes(directions: Sequence[Direction], model: str, n_layers: int) -> bytes:
    layers: dict[int, Direction] = {}
    for each in directions:
        point = parse_hookpoint(each.hookpoint)
        if point.kind == "resid_pre" and point.layer:
            layer = point.layer - 1  # the same vector
        elif point.kind == "resid_post" and point.layer:
            layer = point.layer
        else:
            raise ConfigError(
                f"{each.hookpoint}: a control vector has places for what blocks 1 and on put out (resid_post.1, ...), as "
                "llama.cpp reads it; write .safetensors"
            )
        if layer < 1 or layer in layers:
            raise ConfigError(f"{each.hookpoint}: block {layer} has no place, or has one already; write .safetensors")
        layers[layer] = each
    facts: dict[str, str | int] = {
        "general.architecture": "controlvector",
        "controlvector.model_hint": model,
        "controlvector.layer_count": n_layers or max(layers) + 1,
        "mohole.name": directions[0].name,
    }
    facts |= {f"mohole.hookpoint.{layer}": f"resid_post.{layer}" for layer in sorted(layers)}
    return gguf_bytes(
        facts, {f"direction.{layer}": layers[layer].vector.detach().cpu().float().numpy() for layer in sorted(layers)}
    )


def _torch(path: Path, hookpoint: str | None) -> _Found:
    loaded = load_torch(path)
    if not isinstance(loaded, Tensor) or not is_plain(loaded) or not loaded.is_floating_point() or loaded.numel() == 0:
        raise ArtifactError(f"{path}: holds {type(loaded).__name__}, where one tensor of numbers is needed")
    match loaded.ndim:
        case 1:
            return [(_said(path, hookpoint), "", loaded, "")]
        case 2:
            names = ["resid_pre.0", *(f"resid_post.{row}" for row in range(len(loaded) - 2))]
            rows = zip(names, loaded, strict=False)  # without the last, which is behind the final norm
            return [(at, "", row, f", row {number}") for number, (at, row) in enumerate(rows) if bool(row.any())]
        case 3:
            n = len(loaded)
            return [
                (f"resid_pre.{layer}", f"{path.stem}[{position - n}]", row, f", position {position - n}")
                for position, layers in enumerate(loaded)
                for layer, row in enumerate(layers)
                if bool(row.any())
            ]
        case _:
            raise ArtifactError(
                f"{path}: shape {list(loaded.shape)}; [d], [layers + 1, d] (persona), [positions, layers, d] (refusal) are read"
            )


def _said(path: Path, hookpoint: str | None) -> str:
    """Of a single row: as given, or as the refusal code writes it in direction_metadata.json beside it."""
    if hookpoint is not None:
        return str(parse_hookpoint(hookpoint))
    beside = path.with_name("direction_metadata.json")
    if path.stem == "direction" and beside.is_file():
        try:
            layer = json.loads(beside.read_text(encoding="utf-8"))["layer"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ArtifactError(
                f"{beside}: does not say the layer ({type(error).__name__}); give the hookpoint"
            ) from None
        if isinstance(layer, int) and layer >= 0:
            return f"resid_pre.{layer}"
    raise ConfigError(
        f"{path}: one row of numbers, and it does not say of which hookpoint; give it, such as resid_post.12"
    )
