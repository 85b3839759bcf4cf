"""How many passes a shuffle takes, how big each pile is, and what it reads and writes. Arithmetic only: no files, no tensors.

    runs  -- pass 1 -->  longer-sorted runs  -- ... -->  shards in order (or the loader's memory)

A merge task holds its rows in memory, so memory bounds a pile; it reads one segment of every run that overlaps its range of
keys, so runs times piles must not make segments too short for the disk. Where one pass would, passes between are put in: each
cuts the key space finer and reads and writes everything once more.
"""

import math
from dataclasses import dataclass

from mohole.errors import ConfigError
from mohole.storage import Traffic
from mohole.store.cells import MAX_BITS, Cells
from mohole.store.shard import ALIGNMENT_BYTES, KEY_TOKEN_BYTES

MIB = 1 << 20
CELL_BYTES = 256 << 10
SEGMENT_BYTES = 256 << 10
"""Shorter reads fall below half of a local disk's speed (measured 64 KiB .42, 256 KiB .80 of sequential); S3 wants 8 MiB."""
SEGMENTS_FOR_FREE = 4096
"""So few seeks are cheaper than another pass, however short the segments."""

PIECE_BYTES = 16 << 20
"""A loader reads no more at a time. Object stores are read in ranges of as much."""
_WORK_BYTES = 64
"""Of a merge task for each row, beside the row: keys and tokens twice, places, hashes."""
_PROCESS_BYTES = 80 * MIB
"""A worker before it reads a row: interpreter, numpy, the buffers of reader and writer."""
_MOST_CELL_BITS = 14
"""Every task reads the tables of every shard it opens. At 100 TB, tables of 256 KiB cells would be a third of all reading."""
_READS_PER_SEGMENT = 2
_READS_PER_OPEN = 2


@dataclass(frozen=True)
class Limits:
    """What a merge task may use."""

    memory_bytes: int = 1 << 30
    """Of one worker process, all in all."""
    segment_bytes: int = SEGMENT_BYTES
    """The shortest reads that are worth their seek."""
    cell_bytes: int = CELL_BYTES
    process_bytes: int = _PROCESS_BYTES
    """What a worker takes before it reads a row."""

    def room_rows(self, row_bytes: int) -> int:
        """Rows that one task can hold.

        Raises:
            ConfigError: less memory than a process needs to start.
        """
        room = self.memory_bytes - self.process_bytes
        if room < self.process_bytes / 5:
            raise ConfigError(
                f"memory: {self.memory_bytes / MIB:.0f} MiB for each worker is too little; the smallest is "
                f"{self.process_bytes * 1.2 / MIB:.0f} MiB (fewer workers leave each one more)"
            )
        return room // (row_bytes + _WORK_BYTES)

    def pile_rows(self, row_bytes: int) -> int:
        """Expected rows of a pile that fits even when six standard deviations larger."""
        room = self.room_rows(row_bytes)
        return max(int((math.sqrt(9 + room) - 3) ** 2), 1)


