"""Run independent tasks: here, in worker processes, or on a cluster. A scheduler only: data goes through storage.

with open_executor("process", share_cores(len(tasks))) as executor:
    executor.run(tasks)
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Literal, assert_never

from mohole.execute.cores import Cores, environment, own_cores, share_cores, worker_number
from mohole.execute.inline import Inline
from mohole.execute.pool import Pool
from mohole.execute.schedule import MAX_ATTEMPTS
from mohole.execute.task import Executor, Task

__all__ = [
    "Cores",
    "Executor",
    "Kind",
    "Task",
    "environment",
    "open_executor",
    "own_cores",
    "share_cores",
    "worker_number",
]

Kind = Literal["inline", "process", "ray"]


@contextmanager
def open_executor(
    kind: Kind, cores: Cores, *, address: str | None = None, max_attempts: int = MAX_ATTEMPTS
) -> Iterator[Executor]:
    """What runs tasks until the block ends; its workers end with it.

    Args:
        cores: how many tasks at once, and how many threads each may use.
        address: of a Ray cluster that runs already (`auto` finds the one of this machine). None: one of its own, here.
        max_attempts: how often a task is started whose worker died. An error that the task raises is final at once.

    Raises:
        ConfigError: `kind` is "ray", and ray is not installed or no cluster answers.
    """
    match kind:
        case "inline":
            yield Inline(cores)
        case "process":
            with closing(Pool(cores, max_attempts)) as pool:
                yield pool
        case "ray":
            from mohole.execute.ray import open_ray  # loads ray: only when it is asked for

            with open_ray(cores, address, max_attempts) as ray_workers:
                yield ray_workers
        case _:
            assert_never(kind)
