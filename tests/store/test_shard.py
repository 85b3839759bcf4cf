"""One shard: any safetensors reader opens it, any range of keys comes back, and no changed byte goes unseen."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file
from tests.store.worlds import flip, make_documents

from mohole.errors import DamageError
from mohole.storage import Storage, open_storage
from mohole.store import Order, RowFormat
from mohole.store.cells import Cells
from mohole.store.columns import RowType
from mohole.store.fingerprint import Fingerprint
from mohole.store.shard import Shard, ShardFacts, total
from mohole.store.shard_writer import sorted_places, write_shard
from mohole.store.verify import verify_shard

NAME = "shards/runs/embed/000000.safetensors"
DOCUMENTS = make_documents(30)
ORDER = Order.random(DOCUMENTS, seed=5)


def sorted_rows(n_rows: int, cells: Cells, width: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Random keys in the range, random rows."""
    draw = np.random.default_rng(seed)
    low, high = cells.first << (64 - cells.bits), (cells.first + cells.count) << (64 - cells.bits)
    keys = draw.integers(low, high - 1, n_rows, dtype=np.uint64, endpoint=True)
    key_token = np.stack([keys, draw.permutation(n_rows).astype(np.uint64)], axis=1)
    return key_token[sorted_places(key_token)], draw.standard_normal((n_rows, width)).astype(np.float32)


def write(
    place: Storage, key_token: np.ndarray, rows: np.ndarray, cells: Cells, dtype: RowType = "float32"
) -> ShardFacts:
    row_format = RowFormat(dtype, rows.shape[1])
    stored, _ = row_format.encode(rows)
    return write_shard(place, NAME, row_format, cells, key_token, lambda start, stop: stored[start:stop])


def real_shard(folder: Path, *, n_rows: int = 200, bits: int = 3) -> ShardFacts:
    """A shard of the world's own keys."""
    tokens = np.arange(n_rows)
    key_token = np.stack([ORDER.keys(tokens, DOCUMENTS), tokens.astype(np.uint64)], axis=1)
    key_token = key_token[sorted_places(key_token)]
    rows = np.random.default_rng(0).standard_normal((n_rows, 3)).astype(np.float32)
    return write(open_storage(folder), key_token, rows, Cells.everything(bits))


def prove(folder: Path, facts: ShardFacts) -> None:
    verify_shard(open_storage(folder), facts, RowFormat("float32", 3), ORDER, DOCUMENTS)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("n_rows", [0, 1, 255, 256, 1000])
