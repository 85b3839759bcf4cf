"""A loop of decoding that any way of steering can be measured in. Needs torch alone: peers run it in their own interpreter."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

BATCH, N_PASSES = 16, 100
Step = Callable[[torch.Tensor, Any], "tuple[torch.Tensor, Any]"]


@torch.no_grad()
def tokens_per_second(ways: Mapping[str, Step], rounds: int) -> dict[str, object]:
    """Tokens in a CPU-second of each way, in turn, and its share of the first one's; medians of rounds."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, step in ways.items():
            seconds = _seconds(step)
            if turn:  # the first is to get warm
                found[name].append(BATCH * N_PASSES / seconds)
    first = next(iter(found.values()))
    return {
        name: {
            "tokens_per_cpu_second": round(statistics.median(own)),
            "of_bare": round(statistics.median(a / b for a, b in zip(own, first, strict=True)), 3),
        }
        for name, own in found.items()
    }


def _seconds(step: Step) -> float:
    tokens = torch.arange(100, 100 + BATCH * 8).view(BATCH, 8)
    began, cache = time.process_time(), None
    for _ in range(N_PASSES):
        logits, cache = step(tokens, cache)
        tokens = logits.argmax(-1, keepdim=True)
    return time.process_time() - began
