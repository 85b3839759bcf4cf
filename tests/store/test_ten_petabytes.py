"""The plan for 10 PB laid out and carried through on manifests alone: rows are counted, none is there."""

import time

import numpy as np
import pytest

from mohole.store.cells import Cells
from mohole.store.columns import RowFormat
from mohole.store.fingerprint import Fingerprint
from mohole.store.listing import overlapping
from mohole.store.merge_task import Listing, MergeTask
from mohole.store.passes import Target, even_ranges, merges
from mohole.store.plan import Limits, Pass, cells_of_pile, plan_shuffle
from mohole.store.shard import ShardFacts

ROW = RowFormat("bfloat16", 8192)
LIMITS = Limits(64 * 10**9, segment_bytes=8_000_000)
LISTING = Listing("memory://plan", "listing.json", "", "memory://plan")
RUN_ROWS = 3_000_000


def runs(n_runs: int) -> list[ShardFacts]:
    bits = (cells_of_pile(RUN_ROWS * ROW.row_bytes, LIMITS.cell_bytes) - 1).bit_length()
    cells = Cells.everything(bits)
    return [ShardFacts(f"runs/{number:06}", 0, "", cells, Fingerprint(RUN_ROWS), 0, 0) for number in range(n_runs)]


def carried_through(
    shards: list[ShardFacts], step: Pass, *, is_last: bool, rng: np.random.Generator
) -> tuple[list[ShardFacts], list[MergeTask]]:
    """What a pass makes of these shards: every task draws from each member what chance puts into its range of keys."""
    ranges = even_ranges(shards, step.n_piles)
    tasks = merges("h", shards, LISTING, Target("memory://plan", "level", LIMITS), ROW, ranges, step, is_last=is_last)
    made = []
    left: dict[tuple[int, int], int] = {}
    share_left: dict[tuple[int, int], float] = {}
    for task in tasks:  # how the rows of a group of runs fall into its ranges is multinomial: binomials of what is left
        group = task.first, task.last
        if group not in left:
            left[group] = sum(shard.n_rows for shard in shards[task.first : task.last])
            cells = shards[task.first].cells
            assert all(shard.cells == cells for shard in shards[task.first : task.last])
            share_left[group] = cells.count / 2.0**cells.bits
        share = task.wanted.count / 2.0**task.wanted.bits
        drawn = int(rng.binomial(left[group], min(share / share_left[group], 1.0)))
        left[group] -= drawn
        share_left[group] -= share
        made.append(ShardFacts(task.name, 0, "", task.cells, Fingerprint(drawn), 0, 0))
    assert not any(left.values()), "every row of every run is read by exactly one task"
    order = sorted(made, key=lambda shard: (shard.cells.first / 2.0**shard.cells.bits, shard.name))
    return order, tasks


@pytest.mark.parametrize(("payload", "n_passes"), [(10**12, 1), (10**14, 1), (10**16, 2)])
def test_a_plan_is_carried_through(payload: int, n_passes: int, no_shape_checks: None) -> None:
    n_runs = payload // (RUN_ROWS * ROW.row_bytes)
    shards, rng = runs(n_runs), np.random.default_rng(0)
    plan = plan_shuffle(n_runs * RUN_ROWS, ROW.row_bytes, n_runs, LIMITS)
    assert len(plan.passes) == n_passes
    room = LIMITS.room_rows(ROW.row_bytes)
    started = time.process_time()
    n_segments = 0
    for number, step in enumerate(plan.passes):
        shards, tasks = carried_through(shards, step, is_last=number + 1 == n_passes, rng=rng)
        n_segments += sum(task.last - task.first for task in tasks)
        assert len(tasks) == pytest.approx(step.n_tasks, rel=0.02)
        assert max(shard.n_rows for shard in shards) <= room, "a pile did not fit the memory of its task"
        assert step.segment_bytes >= LIMITS.segment_bytes
        assert sum(shard.n_rows for shard in shards) == n_runs * RUN_ROWS
    assert overlapping(shards) is None, "shard after shard is the order"
    assert n_segments == pytest.approx(sum(step.n_segments for step in plan.passes), rel=0.02)
    assert time.process_time() - started < 120
