"""A torch device by the name a recipe gives it, and what it has of memory and time."""

import platform
import resource
import time
from pathlib import Path

import torch

from mohole.errors import ConfigError


def usable_device(name: str | torch.device) -> torch.device:
    """The device, if one number can be put there and read back.

    Raises:
        ValueError: it cannot; says why, and what can be given.
    """
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError) as error:  # an AssertionError is what a torch without CUDA says of "cuda"
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(
            f"{str(name)!r} cannot be used here: {lines[0].strip()}; "
            'give "cpu", or "cuda" or "cuda:1" on a machine with such a GPU and a torch built for it'
        ) from error
    return device


def training_device(name: str) -> torch.device:
    """Where a recipe's `train.device` says; a GPU is made this thread's own, which is where Triton starts its programs.

    Raises:
        ConfigError: it cannot be used, or is neither a CPU nor CUDA: sums are made in double, which others do not have.
    """
    try:
        device = usable_device(name)
    except ValueError as error:
        raise ConfigError(f"train.device: {error}") from error
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f'train.device: {name!r} has no numbers in double; give "cpu" or "cuda"')
    if device.type == "cuda":
        torch.cuda.set_device(device)
        return torch.device("cuda", torch.cuda.current_device())
    return device


def machine_name(device: torch.device) -> str:
    """Which processor it is, and of a CPU how many threads torch uses there: what timings are of."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text("utf-8", "replace").splitlines() if facts.exists() else []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return f"{next(models, platform.processor() or platform.machine())}, {torch.get_num_threads()} threads"


def busy_seconds(device: torch.device) -> float:
    """A clock of the work done on a device: CPU-seconds of this process, or time, once all that a GPU was given is done."""
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def available_bytes(device: torch.device) -> int | None:
    """Memory that this process may still take. Main memory: what the machine has free, and what its control group allows.

    None: not known.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    found = []
    facts = Path("/proc/meminfo")
    if facts.exists():
        lines = facts.read_text(encoding="ascii").splitlines()
        found += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = ((group / name).read_text(encoding="ascii").strip() for name in ("memory.max", "memory.current"))
        if limit != "max":
            found.append(int(limit) - int(used))
    except OSError:  # no control group of version 2
        pass
    return min(found) if found else None


def peak_bytes(device: torch.device) -> int:
    """The most memory that this process has held there."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024
