"""Plans: piles that fit, however unlucky; as few passes as memory and segments allow; the published sizes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mohole.errors import ConfigError
from mohole.store.cells import Cells
from mohole.store.plan import MIB, SEGMENTS_FOR_FREE, Limits, cells_of_pile, cells_within, plan_shuffle

ROW_BYTES = 8192
GB, MB = 10**9, 10**6


@given(st.integers(100, 10**6), st.integers(2, 20_000), st.integers(0, 2**31))
def test_a_pile_fits_even_when_chance_makes_it_large(room: int, row_bytes: int, seed: int) -> None:
    limits = Limits(room * (row_bytes + 64), process_bytes=0)
    expected = limits.pile_rows(row_bytes)
    n_piles = 2000
    sizes = np.random.default_rng(seed).binomial(expected * n_piles, 1 / n_piles, 500)
    assert 0.2 * room < expected <= room
    assert sizes.max() <= limits.room_rows(row_bytes)
    if room > 10_000:
        assert expected > 0.9 * room


def test_what_a_process_takes_before_it_reads_a_row_is_taken_off() -> None:
    assert Limits(200 * MIB, process_bytes=100 * MIB).room_rows(960) == 100 * MIB // 1024


def test_a_worker_that_could_not_even_start_is_refused_with_what_would_do() -> None:
    with pytest.raises(ConfigError, match=r"memory: 20 MiB for each worker is too little; the smallest is \d+ MiB"):
        plan_shuffle(10**6, ROW_BYTES, 10, Limits(20 * MIB))


def test_rows_that_no_number_of_passes_brings_into_order_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"cannot be brought into order with .*give more memory, or larger runs"):
        plan_shuffle(10**12, ROW_BYTES, 10**9, Limits(40_000, segment_bytes=8 * MB, process_bytes=0))


@pytest.mark.parametrize(
    ("n_bytes", "run_bytes", "n_passes"),
    [(10**12, 64 * GB, 1), (10**14, 64 * GB, 1), (10**15, 64 * GB, 2), (10**16, 64 * GB, 2)],
)
def test_the_sizes_of_the_field_with_64_gb_and_segments_of_8_mb(n_bytes: int, run_bytes: int, n_passes: int) -> None:
    """1 TB and 100 TB in one pass, 1 PB and 10 PB in two, of 8 KB rows."""
    limits = Limits(64 * GB, segment_bytes=8 * MB)
    plan = plan_shuffle(n_bytes // ROW_BYTES, ROW_BYTES, -(-n_bytes // run_bytes), limits)
    assert len(plan.passes) == n_passes
    moved = [step.bytes_read + step.bytes_written for step in plan.traffic()]
    assert sum(moved) == pytest.approx(2 * n_passes * n_bytes, rel=0.02)


@given(
    st.integers(1, 2 * 10**5), st.sampled_from([64, 512, 8192]), st.integers(1, 50_000), st.integers(10**3, 10**6),
    st.none() | st.integers(0, 3),
)  # fmt: skip
def test_every_pass_reads_everything_and_the_last_one_fits_the_memory(
    run_rows: int, row_bytes: int, n_runs: int, room: int, levels: int | None
) -> None:
    limits, n_rows = Limits(room * (row_bytes + 64), process_bytes=0), n_runs * run_rows
    try:
        plan = plan_shuffle(n_rows, row_bytes, n_runs, limits, levels=levels)
    except ConfigError:
        return
    assert levels is None or len(plan.passes) == levels + 1
    if levels is None:
        assert n_rows / plan.passes[-1].n_piles <= limits.pile_rows(row_bytes)
        assert all(
            step.segment_bytes >= limits.segment_bytes or step.n_segments <= SEGMENTS_FOR_FREE or step.n_piles == 1
            for step in plan.passes
        )
    n_runs_left, n_piles = n_runs, 1
    for step in plan.passes:
        assert step.n_runs == n_runs_left
        assert step.n_piles % n_piles == 0  # ranges nest
        assert step.n_tasks == step.n_piles * -(-step.n_runs // step.n_members)
        assert 1 <= step.n_members <= step.n_runs
        n_runs_left, n_piles = -(-step.n_runs // step.n_members), step.n_piles
    assert plan.passes[-1].n_members == plan.passes[-1].n_runs


def test_runs_whose_cells_are_together_too_large_for_the_memory_get_a_pass_that_makes_finer_ones() -> None:
    """Each cell of all runs together is 10 GB, and a worker has half of one; segments alone would allow one pass."""
    limits = Limits(500 * MIB)
    plan = plan_shuffle(131_072 * 39_009, ROW_BYTES, 39_009, limits)
    assert len(plan.passes) == 2
    assert plan.n_rows / plan.passes[-1].n_piles <= limits.pile_rows(ROW_BYTES)


@pytest.mark.parametrize(("memory", "piles"), [(64 * GB, [1]), (GB, [1, 4]), (200 * MB, [1, 31])])
def test_many_runs_shorter_than_a_good_read_are_brought_together_first(memory: int, piles: list[int]) -> None:
    """Each has to be read at least once, whole: after that they are long."""
    n_runs = 25_000
    plan = plan_shuffle(n_runs * 16, ROW_BYTES, n_runs, Limits(memory))
    assert [step.n_piles for step in plan.passes] == pytest.approx(piles, rel=0.35)
    assert plan.passes[0].n_segments == n_runs
    assert all(step.segment_bytes >= Limits().segment_bytes for step in plan.passes[1:])
    assert plan_shuffle(n_runs * 16, ROW_BYTES, n_runs, Limits(memory), levels=len(piles) - 1) == plan


def test_more_data_never_takes_fewer_passes_and_more_memory_never_more() -> None:
    def n_passes(n_rows: int, memory: int) -> int:
        return len(plan_shuffle(n_rows, ROW_BYTES, max(n_rows // 10**5, 1), Limits(memory)).passes)

    sizes = [10**power for power in range(3, 13)]
    by_size = [n_passes(n_rows, 2 << 30) for n_rows in sizes]
    by_memory = [n_passes(10**10, memory << 30) for memory in (1, 4, 16, 64, 256)]
    assert by_size == sorted(by_size)
    assert by_memory == sorted(by_memory, reverse=True)
    assert (by_size[0], max(by_size)) == (1, by_size[-1])
    assert by_size[-1] >= 2


@given(st.integers(0, 2**62), st.integers(1, 2**30))
def test_cells_are_of_about_the_size_asked_for(pile_bytes: int, cell_bytes: int) -> None:
    n_cells = cells_of_pile(pile_bytes, cell_bytes)
    assert n_cells & (n_cells - 1) == 0
    if 1 < n_cells < 2**14:  # no more, however large the shard
        assert 0.7 < pile_bytes / n_cells / cell_bytes < 1.42


@given(st.integers(0, 10), st.integers(1, 2**30))
def test_cells_within_a_range_are_that_range(bits: int, pile_bytes: int) -> None:
    for wanted in Cells.everything(bits).split(7):
        finer = cells_within(wanted, pile_bytes, 4096)
        assert finer == wanted.finer(finer.bits)
        if finer.bits > wanted.bits and finer.count < 2**14:
            assert 0.5 < pile_bytes / finer.count / 4096 < 2.1
