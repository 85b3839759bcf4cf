"""What a recipe's rows will cost: bytes, requests, memory, time and money of harvest, shuffle and loader. Arithmetic only."""

from collections.abc import Iterator
from dataclasses import dataclass

from mohole.storage import Traffic
from mohole.storage.remote import PART_BYTES, RANGE_BYTES
from mohole.store.plan import (
    PIECE_BYTES,
    SEGMENTS_FOR_FREE,
    Limits,
    ShufflePlan,
    plan_harvest,
    plan_loader,
    plan_shuffle,
)
from mohole.store.shard import KEY_TOKEN_BYTES


@dataclass(frozen=True)
class Prices:
    """What the machines can do and what requests cost."""

    hosts: int = 1
    gbps: float = 0.5
    """GB/s that a host reads, and as many that it writes at the same time."""
    get_dollars: float = 0.4
    """Of a million reads."""
    put_dollars: float = 5.0
    """Of a million writes."""

    def seconds(self, traffic: Traffic, n_tasks: int) -> float:
        """Reading and writing side by side: the longer of the two. A task is on one host."""
        return max(traffic.bytes_read, traffic.bytes_written) / (min(self.hosts, n_tasks) * self.gbps * 1e9)

    def dollars(self, traffic: Traffic, segment_bytes: int) -> float:
        """Of an object store's requests: long reads and writes are several.

        Args:
            segment_bytes: of one long read, on average.
        """
        gets = traffic.n_reads + (traffic.bytes_read // RANGE_BYTES if segment_bytes > RANGE_BYTES else 0)
        puts = traffic.n_writes
        if traffic.bytes_written > traffic.n_writes * PART_BYTES:
            puts = traffic.n_writes * (2 - (-traffic.bytes_written // traffic.n_writes // PART_BYTES))
        return (gets * self.get_dollars + puts * self.put_dollars) / 1e6


@dataclass(frozen=True)
class Step:
    """One reading or writing of all rows of all hookpoints."""

    name: str
    n_tasks: int
    n_piles: int
    segment_bytes: int
    """Shortest kind of read, on average; 0 where rows are not read."""
    memory_bytes: int
    """Of one worker."""
    traffic: Traffic


@dataclass(frozen=True)
class Forecast:
    """All steps of a recipe, and what is not a step."""

    n_rows: int
    row_bytes: int
    hookpoints: tuple[str, ...]
    steps: tuple[Step, ...]
    prices: Prices
    needs_shuffle: bool
    """True where the loader alone would read segments too short for the disk: `shuffle.stored = true` is advised."""

    @property
    def payload_bytes(self) -> int:
        """Rows of all hookpoints, with their keys and tokens."""
        return self.n_rows * (self.row_bytes + KEY_TOKEN_BYTES) * len(self.hookpoints)

    @property
    def dollars(self) -> float:
        """For the requests of all steps, were the rows in an object store."""
        return sum(self.prices.dollars(step.traffic, step.segment_bytes) for step in self.steps)

    def total(self) -> Traffic:
        whole = Traffic()
        for step in self.steps:
            whole += step.traffic
        return whole


def forecast_rows(
    n_rows: int,
    row_bytes: int,
    hookpoints: tuple[str, ...],
    *,
    n_runs: int,
    limits: Limits,
    loader_bytes: int,
    stored: bool,
    levels: int | None,
    prices: Prices,
) -> Forecast:
    """Lay out harvest, the passes of a stored shuffle, and the loader's reading."""
    plan = plan_shuffle(n_rows, row_bytes, n_runs, limits, levels=levels if stored else None)
    times = len(hookpoints)
    run_memory = n_rows // max(n_runs, 1) * row_bytes * times
    steps = [Step("harvest", n_runs, 1, 0, run_memory, _times(plan_harvest(n_rows, row_bytes, n_runs), times))]
    if stored:
        steps += _passes(plan, times)
    n_shards, n_piles, loader = plan_loader(
        n_rows, row_bytes, n_runs, loader_bytes, n_sorted=plan.passes[-1].n_piles if stored else None
    )
    segment = min(n_rows * row_bytes // (n_piles * n_shards), PIECE_BYTES)
    steps.append(Step("loader", times, n_piles, segment, loader_bytes, _times(loader, times)))
    short = segment < limits.segment_bytes and n_piles * n_shards > SEGMENTS_FOR_FREE
    return Forecast(n_rows, row_bytes, hookpoints, tuple(steps), prices, short and not stored)


def _passes(plan: ShufflePlan, times: int) -> Iterator[Step]:
    for number, (step, traffic) in enumerate(zip(plan.passes, plan.traffic(), strict=True)):
        name = "shuffle" if len(plan.passes) == 1 else f"shuffle {number + 1}"
        yield Step(
            name,
            step.n_tasks * times,
            step.n_piles,
            step.segment_bytes,
            plan.limits.memory_bytes,
            _times(traffic, times),
        )


def _times(traffic: Traffic, n: int) -> Traffic:
    return Traffic(traffic.bytes_read * n, traffic.bytes_written * n, traffic.n_reads * n, traffic.n_writes * n)
