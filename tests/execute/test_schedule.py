"""The loop behind every kind of worker, on workers that are a table and a clock that is a number."""

from collections.abc import Iterable, Sequence
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mohole.errors import ConfigError, StageError
from mohole.execute import Task
from mohole.execute.schedule import WorkerLostError, overdue, run_all, seconds_until_overdue, straggler_limit


def nothing() -> None:
    pass


def named(n_tasks: int) -> list[Task]:
    return [Task(str(i), nothing) for i in range(n_tasks)]


class Table:
    """Workers whose attempts take the seconds that a script says, and then are lost or fail, as it says too.

    script[task name] is a list of (seconds, end), one for each attempt; the last one stands for all that follow.
    """

    def __init__(self, n_slots: int, script: dict[str, list[tuple[float, Exception | None]]]) -> None:
        self.slots, self.script, self.now = n_slots, script, 0.0
        self.attempts: dict[int, tuple[str, float, Exception | None]] = {}
        self.started: list[str] = []
        self.stopped: list[str] = []
        self._ids = count()

    def n_slots(self) -> int:
        return self.slots

    def start(self, task: Task) -> int:
        ends = self.script.get(task.name, [(1.0, None)])
        seconds, end = ends[min(self.started.count(task.name), len(ends) - 1)]
        attempt = next(self._ids)
        self.attempts[attempt] = (task.name, self.now + seconds, end)
        self.started.append(task.name)
        assert len(self.attempts) <= self.slots
        return attempt

    def wait(self, attempts: Sequence[int], seconds: float | None) -> Iterable[int]:
        assert set(attempts) == set(self.attempts)
        first = min(end for _, end, _ in self.attempts.values())
        self.now = first if seconds is None else min(first, self.now + seconds)
        return [attempt for attempt in attempts if self.attempts[attempt][1] <= self.now]

    def outcome(self, attempt: int) -> Exception | None:
        _, _, end = self.attempts.pop(attempt)
        if isinstance(end, WorkerLostError):
            raise end
        return end

    def stop(self, attempts: Sequence[int]) -> None:
        self.stopped += [self.attempts.pop(attempt)[0] for attempt in attempts]

    def run(self, tasks: Sequence[Task]) -> list[str]:
        done: list[str] = []
        run_all(self, tasks, lambda task: done.append(task.name), clock=lambda: self.now)
        return done


lost = WorkerLostError("its worker was hit by a meteorite")
ends = st.lists(st.tuples(st.floats(0.01, 50), st.sampled_from([None, None, None, lost])), min_size=1, max_size=2)


@given(n_slots=st.integers(1, 4), script=st.dictionaries(st.sampled_from("01234567"), ends))
def test_every_task_is_done_once_and_nothing_is_left_running(
    n_slots: int, script: dict[str, list[tuple[float, Exception | None]]]
) -> None:
    table = Table(n_slots, {name: [*ends, (1.0, None)] for name, ends in script.items()})  # lost twice at the most
    assert sorted(table.run(named(8))) == list("01234567")
    assert not table.attempts


def test_without_faults_each_task_is_started_once_in_the_order_given() -> None:
    table = Table(3, {})
    table.run(named(8))
    assert table.started == list("01234567")
    assert table.now == 3.0


def test_the_same_task_twice_is_two_tasks() -> None:
    table = Table(2, {})
    assert table.run([named(1)[0]] * 3) == ["0", "0", "0"]


def test_a_lost_task_is_tried_again_before_new_ones() -> None:
    table = Table(1, {"1": [(1.0, lost), (1.0, lost), (1.0, None)]})
    table.run(named(3))
    assert table.started == ["0", "1", "1", "1", "2"]


def test_a_task_that_is_always_lost_ends_the_run_and_is_named_with_the_cause() -> None:
    table = Table(2, {"1": [(1.0, lost)], "3": [(100.0, None)]})
    with pytest.raises(StageError, match=r"^1: tried 3 times: its worker was hit by a meteorite; what was finished is"):
        table.run([*named(4)])
    assert table.started.count("1") == 3
    assert not table.attempts


def test_an_error_of_a_task_is_final_and_stops_the_others() -> None:
    table = Table(2, {"0": [(1.0, ConfigError("too small"))], "1": [(100.0, None)]})
    with pytest.raises(ConfigError, match="too small"):
        table.run(named(4))
    assert table.started == ["0", "1"]
    assert table.stopped == ["1"]


def test_an_error_of_the_caller_stops_the_tasks() -> None:
    table = Table(2, {"1": [(100.0, None)]})

    def refuse(task: Task) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_all(table, named(2), refuse, clock=lambda: table.now)
    assert table.stopped == ["1"]


def test_a_straggler_is_started_again_when_nothing_waits_and_the_first_to_end_counts() -> None:
    table = Table(2, {"0": [(100.0, None), (1.0, None)]})
    assert table.run(named(4)) == ["1", "2", "3", "0"]
    assert table.started == ["0", "1", "2", "3", "0"]
    assert table.stopped == ["0"]
    assert table.now == pytest.approx(3.0 + 0.0 + 1.0, abs=0.05)  # a slot is free at 3.0; it is overdue since 3.0


def test_a_straggler_that_ends_first_stops_its_copy() -> None:
    table = Table(2, {"0": [(5.0, None), (100.0, None)]})
    assert table.run(named(3)) == ["1", "2", "0"]
    assert table.stopped == ["0"]
    assert table.now == 5.0


def test_copies_that_end_in_the_same_moment_count_once() -> None:
    table = Table(2, {"0": [(5.0, None), (5.0 - 3.01, None)]})
    done = table.run(named(2))
    assert table.started == ["0", "1", "0"]
    assert done == ["1", "0"]


def test_no_third_copy_is_started() -> None:
    table = Table(4, {"0": [(100.0, None)]})
    table.run(named(2))
    assert table.started.count("0") == 2


def test_a_lost_copy_costs_nothing_while_the_other_runs() -> None:
    table = Table(2, {"0": [(30.0, None), (1.0, lost), (1.0, lost), (1.0, lost), (100.0, None)]})
    assert table.run(named(2)) == ["1", "0"]
    assert table.now == 30.0


def test_a_task_that_would_refuse_its_copy_is_left_alone() -> None:
    table = Table(2, {"0": [(100.0, None), (1.0, None)]})
    table.run([Task("0", nothing, alone=True), *named(3)[1:]])
    assert table.started == ["0", "1", "2"]


@given(st.dictionaries(st.integers(), st.floats(0, 100)), st.lists(st.floats(0, 100)).map(sorted), st.floats(100, 500))
def test_a_straggler_is_the_oldest_and_past_three_medians_and_two_seconds(
    starts: dict[int, float], durations: list[float], now: float
) -> None:
    index = overdue(starts, durations, now)
    patience = seconds_until_overdue(starts, durations, now)
    if index is None:
        assert not starts or not durations or now - min(starts.values()) <= straggler_limit(durations)
        if patience is not None:
            assert overdue(starts, durations, now + patience) is not None
    else:
        assert starts[index] == min(starts.values())
        assert now - starts[index] > max(2, 3 * sorted(durations)[len(durations) // 2])
