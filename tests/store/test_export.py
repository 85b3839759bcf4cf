"""Exported tables: each row with its own token, document and place, whichever tool reads them; whole or not there."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import safetensors.numpy
from tests.conftest import exit_status
from tests.store.worlds import make_world, write

from mohole.errors import ArtifactError, DamageError
from mohole.store import Store
from mohole.store.export import export

WORLD = make_world(20, seed=4)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return write(tmp_path / "store", WORLD, shard_rows=32)


def read(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    if path.suffix == ".safetensors":
        return safetensors.numpy.load_file(path)
    table = pyarrow.parquet.read_table(path)
    columns = {name: table[name].to_numpy() for name in table.column_names}
    return columns | {"row": np.stack(columns["row"].tolist())}


@pytest.mark.parametrize("to", ["parquet", "safetensors"])
def test_each_row_stands_with_its_token_document_and_place(store: Store, tmp_path: Path, to: Any) -> None:
    n_files = export(store, tmp_path / "tables", to)
    files = sorted((tmp_path / "tables").iterdir())
    assert len(files) == n_files == sum(len(shards) for shards in store.layout.shards.values())
    documents = store.documents
    for hookpoint in store.hookpoints:
        parts = [read(file) for file in files if file.name.startswith(f"{hookpoint}-")]
        table = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        tokens = table["token"]
        np.testing.assert_array_equal(np.sort(tokens), WORLD.tokens)
        np.testing.assert_array_equal(table["row"], WORLD.rows[hookpoint][np.searchsorted(WORLD.tokens, tokens)])
        starts = documents.starts[table["document"]]
        assert (starts <= tokens).all()
        assert (tokens < documents.starts[table["document"] + 1]).all()
        np.testing.assert_array_equal(table["position"], tokens - starts)
        np.testing.assert_array_equal(table["held_out"], documents.held_out[table["document"]])


def test_a_folder_that_is_there_is_left_alone(store: Store, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "note").write_text("mine")
    with pytest.raises(ArtifactError, match="already there"):
        export(store, tmp_path / "mine", "safetensors")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["note"]


def test_a_damaged_shard_is_named_and_no_part_of_the_tables_is_left(store: Store, tmp_path: Path) -> None:
    last = sorted((tmp_path / "store" / "shards").rglob("*.safetensors"))[-1]
    data = bytearray(last.read_bytes())
    data[4096] ^= 1
    last.write_bytes(data)
    with pytest.raises(DamageError, match=last.name):
        export(store, tmp_path / "tables", "safetensors")
    assert not list(tmp_path.glob("*tables*"))


@pytest.mark.usefixtures("store")
def test_from_the_command_line_the_tables_stand_beside_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_status(monkeypatch, "export", tmp_path / "store", "--to", "parquet") == 0
    assert str(tmp_path / "store-parquet") in capsys.readouterr().out
    assert list((tmp_path / "store-parquet").glob("embed-*.parquet"))
