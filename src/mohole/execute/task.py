"""What is run, and what runs it. Between driver and worker nothing travels but a task, and "done" or an error."""

import pickle
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from mohole.errors import MoholeError, StageError


@dataclass(frozen=True)
class Task:
    """One call that can be repeated without harm: what it makes, it makes whole or not at all."""

    name: str
    run: Callable[..., None]
    """A function that a worker can import by its name: no lambda, none defined inside another."""
    arguments: tuple[object, ...] = ()
    n_gpus: int = 0
    """GPUs that a cluster gives it for its own. On one machine a worker's number says which is its own."""
    alone: bool = False
    """It holds a lock while it runs and would refuse a second copy of itself, so none is started beside it."""


OnDone = Callable[[Task], None]


def ignore(task: Task) -> None:
    """The `on_done` of a caller that asks for nothing."""


@runtime_checkable
class Executor(Protocol):
    """Runs tasks in any order, side by side. Law: what storage holds afterwards is the same whichever executor ran them."""

    def run(self, tasks: Sequence[Task], *, on_done: OnDone = ignore) -> None:
        """Run every task. `on_done` is called here, in the caller's process, once for each task that is done.

        Raises:
            MoholeError, OSError, MemoryError: what the first failing task raised. The others are stopped; what was
                committed is kept, and the tasks may be run again.
            StageError: a task's workers died too often, or it failed in a way nobody foresaw; it is named.
        """


def run_in_worker(task: Task) -> Exception | None:
    """Run a task far from the one who asked, and return the error that should stop the run, fit to be sent back.

    An error nobody foresaw is printed here, where its traceback is, and named in a StageError.
    """
    try:
        task.run(*task.arguments)
    except (MoholeError, OSError, MemoryError) as error:
        return error if _survives_sending(error) else StageError(f"{task.name}: {type(error).__name__}: {error}")
    except Exception as error:
        traceback.print_exc()
        return StageError(
            f"{task.name}: failed with {type(error).__name__}, which mohole did not foresee (its traceback is printed "
            "above); what was finished is kept, run it again"
        )
    return None


def _survives_sending(error: Exception) -> bool:
    """Some libraries' errors cannot be rebuilt from their arguments, and would break the one who receives them."""
    try:
        return type(pickle.loads(pickle.dumps(error))) is type(error)
    except Exception:
        return False
