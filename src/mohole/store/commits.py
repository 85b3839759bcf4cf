"""Commits: how a task says that what it made is whole, and how a driver finds out what is left to do.

A task writes its shards, then creates `tasks/LEVEL/NAME.json`, which only the first of its copies can. Everything a task
makes follows from its arguments, so a second copy has written the same bytes. Resuming is listing the commits. The catalogue's
tasks commit other files in the same way: catalogue/commits.py.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mohole.errors import ArtifactError
from mohole.execute import Executor, Task
from mohole.progress import Tracker
from mohole.storage import Storage, Traffic
from mohole.store.listing import TASKS, sealed, unsealed
from mohole.store.shard import ShardFacts


@dataclass(frozen=True)
class Commit:
    """What a task made, and what it cost."""

    shards: Mapping[str, ShardFacts]
    """By hookpoint."""
    traffic: Traffic
    n_training: int = 0
    """Of a harvest: rows of documents that are not held out."""

    def as_json(self) -> dict[str, Any]:
        shards = {hookpoint: shard.as_json() for hookpoint, shard in self.shards.items()}
        return {"shards": shards, "traffic": asdict(self.traffic), "n_training": self.n_training}

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> "Commit":
        shards = {hookpoint: ShardFacts.from_json(entry) for hookpoint, entry in facts["shards"].items()}
        return cls(shards, Traffic(**facts["traffic"]), facts["n_training"])


def commit_name(level: str, task: str) -> str:
    return f"{TASKS}/{level}/{task}.json"


def commit(storage: Storage, level: str, task: str, made: Commit) -> None:
    """Say that a task is done. Of several copies the first is believed; the others have made the same."""
    put_facts(storage, level, task, made.as_json())


def is_committed(storage: Storage, level: str, task: str) -> bool:
    return storage.exists(commit_name(level, task))


def read_commit(storage: Storage, level: str, task: str) -> Commit:
    """Raises:
    ArtifactError: missing; or damaged, and then it has been taken away, so that its task runs again.
    """
    return Commit.from_json(read_facts(storage, level, task))


def put_facts(storage: Storage, level: str, task: str, facts: Mapping[str, Any]) -> None:
    """As `commit`, of what a task has to say in its own words."""
    storage.put_once(commit_name(level, task), sealed(dict(facts)))


def read_facts(storage: Storage, level: str, task: str) -> dict[str, Any]:
    """As `read_commit`, what `put_facts` was given."""
    name = commit_name(level, task)
    data = storage.read(name)
    try:
        return unsealed(data, f"{storage.url}/{name}", "it was taken away, and its task runs again")
    except ArtifactError:
        storage.delete([name])
        raise


def run_missing(
    executor: Executor, storage: Storage, level: str, tasks: Sequence[Task], tracker: Tracker, units: Sequence[int]
) -> dict[str, Commit]:
    """Run the tasks that have no commit, and return all commits by name, in the order of `tasks`.

    Args:
        units: how much progress each task is.
    """
    there = set(storage.names(f"{TASKS}/{level}/"))
    run_rest(executor, tasks, lambda task: commit_name(level, task.name) in there, tracker, units)
    return {task.name: read_commit(storage, level, task.name) for task in tasks}


def run_rest(
    executor: Executor, tasks: Sequence[Task], is_done: Callable[[Task], bool], tracker: Tracker, units: Sequence[int]
) -> None:
    """Run the tasks that are not done; those that are count as progress too."""
    size = {task.name: n for task, n in zip(tasks, units, strict=True)}
    missing = [task for task in tasks if not is_done(task)]
    tracker.advance(sum(size.values()) - sum(size[task.name] for task in missing))
    executor.run(missing, on_done=lambda task: tracker.advance(size[task.name]))
