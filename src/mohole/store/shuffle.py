"""A shuffle in any number of passes: run the merges of each pass, prove the pass, let go of the one before.

What stays is a sorted store. A killed shuffle goes on from its commits; where a shard that it wrote itself turns out damaged
or lost, or where its plan is another one than before (other memory, other cores), it begins again from its source.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mohole.errors import ArtifactError, DamageError, StageError
from mohole.execute import Executor, Task
from mohole.progress import Tracker, track
from mohole.storage import Storage
from mohole.store.cells import Cells
from mohole.store.columns import RowFormat
from mohole.store.commits import run_missing
from mohole.store.listing import (
    SHARDS,
    TASKS,
    Layout,
    StoreFacts,
    in_order,
    overlapping,
    sealed,
    unsealed,
    write_layout,
)
from mohole.store.merge_task import Listing, MergeTask, run_merge
from mohole.store.order import Order
from mohole.store.passes import Target, even_ranges, merges, n_parts, rekeyings
from mohole.store.plan import Limits, Pass, ShufflePlan, plan_shuffle
from mohole.store.shard import Shard, ShardFacts

Shards = Mapping[str, tuple[ShardFacts, ...]]

_ATTEMPTS = 3
"""Beginnings, before the disk is given up."""
LISTINGS = "listings"
_PLAN_FILE = f"{TASKS}/plan.json"
"""What the commits are about: of another plan, a task of the same name makes another shard."""


@dataclass(frozen=True)
class Source:
    """A store to be brought into order."""

    storage: Storage
    """Where its shards are."""
    facts: StoreFacts
    layout: Layout


def shuffle(
    source: Source,
    out: Storage,
    executor: Executor,
    limits: Limits,
    *,
    levels: int | None = None,
    order: Order | None = None,
) -> tuple[StoreFacts, Layout]:
    """Write the sorted shards of the rows of `source` into `out`, and say what they are.

    Args:
        levels: passes before the last one; None: as many as the memory asks for.
        order: another order than that of the source, for one pass more; None keeps its keys.

    Raises:
        ArtifactError: a shard of the source is damaged (it is named), or rows were lost on the way.
        ConfigError: too little memory.
    """
    work = _Work(source, out, executor, limits, order, _plans(source, limits, levels, order))
    for _ in range(_ATTEMPTS):
        try:
            shards = work.run()
        except DamageError as error:
            damage = error
            if error.url != out.url:
                break  # not ours: it is for the maker of the source
            work.begin_again()
        else:
            made = replace(source.facts, order=order or source.facts.order, is_sorted=True)
            return made, Layout(shards)
    raise StageError(f"{damage}; mohole verify --mend takes it away, and what made it makes it again")


def _plans(source: Source, limits: Limits, levels: int | None, order: Order | None) -> dict[str, ShufflePlan]:
    """One for each hookpoint; all with as many passes as the one that needs most."""

    def n_runs(hookpoint: str, row_format: RowFormat) -> int:
        shards = source.layout.shards[hookpoint]
        if order is None:
            return len(shards)
        return sum(n_parts(shard, row_format, limits) for shard in shards)

    def plans(depth: int | None) -> dict[str, ShufflePlan]:
        return {
            hookpoint: plan_shuffle(
                source.facts.n_rows, row_format.row_bytes, n_runs(hookpoint, row_format), limits, levels=depth
            )
            for hookpoint, row_format in source.facts.formats.items()
        }

    return plans(max(len(plan.passes) for plan in plans(levels).values()) - 1)


@dataclass
class _Work:
    source: Source
    out: Storage
    executor: Executor
    limits: Limits
    order: Order | None
    plans: Mapping[str, ShufflePlan]

    def run(self) -> Shards:
        facts = self.source.facts
        self._keep_to_one_plan()
        depth = len(next(iter(self.plans.values())).passes)
        shards: Shards = self.source.layout.shards
        total = (depth + int(self.order is not None)) * len(shards) * facts.n_rows
        with track("shuffle", total, "rows") as tracker:
            level = ""
            if self.order is not None:
                shards, level = self._pass("keyed", level, shards, None, tracker), "keyed"
            for number in range(depth):
                next_level = "sorted" if number + 1 == depth else f"pass-{number}"
                shards, level = self._pass(next_level, level, shards, number, tracker), next_level
        for part in shards.values():
            if (twice := overlapping(part)) is not None:
                raise ArtifactError(f"{self.out.url}: {twice.name} overlaps the shard before it; please report this")
        kept = {shard.name for part in shards.values() for shard in part}
        left = [name for name in self.out.names(f"{SHARDS}/") if name not in kept]  # of workers that outlived a driver
        self.out.delete([*left, *self.out.names(f"{LISTINGS}/")])
        return shards

    def begin_again(self) -> None:
        """Take away what was made so far, and nothing else."""
        for folder in (TASKS, LISTINGS, SHARDS):  # commits first: none may stand for a shard that is gone
            self.out.delete(self.out.names(f"{folder}/"))

    def _keep_to_one_plan(self) -> None:
        plans = {
            hookpoint: [[asdict(step) for step in plan.passes], plan.limits.cell_bytes]
            for hookpoint, plan in self.plans.items()
        }
        data = sealed({"plans": plans})
        if not self.out.put_once(_PLAN_FILE, data) and self.out.read(_PLAN_FILE) != data:
            self.begin_again()
            self.out.put(_PLAN_FILE, data)

    def _pass(self, level: str, before: str, shards: Shards, number: int | None, tracker: Tracker) -> Shards:
        """Run a pass, prove that its rows are those of the source, and only then let the pass before go."""
        name = f"{LISTINGS}/{level}.json"
        digest = write_layout(self.out, Layout(shards), name)
        listing = Listing(self.out.url, name, digest, self.out.url if before else self.source.storage.url)
        target = Target(self.out.url, level, self.limits)
        calls = [
            task for hookpoint, part in shards.items() for task in self._tasks(hookpoint, part, listing, target, number)
        ]
        tasks = [Task(call.name, run_merge, (call,)) for call in calls]
        units = [self.source.facts.n_rows * len(shards) // max(len(tasks), 1)] * len(tasks)
        commits = run_missing(self.executor, self.out, level, tasks, tracker, units)
        made = {
            hookpoint: in_order([done.shards[hookpoint] for done in commits.values() if hookpoint in done.shards])
            for hookpoint in shards
        }
        for hookpoint in made:
            if Layout(made).fingerprint(hookpoint) != self.source.facts.fingerprints[hookpoint]:
                raise ArtifactError(
                    f"{self.out.url}: the rows of {hookpoint} after the pass {level!r} are not those of the source; "
                    "nothing was taken away; check this machine's memory, and begin again in an empty folder"
                )
        if before:  # the commits stay: they say that this pass need not run again
            self.out.delete([shard.name for part in shards.values() for shard in part])
        return made

    def _tasks(
        self, hookpoint: str, shards: Sequence[ShardFacts], listing: Listing, target: Target, number: int | None
    ) -> list[MergeTask]:
        row_format = self.source.facts.formats[hookpoint]
        if number is None:
            assert self.order is not None
            return rekeyings(hookpoint, shards, listing, target, row_format, self.order)
        step = self.plans[hookpoint].passes[number]
        ranges = self._ranges(hookpoint, shards, listing, target.level, step)
        is_last = number + 1 == len(self.plans[hookpoint].passes)
        return merges(hookpoint, shards, listing, target, row_format, ranges, step, is_last=is_last)

    def _ranges(
        self, hookpoint: str, shards: Sequence[ShardFacts], listing: Listing, level: str, step: Pass
    ) -> list[Cells]:
        """The piles of a pass. Random keys fill equal ranges evenly; other keys are counted first, and once: when the pass is
        done, its sources are gone."""
        if (self.order or self.source.facts.order).kind == "random":
            return even_ranges(shards, step.n_piles)
        grid = min((shard.cells.bits for shard in shards), default=0)
        name = f"{LISTINGS}/{level}-{hookpoint}-ranges.json"
        if self.out.exists(name):
            found = unsealed(self.out.read(name), f"{self.out.url}/{name}", "delete it, and run again")
            return [Cells(**cells) for cells in found["ranges"]]
        counts = np.zeros(1 << grid, dtype=np.int64)
        storage = self.source.storage if listing.shards_url == self.source.storage.url else self.out
        for facts in shards:
            per_cell = np.diff(Shard(storage, facts, self.source.facts.formats[hookpoint]).starts)
            cells = np.arange(facts.cells.first, facts.cells.first + facts.cells.count)
            np.add.at(counts, cells >> (facts.cells.bits - grid), per_cell)
        ranges = grouped(counts, grid, self.source.facts.n_rows // step.n_piles + 1)
        self.out.put(name, sealed({"ranges": [asdict(cells) for cells in ranges]}))
        return ranges


def grouped(counts: NDArray[np.int64], bits: int, room: int) -> list[Cells]:
    """Neighbouring cells together while they hold at most `room` rows; a fuller one alone."""
    ranges: list[Cells] = []
    first = held = 0
    for cell, count in enumerate(counts.tolist()):
        if cell > first and held + count > room:
            ranges.append(Cells(bits, first, cell - first))
            first, held = cell, 0
        held += count
    return [*ranges, Cells(bits, first, len(counts) - first)]
