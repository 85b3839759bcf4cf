"""Run independent tasks: here, or in worker processes. A scheduler only: data goes through storage, never through it."""

from mohole.execute.pool import Task, run_tasks, share_cores

__all__ = ["Task", "run_tasks", "share_cores"]
