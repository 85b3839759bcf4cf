"""Signs of life: silence for what is short, then lines with rate and time left; no share of what has no known size."""

import re
import time

import pytest

from mohole import progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_a_short_job_says_nothing(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with progress.track("harvest", 100, "tokens") as tracker:
        clock[0] = 1.9
        tracker.advance(100)
    assert lines(capsys) == []


def test_a_long_job_says_share_rate_and_time_left(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with progress.track("harvest", 400, "tokens") as tracker:
        for second in range(10, 50, 10):
            clock[0] = second
            tracker.advance(25, note="fvu 0.5")
    first, *_, last = lines(capsys)
    assert first == "harvest: 6%, 2.5 tokens/s, 150 s left, fvu 0.5"
    assert last == "harvest: 25%, 2.5 tokens/s, 120 s left, fvu 0.5"


def test_a_slow_first_part_says_nothing_of_the_rest(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    """Kernels are compiled in a training's first step: a minute of it would promise hours."""
    with progress.track("train", 1000, "rows") as tracker:
        for second in (60.0, 70.0, 80.0):
            clock[0] = second
            tracker.advance(1 if second == 60.0 else 100)
    assert lines(capsys) == ["train: 0%", "train: 10%, 10 rows/s, 90 s left", "train: 20%, 10 rows/s, 80 s left"]


def test_the_first_sign_does_not_wait_for_the_first_part(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.01)
    with progress.track("catalogue, codes", 1000, "tokens"):
        time.sleep(0.2)
    assert lines(capsys) == ["catalogue, codes: 0%"]
    progress.silent.set(True)
    with progress.track("a part of another job", 1000, "tokens"):
        time.sleep(0.05)
    progress.silent.set(False)
    assert lines(capsys) == []


def test_what_was_done_before_is_no_speed(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with progress.track("train", 1000, "rows", done=500) as tracker:
        for second in (10.0, 20.0):
            clock[0] = second
            tracker.advance(100)
    assert lines(capsys) == ["train: 60%, 10 rows/s, 40 s left", "train: 70%, 10 rows/s, 30 s left"]


def test_a_job_of_unknown_size_promises_nothing(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with progress.track("corpus", None, "documents") as tracker:
        clock[0] = 10.0
        tracker.advance(3000)
    (line,) = lines(capsys)
    assert line == "corpus: 3.0k documents, 300 documents/s"
    assert not re.search("%|left", line)
