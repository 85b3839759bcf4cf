"""Answers about the map: how to read it, all of it at once, a tile of it, single places. What tiles are is told in tiles.py."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mohole.serve.errors import Refusal
from mohole.serve.relations import places_of
from mohole.serve.runs import OpenHookpoint
from mohole.serve.shapes import MapFacts, MapPlace, TileFacts
from mohole.serve.tiles import LEVELS, MOST, TILE_COLUMNS, Tiles, tile_bytes, tile_columns

MAP_COLUMNS = TILE_COLUMNS[1:]
WHOLE_TO = 50_000
"""Latents to which a map is asked for at once: a megabyte, and one request where tiles were twenty."""


def map_facts(place: OpenHookpoint) -> MapFacts:
    n = place.catalogue.n_latents
    if n <= WHOLE_TO:
        xy = _places(place)
        known = xy[np.isfinite(xy).all(1)]
        low, high = (known.min(0), known.max(0)) if len(known) else (np.zeros(2), np.zeros(2))
        return MapFacts(n=n, bounds=(*map(float, (*low, *high)),), columns=MAP_COLUMNS, tiles=None)  # type: ignore[arg-type]
    tiles = _tiles(place)
    facts = TileFacts(columns=TILE_COLUMNS, square=(*tiles.corner, tiles.side), shares=tiles.shares, most=MOST)  # type: ignore[arg-type]
    return MapFacts(n=n, bounds=tiles.bounds, columns=MAP_COLUMNS, tiles=facts)  # type: ignore[arg-type]


def map_points(place: OpenHookpoint) -> list[bytes]:
    """The columns of `MAP_COLUMNS`, little-endian. NaN: a dead latent's density, an F1 there is not."""
    xy, columns = _places(place), place.columns
    with np.errstate(divide="ignore"):
        density = np.log10(place.catalogue.density)
    density[np.isneginf(density)] = np.nan
    f1 = columns.f1_with(place.by_hand)
    arrays = ((xy[:, 0], "<f4"), (xy[:, 1], "<f4"), (density, "<f4"), (f1, "<f4"), (_families(place), "<i4"))
    return [np.ascontiguousarray(array, dtype=dtype).tobytes() for array, dtype in arrays]


def map_tile(place: OpenHookpoint, z: int, x: int, y: int) -> bytes:
    """As `tile_bytes`; a label by hand has no F1.

    Raises:
        Refusal: no map has such a tile.
    """
    if z >= LEVELS or max(x, y) >= 2**z:
        raise Refusal(
            404,
            f"{place.name}: tile {z}/{x}/{y}: there is none of this number",
            f"z is 0 to {LEVELS - 1}, x and y below 2^z",
        )
    tile = _tiles(place).tile(z, x, y)
    if people := place.by_hand:
        is_by_hand = np.isin(tile.columns["latent"], list(people))
        tile = tile._replace(
            columns=tile.columns | {"f1": np.where(is_by_hand, np.float32(np.nan), tile.columns["f1"])}
        )
    return tile_bytes(tile)


def map_places(place: OpenHookpoint, latents: Sequence[int]) -> list[MapPlace]:
    """Where these latents lie; those that lie nowhere are left out."""
    found = _tiles(place).places(np.array([place.need(latent) for latent in latents], dtype=np.int64))
    pairs = zip(latents, found, strict=True)
    return [MapPlace(latent=latent, x=where[0], y=where[1]) for latent, where in pairs if where is not None]


def _tiles(place: OpenHookpoint) -> Tiles:
    """From the file of them, made with the first request."""

    def make() -> dict[str, NDArray[np.generic]]:
        return tile_columns(_places(place), place.catalogue.density, place.columns.f1, _families(place))

    if place.tiles is None:
        made_from = [place.catalogue.manifest.digest, place.columns.made_from]
        place.tiles = Tiles(place.kept.arrays("map", made_from, make))
    return place.tiles


def _families(place: OpenHookpoint) -> NDArray[np.int32]:
    families = place.columns.families
    return np.full(place.catalogue.n_latents, -1, dtype=np.int32) if families is None else families


def _places(place: OpenHookpoint) -> NDArray[np.float32]:
    xy = places_of(place.catalogue)
    if xy is None:
        raise Refusal(404, f"{place.name}: its catalogue has no map", "`mohole catalogue RECIPE --replace` makes one")
    return xy
