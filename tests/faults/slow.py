"""A merge that takes very long where it is run first. In a file of its own: workers import it by its name."""

import os
import time
from pathlib import Path

from mohole.store import merge_task
from mohole.store.merge_task import MergeTask

SECONDS = 120.0
_CHOSEN, _MARKS = "MOHOLE_TESTS_SLOW_TASK", "MOHOLE_TESTS_SLOW_MARKS"


def environment(chosen: str, marks: Path) -> dict[str, str]:
    """Makes the task of this level and name slow; each of its attempts leaves a file in `marks`."""
    return {_CHOSEN: chosen, _MARKS: str(marks)}


def run_merge(task: MergeTask) -> None:
    if f"{task.level}/{task.name}" == os.environ[_CHOSEN]:
        marks = Path(os.environ[_MARKS])
        is_first = not any(marks.iterdir())
        (marks / str(os.getpid())).touch()
        end = time.monotonic() + SECONDS * is_first
        while time.monotonic() < end:
            time.sleep(0.02)
    merge_task.run_merge(task)
