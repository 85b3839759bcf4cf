"""The executor without workers: each task in this process, in the order given. An error keeps its traceback."""

from collections.abc import Sequence

from mohole.execute.cores import Cores, environment
from mohole.execute.task import OnDone, Task, ignore


class Inline:
    """Runs tasks here. They see the environment that a worker would, and the caller has his own back afterwards."""

    def __init__(self, cores: Cores) -> None:
        self._cores = cores

    def run(self, tasks: Sequence[Task], *, on_done: OnDone = ignore) -> None:
        with environment(self._cores.environment()):
            for task in tasks:
                task.run(*task.arguments)
                on_done(task)
