"""One part of the tokens through the dictionary: its codes by token, and the same entries by latent for the index."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray

from mohole.catalogue.codes import Codes
from mohole.catalogue.commits import commit
from mohole.catalogue.layout import codes_file
from mohole.catalogue.sources import Sources
from mohole.dictionary import Dictionary
from mohole.errors import NumericsError
from mohole.storage import open_storage
from mohole.store import Store
from mohole.store.commits import is_committed
from mohole.store.latent_index import Entries, EntryIds, write_run
from mohole.tensors import open_tensors, tensor_bytes

Int64 = NDArray[np.int64]

ENCODE, RUNS, SAMPLE_FILE = "encode", "runs", "sample.safetensors"
_NUMBERS_AT_ONCE = 1 << 22  # pre-activations
_ROWS_AT_ONCE = 8192


@dataclass(frozen=True)
class EncodeTask:
    """Encode the tokens `first` to before `last` of the sample."""

    name: str
    number: int
    sources: Sources
    first: int
    last: int
    ids: EntryIds
    cell_bits: int
    out: str


def run_encode(task: EncodeTask) -> None:
    """In a worker: encode a part and commit it; nothing where that is done already."""
    out = open_storage(task.out)
    if is_committed(out, ENCODE, task.name):
        return
    assert out.local is not None
    tokens = np.array(open_tensors(out.local / SAMPLE_FILE)["tokens"][task.first : task.last])
    codes = encode(task.sources.dictionary(), task.sources.store(), tokens)
    data = tensor_bytes(codes._asdict())
    out.put(codes_file(task.number), data)
    latents, counts = np.unique(codes.latents, return_counts=True)
    counted = f"{RUNS}/{task.name}.counts"
    out.put(
        counted,
        tensor_bytes({"latents": latents.astype(np.int64), "counts": counts.astype(np.int64)}),
    )
    run = write_run(
        out.folder(RUNS),
        f"{task.name}.safetensors",
        Entries(codes.latents.astype(np.int64), codes.entry_tokens, codes.values),
        task.ids,
        task.cell_bits,
    )
    made: dict[str, Any] = {"n_rows": len(tokens), "n_entries": len(codes.values), "n_bytes": len(data)}
    made |= {"digest": xxhash.xxh3_128_hexdigest(data), "run": run.as_json()}
    commit(out, ENCODE, task.name, made, [codes_file(task.number), counted, f"{RUNS}/{run.name}"])
    out.close()


@torch.no_grad()
def encode(dictionary: Dictionary, store: Store, tokens: Int64) -> Codes:
    """The codes of these tokens, ascending. Always cut alike: a product's rounding may depend on the batch.

    Raises:
        NumericsError: a row holds NaN or infinity; its token is named.
    """
    chunk = max(256, min(_ROWS_AT_ONCE, _NUMBERS_AT_ONCE // dictionary.n_latents))
    n_read = _ROWS_AT_ONCE // chunk * chunk  # a read of few rows costs as much as one of many
    n_active, latents, values = [], [], []
    for first in range(0, len(tokens), n_read):
        rows = torch.from_numpy(store.take(dictionary.hookpoint, tokens[first : first + n_read]))
        if not bool(rows.isfinite().all()):
            token = tokens[first + int((~rows.isfinite().all(1)).nonzero()[0, 0])]
            raise NumericsError(f"{dictionary.hookpoint}: the row of token {token} is not finite; harvest it again")
        for start in range(0, len(rows), chunk):
            codes = dictionary.encode(rows[start : start + chunk])
            n_active.append(codes.n_active.numpy())
            latents.append(codes.latents.numpy().astype(np.int32))
            values.append(codes.values.numpy().astype(np.float32))
    row_starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.concatenate(n_active), dtype=np.int64)])
    return Codes(tokens, row_starts, np.concatenate(latents), np.concatenate(values))
