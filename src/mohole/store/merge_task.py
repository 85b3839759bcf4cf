"""One merge as a task for a worker: told in few words, because what it reads is in a listing beside the data."""

from dataclasses import dataclass

from mohole.storage import Traffic, open_storage
from mohole.store.cells import Cells
from mohole.store.columns import RowFormat
from mohole.store.commits import Commit, commit, is_committed
from mohole.store.listing import SHARDS, layout_at, read_documents
from mohole.store.merge import Rekey, merge
from mohole.store.order import Order


@dataclass(frozen=True)
class Listing:
    """The shards that the merges of a pass read."""

    url: str
    """Of the storage that holds the listing."""
    name: str
    digest: str
    shards_url: str
    """Of the storage that holds the shards in it."""


@dataclass(frozen=True)
class MergeTask:
    """Make one shard of the listed shards `first` to before `last`, of their rows in the range `wanted`."""

    listing: Listing
    hookpoint: str
    first: int
    last: int
    wanted: Cells
    row_format: RowFormat
    out: str
    """URL of the storage that takes the new shard."""
    level: str
    name: str
    cells: Cells
    """How the new shard is cut into cells."""
    order: Order | None = None
    """New keys, in the first pass to another order."""


def shard_name(level: str, task: str) -> str:
    return f"{SHARDS}/{level}/{task}.safetensors"


def run_merge(task: MergeTask) -> None:
    """In a worker: one merge, committed; nothing where it is committed already."""
    out = open_storage(task.out)
    if is_committed(out, task.level, task.name):
        return
    listing = task.listing
    listed = layout_at(listing.url, listing.name, listing.digest).shards[task.hookpoint]
    rekey = None
    if task.order is not None:
        rekey = Rekey(task.order, read_documents(open_storage(listing.shards_url)))
    source = open_storage(listing.shards_url)
    made = merge(
        source,
        listed[task.first : task.last],
        task.wanted,
        task.row_format,
        out,
        shard_name(task.level, task.name),
        cells=task.cells,
        rekey=rekey,
    )
    traffic = Traffic(  # of rows and their tables; listings and the commit itself are not counted
        bytes_read=source.traffic.bytes_read,
        bytes_written=out.traffic.bytes_written,
        n_reads=source.traffic.n_reads,
        n_writes=out.traffic.n_writes,
    )
    commit(out, task.level, task.name, Commit({task.hookpoint: made}, traffic))
    source.close()
    out.close()
