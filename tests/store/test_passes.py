"""Ranges of passes nest: whatever was cut before, no range reaches over an edge of it."""

from itertools import pairwise

import pytest

from mohole.store.cells import Cells
from mohole.store.fingerprint import Fingerprint
from mohole.store.passes import even_ranges
from mohole.store.shard import ShardFacts


def shards(cells: list[Cells]) -> list[ShardFacts]:
    return [ShardFacts(f"{i:04}", 0, "", part, Fingerprint(1), 0, 0) for i, part in enumerate(cells)]


def edges(ranges: list[Cells]) -> set[float]:
    return {part.first / 2.0**part.bits for part in ranges}


@pytest.mark.parametrize("n_piles", [1, 3, 7, 40, 397])
def test_runs_over_all_keys_are_cut_into_equal_ranges(n_piles: int) -> None:
    ranges = even_ranges(shards([Cells.everything(12)] * 5), n_piles)
    assert len(ranges) == n_piles
    assert sum(part.count for part in ranges) == 1 << 12
    assert max(part.count for part in ranges) - min(part.count for part in ranges) <= 1


@pytest.mark.parametrize("n_piles", [2, 5, 20, 41, 800])
def test_ranges_of_the_next_pass_keep_the_edges_of_the_last(n_piles: int) -> None:
    before = even_ranges(shards([Cells.everything(10)]), 20)
    made = [part.finer(18) for part in before for _ in range(3)]  # three runs for each range
    ranges = even_ranges(shards(made), n_piles)
    first, second = edges(before), edges(ranges)
    assert second <= first if n_piles <= 20 else first <= second
    covered = sorted((part.first / 2.0**part.bits, part.count / 2.0**part.bits) for part in ranges)
    assert covered[0][0] == 0.0
    assert all(start + length == after for (start, length), (after, _) in pairwise(covered))
    assert sum(length for _, length in covered) == 1.0
