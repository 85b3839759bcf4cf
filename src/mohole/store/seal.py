"""The life of a store beside its rows: whose a place is, when it is finished, and opening it again where a shard is damaged."""

from collections.abc import Sequence
from pathlib import Path

from mohole import artifact
from mohole.artifact import Inputs
from mohole.errors import ArtifactError, DamageError
from mohole.storage import Storage, open_storage
from mohole.store.listing import BULK, CLAIM_FILE, DOCUMENTS_FILE, FACTS_FILE, SHARDS, TASKS, read_layout, write_layout
from mohole.store.store import Store

_INDEPENDENT = {"runs", "sorted"}
"""Levels whose sources are kept: one of their tasks can run again alone."""


def claim(place: Storage, inputs: Inputs) -> None:
    """Say what a place is for, so that commits of one job are never taken for those of another.

    Raises:
        ArtifactError: it is for something else.
    """
    if not place.put_once(CLAIM_FILE, inputs.digest().encode()) and place.read(CLAIM_FILE) != inputs.digest().encode():
        raise ArtifactError(
            f"{place.url}: holds rows of another job (other settings, model, text or seed); name another place, or delete it"
        )


def seal(place: Storage, inputs: Inputs) -> None:
    """Put the manifest beside a store's files: from now on it is finished."""
    files = {name: place.read(name) for name in (DOCUMENTS_FILE, FACTS_FILE)}
    sizes = {name: (len(data), artifact.data_digest(data)) for name, data in files.items()}
    place.put(artifact.MANIFEST, artifact.manifest_bytes(inputs, sizes, BULK))


def publish(folder: Path, place: Storage, inputs: Inputs) -> None:
    """Copy the small files of a run's store to the place of its shards, so that it can be opened there too."""
    for name in (DOCUMENTS_FILE, FACTS_FILE):
        place.put(name, (folder / name).read_bytes())
    write_layout(
        place, read_layout(open_storage(folder)).moved(None)
    )  # wherever it is copied to, its shards come along
    seal(place, inputs)


def mend(store: Store, damaged: Sequence[DamageError]) -> bool:
    """Take damaged shards and what vouches for them away, and open the store again: what made it makes only these again.

    Of a shuffle in several passes everything is made again, because the passes between are gone. Where nothing but records of
    tasks are damaged, they go, and the store stays finished: False.
    """
    records = {error.name for error in damaged if error.name.startswith(f"{TASKS}/")}
    store.shard_storage.delete(sorted(records))
    shards = {error.name for error in damaged} - records
    if not shards:
        return False
    commits = store.shard_storage.names(f"{TASKS}/")
    levels = {name.split("/")[1] for name in commits if name.count("/") > 1}  # beside the levels stands the plan
    if levels <= _INDEPENDENT:
        vouching = {_commit_of(shard) for shard in shards}
        commits = [name for name in commits if name in vouching]
    store.shard_storage.delete(commits)  # first: none may stand for a shard that is gone
    store.shard_storage.delete(sorted(shards))
    if store.shard_storage.url != store.storage.url:
        store.shard_storage.delete([artifact.MANIFEST])  # a second one stands beside shards that are elsewhere
    reopen(store.storage)
    return True


def reopen(place: Storage) -> None:
    """Make a finished store an unfinished one: what made it writes the small files again, and shards that have no commit."""
    if place.local is not None and not place.exists(CLAIM_FILE):  # a run's folder, not a place that it gave its rows to
        artifact.reopen(place.local)
    else:
        place.delete([artifact.MANIFEST])


def _commit_of(shard: str) -> str:
    """`shards/sorted/resid_post.1/000003-000000.safetensors` is of the task `tasks/sorted/resid_post.1/000003-000000.json`.
    A slice of a harvest makes the shards of all hookpoints: `shards/runs/resid_post.1/000003...` of `tasks/runs/000003.json`.
    """
    level, hookpoint, name = shard.removeprefix(f"{SHARDS}/").removesuffix(".safetensors").split("/")
    return f"{TASKS}/{level}/{name}.json" if level == "runs" else f"{TASKS}/{level}/{hookpoint}/{name}.json"