@dataclass(frozen=True)
class Pass:
    """One reading and writing of everything: every task merges `n_members` runs within one of `n_piles` ranges of keys."""

    n_piles: int
    """Ranges of keys, in the whole key space."""
    n_runs: int
    """Runs that overlap each range, before the pass."""
    n_members: int
    """Runs that a task reads at once."""
    segment_bytes: int
    """What a task reads from each, on average."""
    pile_bytes: int
    """What a task writes, on average."""

    @property
    def n_tasks(self) -> int:
        return self.n_piles * -(-self.n_runs // self.n_members)

    @property
    def n_segments(self) -> int:
        return self.n_piles * self.n_runs


@dataclass(frozen=True)
class ShufflePlan:
    """All passes of a shuffle of one hookpoint's rows."""

    n_rows: int
    row_bytes: int
    passes: tuple[Pass, ...]
    limits: Limits

    def fits(self) -> bool:
        """Do the piles of the last pass fit the memory? A pile is whole cells of all runs together: where that is too much, a
        pass between makes finer ones."""
        return self.n_rows <= self.passes[-1].n_piles * self.limits.pile_rows(self.row_bytes)

    def traffic(self) -> tuple[Traffic, ...]:
        """What each pass reads and writes: rows and the tables of their shards. Listings and commits are not counted."""
        data = self.n_rows * (self.row_bytes + KEY_TOKEN_BYTES)
        found = []
        run_bytes = self.n_rows * self.row_bytes // max(self.passes[0].n_runs, 1)
        for step in self.passes:
            opened = ALIGNMENT_BYTES + table_bytes(cells_of_pile(run_bytes, self.limits.cell_bytes))
            found.append(
                Traffic(
                    bytes_read=data + step.n_segments * opened,
                    bytes_written=data + step.n_tasks * shard_overhead(step.pile_bytes, self.limits.cell_bytes),
                    n_reads=step.n_segments * (_READS_PER_SEGMENT + _READS_PER_OPEN),
                    n_writes=step.n_tasks,
                )
            )
            run_bytes = step.pile_bytes
        return tuple(found)


def loader_room(memory_bytes: int, row_bytes: int) -> tuple[int, int]:
    """(rows of a pile, rows of a piece that is on its way to its place) of a training's loader, which holds two piles."""
    piece_bytes = min(PIECE_BYTES, memory_bytes // 8)
    rows = Limits((memory_bytes - piece_bytes) // 2, process_bytes=0).pile_rows(row_bytes)
    return rows, max(piece_bytes // max(row_bytes, 1), 1)


def plan_loader(
    n_rows: int,
    row_bytes: int,
    n_runs: int,
    memory_bytes: int,
    cell_bytes: int = CELL_BYTES,
    *,
    n_sorted: int | None = None,
) -> tuple[int, int, Traffic]:
    """How many shards a pile of a training's loader reads, how many piles there are, and what they cost.

    Args:
        n_sorted: shards of a sorted store, of which a pile reads its own; None: runs, of which it reads them all.
    """
    room, piece_rows = loader_room(memory_bytes, row_bytes)
    n_full, n_left = divmod(n_rows, room)  # piles are filled one after the other; the last one takes what is left
    n_piles = n_full + (n_left > 0 or not n_full)
    n_shards = n_runs if n_sorted is None else n_sorted
    opened = ALIGNMENT_BYTES + table_bytes(cells_of_pile(n_rows * row_bytes // max(n_shards, 1), cell_bytes))
    in_pile = max(n_runs, 1) if n_sorted is None else max(-(-n_sorted // n_piles), 1)
    n_pieces = n_full * _pieces(room, in_pile, piece_rows) + (n_piles - n_full) * _pieces(n_left, in_pile, piece_rows)
    traffic = Traffic(
        bytes_read=n_rows * (row_bytes + KEY_TOKEN_BYTES) + n_shards * opened,
        n_reads=n_shards * _READS_PER_OPEN + n_piles * in_pile + round(n_pieces),
    )
    return in_pile, n_piles, traffic


def _pieces(n_rows: int, n_parts: int, piece_rows: int) -> float:
    """Expected reads of at most `piece_rows` rows for those of one pile, which keys share out to `n_parts` runs.

    A part longer than j pieces takes another read: near such a length, some are and some are not (normal approximation).
    """
    mean = n_rows / n_parts
    nearest = round(mean / piece_rows)
    if n_parts == 1 or nearest == 0:
        return n_parts * max(math.ceil(mean / piece_rows), 1)
    deviation = math.sqrt(2 * mean * (1 - 1 / n_parts))
    return n_parts * (nearest + (1 + math.erf((mean - nearest * piece_rows) / deviation)) / 2)


def plan_harvest(n_rows: int, row_bytes: int, n_runs: int, cell_bytes: int = CELL_BYTES) -> Traffic:
    """What writing the runs of one hookpoint costs."""
    overhead = shard_overhead(n_rows * row_bytes // max(n_runs, 1), cell_bytes)
    return Traffic(bytes_written=n_rows * (row_bytes + KEY_TOKEN_BYTES) + n_runs * overhead, n_writes=n_runs)


def table_bytes(n_cells: int) -> int:
    """The tables at the end of a shard: where cells start, two checksums and a fingerprint of two words each."""
    return 8 * (n_cells + 1) + 32 * n_cells


def shard_overhead(pile_bytes: int, cell_bytes: int) -> int:
    """Bytes of a shard beside its rows and their keys: header, padding of two columns (half a page each), tables."""
    return 2 * ALIGNMENT_BYTES + table_bytes(cells_of_pile(pile_bytes, cell_bytes))


def cells_of_pile(pile_bytes: int, cell_bytes: int) -> int:
    """Into how many cells a shard of this size is cut: a power of two."""
    return 1 << min(max(round(math.log2(max(pile_bytes, 1) / cell_bytes)), 0), _MOST_CELL_BITS)


def cells_within(wanted: Cells, pile_bytes: int, cell_bytes: int) -> Cells:
    """The range `wanted` in cells of about `cell_bytes`, for a shard of `pile_bytes` that fills it evenly."""
    more = max(round(math.log2(cells_of_pile(pile_bytes, cell_bytes) / wanted.count)), 0)
    return wanted.finer(min(wanted.bits + more, max(MAX_BITS, wanted.bits)))


def plan_shuffle(n_rows: int, row_bytes: int, n_runs: int, limits: Limits, *, levels: int | None = None) -> ShufflePlan:
    """Lay out the passes that bring `n_runs` runs, each over the whole key space, into order.

    Args:
        levels: passes before the last one; None: as few as keep segments long enough.

    Raises:
        ConfigError: memory too small for the rows.
    """
    if levels is None:
        return _shallowest(n_rows, row_bytes, n_runs, limits)
    plan = _lay_out(n_rows, row_bytes, n_runs, limits, levels)
    if not plan.fits():
        raise ConfigError(
            f"levels: {levels} passes before the last one leave piles of {plan.passes[-1].pile_bytes / MIB:.0f} MiB, too large "
            f"for {limits.memory_bytes / MIB:.0f} MiB for each worker; give more levels (or auto), or more memory"
        )
    return plan


def _lay_out(n_rows: int, row_bytes: int, n_runs: int, limits: Limits, levels: int) -> ShufflePlan:
    room = min(limits.pile_rows(row_bytes), max(n_rows, 1))
    passes: list[Pass] = []
    n_piles, n_left = 1, max(n_runs, 1)
    # Ranges are whole cells, so some have one more than others: the largest has to fit.
    range_rows, range_cells = float(n_rows), cells_of_pile(n_rows * row_bytes // n_left, limits.cell_bytes)
    for level in range(levels):
        # the fan-outs of all passes together bring the piles down to what the last pass can hold
        fan_out = max(2, math.ceil((n_rows / n_piles / room) ** (1 / (levels + 1 - level))))
        if level == 0 and _cannot_be_cut(n_rows * row_bytes // n_left, n_left, limits):
            fan_out = 1  # longer runs first
        n_piles *= fan_out
        range_rows *= -(-range_cells // fan_out) / range_cells
        n_members = min(max(int(room * n_left / max(range_rows, 1)), 1), n_left)
        passes.append(_pass(n_rows, row_bytes, n_piles, n_left, n_members))
        range_cells = max(range_cells // fan_out, cells_of_pile(passes[-1].pile_bytes, limits.cell_bytes))
        n_left = -(-n_left // n_members)
    n_piles *= _cuts(range_rows, range_cells, room)
    passes.append(_pass(n_rows, row_bytes, n_piles, n_left, n_left))
    return ShufflePlan(n_rows, row_bytes, tuple(passes), limits)


def _cuts(n_rows: float, n_cells: int, room: int) -> int:
    """Into how many a range of so many rows in so many cells is cut, so that no part is larger than the room."""
    cells_in_pile = max(int(room * n_cells / max(n_rows, 1)), 1)
    return -(-n_cells // cells_in_pile)


def _shallowest(n_rows: int, row_bytes: int, n_runs: int, limits: Limits) -> ShufflePlan:
    """The plan with the fewest passes whose piles fit and whose reads are long enough."""
    for levels in range(8):
        plan = _lay_out(n_rows, row_bytes, n_runs, limits, levels)
        if plan.fits() and all(_reads_well(step, limits) for step in plan.passes):
            return plan
    raise ConfigError(
        f"memory: {n_rows} rows of {row_bytes} bytes in {n_runs} runs cannot be brought into order with "
        f"{limits.memory_bytes / MIB:.0f} MiB for each worker; give more memory, or larger runs (harvest.shard_tokens)"
    )


def _reads_well(step: Pass, limits: Limits) -> bool:
    """Are its reads long enough, few enough, or as long as the runs that there are?"""
    return step.segment_bytes >= limits.segment_bytes or step.n_segments <= SEGMENTS_FOR_FREE or step.n_piles == 1


def _cannot_be_cut(run_bytes: int, n_runs: int, limits: Limits) -> bool:
    """Are there so many runs, and so short, that halves of them would not be worth a seek?"""
    return run_bytes < 2 * limits.segment_bytes and 2 * n_runs > SEGMENTS_FOR_FREE


def _pass(n_rows: int, row_bytes: int, n_piles: int, n_runs: int, n_members: int) -> Pass:
    segment = n_rows * row_bytes / (n_piles * n_runs)
    return Pass(n_piles, n_runs, n_members, int(segment), int(segment * n_members))
