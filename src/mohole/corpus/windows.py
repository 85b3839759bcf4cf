"""Windows: the stretches of a document that are run through the model, each alone, and how they are put into batches."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class Windows:
    """Stretches of one document each, to be run alone. Together they cover every token once, in order."""

    start: Int64
    length: Int64

    def __len__(self) -> int:
        return len(self.start)


def cut(document_starts: Int64, room: int) -> Windows:
    """Cut each document into windows of `room` tokens; its last window takes what is left."""
    lengths = np.diff(document_starts)
    n_windows = -(-lengths // room)
    document = np.repeat(np.arange(len(lengths)), n_windows)
    index = np.arange(n_windows.sum()) - np.repeat(np.cumsum(n_windows) - n_windows, n_windows)
    start = document_starts[document] + index * room
    return Windows(start, np.minimum(room, document_starts[document + 1] - start))


def batches(windows: Windows, batch_tokens: int, chosen: Int64 | None = None) -> Iterator[Int64]:
    """Groups of windows (their numbers) of similar length, at most `batch_tokens` tokens each, padding included.

    Args:
        chosen: these windows only; None: all.

    Longest first, so that a batch too large for the memory fails at once and not after an hour.
    """
    chosen = np.arange(len(windows)) if chosen is None else chosen
    order = chosen[np.argsort(-windows.length[chosen], kind="stable")]
    start = 0
    while start < len(order):
        room = max(1, batch_tokens // (int(windows.length[order[start]]) + 1))
        yield order[start : start + room]
        start += room
