"""The sum of many numbers, the same for any number of threads: torch shares a long sum among its threads, numpy does not."""

from torch import Tensor


def whole_sum(numbers: Tensor) -> float:
    """The sum of all, in double."""
    return float(numbers.double().cpu().numpy().sum())
