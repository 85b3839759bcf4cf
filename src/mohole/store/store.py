"""A store, opened: what it holds, and the rows of given tokens. A folder or a URL; sorted shards or runs to be merged."""

from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mohole import artifact
from mohole.errors import ArtifactError, DamageError, HookpointError
from mohole.storage import Storage, open_storage
from mohole.store.columns import RowFormat
from mohole.store.listing import (
    CLAIM_FILE,
    DOCUMENTS_FILE,
    FACTS_FILE,
    LAYOUT_FILE,
    Layout,
    StoreFacts,
    read_documents,
    read_facts,
    read_layout,
)
from mohole.store.order import Documents
from mohole.store.shard import Shard

Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]
Bool = NDArray[np.bool_]

KINDS = ("activations", "shuffled")


class Store:
    """A finished store of activations. Rows are read, and checked, when they are asked for."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.manifest = _manifest_of(storage)
        if self.manifest.kind not in KINDS:
            raise ArtifactError(f"{storage.url}: holds {self.manifest.kind!r}, not activations")
        self._check_file(FACTS_FILE)
        self.facts: StoreFacts = read_facts(storage)
        try:
            self.layout: Layout = read_layout(storage)
        except ArtifactError as error:
            raise DamageError(str(error), LAYOUT_FILE, storage.url) from None
        if set(self.layout.shards) != set(self.facts.formats):
            there, expected = ", ".join(self.layout.shards) or "nothing", ", ".join(self.facts.formats)
            raise DamageError(
                f"{storage.url}/{LAYOUT_FILE}: lists shards of {there}, and the store is of {expected}; "
                f"mohole verify {storage.url} --mend, then make it again",
                LAYOUT_FILE,
                storage.url,
            )
        self.shard_storage = storage if self.layout.place is None else open_storage(self.layout.place)
        self._opened: dict[str, list[Shard]] = {}

    @classmethod
    def open(cls, place: Path | str) -> "Store":
        """Open the store in a folder or at a URL.

        Raises:
            ArtifactError: missing, unfinished, damaged, or of another kind.
        """
        return cls(open_storage(place))

    @property
    def url(self) -> str:
        return self.storage.url

    @property
    def n_rows(self) -> int:
        return self.facts.n_rows

    @property
    def hookpoints(self) -> tuple[str, ...]:
        return tuple(self.facts.formats)

    @property
    def dtype(self) -> str:
        """What rows are stored in."""
        return self.facts.formats[self.hookpoints[0]].dtype

    def d_model(self, hookpoint: str) -> int:
        return self._format_of(hookpoint).width

    @cached_property
    def documents(self) -> Documents:
        """Where documents start among the tokens, and which are held out.

        Raises:
            ArtifactError: the file that says it is missing or damaged.
        """
        self._check_file(DOCUMENTS_FILE)
        return read_documents(self.storage)

    @cached_property
    def tokens(self) -> Int64:
        """Every token that has a row, ascending: its index in the corpus."""
        parts = [shard.key_token()[:, 1] for shard in self.shards(self.hookpoints[0])]
        return np.sort(np.concatenate(parts).astype(np.int64)) if parts else np.zeros(0, dtype=np.int64)

    @cached_property
    def held_out(self) -> Bool:
        """For each of `tokens`: is it in a held-out document?"""
        return self.documents.held_out[self.documents.of(self.tokens)]

    def shards(self, hookpoint: str) -> list[Shard]:
        """Its shards; of a sorted store in their order.

        Raises:
            DamageError: the tables of one are not those that were written.
        """
        row_format = self._format_of(hookpoint)
        if hookpoint not in self._opened:
            self._opened[hookpoint] = [
                Shard(self.shard_storage, facts, row_format) for facts in self.layout.shards[hookpoint]
            ]
        return self._opened[hookpoint]

    def take(self, hookpoint: str, tokens: Int64) -> Float32:
        """The rows [token, d] of these tokens, in this order, in float32.

        Raises:
            ArtifactError: a token has no row, or the part of a shard that holds it is damaged.
        """
        row_format = self._format_of(hookpoint)
        tokens = np.asarray(tokens, dtype=np.int64)
        rows = np.empty((len(tokens), row_format.width), dtype=np.float32)
        n_found = 0
        is_known = (tokens >= 0) & (tokens < self.documents.starts[-1])  # no others have a document, and so a key
        keys = self.facts.order.keys(np.where(is_known, tokens, 0), self.documents)
        for shard in self.shards(hookpoint):
            inside = shard.facts.cells.contain(keys)
            inside &= (tokens >= shard.facts.first_token) & (tokens <= shard.facts.last_token)
            chosen = np.flatnonzero(inside)
            if len(chosen) == 0:
                continue
            places, found = shard.places_of(keys[chosen], tokens[chosen])
            chosen = chosen[found]
            rows[chosen] = row_format.decode(shard.stored_at(places[found]))
            n_found += len(chosen)
        if n_found != len(tokens):
            raise ArtifactError(
                f"{self.url}: {len(tokens) - n_found} of {len(tokens)} tokens have no row of {hookpoint}"
            )
        return rows

    def check_sizes(self) -> None:
        """Look whether every shard is there and as long as it was; their bytes are not read.

        Raises:
            ArtifactError: one is not.
        """
        for facts in (shard for shards in self.layout.shards.values() for shard in shards):
            where = f"{self.shard_storage.url}/{facts.name}"
            if not self.shard_storage.exists(facts.name):
                raise ArtifactError(f"{where}: missing; mohole verify {self.url} --mend, then make it again")
            if (n_bytes := self.shard_storage.size(facts.name)) != facts.n_bytes:
                raise ArtifactError(
                    f"{where}: {n_bytes} bytes, {facts.n_bytes} expected; mohole verify {self.url} --mend, then make it again"
                )

    def _check_file(self, name: str) -> None:
        """What the manifest vouches for must be what was written: wrong documents would make every key look wrong."""
        is_there = self.storage.exists(name)
        if not is_there or artifact.data_digest(self.storage.read(name)) != self.manifest.files.get(name, (0, ""))[1]:
            what = "its checksum is wrong, its bytes have changed" if is_there else "missing"
            raise DamageError(
                f"{self.storage.url}/{name}: {what}; mohole verify {self.storage.url} --mend, then make it again",
                name,
                self.storage.url,
            )

    def _format_of(self, hookpoint: str) -> RowFormat:
        if hookpoint not in self.facts.formats:
            raise HookpointError(f"{hookpoint}: not in {self.url}; it has {', '.join(self.hookpoints)}")
        return self.facts.formats[hookpoint]


def _manifest_of(storage: Storage) -> artifact.Manifest:
    is_there = storage.exists(artifact.MANIFEST)
    try:
        if is_there:
            return artifact.parse_manifest(storage.read(artifact.MANIFEST), storage.url)
        what = f"{storage.url}/{artifact.MANIFEST}: missing"
    except ArtifactError as error:
        what = str(error)
    is_store = storage.exists(FACTS_FILE) and storage.exists(LAYOUT_FILE)
    is_begun = not is_there and storage.exists(CLAIM_FILE)  # a place outside a run has no manifest until it is finished
    if is_store and not is_begun:
        if is_there:
            what = f"{storage.url}/{artifact.MANIFEST}: damaged"
        remedy = f"mohole verify {storage.url} --mend, then make it again; its shards are kept"
        raise DamageError(f"{what}; {remedy}", artifact.MANIFEST, storage.url)
    if is_there:
        raise ArtifactError(what)
    folder = storage.local
    if is_begun or (folder is not None and folder.with_name(f".{folder.name}.partial").is_dir()):
        next_step = "an unfinished one waits, and the command that began it goes on with it"
    else:
        next_step = "mohole harvest RECIPE makes one, mohole shuffle STORE one in order"
    raise ArtifactError(f"{storage.url}: no finished store there; {next_step}")
