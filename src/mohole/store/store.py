"""A store: for each row the token it belongs to, and one column of vectors per hookpoint. Reading and writing, no order."""

from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from mohole import artifact
from mohole.errors import ArtifactError, HookpointError, NumericsError
from mohole.tensors import header_bytes, open_tensors

Int64 = NDArray[np.int64]
Bool = NDArray[np.bool_]

ROWS_FILE = "rows.safetensors"


class Store:
    """A finished store of activations, memory-mapped: a slice costs its bytes. Opening reads the file once, to check its hash."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest = artifact.open_artifact(path)
        if self.manifest.kind not in ("activations", "shuffled"):
            raise ArtifactError(f"{path}: holds {self.manifest.kind!r}, not activations")
        self._columns = open_tensors(path / ROWS_FILE)
        self.tokens: Int64 = self._columns["token"]
        """For each row, the global index of its token in the corpus."""
        self.held_out: Bool = self._columns["held_out"].view(np.bool_)
        """For each row: does it come from a held-out document?"""

    @classmethod
    def open(cls, path: Path | str) -> "Store":
        """Open the store at `path`.

        Raises:
            ArtifactError: missing, unfinished, damaged, or of another kind.
        """
        return cls(Path(path))

    @property
    def n_rows(self) -> int:
        return len(self.tokens)

    @property
    def hookpoints(self) -> tuple[str, ...]:
        return tuple(name.removeprefix("rows.") for name in self._columns if name.startswith("rows."))

    @property
    def dtype(self) -> str:
        """What rows are stored in: `float32` or `float16`."""
        return str(self._column(self.hookpoints[0]).dtype)

    def d_model(self, hookpoint: str) -> int:
        return int(self._column(hookpoint).shape[1])

    def rows(self, hookpoint: str, start: int, stop: int) -> Float[Tensor, "row d"]:
        """Rows [start, stop) of a hookpoint in float32, in the store's order."""
        return torch.from_numpy(self._column(hookpoint)[start:stop].astype(np.float32))

    def take(self, hookpoint: str, indices: Int64) -> Float[Tensor, "row d"]:
        """The rows at these places, in this order, in float32. Slower than `rows`: it reads at random."""
        return torch.from_numpy(self._column(hookpoint)[indices].astype(np.float32))

    def take_raw(self, hookpoint: str, indices: Int64) -> NDArray[Any]:
        """As `take`, in the type they are stored in."""
        return self._column(hookpoint)[indices]

    def _column(self, hookpoint: str) -> NDArray[Any]:
        name = f"rows.{hookpoint}"
        if name not in self._columns:
            raise HookpointError(f"{hookpoint}: not in {self.path}; it has {', '.join(self.hookpoints)}")
        return self._columns[name]


class StoreWriter:
    """Writes the file of a store of known size, column by column, batch by batch, without holding it in memory.

    The file is plain safetensors: the header first, then each column at a place known beforehand.
    """

    def __init__(self, out: Path, tokens: Int64, held_out: Bool, widths: dict[str, int], dtype: str) -> None:
        self._dtype = np.dtype(dtype)
        names = {"float32": "F32", "float16": "F16"}
        n_rows = len(tokens)
        header: dict[str, Any] = {}
        offset = 0
        for name, kind, shape, itemsize in (
            ("token", "I64", [n_rows], 8),
            *(
                (f"rows.{hookpoint}", names[dtype], [n_rows, width], self._dtype.itemsize)
                for hookpoint, width in widths.items()
            ),
            ("held_out", "U8", [n_rows], 1),
        ):
            n_bytes = itemsize * int(np.prod(shape, dtype=np.int64))
            header[name] = {"dtype": kind, "shape": shape, "data_offsets": [offset, offset + n_bytes]}
            offset += n_bytes
        head = header_bytes(header)
        self._header, self._first = header, len(head)
        self._n_missing = dict.fromkeys(widths, n_rows)
        self._file: BinaryIO = (out / ROWS_FILE).open("wb")
        self._file.write(head)
        self._file.truncate(self._first + offset)
        self._put("token", 0, tokens.astype(np.int64))
        self._put("held_out", 0, held_out.astype(np.uint8))

    def write(self, hookpoint: str, start: int, rows: NDArray[Any]) -> None:
        """Put rows [start, start + n) of a hookpoint in their place, each row once. Order of calls does not matter.

        Raises:
            NumericsError: a finite value that the store's dtype cannot hold.
        """
        with np.errstate(over="ignore"):  # looked at below, and named
            kept = rows.astype(self._dtype, copy=False)
        if kept.dtype.itemsize < rows.dtype.itemsize and (np.isinf(kept) & np.isfinite(rows)).any():
            raise NumericsError(
                f"{hookpoint}: {np.abs(rows).max():.3g} does not fit {self._dtype}, which ends at "
                f'{np.finfo(self._dtype).max:.3g}; set harvest.dtype = "float32"'
            )
        self._put(f"rows.{hookpoint}", start, kept)
        self._n_missing[hookpoint] -= len(kept)

    def _put(self, name: str, start: int, values: NDArray[Any]) -> None:
        row_bytes = values.nbytes // max(len(values), 1)
        self._file.seek(self._first + self._header[name]["data_offsets"][0] + start * row_bytes)
        self._file.write(np.ascontiguousarray(values).data)

    def __enter__(self) -> "StoreWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        missing = {hookpoint: n for hookpoint, n in self._n_missing.items() if n}
        if error is None and missing:
            hookpoint, n = next(iter(missing.items()))
            raise ArtifactError(f"{hookpoint}: {n} rows of the store were not written; make it again")
