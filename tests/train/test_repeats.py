"""A stream that gives rows again where others are due is stopped with a word; passes over the same rows are no such thing."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.train.test_resume import SETTINGS, Rows, make

from mohole import artifact
from mohole.errors import StageError
from mohole.train import train
from mohole.train.repeats import Repeats


class Broken(Rows):
    """A stream that reads another rank than it is asked for."""

    def __init__(self, rank: Callable[[int], int]) -> None:
        super().__init__("a", 12)
        self._rank = rank

    def rows(self, first: int, n_rows: int) -> torch.Tensor:
        return super().rows(self._rank(first), n_rows)


BATCH = SETTINGS["batch_rows"]
BROKEN: dict[str, tuple[Callable[[int], int], str]] = {
    "it starts over after four batches": (lambda first: first % (4 * BATCH), "the rows at 128 .* are those at 0 again"),
    "it stands still": (lambda first: min(first, 5 * BATCH), "the rows at 192 .* are those at 160 again"),
}


def learned(folder: Path, stream: Rows) -> None:
    inputs = artifact.Inputs(kind="dictionary", config={}, seed=5)
    with artifact.create(folder, inputs, resume=True) as draft:
        train(draft, stream, make("topk"), seed=5)


@pytest.mark.parametrize("how", BROKEN)
def test_a_stream_that_repeats_stops_the_training(how: str, tmp_path: Path) -> None:
    rank, words = BROKEN[how]
    with pytest.raises(StageError, match=f"a: {words}: the stream repeats; `mohole verify`"):
        learned(tmp_path / "broken", Broken(rank))
    assert not (tmp_path / "broken").exists()


def test_a_second_pass_over_the_rows_is_no_repetition(tmp_path: Path) -> None:
    stream = Rows("a", 12)
    stream.n_rows = 4 * BATCH  # the fifth batch is the first one again, as is said before the first step
    learned(tmp_path / "twice", stream)
    assert (tmp_path / "twice" / "dictionary.json").exists()


def test_rows_that_are_all_alike_or_few_say_nothing() -> None:
    for n_rows, row in ((64, torch.ones(1, 3)), (15, torch.randn(15, 3))):
        guard = Repeats("a", 1000)
        for place in range(0, 10 * n_rows, n_rows):
            guard.check(place, row.expand(n_rows, 3))


def test_reading_the_same_place_again_is_allowed() -> None:
    rows = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
    guard = Repeats("a", 100)
    for rank in (0, 0, 40, 40, 140, 0):
        guard.check(rank, rows[rank % 100 :][:40])
    with pytest.raises(StageError, match="the rows at 60 of a pass of 100 are those at 0 again"):
        guard.check(160, rows[:40])
