"""A torch device by the name a recipe gives it, and what it has of memory and time."""

import time
from typing import Any

import torch


def usable_device(name: str | torch.device) -> torch.device:
    """The device, if one number can be put there and read back.

    Raises:
        ValueError: it cannot; says why, and what can be given.
    """
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(
            f"{str(name)!r} cannot be used here: {lines[0].strip()}; "
            'give "cpu", or "cuda" or "cuda:1" on a machine with such a GPU and a torch built for it'
        ) from error
    return device


def busy_seconds(device: torch.device) -> float:
    """A clock of the work that is done on a device: CPU-seconds of this process, or time, once all that it was given is done."""
    if device.type == "cpu":
        return time.process_time()
    _backend(device).synchronize(device)
    return time.perf_counter()


def free_bytes(device: torch.device) -> int | None:
    """Memory of an accelerator that nothing has taken. None: not known."""
    if device.type != "cuda":
        return None
    return int(torch.cuda.mem_get_info(device)[0])


def _backend(device: torch.device) -> Any:
    return getattr(torch, device.type)
