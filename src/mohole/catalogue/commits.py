"""Commits of a catalogue's tasks: a small sealed file says that what a task made is whole, and what it is."""

from collections.abc import Mapping, Sequence
from typing import Any

from mohole.catalogue.layout import TASKS
from mohole.errors import ArtifactError
from mohole.execute import Executor, Task
from mohole.progress import Tracker
from mohole.storage import Storage
from mohole.store.listing import sealed, unsealed


def is_committed(out: Storage, step: str, task: str) -> bool:
    return out.exists(_name(step, task))


def commit(out: Storage, step: str, task: str, made: Mapping[str, Any]) -> None:
    """Say that a task is done. Of several copies the first is believed; the others have made the same."""
    out.put_once(_name(step, task), sealed(made))


def read_commit(out: Storage, step: str, task: str) -> dict[str, Any]:
    """Raises:
    ArtifactError: missing; or damaged, and then it has been taken away, so that its task runs again.
    """
    name = _name(step, task)
    try:
        return unsealed(out.read(name), f"{out.url}/{name}", "it was taken away, and its task runs again")
    except ArtifactError:
        out.delete([name])
        raise


def run_missing(
    executor: Executor, out: Storage, step: str, tasks: Sequence[Task], tracker: Tracker, units: Sequence[int]
) -> list[dict[str, Any]]:
    """Run the tasks that have no commit, and return what all of them made, in the order of `tasks`.

    Args:
        units: how much progress each task is.
    """
    size = {task.name: n for task, n in zip(tasks, units, strict=True)}
    missing = [task for task in tasks if not is_committed(out, step, task.name)]
    tracker.advance(sum(size.values()) - sum(size[task.name] for task in missing))
    executor.run(missing, on_done=lambda task: tracker.advance(size[task.name]))
    return [read_commit(out, step, task.name) for task in tasks]


def _name(step: str, task: str) -> str:
    return f"{TASKS}/{step}/{task}.json"
