"""A connection to Ray: to a cluster that runs already, or to a Ray of our own on this machine. Starts no work."""

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module

from mohole.errors import ConfigError
from mohole.execute.cores import Cores

_SECONDS_TO_KNOCK = 10.0
_SMALLEST_OBJECT_STORE = 75 << 20  # bytes; Ray takes no less, and would take 30 % of the memory
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # it would report to its makers over the network
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # it would hide the GPUs from tasks that ask Ray for none
    "RAY_SERVE_ENABLE_HA_PROXY": "0",  # it would listen at every address, whichever is asked for
}


@dataclass(frozen=True)
class Asked:
    """How the person who asked for Ray said so: errors name it."""

    what: str = "machine.executor"
    address: str = "machine.address"
    extra: str = "ray"
    """Of the package: what has to be installed."""
    module: str = "ray"
    """What that brings."""


@contextmanager
def open_cluster(cores: Cores, address: str | None, asked: Asked = Asked(), *, logs: bool = True) -> Iterator[bool]:
    """Connect to the cluster at `address`, or start a Ray of our own; end what was begun here, and nothing else.

    Args:
        logs: what workers print, and what Ray tells, is printed here, too.

    Yields:
        Is it a cluster that others use, too? On a Ray of our own a CPU is a slot, whatever its threads.

    Raises:
        ConfigError: ray is not installed, or no cluster answers.
    """
    with _callers_process_kept():
        os.environ.update(_QUIET)
        try:
            import_module(asked.module)
            import ray
        except ImportError:
            raise ConfigError(
                f"{asked.what}: {asked.module} is not installed; pip install 'mohole[{asked.extra}]'"
            ) from None
        if not logs:
            for name in ("ray", asked.module):  # each has a level of its own, from its import on
                logging.getLogger(name).setLevel(logging.ERROR)
        is_ours = not ray.is_initialized()  # else the caller's own connection is used, and left as it is
        if is_ours:
            os.environ.update(cores.environment())
            _start(cores, logs) if address is None else _connect(cores, address, asked, logs)
    try:
        yield not is_ours or address is not None
    finally:
        if is_ours:
            ray.shutdown()


def _start(cores: Cores, logs: bool) -> None:
    import ray

    # Workers inherit the environment of this moment. Ray's `runtime_env` would say the same, but starts new processes for
    # it again and again: 200 empty tasks took 28 s with it and 2 s without.
    ray.init(
        address="local",  # not the cluster that RAY_ADDRESS may name
        num_cpus=cores.processes,
        object_store_memory=_SMALLEST_OBJECT_STORE,
        include_dashboard=False,
        configure_logging=False,
        log_to_driver=logs,
    )


def _connect(cores: Cores, address: str, asked: Asked, logs: bool) -> None:
    import ray

    try:
        _knock(address)
        ray.init(
            address=address,
            runtime_env={"env_vars": cores.environment() | _QUIET},
            configure_logging=False,
            log_to_driver=logs,
        )
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ConfigError(
            f"{asked.address}: no Ray cluster answers at {address} ({reason}); `ray status` on its head says what runs, "
            "and one with tokens needs RAY_AUTH_MODE=token here"
        ) from None


def _knock(address: str) -> None:
    """Ray would knock for more than ten minutes at a door where nobody lives."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():  # not `auto`
        socket.create_connection((host.strip("[]"), int(port)), _SECONDS_TO_KNOCK).close()


@contextmanager
def _callers_process_kept() -> Iterator[None]:
    """Give back what importing and starting Ray takes: variables such as PYTHONBREAKPOINT, and the answer to SIGTERM."""
    variables, on_terminate = dict(os.environ), signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(variables)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_terminate)
