"""The map as a quadtree: each point is in exactly one tile, so a view costs what it shows, and a closer one adds to it. Arrays.

Level z cuts the map's square into 2^z x 2^z tiles, numbered from the lower left. A tile of level z holds the points of its square
whose place in a keyed order is among the first FIRST 4^z, and that no level above holds: all levels to z together are then a fair
sample of the map, dense where it is dense. A tile takes MOST of them at most, first come, first served; what it leaves is for the
tiles below it, down to the last level, which takes all.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from mohole.keys import Use, words

FIRST = 4096
"""Points of the first tile."""
MOST = 8192
"""Points of a tile: twice as many as are in the usual one of an evenly covered map, 24 bytes each."""
LEVELS = 16
TILE_COLUMNS = (
    ("latent", "int32"), ("x", "float32"), ("y", "float32"), ("log10_density", "float32"), ("f1", "float32"), ("family", "int32"),
)  # fmt: skip

_SEED = 0


class Tile(NamedTuple):
    """What a tile holds, by TILE_COLUMNS."""

    columns: dict[str, NDArray[Any]]
    n_below: int
    """Points of its square that are in deeper tiles; 0: with the levels above, everything is here."""


def tile_bytes(tile: Tile) -> bytes:
    """How many points are in it and how many below it, as int32; then the columns of `TILE_COLUMNS`. Little-endian."""
    head = np.array([len(tile.columns["latent"]), tile.n_below], dtype="<i4")
    arrays = (tile.columns[name].astype(np.dtype(kind).newbyteorder("<"), copy=False) for name, kind in TILE_COLUMNS)
    return b"".join([head.tobytes(), *(array.tobytes() for array in arrays)])


class Tiles:
    """All tiles of a map."""

    def __init__(self, columns: Mapping[str, NDArray[Any]]) -> None:
        """Args:
        columns: as `tile_columns` gives them, in memory or mapped.
        """
        self._columns = columns
        left, bottom, self.side = columns["square"].tolist()
        self.corner: tuple[float, float] = (left, bottom)
        self.bounds: tuple[float, float, float, float] = tuple(columns["bounds"].tolist())
        """Least x, least y, largest x, largest y."""
        self.shares: tuple[float, ...] = tuple(columns["shares"].tolist())
        """Of all points, how many are shown where all levels to this one are."""

    def tile(self, z: int, x: int, y: int) -> Tile:
        """One tile; nothing is in it where nothing is there."""
        keys = self._columns["keys"]
        key = _key(z, np.int64(x), np.int64(y))
        place = int(np.searchsorted(keys, key))
        is_there = place < len(keys) and int(keys[place]) == key
        first, last = self._columns["starts"][place : place + 2].tolist() if is_there else (0, 0)
        columns = {name: self._columns[name][first:last] for name, _ in TILE_COLUMNS}
        return Tile(columns, int(self._columns["below"][place]) if is_there else 0)

    def places(self, latents: Int[np.ndarray, " latent"]) -> list[tuple[float, float] | None]:
        """Where these lie; None: nowhere."""
        places = self._columns["place"][latents]
        pairs = zip(self._columns["x"][places].tolist(), self._columns["y"][places].tolist(), strict=True)
        return [pair if place >= 0 else None for place, pair in zip(places.tolist(), pairs, strict=True)]


def tile_columns(
    xy: Float[np.ndarray, "latent 2"],
    density: Float[np.ndarray, " latent"],
    f1: Float[np.ndarray, " latent"],
    family: Int[np.ndarray, " latent"],
) -> dict[str, NDArray[Any]]:
    """What `Tiles` reads: points in order of their tiles, each tile's in keyed order. Latents without a place are in none."""
    placed = np.flatnonzero(np.isfinite(xy).all(axis=1))
    placed = placed[np.argsort(words(_SEED, Use.MAP_ORDER, placed), kind="stable")]
    low, high = (xy[placed].min(0), xy[placed].max(0)) if len(placed) else (np.zeros(2), np.zeros(2))
    side = float(np.max(high - low)) or 1.0
    finest = np.clip((xy[placed] - low) / side * (1 << (LEVELS - 1)), 0, (1 << (LEVELS - 1)) - 1).astype(np.int64)
    order, keys, shares, below = _levels(finest)
    tiles = np.unique(np.concatenate([keys, below]))
    by_tile = np.argsort(keys, kind="stable")
    starts = np.searchsorted(keys[by_tile], np.append(tiles, np.iinfo(np.int64).max))
    latents = placed[order[by_tile]]
    place = np.full(len(xy), -1, dtype=np.int32)
    place[latents] = np.arange(len(latents))
    with np.errstate(divide="ignore"):
        log_density = np.log10(density[latents])
    return {
        "square": np.array([*low, side], dtype=np.float64),
        "bounds": np.array([*low, *high], dtype=np.float64),
        "shares": np.array(shares),
        "keys": tiles,
        "starts": starts,
        "below": np.bincount(np.searchsorted(tiles, below), minlength=len(tiles)),
        "place": place,
        "latent": latents.astype(np.int32),
        "x": xy[latents, 0].astype(np.float32),
        "y": xy[latents, 1].astype(np.float32),
        "log10_density": np.where(np.isneginf(log_density), np.nan, log_density).astype(np.float32),
        "f1": f1[latents].astype(np.float32),
        "family": family[latents].astype(np.int32),
    }


def _levels(
    finest: Int[np.ndarray, "point 2"],
) -> tuple[NDArray[np.int64], NDArray[np.int64], list[float], NDArray[np.int64]]:
    """Points of each level in turn, and their tiles' keys; the share that is shown to each level; and, once for each level
    above its own, the tile that a point lies below.

    Args:
        finest: cells of the last level, points in keyed order.
    """
    n, rest = len(finest), np.arange(len(finest))
    order, keys, below, shares = [rest[:0]], [rest[:0]], [rest[:0]], []
    for z in range(LEVELS):
        tile = _key(z, *(finest[rest] >> (LEVELS - 1 - z)).T)
        n_candidates = len(rest) if z == LEVELS - 1 else int(np.searchsorted(rest, min(n, FIRST * 4**z)))
        is_taken = np.zeros(len(rest), dtype=np.bool_)
        most = n if z == LEVELS - 1 else MOST
        is_taken[:n_candidates] = _rank_in_tile(tile[:n_candidates]) < most
        order.append(rest[is_taken])
        keys.append(tile[is_taken])
        rest = rest[~is_taken]
        shares.append(1 - len(rest) / max(n, 1))
        if not len(rest):
            break
        below.append(tile[~is_taken])
    return np.concatenate(order), np.concatenate(keys), shares, np.concatenate(below)


def _rank_in_tile(tile: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many with the same number stand before each."""
    order = np.argsort(tile, kind="stable")
    first = np.searchsorted(tile[order], tile[order])
    rank = np.empty(len(tile), dtype=np.int64)
    rank[order] = np.arange(len(tile)) - first
    return rank


def _key(z: int, x: Any, y: Any) -> Any:
    return (np.int64(z) << 40) | (y << 20) | x
