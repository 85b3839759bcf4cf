"""Safetensors files are those of the safetensors library, and a damaged one is an error that names it."""

import contextlib
import struct
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from mohole.errors import ArtifactError
from mohole.tensors import open_tensors, tensors_from_bytes, write_tensors

SOME = {
    "a": np.arange(12, dtype=np.float32).reshape(3, 4),
    "b": np.array([1, -2, 3]),
    "c": np.array([True, False]),
    "empty": np.zeros((0, 4), dtype=np.float16),
    "scalar": np.array(2.5),
    "u8": np.arange(7, dtype=np.uint8),
}


def check(read: dict[str, np.ndarray], written: dict[str, np.ndarray]) -> None:
    assert read.keys() == written.keys()
    for name, array in written.items():
        assert read[name].dtype == array.dtype, name
        np.testing.assert_array_equal(read[name], array)


def test_the_library_reads_what_is_written_here_and_the_other_way(tmp_path: Path) -> None:
    write_tensors(tmp_path / "ours", SOME)
    check(safetensors.numpy.load_file(tmp_path / "ours"), SOME)
    check(open_tensors(tmp_path / "ours"), SOME)
    safetensors.numpy.save_file(SOME, tmp_path / "theirs", metadata={"format": "np"})
    check(open_tensors(tmp_path / "theirs"), SOME)


def test_the_same_arrays_are_the_same_bytes_in_any_order(tmp_path: Path) -> None:
    write_tensors(tmp_path / "x", SOME)
    write_tensors(tmp_path / "y", dict(reversed(SOME.items())))
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()


def test_arrays_are_mapped_read_only_and_aligned(tmp_path: Path) -> None:
    write_tensors(tmp_path / "x", SOME)
    array = open_tensors(tmp_path / "x")["a"]
    assert isinstance(array, np.memmap)
    assert array.flags.aligned
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1.0


def test_strided_arrays_are_written_as_they_look(tmp_path: Path) -> None:
    turned = {"t": SOME["a"].T, "every other": np.arange(10.0)[::2]}
    write_tensors(tmp_path / "x", turned)
    check(safetensors.numpy.load_file(tmp_path / "x"), turned)


def test_a_file_cut_anywhere_is_named(tmp_path: Path) -> None:
    write_tensors(tmp_path / "x", SOME)
    whole = (tmp_path / "x").read_bytes()
    cut = tmp_path / "cut.safetensors"
    for n_bytes in range(0, len(whole), 7):
        cut.write_bytes(whole[:n_bytes])
        with pytest.raises(ArtifactError, match=r"cut.safetensors: (truncated|not a readable)"):
            open_tensors(cut)


def test_numbers_before_the_first_are_not_read(tmp_path: Path) -> None:
    header = b'{"a": {"dtype": "U8", "shape": [8], "data_offsets": [-8, 0]}}'
    (tmp_path / "x").write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(ArtifactError, match=r"x: truncated, or its sizes disagree; delete"):
        open_tensors(tmp_path / "x")
    for shape, ends in (("8", "-8, 0"), ("-1", "8, 0"), ("-1", "0, 8"), ("-2, -4", "0, 8"), ("2", "0, 1")):
        header = f'{{"a": {{"dtype": "U8", "shape": [{shape}], "data_offsets": [{ends}]}}}}'.encode()
        with pytest.raises(ArtifactError, match=r"there: not a readable safetensors file"):
            tensors_from_bytes(struct.pack("<Q", len(header)) + header + bytes(range(8)), "there")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"rows.safetensors: no such file"):
        open_tensors(tmp_path / "rows.safetensors")


@pytest.mark.parametrize(
    "header",
    [
        b"[]",
        b"{",
        b"\xff\xfe",
        b'{"a": 3}',
        b'{"a": {"dtype": "F128", "shape": [], "data_offsets": [0, 0]}}',
        b"[" * 100_000,
        b"9" * 10_000,
        b'{"a": {"dtype": "F32", "shape": [%d], "data_offsets": [0, 0]}}' % 2**70,
    ],
)
def test_a_header_that_makes_no_sense_is_an_error_of_ours(tmp_path: Path, header: bytes) -> None:
    (tmp_path / "x").write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(ArtifactError, match=r"x: not a readable safetensors file; delete"):
        open_tensors(tmp_path / "x")
    with pytest.raises(ArtifactError, match=r"there: not a readable safetensors file"):
        tensors_from_bytes((tmp_path / "x").read_bytes(), "there")


@given(place=st.integers(0, 500), byte=st.integers(0, 255))
def test_no_changed_byte_is_anything_but_a_value_or_an_error_of_ours(
    tmp_path_factory: pytest.TempPathFactory, place: int, byte: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "changed.safetensors"
    write_tensors(path, SOME)
    data = bytearray(path.read_bytes())
    data[place % len(data)] = byte
    path.write_bytes(data)
    with contextlib.suppress(ArtifactError):
        for array in open_tensors(path).values():
            array.sum()
