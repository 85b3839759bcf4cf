"""`mohole serve --replicas`: from options to a plan, which needs no Ray; and the command while replicas answer."""

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from types import FrameType
from typing import Any

from mohole.cli.options import tell
from mohole.errors import ConfigError
from mohole.execute import Cores, own_cores
from mohole.execute.replicas import App, ReplicaPlan, open_replicas

_SECONDS_TO_GATHER = 60.0
"""After that, those who are there answer, and it is said who is missing."""
_SECONDS_BETWEEN_LOOKS = 2.0


def plan_replicas(
    replicas: int | None,
    *,
    ray: str | None = None,
    cpus: int | None = None,
    gpus: float | None = None,
    workers: int = 1,
    host: str = "127.0.0.1",
    port: int = 0,
    is_local: bool = True,
    engine: str = "batching",
    device: str = "cpu",
    log: Path | None = None,
    can_write: bool = False,
    ending_seconds: float = 4.0,
    own: int | None = None,
) -> ReplicaPlan | None:
    """What was asked for; None: no replicas.

    Args:
        is_local: `host` is of this machine alone.
        can_write: there is a token.
        own: this machine's cores, where that is not to be asked.

    Raises:
        ConfigError: what does not go together.
    """
    if replicas is None:
        for name, value in (("--ray", ray), ("--replica-cpus", cpus), ("--replica-gpus", gpus)):
            if value is not None:
                raise ConfigError(f"{name} {value}: goes with --replicas N")
        return None
    if workers != 1:
        raise ConfigError(f"--workers {workers}: not with --replicas {replicas}; one of them says how many answer")
    if str(log) == "-":
        raise ConfigError("--log -: replicas have no terminal; name a file")
    if device.startswith("cuda:"):
        raise ConfigError(f"--device {device}: a replica sees only the GPUs that Ray gives it; --device cuda")
    if ray is not None and can_write:
        raise ConfigError(
            f"--ray {ray}: what people write is one file, which processes of one machine may share and machines may not; "
            "leave the token out, or --ray"
        )
    needs_gpu = device.startswith("cuda") or engine == "vllm"
    threads = cpus or (1 if ray is not None else max(1, (own or own_cores()) // replicas))
    return ReplicaPlan(
        cores=Cores(replicas, threads),
        host=host,
        port=port,
        n_gpus=float(needs_gpu) if gpus is None else gpus,
        address=ray,
        everywhere=ray is not None and not is_local,
        ending_seconds=ending_seconds,
    )


def run_replicas(plan: ReplicaPlan, make: Callable[[], App], end: Callable[[Any, float], None], said: str) -> None:
    """Until somebody ends it. `said` is told when replicas answer; after that, when their number changes."""
    told = threading.Event()

    def be_told(signum: int, frame: FrameType | None) -> None:
        told.set()  # once is enough: the end takes its seconds

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, be_told)
    # Ray prints to standard output what its machines have to say, the end of its own actors included; it is in its logs, too.
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), open_replicas(plan, make, end) as replicas:
        began, n_before, has_said = time.monotonic(), 0, False
        while not told.is_set():
            now = replicas.standing()
            is_late = time.monotonic() - began > _SECONDS_TO_GATHER
            if not has_said and now.n and (now.n == plan.n or is_late):
                tell(said)
                has_said, n_before = True, plan.n
            if (has_said or is_late) and now.n != n_before:
                tell(f"{now.n} of {plan.n} replicas answer" + (f"; {now.said}" if now.said and now.n < plan.n else ""))
                n_before = now.n
            told.wait(_SECONDS_BETWEEN_LOOKS if has_said else 0.2)
