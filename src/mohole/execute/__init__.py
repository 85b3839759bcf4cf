"""Run independent tasks: here, or in worker processes. A scheduler only: data goes through storage, never through it."""

from mohole.execute.pool import Cores, Task, run_tasks, share_cores

__all__ = ["Cores", "Task", "run_tasks", "share_cores"]
