"""Commits of a catalogue's tasks: a small sealed file says that what a task made is whole, and what it is."""

from collections.abc import Mapping, Sequence
from typing import Any

from mohole.execute import Executor, Task
from mohole.progress import Tracker, tell
from mohole.storage import Storage
from mohole.store.commits import commit_name, is_committed, put_facts, read_facts, run_rest


def commit(out: Storage, step: str, task: str, made: Mapping[str, Any], files: Sequence[str]) -> None:
    """Say that a task is done. Of several copies the first is believed; the others have made the same.

    Args:
        files: what it wrote, by name.
    """
    put_facts(out, step, task, dict(made) | {"files": {name: out.size(name) for name in files}})


def is_whole(out: Storage, step: str, task: str, but: tuple[str, ...] = ()) -> bool:
    """Is a task done, and everything there that it wrote? Else its commit is taken away, so that it runs again.

    Args:
        but: folders whose files need not be there any more.
    """
    if not is_committed(out, step, task):
        return False
    for name, n_bytes in read_facts(out, step, task).get("files", {}).items():
        if not name.startswith(but) and not (out.exists(name) and out.size(name) == n_bytes):
            what = "cut short" if out.exists(name) else "missing"
            tell(f"{out.url}/{name}: {what} (somebody took it away, or the disk lost it); it is made again")
            out.delete([commit_name(step, task)])
            return False
    return True


def run_missing(
    executor: Executor,
    out: Storage,
    step: str,
    tasks: Sequence[Task],
    tracker: Tracker,
    units: Sequence[int],
    but: tuple[str, ...] = (),
) -> list[dict[str, Any]]:
    """Run the tasks that are not done, and return what all of them made, in the order of `tasks`.

    Args:
        units: how much progress each task is.
        but: as of `is_whole`.
    """
    run_rest(executor, tasks, lambda task: is_whole(out, step, task.name, but), tracker, units)
    return [read_facts(out, step, task.name) for task in tasks]
