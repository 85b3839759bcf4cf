"""Which merges make up a pass. Facts in, tasks out; no files, so that a pass over 10 PB can be laid out on a laptop."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from mohole.store.cells import MAX_BITS, Cells
from mohole.store.columns import RowFormat
from mohole.store.merge_task import Listing, MergeTask
from mohole.store.order import Order
from mohole.store.plan import Limits, Pass, cells_within
from mohole.store.shard import ShardFacts


@dataclass(frozen=True)
class Target:
    """Where a pass writes, and how much a task may hold."""

    url: str
    level: str
    limits: Limits


def rekeyings(
    hookpoint: str,
    shards: Sequence[ShardFacts],
    listing: Listing,
    target: Target,
    row_format: RowFormat,
    order: Order,
) -> list[MergeTask]:
    """New keys: one task for each shard, more where it does not fit the memory. What they make are runs again."""
    tasks = []
    # all are cut into cells alike, a short one too: the next pass reads by the coarsest cells there are
    most_rows = max((shard.n_rows // n_parts(shard, row_format, target.limits) for shard in shards), default=0)
    cells = cells_within(Cells.everything(), most_rows * row_format.row_bytes, target.limits.cell_bytes)
    for index, shard in enumerate(shards):
        n = n_parts(shard, row_format, target.limits)
        for number, wanted in enumerate(shard.cells.split(n)):
            name = f"{hookpoint}/{index:06}-{number:04}"
            tasks.append(
                MergeTask(
                    listing,
                    hookpoint,
                    index,
                    index + 1,
                    wanted,
                    row_format,
                    target.url,
                    target.level,
                    name,
                    cells,
                    order,
                )
            )
    return tasks


def merges(
    hookpoint: str,
    shards: Sequence[ShardFacts],
    listing: Listing,
    target: Target,
    row_format: RowFormat,
    ranges: Sequence[Cells],
    step: Pass,
    *,
    is_last: bool,
) -> list[MergeTask]:
    """For each range of keys, one task for every `n_members` of the shards that overlap it; in the last pass one for all."""
    starts = np.asarray([_edge(shard.cells, shard.cells.first) for shard in shards], dtype=np.int64)
    ends = np.asarray([_edge(shard.cells, shard.cells.first + shard.cells.count) for shard in shards], dtype=np.int64)
    tasks = []
    for pile, wanted in enumerate(ranges):
        # shards stand in order, so those that overlap a range are neighbours
        low = int(np.searchsorted(ends, _edge(wanted, wanted.first), side="right"))
        high = int(np.searchsorted(starts, _edge(wanted, wanted.first + wanted.count), side="left"))
        cells = cells_within(wanted, step.pile_bytes, target.limits.cell_bytes)
        n_members = high - low if is_last else step.n_members
        for first in range(low, high, max(n_members, 1)):
            last = min(first + n_members, high)
            name = f"{hookpoint}/{pile:06}-{first:06}"
            tasks.append(
                MergeTask(listing, hookpoint, first, last, wanted, row_format, target.url, target.level, name, cells)
            )
    return tasks


def even_ranges(shards: Sequence[ShardFacts], n_piles: int) -> list[Cells]:
    """The key space in about `n_piles` equal ranges that nest with the ranges the shards cover: no task reads a part of two."""
    covered: dict[Cells, int] = {}  # the ranges there are, with the finest grid that all their shards have
    for shard in shards:
        whole = _simplest(shard.cells)
        covered[whole] = min(covered.get(whole, MAX_BITS), shard.cells.bits)
    if len(covered) > n_piles:
        together = -(-len(covered) // n_piles)
        ranges = list(covered)
        return [_joined(ranges[first : first + together]) for first in range(0, len(ranges), together)]
    each = -(-n_piles // max(len(covered), 1))
    return [part for cells, bits in covered.items() for part in cells.finer(bits).split(each)]


def _joined(ranges: Sequence[Cells]) -> Cells:
    """Neighbouring ranges as one."""
    bits = max(cells.bits for cells in ranges)
    first, last = ranges[0].finer(bits), ranges[-1].finer(bits)
    return Cells(bits, first.first, last.first + last.count - first.first)


@lru_cache(maxsize=1024)
def _simplest(cells: Cells) -> Cells:
    """The same range of keys in the largest cells that it can be told in."""
    bits, first, count = cells.bits, cells.first, cells.count
    while bits and first % 2 == 0 and count % 2 == 0:
        bits, first, count = bits - 1, first // 2, count // 2
    return Cells(bits, first, count)


def n_parts(shard: ShardFacts, row_format: RowFormat, limits: Limits) -> int:
    """Into how many a shard is cut to be given new keys within the memory."""
    return -(-shard.n_rows // limits.pile_rows(row_format.row_bytes)) or 1


def _edge(cells: Cells, number: int) -> int:
    """Where a cell begins, on the finest grid there is."""
    return number << (MAX_BITS - cells.bits)
