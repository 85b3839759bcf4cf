"""A guard against a stream that gives rows again where others are due: one that stands still, or starts over before its end.

The dictionary would be learned from a part of the rows, and no loss would show it.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from mohole.errors import StageError

_COMPARED = 16
"""Rows at the beginning of a read. So many, all the same and in the same order, are no chance, unless they are all alike."""


class Repeats:
    """Compares what each read begins with to the beginning of the order, and to the read before."""

    def __init__(self, name: str, pass_rows: int) -> None:
        self._name, self._pass_rows = name, pass_rows
        self._seen: dict[str, tuple[int, Float[Tensor, "compared d"]]] = {}
        """The first read and the last one: the place in a pass, and rows."""

    def check(self, rank: int, rows: Float[Tensor, "row d"]) -> None:
        """Called for each read.

        Args:
            rank: of the first of these rows in the order, counted on through all passes.

        Raises:
            StageError: they are those of another place.
        """
        own, place = rows[:_COMPARED], rank % self._pass_rows
        if len(own) < _COMPARED or bool((own == own[0]).all()):
            return
        for seen, before in self._seen.values():
            if seen != place and torch.equal(before, own):
                raise StageError(
                    f"{self._name}: the rows at {place:,} of a pass of {self._pass_rows:,} are those at {seen:,} again: the "
                    "stream repeats; `mohole verify` checks a store"
                )
        self._seen["last"] = place, own.clone()
        if place == 0:
            self._seen["first"] = self._seen["last"]
