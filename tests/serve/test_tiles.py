"""Tiles of the map: every point once, a fair sample at every level, never too many at once, whatever the map looks like."""

import numpy as np
import pytest
from numpy.typing import NDArray

from mohole.serve.tiles import FIRST, LEVELS, MOST, TILE_COLUMNS, Tile, Tiles, tile_bytes, tile_columns

N = 40_000


def cloud(kind: str) -> NDArray[np.float32]:
    draw = np.random.default_rng(3)
    even = draw.uniform(-3, 5, (N, 2))
    match kind:
        case "clusters":
            even = draw.normal(0, 0.02, (N, 2)) + draw.uniform(-1, 1, (12, 2))[draw.integers(0, 12, N)]
        case "one place":
            even[: N // 2] = 1.25
        case "lonely corners":  # whose points no level above the last one has
            even = even / 100 - 9
            even[[20, 21, 22]] = [[9, 9], [9, -9], [-9, 9]]
        case "a line":
            even[:, 1] = 7
    return even.astype(np.float32)


def tiles_of(xy: NDArray[np.float32]) -> Tiles:
    latents = np.arange(len(xy))
    return Tiles(tile_columns(xy, latents / N, latents / (2 * N), (latents % 7 - 1).astype(np.int32)))


def walk(tiles: Tiles, z: int = 0, x: int = 0, y: int = 0) -> list[tuple[tuple[int, int, int], Tile]]:
    """All tiles, as a reader finds them."""
    tile = tiles.tile(z, x, y)
    below = [(z + 1, 2 * x + i, 2 * y + j) for i in (0, 1) for j in (0, 1)] if tile.n_below else []
    return [((z, x, y), tile), *(each for place in below for each in walk(tiles, *place))]


@pytest.mark.parametrize("kind", ["even", "clusters", "one place", "lonely corners", "a line"])
def test_every_point_is_in_one_tile_inside_its_square(kind: str) -> None:
    xy = cloud(kind)
    xy[[5, 17]] = np.nan
    tiles = tiles_of(xy)
    found = walk(tiles)
    latents = np.concatenate([tile.columns["latent"] for _, tile in found])
    assert np.sort(latents).tolist() == [i for i in range(N) if i not in (5, 17)]
    (left, bottom), side = tiles.corner, tiles.side
    n_of = {}
    for (z, x, y), tile in found:
        n_of[z, x, y] = len(tile.columns["latent"])
        assert n_of[z, x, y] <= MOST or z == LEVELS - 1
        across, here = side / 2**z, tile.columns["latent"]
        np.testing.assert_array_equal(np.stack([tile.columns["x"], tile.columns["y"]], 1), xy[here])
        loose = 1e-5 * side
        assert (np.abs(xy[here] - [left + (x + 0.5) * across, bottom + (y + 0.5) * across]) <= across / 2 + loose).all()
        np.testing.assert_allclose(tile.columns["f1"], here / (2 * N), rtol=1e-6)
        assert tile.columns["family"].tolist() == (here % 7 - 1).tolist()
    for (z, x, y), tile in found:
        under = sum(
            n for (deeper, i, j), n in n_of.items() if deeper > z and (i >> (deeper - z), j >> (deeper - z)) == (x, y)
        )
        assert tile.n_below == under
    shown = np.cumsum([sum(n for (z, _, _), n in n_of.items() if z == level) for level in range(len(tiles.shares))])
    assert tiles.shares == pytest.approx((shown / (N - 2)).tolist())
    assert tiles.shares[-1] == 1


def test_a_level_with_those_above_it_is_a_fair_sample() -> None:
    """As many of any part as chance would give it: within four standard deviations, where no tile is full."""
    xy = cloud("even")
    xy[: N // 4] /= 3  # a denser middle
    found = walk(tiles_of(xy))
    shown = np.concatenate([tile.columns["latent"] for (z, _, _), tile in found if z <= 0])
    assert len(shown) == FIRST
    middle = (np.abs(xy) < 0.8).all(1)
    expected, share = FIRST * middle.mean(), middle.mean()
    assert abs(middle[shown].sum() - expected) < 4 * np.sqrt(FIRST * share * (1 - share))
    half = shown < N / 2
    assert abs(half.mean() - 0.5) < 4 * 0.5 / np.sqrt(FIRST), "not the first latents"


def test_the_choice_is_of_the_latent_and_not_of_its_neighbours() -> None:
    """The same latents come first when the map is turned upside down."""
    xy = cloud("even")
    first, other = (tiles_of(each).tile(0, 0, 0).columns["latent"].tolist() for each in (xy, -xy))
    assert first == other


def test_places_and_bytes() -> None:
    xy = cloud("even")
    xy[9] = np.inf
    tiles = tiles_of(xy)
    here = tiles.places(np.array([4, 9, N - 1]))
    assert here == [tuple(xy[4].tolist()), None, tuple(xy[N - 1].tolist())]
    tile = tiles.tile(1, 0, 1)
    data = tile_bytes(tile)
    n, n_below = np.frombuffer(data, "<i4", 2)
    assert (n, n_below) == (len(tile.columns["latent"]), tile.n_below)
    assert len(data) == 8 + 4 * len(TILE_COLUMNS) * n
    assert np.frombuffer(data, "<f4", n, 8 + 4 * n).tolist() == tile.columns["x"].tolist()


@pytest.mark.parametrize("n", [0, 1])
def test_a_map_of_nothing_and_of_one(n: int) -> None:
    tiles = Tiles(tile_columns(np.zeros((n, 2), np.float32), np.zeros(n), np.zeros(n), np.zeros(n, np.int32)))
    tile = tiles.tile(0, 0, 0)
    assert (len(tile.columns["x"]), tile.n_below) == (n, 0)
    assert np.isnan(tile.columns["log10_density"]).all(), "a dead latent's"
    assert tile_bytes(tiles.tile(3, 1, 1)) == bytes(8)
