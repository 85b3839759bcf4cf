"""Making stores: which executor runs the tasks, and a shuffled store in a folder or at a URL."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from mohole import artifact
from mohole.artifact import Inputs
from mohole.config import Machine, n_bytes
from mohole.errors import ArtifactError, ConfigError
from mohole.execute import Cores, Executor, open_executor, share_cores
from mohole.storage import Storage, lease, open_storage
from mohole.store.listing import BULK, COMMITS, DOCUMENTS_FILE, write_facts, write_layout
from mohole.store.order import Order
from mohole.store.plan import Limits
from mohole.store.seal import claim, seal
from mohole.store.shuffle import Source, shuffle
from mohole.store.store import Store

_TOKENS_FOR_A_WORKER = 2_000_000
"""A worker loads the model before it does anything, for 5 CPU-seconds: less work than this is not worth it."""


@contextmanager
def harvest_executor(machine: Machine, n_tasks: int, n_tokens: int) -> Iterator[Executor]:
    """What runs the slices of a harvest."""
    most = n_tasks if machine.executor != "auto" else min(n_tasks, max(n_tokens // _TOKENS_FOR_A_WORKER, 1))
    cores = share_cores(most, processes=machine.processes, threads=machine.threads)
    with _executor(machine, cores) as executor:
        yield executor


@contextmanager
def _executor(machine: Machine, cores: Cores) -> Iterator[Executor]:
    kind = machine.executor
    if kind == "auto":
        kind = "process" if cores.processes > 1 else "inline"
    with open_executor(kind, cores, address=machine.address) as executor:
        yield executor


def source_of(store: Store) -> Source:
    """A finished store, as a shuffle reads it."""
    return Source(store.shard_storage, store.facts, store.layout)


def fill_shuffled(
    store: Store,
    out: Storage,
    machine: Machine,
    *,
    levels: int | None = None,
    order: Order | None = None,
) -> None:
    """Write the rows of `store` in order into `out`, with all the small files of a store but the manifest.

    Raises:
        ArtifactError: a damaged source. ConfigError: too little memory.
    """
    out.sweep()
    data = store.storage.read(DOCUMENTS_FILE)
    out.put(DOCUMENTS_FILE, data)
    if store.shard_storage.url != store.storage.url:
        store.shard_storage.put(DOCUMENTS_FILE, data)
    cores = share_cores(64, processes=machine.processes, threads=1)
    limits = Limits(n_bytes(machine.memory) // cores.processes)
    with _executor(machine, cores) as executor:
        facts, layout = shuffle(source_of(store), out, executor, limits, levels=levels, order=order)
    write_facts(out, facts)
    write_layout(out, layout)
    out.sweep()


def shuffle_store(
    store: Store,
    out: str,
    machine: Machine,
    *,
    levels: int | None = None,
    order_kind: Literal["random", "text"] | None = None,
    epoch: int | None = None,
    replace: bool = False,
) -> bool:
    """Make a sorted store at `out` (a folder or a URL) of any store; go on where a killed shuffle left off. False: there already.

    Args:
        order_kind: `text` brings the rows of each document together; None keeps the order of the store's keys.
        epoch: another random order.

    Raises:
        ArtifactError: `out` is taken, or is the store itself, or another process is at work there.
    """
    place = open_storage(out)
    if _root(place) in (_root(store.storage), _root(store.shard_storage)):
        raise ArtifactError(f"{out}: is the store to be shuffled; name another place for the shuffled one")
    order = _order(store, order_kind, epoch)
    inputs = Inputs(
        kind="shuffled",
        config={} if order is None else {"order": order.as_json()},
        seed=store.manifest.inputs.seed,
        parents={"activations": store.manifest.digest},
    )
    if "://" not in out:
        artifact.mend(Path(out))
        if not replace and (Path(out) / artifact.MANIFEST).is_file():
            if artifact.is_finished(Path(out), inputs):
                return False
            raise ArtifactError(
                f"{out}: made with other settings ({artifact.difference(Path(out), inputs)}); --replace makes it again, or name "
                "another folder"
            )
        with artifact.create(out, inputs, replace=replace, resume=True, worth=COMMITS, bulk=BULK) as draft:
            fill_shuffled(store, open_storage(draft), machine, levels=levels, order=order)
        return True
    with lease(place):
        claim(place, inputs)
        if place.exists(artifact.MANIFEST):
            return False  # of these inputs: else the claim had failed
        fill_shuffled(store, place, machine, levels=levels, order=order)
        seal(place, inputs)
    return True


def _root(storage: Storage) -> str:
    """Where it really is: two names of one folder are one."""
    return storage.url if storage.local is None else str(storage.local.resolve())


def _order(store: Store, kind: Literal["random", "text"] | None, epoch: int | None) -> Order | None:
    if kind == "text":
        if epoch is not None:
            raise ConfigError("--epoch: the order of the text has only one")
        return Order.text(store.documents)
    if epoch is None and kind is None:
        return None
    order = Order.random(store.documents, seed=store.manifest.inputs.seed, epoch=epoch or 0)
    return None if order == store.facts.order else order
