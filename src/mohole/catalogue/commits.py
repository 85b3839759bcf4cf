"""Commits of a catalogue's tasks: a small sealed file says that what a task made is whole, and what it is."""

from collections.abc import Mapping, Sequence
from typing import Any

from mohole.catalogue.layout import TASKS
from mohole.errors import ArtifactError
from mohole.execute import Executor, Task
from mohole.progress import Tracker, tell
from mohole.storage import Storage
from mohole.store.listing import sealed, unsealed


def is_committed(out: Storage, step: str, task: str) -> bool:
    return out.exists(_name(step, task))


def commit(out: Storage, step: str, task: str, made: Mapping[str, Any], files: Sequence[str]) -> None:
    """Say that a task is done. Of several copies the first is believed; the others have made the same.

    Args:
        files: what it wrote, by name.
    """
    out.put_once(_name(step, task), sealed(dict(made) | {"files": {name: out.size(name) for name in files}}))


def is_whole(out: Storage, step: str, task: str, but: tuple[str, ...] = ()) -> bool:
    """Is a task done, and everything there that it wrote? Else its commit is taken away, so that it runs again.

    Args:
        but: folders whose files need not be there any more.
    """
    if not is_committed(out, step, task):
        return False
    for name, n_bytes in read_commit(out, step, task).get("files", {}).items():
        if not name.startswith(but) and not (out.exists(name) and out.size(name) == n_bytes):
            what = "cut short" if out.exists(name) else "missing"
            tell(f"{out.url}/{name}: {what} (somebody took it away, or the disk lost it); it is made again")
            out.delete([_name(step, task)])
            return False
    return True


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
    executor: Executor,
    out: Storage,
    step: str,
    tasks: Sequence[Task],
    tracker: Tracker,
    units: Sequence[int],
    note: str,
    but: tuple[str, ...] = (),
) -> list[dict[str, Any]]:
    """Run the tasks that are not done, and return what all of them made, in the order of `tasks`.

    Args:
        units: how much progress each task is.
        note: what is being made, for a person to read.
        but: as of `is_whole`.
    """
    size = {task.name: n for task, n in zip(tasks, units, strict=True)}
    missing = [task for task in tasks if not is_whole(out, step, task.name, but)]
    tracker.advance(sum(size.values()) - sum(size[task.name] for task in missing), note=note)
    executor.run(missing, on_done=lambda task: tracker.advance(size[task.name]))
    return [read_commit(out, step, task.name) for task in tasks]


def _name(step: str, task: str) -> str:
    return f"{TASKS}/{step}/{task}.json"
