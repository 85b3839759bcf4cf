"""A store's rows as plain tables for other tools. Which document and position a row belongs to is written out beside it."""

import shutil
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mohole.errors import ArtifactError, ConfigError
from mohole.progress import track
from mohole.store.columns import RowFormat
from mohole.store.shard import Rows
from mohole.store.store import Store
from mohole.tensors import write_tensors

ExportFormat = Literal["parquet", "safetensors"]


def export(store: Store, out: Path, to: ExportFormat) -> int:
    """Write every shard as one file `HOOKPOINT-NUMBER.EXT` into the new folder `out`, rows in float32. Returns their number.

    The folder appears when all of them are whole.

    Columns: `token` (its index in the corpus), `document`, `position` (in the document), `held_out`, `row` [row, d].

    Raises:
        ArtifactError: the folder is there already, or a shard is damaged.
        ConfigError: pyarrow is not installed.
    """
    if to == "parquet":
        _require_pyarrow()
    if out.exists():
        raise ArtifactError(f"{out}: already there; name another folder")
    draft = out.parent / f".{out.name}.partial"
    shutil.rmtree(draft, ignore_errors=True)  # left by one that was killed
    draft.mkdir(parents=True)
    try:
        n_files = _write_all(store, draft, to)
        draft.rename(out)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return n_files


def _write_all(store: Store, folder: Path, to: ExportFormat) -> int:
    n_files = 0
    with track("export", store.n_rows * len(store.hookpoints), "rows") as tracker:
        for hookpoint in store.hookpoints:
            for number, shard in enumerate(store.shards(hookpoint)):
                table = _table(store, store.facts.formats[hookpoint], shard.read(shard.facts.cells))
                path = folder / f"{hookpoint}-{number:06}.{to}"
                if to == "parquet":
                    _write_parquet(path, table)
                else:
                    write_tensors(path, table)
                n_files += 1
                tracker.advance(shard.n_rows)
    return n_files


def _table(store: Store, row_format: RowFormat, rows: Rows) -> dict[str, NDArray[Any]]:
    tokens = rows.key_token[:, 1].astype(np.int64)
    document = store.documents.of(tokens)
    return {
        "token": tokens,
        "document": document,
        "position": tokens - store.documents.starts[document],
        "held_out": store.documents.held_out[document],
        "row": row_format.decode(rows.stored),
    }


def _write_parquet(path: Path, table: dict[str, NDArray[Any]]) -> None:
    import pyarrow
    import pyarrow.parquet

    values = np.ascontiguousarray(table["row"])
    columns = {name: pyarrow.array(column) for name, column in table.items() if name != "row"}
    columns["row"] = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(values.reshape(-1)), values.shape[1])
    pyarrow.parquet.write_table(pyarrow.table(columns), path)


def _require_pyarrow() -> None:
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise ConfigError("--to parquet: pyarrow is not installed; pip install 'mohole[parquet]'") from None