def test_the_safetensors_library_reads_it_and_both_columns_are_aligned(
    tmp_path: Path, dtype: RowType, n_rows: int
) -> None:
    cells = Cells.everything(4)
    key_token, rows = sorted_rows(n_rows, cells)
    facts = write(open_storage(tmp_path), key_token, rows, cells, dtype)
    file = tmp_path / NAME
    assert file.stat().st_size == facts.n_bytes
    with safe_open(file, framework="pt") as opened:
        assert opened.metadata() == {"mohole": "shard 1", "bits": "4", "first": "0"}
        assert {"key_token", "rows", "cell_starts"} <= set(opened.keys())
    tensors = load_file(file)
    np.testing.assert_array_equal(tensors["key_token"].numpy().view(np.uint64), key_token)
    expected = torch.from_numpy(rows).to(
        {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(dtype, torch.float32)
    )
    assert torch.equal(tensors["rows"], expected)
    data = file.read_bytes()
    header_bytes = 8 + int.from_bytes(data[:8], "little")
    assert header_bytes % 4096 == 0
    if n_rows:
        assert data[header_bytes : header_bytes + 16 * n_rows] == key_token.tobytes()
        stored = RowFormat(dtype, 3).encode(rows)[0].tobytes()
        places = range(header_bytes, len(data), 4096)
        assert any(data[place : place + len(stored)] == stored for place in places)


@st.composite
def shards(draw: st.DrawFn) -> tuple[Cells, Cells, int, int]:
    bits = draw(st.integers(0, 6))
    first = draw(st.integers(0, 2**bits - 1))
    own = Cells(bits, first, draw(st.integers(1, 2**bits - first)))
    wanted_bits = draw(st.integers(0, bits))
    low = draw(st.integers(0, 2**wanted_bits - 1))
    wanted = Cells(wanted_bits, low, draw(st.integers(1, 2**wanted_bits - low)))
    return own, wanted, draw(st.integers(0, 300)), draw(st.integers(0, 99))


@settings(max_examples=50)
@given(shards())
def test_any_range_of_keys_comes_back_with_its_fingerprint(tmp_path_factory: pytest.TempPathFactory, drawn) -> None:
    own, wanted, n_rows, seed = drawn
    storage = open_storage(tmp_path_factory.mktemp("shard"))
    key_token, rows = sorted_rows(n_rows, own, seed=seed)
    shard = Shard(storage, write(storage, key_token, rows, own), RowFormat("float32", 3))
    in_range = (key_token[:, 0] >= np.uint64(wanted.first << (64 - wanted.bits))) & np.array(
        [int(key) < (wanted.first + wanted.count) << (64 - wanted.bits) for key in key_token[:, 0]], dtype=bool
    )
    read = shard.read(wanted)
    np.testing.assert_array_equal(read.key_token, key_token[in_range])
    np.testing.assert_array_equal(read.stored.view(np.float32).reshape(-1, 3), rows[in_range])
    part = shard.part(wanted)
    assert part.n_rows == in_range.sum()
    for room_rows in (1, 40):  # a cell that is larger than the room, and many cells in it
        pieces = [(first, piece.copy()) for first, piece in part.pieces(np.empty((room_rows, 12), dtype=np.uint8))]
        assert [first for first, _ in pieces] == np.cumsum([0, *(len(piece) for _, piece in pieces)])[:-1].tolist()
        np.testing.assert_array_equal(np.concatenate([read.stored[:0], *(piece for _, piece in pieces)]), read.stored)
    assert sum((shard.part(part).fingerprint for part in own.split(5)), Fingerprint()) == shard.facts.fingerprint
    assert total([shard.facts]) == shard.facts.fingerprint
    tokens = key_token[:, 1]
    assert (shard.facts.first_token, shard.facts.last_token) == ((tokens.min(), tokens.max()) if n_rows else (0, -1))


def test_a_flipped_byte_anywhere_is_found_and_the_shard_is_named(tmp_path: Path) -> None:
    """Every 97th byte and both ends of every part, the zeros between the parts too."""
    facts = real_shard(tmp_path)
    file = tmp_path / NAME
    header = 8 + int.from_bytes(file.read_bytes()[:8], "little")
    parts = [(0, header), (header, 200 * 16), (header + 4096, 200 * 12), (header + 8192, facts.n_bytes - header - 8192)]
    places = {place for place in range(0, facts.n_bytes, 97)}
    places |= {edge for start, size in parts for edge in (start, start + size - 1)}
    prove(tmp_path, facts)
    for place in sorted(places):
        flip(file, place)
        with pytest.raises(DamageError, match=NAME) as caught:
            prove(tmp_path, facts)
        assert caught.value.name == NAME
        flip(file, place)
    prove(tmp_path, facts)


@pytest.mark.parametrize("n_lost", [1, 500, 10_000])
def test_a_shard_that_is_cut_short_is_named(tmp_path: Path, n_lost: int) -> None:
    facts = real_shard(tmp_path)
    data = (tmp_path / NAME).read_bytes()
    (tmp_path / NAME).write_bytes(data[:-n_lost])
    with pytest.raises(DamageError, match=NAME):
        prove(tmp_path, facts)


def test_a_shard_that_is_gone_or_empty_or_another_is_named(tmp_path: Path) -> None:
    facts, other = real_shard(tmp_path / "a"), real_shard(tmp_path / "b", n_rows=199)
    (tmp_path / "b" / NAME).write_bytes(b"")
    with pytest.raises(DamageError, match=NAME):
        prove(tmp_path / "b", other)
    (tmp_path / "b" / NAME).unlink()
    with pytest.raises(DamageError, match=NAME):
        prove(tmp_path / "b", other)
    shutil.copy(tmp_path / "a" / NAME, tmp_path / "b" / NAME)
    with pytest.raises(DamageError, match=NAME):
        prove(tmp_path / "b", other)
    prove(tmp_path / "b", facts)


def test_damage_is_found_by_whoever_reads_it_and_not_by_others(tmp_path: Path) -> None:
    facts = real_shard(tmp_path)
    storage, row_format = open_storage(tmp_path), RowFormat("float32", 3)
    shard = Shard(storage, facts, row_format)
    row = int(shard.starts[5])
    flip(tmp_path / NAME, 4096 + 4096 + 12 * row + 1)
    spoiled = Shard(storage, facts, row_format)
    spoiled.read(Cells(3, 0, 5))
    spoiled.stored_at(np.arange(row))
    spoiled.key_token()
    with pytest.raises(DamageError, match="cell 5"):
        spoiled.read(Cells(3, 5, 1))
    with pytest.raises(DamageError, match="cell 5"):
        spoiled.stored_at(np.array([row]))
    flip(tmp_path / NAME, 4096 + 16 * row)
    with pytest.raises(DamageError, match="cell 5"):
        Shard(storage, facts, row_format).places_of(np.zeros(1, np.uint64), np.zeros(1, np.int64))


def test_equal_keys_stand_by_token_and_each_is_found(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    key_token = np.stack(
        [draw.integers(0, 4, 40).astype(np.uint64) << np.uint64(62), draw.permutation(40).astype(np.uint64)], 1
    )
    places = sorted_places(key_token)
    key_token = key_token[places]
    assert [tuple(line) for line in key_token.tolist()] == sorted(map(tuple, key_token.tolist()))
    rows = key_token[:, 1:].astype(np.float32) * np.ones((1, 3), np.float32)
    storage = open_storage(tmp_path)
    shard = Shard(storage, write(storage, key_token, rows, Cells.everything(2)), RowFormat("float32", 3))
    asked = draw.permutation(40)
    found, is_there = shard.places_of(key_token[asked, 0], key_token[asked, 1].astype(np.int64))
    assert is_there.all()
    np.testing.assert_array_equal(found, asked)
    _, is_there = shard.places_of(key_token[:, 0], key_token[:, 1].astype(np.int64) + 100)
    assert not is_there.any()


def test_a_shard_without_rows_has_none(tmp_path: Path) -> None:
    storage, cells = open_storage(tmp_path), Cells(4, 3, 2)
    facts = write(storage, np.zeros((0, 2), np.uint64), np.zeros((0, 3), np.float32), cells)
    shard = Shard(storage, facts, RowFormat("float32", 3))
    assert (facts.n_rows, shard.read(Cells.everything()).key_token.shape) == (0, (0, 2))
    assert not shard.places_of(np.zeros(2, np.uint64), np.zeros(2, np.int64))[1].any()
    prove(tmp_path, facts)


def test_a_large_shard_is_written_in_pieces_that_leave_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = Cells.everything(6)
    key_token, rows = sorted_rows(500, cells)
    whole = write(open_storage(tmp_path / "a"), key_token, rows, cells)
    monkeypatch.setattr("mohole.store.shard_writer.BLOCK_BYTES", 200)
    asked: list[tuple[int, int]] = []
    stored, _ = RowFormat("float32", 3).encode(rows)

    def given_rows(start: int, stop: int) -> np.ndarray:
        asked.append((start, stop))
        return stored[start:stop]

    pieces = write_shard(open_storage(tmp_path / "b"), NAME, RowFormat("float32", 3), cells, key_token, given_rows)
    assert len(asked) > 20
    assert pieces == whole
    assert (tmp_path / "a" / NAME).read_bytes() == (tmp_path / "b" / NAME).read_bytes()


def test_a_shard_in_memory_reads_like_one_in_a_folder() -> None:
    storage, cells = open_storage("memory://shard-test"), Cells.everything(3)
    key_token, rows = sorted_rows(90, cells)
    shard = Shard(storage, write(storage, key_token, rows, cells), RowFormat("float32", 3))
    np.testing.assert_array_equal(shard.key_token(), key_token)
    places = np.array([5, 80, 5])
    np.testing.assert_array_equal(shard.stored_at(places).view(np.float32), rows[places])


def test_facts_are_read_back_from_json(tmp_path: Path) -> None:
    facts = real_shard(tmp_path)
    assert ShardFacts.from_json(facts.as_json()) == facts
