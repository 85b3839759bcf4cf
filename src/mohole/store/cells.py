"""Cells: equal ranges of the key space, by leading bits. Every range of keys that anything reads or writes is whole cells."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]
UInt64 = NDArray[np.uint64]

MAX_BITS = 40


@dataclass(frozen=True, order=True)
class Cells:
    """`count` neighbouring cells, from number `first`, of the 2^bits that the key space is cut into."""

    bits: int
    first: int
    count: int

    @classmethod
    def everything(cls, bits: int = 0) -> "Cells":
        """The whole key space."""
        return cls(bits, 0, 1 << bits)

    def finer(self, bits: int) -> "Cells":
        """The same range of keys in smaller cells."""
        if bits < self.bits:
            raise ValueError(f"{bits} bits are coarser than {self.bits}")
        more = bits - self.bits
        return Cells(bits, self.first << more, self.count << more)

    def starts(self, sorted_keys: UInt64) -> Int64:
        """Where each cell begins among these ascending keys, and where the last one ends. All keys must lie in the range."""
        bounds = np.zeros(self.count + 1, dtype=np.int64)
        if self.bits:
            lower = np.arange(self.first + 1, self.first + self.count, dtype=np.uint64) << np.uint64(64 - self.bits)
            bounds[1:-1] = np.searchsorted(sorted_keys, lower)
        bounds[-1] = len(sorted_keys)
        return bounds

    def contain(self, keys: UInt64) -> NDArray[np.bool_]:
        """Which of these keys lie in the range."""
        if self.bits == 0:
            return np.ones(len(keys), dtype=np.bool_)
        cells = keys >> np.uint64(64 - self.bits)
        return (cells >= np.uint64(self.first)) & (cells < np.uint64(self.first + self.count))

    def holds(self, sorted_keys: UInt64) -> bool:
        """Do all of these ascending keys lie in the range?"""
        if len(sorted_keys) == 0:
            return True
        lowest, highest = self.first << (64 - self.bits), (self.first + self.count) << (64 - self.bits)
        return lowest <= int(sorted_keys[0]) and int(sorted_keys[-1]) < highest

    def between(self, low: int, high: int) -> "Cells | None":
        """Those of these cells that keys from `low` to before `high` can be in; None: none of them."""
        width = 64 - self.bits
        first, last = max(low >> width, self.first), min((high - 1) >> width, self.first + self.count - 1)
        return Cells(self.bits, first, last - first + 1) if first <= last else None

    def overlaps(self, other: "Cells") -> bool:
        """Do the two ranges share keys?"""
        bits = max(self.bits, other.bits)
        one, two = self.finer(bits), other.finer(bits)
        return one.first < two.first + two.count and two.first < one.first + one.count

    def split(self, n_parts: int) -> list["Cells"]:
        """Cut into at most `n_parts` neighbouring ranges of nearly equal length, none empty."""
        edges = [self.count * part // n_parts for part in range(n_parts + 1)]
        return [Cells(self.bits, self.first + low, high - low) for low, high in pairwise(edges) if high > low]
