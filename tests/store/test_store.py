"""A store gives back what was written, in any order of writing, and is a plain safetensors file."""

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch

from mohole import artifact
from mohole.errors import ArtifactError, HookpointError, NumericsError
from mohole.store import Store, StoreWriter

N = 100
TOKENS = np.arange(N) * 3 + 7
HELD_OUT = np.arange(N) % 4 == 1
ROWS = {
    name: np.random.default_rng(i).normal(size=(N, d)).astype(np.float32)
    for i, (name, d) in enumerate((("resid_post.0", 5), ("mlp_out.1", 3)))
}


def write(path: Path, batches: list[tuple[int, int]], *, dtype: str = "float32", kind: str = "activations") -> Store:
    widths = {name: rows.shape[1] for name, rows in ROWS.items()}
    with (
        artifact.create(path, artifact.Inputs(kind=kind, config={}, seed=0)) as draft,
        StoreWriter(draft, TOKENS, HELD_OUT, widths, dtype) as writer,
    ):
        for start, stop in batches:
            for name, rows in ROWS.items():
                writer.write(name, start, rows[start:stop])
    return Store.open(path)


def test_what_was_written_is_read_in_slices_and_at_random(tmp_path: Path) -> None:
    store = write(tmp_path / "s", [(0, N)])
    assert (store.n_rows, store.hookpoints, store.dtype) == (N, ("resid_post.0", "mlp_out.1"), "float32")
    np.testing.assert_array_equal(store.tokens, TOKENS)
    np.testing.assert_array_equal(store.held_out, HELD_OUT)
    places = np.array([99, 0, 5, 5, 42])
    for name, rows in ROWS.items():
        assert store.d_model(name) == rows.shape[1]
        assert torch.equal(store.rows(name, 10, 20), torch.from_numpy(rows[10:20]))
        assert torch.equal(store.rows(name, 95, 200), torch.from_numpy(rows[95:]))  # a slice ends where the store ends
        assert torch.equal(store.take(name, places), torch.from_numpy(rows[places]))
        np.testing.assert_array_equal(store.take_raw(name, places), rows[places])


def test_the_batches_it_was_written_in_leave_no_trace(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole", [(0, N)])
    pieces = write(tmp_path / "pieces", [(60, 100), (0, 1), (1, 30), (30, 60)])
    for file in ("rows.safetensors", "manifest.json"):
        assert (whole.path / file).read_bytes() == (pieces.path / file).read_bytes()


def test_the_safetensors_library_reads_the_file(tmp_path: Path) -> None:
    write(tmp_path / "s", [(0, N)])
    tensors = safetensors.numpy.load_file(tmp_path / "s" / "rows.safetensors")
    assert set(tensors) == {"token", "held_out", "rows.resid_post.0", "rows.mlp_out.1"}
    np.testing.assert_array_equal(tensors["token"], TOKENS)
    np.testing.assert_array_equal(tensors["held_out"].astype(bool), HELD_OUT)
    np.testing.assert_array_equal(tensors["rows.mlp_out.1"], ROWS["mlp_out.1"])


def test_half_precision_rows_are_read_as_float32_near_what_was_written(tmp_path: Path) -> None:
    store = write(tmp_path / "s", [(0, N)], dtype="float16")
    rows = store.rows("mlp_out.1", 0, N)
    assert (store.dtype, rows.dtype) == ("float16", torch.float32)
    np.testing.assert_allclose(rows.numpy(), ROWS["mlp_out.1"], rtol=2**-10)


def test_a_hookpoint_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    store = write(tmp_path / "s", [(0, N)])
    with pytest.raises(HookpointError, match=r"resid_post.9: not in .*s; it has resid_post.0, mlp_out.1"):
        store.rows("resid_post.9", 0, 1)


def test_a_damaged_or_foreign_store_is_named(tmp_path: Path) -> None:
    file = write(tmp_path / "cut", [(0, N)]).path / "rows.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(ArtifactError, match=r"cut/rows.safetensors"):
        Store.open(tmp_path / "cut")
    file = write(tmp_path / "flipped", [(0, N)]).path / "rows.safetensors"
    data = bytearray(file.read_bytes())
    data[-200] ^= 1
    file.write_bytes(data)
    with pytest.raises(ArtifactError, match=r"flipped/rows.safetensors"):
        Store.open(tmp_path / "flipped")
    with artifact.create(tmp_path / "corpus", artifact.Inputs(kind="corpus", config={}, seed=0)) as draft:
        (draft / "x").write_text("x")
    with pytest.raises(ArtifactError, match=r"corpus: holds 'corpus', not activations"):
        Store.open(tmp_path / "corpus")


def test_a_writer_that_is_interrupted_leaves_no_store(tmp_path: Path) -> None:
    def interrupted() -> None:
        with (
            artifact.create(tmp_path / "s", artifact.Inputs(kind="activations", config={}, seed=0)) as draft,
            StoreWriter(draft, TOKENS, HELD_OUT, {"resid_post.0": 5}, "float32") as writer,
        ):
            writer.write("resid_post.0", 0, ROWS["resid_post.0"][:10])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not (tmp_path / "s").exists()


def test_a_value_that_float16_cannot_hold_is_refused_where_it_is_met(tmp_path: Path) -> None:
    rows = ROWS["resid_post.0"].copy()
    rows[7, 2] = 70_000.0

    def overflow() -> None:
        with (
            artifact.create(tmp_path / "s", artifact.Inputs(kind="activations", config={}, seed=0)) as draft,
            StoreWriter(draft, TOKENS, HELD_OUT, {"resid_post.0": 5}, "float16") as writer,
        ):
            writer.write("resid_post.0", 0, rows)

    with pytest.raises(NumericsError, match=r"resid_post.0: 7e\+04 does not fit float16, .*harvest.dtype = .float32"):
        overflow()
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("batches", [[(0, N - 1)], [(0, 10), (20, N)], []])
def test_a_store_with_rows_that_nobody_wrote_is_not_finished(tmp_path: Path, batches: list[tuple[int, int]]) -> None:
    with pytest.raises(ArtifactError, match=r"resid_post.0: \d+ rows of the store were not written"):
        write(tmp_path / "s", batches)
    assert not (tmp_path / "s").exists()
