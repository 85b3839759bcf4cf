"""The inverted index: every entry is found under its latent, none under another, whatever the memory and the skew."""

from pathlib import Path

import numpy as np
import pytest

from mohole.artifact import Inputs
from mohole.errors import ConfigError
from mohole.execute import Cores, open_executor
from mohole.store import Store
from mohole.store.latent_index import Entries, EntryIds, LatentIndex, write_latent_index
from mohole.store.plan import Limits
from mohole.store.verify import verify

INPUTS = Inputs(kind="activations", config={}, seed=0)


def skewed(n_entries: int, ids: EntryIds) -> Entries:
    """Entries of which a few latents have most, as in a trained dictionary; each (latent, token) once."""
    rng = np.random.default_rng(0)
    latents = np.minimum(rng.zipf(1.3, n_entries), ids.n_latents) - 1
    pairs = np.unique(ids.of(latents.astype(np.int64), rng.integers(0, ids.n_tokens, n_entries)))
    latent, token = ids.split(pairs[rng.permutation(len(pairs))])
    return Entries(latent, token, rng.standard_normal(len(pairs)).astype(np.float32))


@pytest.mark.parametrize("memory_bytes", [1 << 30, 200_000])
def test_every_entry_is_under_its_latent(tmp_path: Path, memory_bytes: int) -> None:
    ids = EntryIds(n_latents=300, n_tokens=5000)
    entries = skewed(20_000, ids)
    parts = [
        Entries(*(column[start : start + 3000] for column in entries)) for start in range(0, len(entries.token), 3000)
    ]
    limits = Limits(memory_bytes, segment_bytes=1, cell_bytes=512, process_bytes=0)
    with open_executor("inline", Cores(1, 1)) as executor:
        write_latent_index(tmp_path / "index", parts, ids, executor, limits, inputs=INPUTS)
    store = Store.open(tmp_path / "index")
    assert verify(store).holds
    index = LatentIndex(store.storage, ids)
    assert len(store.layout.shards["value"]) > 1 or memory_bytes > 1_000_000
    for latent in range(ids.n_latents):
        found = index.entries(latent)
        mine = np.flatnonzero(entries.latent == latent)
        mine = mine[np.argsort(entries.token[mine])]
        np.testing.assert_array_equal(found.token, entries.token[mine])
        np.testing.assert_array_equal(found.value, entries.value[mine])


def test_ids_that_do_not_fit_are_refused() -> None:
    EntryIds(1 << 26, 1 << 36)
    with pytest.raises(ConfigError, match="do not fit"):
        EntryIds(1 << 26, (1 << 36) + 1)
