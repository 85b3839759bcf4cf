"""Which tile an encoding is fastest in on this machine: timed once, on the kernel itself, and remembered in the user's cache.

A tile must not change what is found: one that gives other bits than the usual tile is left out, whatever its time. The usual tile
is left only for one that is faster by more than timings of the same thing differ.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from mohole.kernels.pairs import Pairs
from mohole.version import __version__

_ROUNDS = 5
_WORTH = 0.97
"""Of the usual tile's time."""


def cache_file() -> Path:
    """Where choices are remembered: XDG_CACHE_HOME, or .cache in the user's home."""
    folder = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(folder) if Path(folder).is_absolute() else Path.home() / ".cache") / "mohole" / "tiles.json"


def kernel_versions() -> dict[str, str]:
    """Of what the kernels are made with and of."""
    found = {"mohole": __version__, "torch": torch.__version__}
    for name in ("numba", "triton"):
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def fastest(
    encode: Callable[[Any], Pairs],
    tiles: Sequence[Any],
    key: Mapping[str, object],
    clock: Callable[[], float],
    file: Path,
) -> tuple[Any, str]:
    """The tile to encode in, and a line about it for people.

    Args:
        encode: encodes the same rows in a tile.
        tiles: the usual one first; told apart by what `str` makes of them.
        key: all that the choice depends on: machine, versions, shapes.
        clock: of work done, in seconds.
        file: with choices made before. One that cannot be read is written anew, and one that cannot be written is done without;
            the line says so.
    """
    known, trouble = _read(file)
    name = json.dumps(key, sort_keys=True)
    found = known.get(name)
    before = next((tile for tile in tiles if found is not None and str(tile) == found.get("tile")), None)
    if before is not None:
        return before, f"tile: {before}, as was measured before ({file})"
    seconds, left_out = _timed(encode, tiles, clock)
    usual = tiles[0]
    best = min(seconds, key=lambda tile: seconds[tile])
    chosen = best if seconds[best] < _WORTH * seconds[usual] else usual
    milliseconds = {str(tile): round(1000.0 * each, 3) for tile, each in seconds.items()}
    trouble += _write(file, known | {name: {"tile": str(chosen), "ms": milliseconds, "left_out": left_out}})
    share = seconds[chosen] / seconds[usual]
    line = (
        f"tile: {chosen}, {share:.2f} of the time in the usual one"
        if chosen != usual
        else f"tile: {usual}, the usual one"
    )
    omitted = "".join(f"; without {tile}: {why}" for tile, why in left_out.items())
    return chosen, f"{line}, the best of {len(seconds)} measured{omitted}{trouble}"


def _timed(
    encode: Callable[[Any], Pairs], tiles: Sequence[Any], clock: Callable[[], float]
) -> tuple[dict[Any, float], dict[str, str]]:
    """Least seconds of each tile, measured in turns, and those that are left out, with the reason."""
    usual, left_out, seconds = encode(tiles[0]), {}, {tiles[0]: float("inf")}
    for tile in tiles[1:]:
        try:
            found = encode(tile)
        except Exception as error:  # what a device has too little of, every compiler says in its own way
            left_out[str(tile)] = (str(error).splitlines() or [type(error).__name__])[0]
            continue
        if _same(found, usual):
            seconds[tile] = float("inf")
        else:
            left_out[str(tile)] = "it finds other bits"
    for _ in range(_ROUNDS):
        for tile in seconds:
            start = clock()
            encode(tile)
            seconds[tile] = min(seconds[tile], clock() - start)
    return seconds, left_out


def _same(one: Pairs, other: Pairs) -> bool:
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in ("row_starts", "latents", "values"))


def _read(file: Path) -> tuple[dict[str, Any], str]:
    """Choices by key, and what was wrong with the file."""
    try:
        found = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        return {}, ""
    except (OSError, ValueError) as error:
        return {}, f"; {file} could not be read ({error})"
    if not isinstance(found, dict) or not all(isinstance(each, dict) for each in found.values()):
        return {}, f"; {file} could not be read (no choices in it)"
    return found, ""


def _write(file: Path, choices: Mapping[str, Any]) -> str:
    """Replace the file in one move; what went wrong, if anything did."""
    draft = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps(choices, indent=1, sort_keys=True) + "\n", "utf-8")
        os.replace(draft, file)
    except OSError as error:
        with suppress(OSError):
            draft.unlink()
        return f"; it is not remembered: {file} could not be written ({error})"
    return ""
