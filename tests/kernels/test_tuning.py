"""A tile changes no bits; the fastest is found, remembered, and a damaged memory of it is said and done without."""

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from tests.kernels.laws import draw

from mohole.kernels import HAS_NUMBA, HAS_TRITON
from mohole.kernels.pairs import Pairs
from mohole.kernels.tuning import cache_file, fastest, kernel_versions

ENCODERS = ("top_k", "batch_top", "above")


def codes(kernels: ModuleType, name: str, tile: Any, dtype: torch.dtype = torch.float32, *, steps: int = 0) -> Pairs:
    """Over more than a tile and a block of columns.

    Args:
        steps: numbers are small whole ones, so many columns a 2^-9 of those before: sums of so many columns are exact and those
            of more are not, so that the order of sums is that of blocks, whatever a product does within one. 0: real numbers.
    """
    rows, W_enc, b_enc = draw(21, 90, seed=0), draw(300, 90, seed=1), draw(300, seed=2)
    if steps:
        rows, W_enc = (3 * rows).round().clamp(-7, 7), (3 * W_enc).round().clamp(-7, 7)
        W_enc *= 2.0 ** (-9 * (torch.arange(90) // steps))
        b_enc.zero_()
    rows, W_enc = rows.to(dtype), W_enc.to(dtype)
    last = torch.full((300,), 9.0) if name == "above" else 7 if name == "top_k" else 99
    found: Pairs = getattr(kernels, name)(rows, W_enc, b_enc, last, kernels.Scratch(tile))
    return found


def same(one: Pairs, other: Pairs) -> bool:
    return all(torch.equal(each, getattr(other, name)) for name, each in vars(one).items())


@pytest.mark.skipif(not HAS_TRITON, reason="needs triton: pip install 'mohole[gpu]'")
@pytest.mark.parametrize(
    ("name", "dtype"),
    [("top_k", torch.float32), ("top_k", torch.bfloat16), ("batch_top", torch.float32), ("above", torch.bfloat16)],
)
def test_all_tiles_of_a_device_find_the_same_bits(gpu: ModuleType, name: str, dtype: torch.dtype) -> None:
    tiles = gpu.tiles(dtype, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    assert len(set(tiles)) == len(tiles) > 2
    assert len({tile.columns for tile in tiles}) == 1
    # numpy, which multiplies for the interpreter, sums in an order of its own for every shape.
    steps = 0 if torch.cuda.is_available() else tiles[0].columns
    found = [codes(gpu, name, tile, dtype, steps=steps) for tile in (None, *tiles)]
    assert len(found[0].values) > 90
    assert all(same(each, found[0]) for each in found)
    if steps:
        other = codes(gpu, name, replace(tiles[0], columns=2 * steps), dtype, steps=steps)
        assert not torch.equal(other.values, found[0].values)


@pytest.mark.skipif(not HAS_TRITON, reason="needs triton: pip install 'mohole[gpu]'")
def test_screened_codes_do_not_depend_on_the_tile_of_the_screen(gpu: ModuleType) -> None:
    from mohole.kernels.gpu_screen import Screen

    rows, W_enc, b_enc = draw(21, 90, seed=0), draw(200, 90, seed=1), draw(200, seed=2)
    tiles = gpu.tiles(torch.float16, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    found = [Screen().top_k(rows, W_enc, b_enc, 7, gpu.Scratch(tile)) for tile in (tiles[0], tiles[1], tiles[-1])]
    assert all(same(each, found[0]) for each in found)


@pytest.mark.skipif(not HAS_NUMBA, reason="needs numba")
@pytest.mark.parametrize("name", ENCODERS)
def test_all_tiles_of_a_cpu_find_the_same_bits(name: str) -> None:
    """With widths a tenth of those that are tried, so that there are several tiles."""
    from mohole.kernels import cpu

    assert cpu.tiles(torch.float32, torch.device("cpu"))[0] == cpu.Scratch().tile
    found = [codes(cpu, name, tile) for tile in (2048, 128, 256)]
    assert all(same(each, found[0]) for each in found)


def some_codes(latent: int = 3) -> Pairs:
    return Pairs(torch.tensor([0, 1]), torch.tensor([latent], dtype=torch.int32), torch.ones(1))


class Machine:
    """Encodes in tiles that take so many seconds each; its clock stands still otherwise."""

    def __init__(self, seconds: dict[str, float], found: Callable[[str], Pairs] = lambda tile: some_codes()) -> None:
        self.now, self.n_encoded, self.seconds, self.found = 0.0, 0, seconds, found

    def encode(self, tile: str) -> Pairs:
        self.n_encoded += 1
        self.now += self.seconds[tile]
        return self.found(tile)

    def choose(self, file: Path, **key: Any) -> tuple[str, str]:
        return fastest(self.encode, list(self.seconds), {"rows": 8} | key, lambda: self.now, file)


def test_the_fastest_tile_is_chosen_and_remembered(tmp_path: Path) -> None:
    machine, file = Machine({"wide": 2.0, "small": 1.5, "odd": 1.8}), tmp_path / "made" / "tiles.json"
    assert machine.choose(file) == ("small", "tile: small, 0.75 of the time in the usual one, the best of 3 measured")
    assert [path.name for path in file.parent.iterdir()] == ["tiles.json"]
    n_encoded = machine.n_encoded
    assert machine.choose(file) == ("small", f"tile: small, as was measured before ({file})")
    assert machine.n_encoded == n_encoded
    machine.seconds["odd"] = 0.1
    assert machine.choose(file, rows=9)[0] == "odd"  # another shape is measured anew, and both are remembered
    assert (machine.choose(file)[0], machine.choose(file, rows=9)[0]) == ("small", "odd")


def test_the_usual_tile_is_left_for_what_is_worth_it_only(tmp_path: Path) -> None:
    chosen, line = Machine({"wide": 1.0, "small": 0.98}).choose(tmp_path / "tiles.json")
    assert (chosen, line) == ("wide", "tile: wide, the usual one, the best of 2 measured")


def test_other_work_on_the_machine_only_slows(tmp_path: Path) -> None:
    """The least time of each tile counts: here every second encoding of the faster one is slow."""
    machine, turns = Machine({"wide": 1.0, "small": 0.5}), count()
    quick = machine.encode

    def encode(tile: str) -> Pairs:
        machine.now += 9.0 * (tile == "small" and next(turns) % 2)
        return quick(tile)

    machine.encode = encode  # type: ignore[method-assign]
    assert machine.choose(tmp_path / "tiles.json")[0] == "small"


def test_a_tile_that_finds_other_bits_is_left_out(tmp_path: Path) -> None:
    machine = Machine({"wide": 1.0, "small": 0.1}, lambda tile: some_codes(3 if tile == "wide" else 4))
    chosen, line = machine.choose(tmp_path / "tiles.json")
    assert chosen == "wide"
    assert line.endswith("; without small: it finds other bits")


def test_a_tile_that_the_device_has_no_room_for_is_left_out(tmp_path: Path) -> None:
    def found(tile: str) -> Pairs:
        if tile == "small":
            raise MemoryError("out of resource: shared memory\nRequired: 9")
        return some_codes()

    chosen, line = Machine({"wide": 1.0, "small": 0.1}, found).choose(tmp_path / "tiles.json")
    assert chosen == "wide"
    assert line.endswith("; without small: out of resource: shared memory")


@pytest.mark.parametrize("damage", ["", '{"half', "[1, 2]", '{"a": 3}', "\x00\xff"])
def test_a_damaged_memory_is_said_and_written_anew(tmp_path: Path, damage: str) -> None:
    machine, file = Machine({"wide": 2.0, "small": 1.0}), tmp_path / "tiles.json"
    file.write_bytes(damage.encode("latin-1"))
    chosen, line = machine.choose(file)
    assert chosen == "small"
    assert f"; {file} could not be read (" in line
    assert machine.choose(file) == ("small", f"tile: small, as was measured before ({file})")


def test_a_remembered_tile_that_there_is_no_more_is_measured_anew(tmp_path: Path) -> None:
    file = tmp_path / "tiles.json"
    Machine({"wide": 2.0, "small": 1.0}).choose(file)
    assert Machine({"wide": 2.0, "tiny": 1.0}).choose(file)[0] == "tiny"


def test_a_memory_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    chosen, line = Machine({"wide": 2.0, "small": 1.0}).choose(tmp_path / "cache" / "tiles.json")
    assert chosen == "small"
    assert "; it is not remembered: " in line


def test_where_choices_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_file() == tmp_path / "mohole" / "tiles.json"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for given in ("", "relative"):  # which the standard says to ignore
        monkeypatch.setenv("XDG_CACHE_HOME", given)
        assert cache_file() == tmp_path / "home" / ".cache" / "mohole" / "tiles.json"


def test_choices_are_of_one_version() -> None:
    assert {"mohole", "torch"} <= json.loads(json.dumps(kernel_versions())).keys()
