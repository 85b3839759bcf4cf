"""What must be true of measures about the mean row, and of FVU without the longest rows."""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mohole.metrics.centred import CentredRows
from mohole.metrics.definitions import Definitions
from mohole.metrics.known_answers.answer import Answer, Check, refuses
from mohole.metrics.known_answers.rows import ALL, Int64, quadratures, turn, waves

_N, _D = 60, 6
_NAMES = ("cosine", "fvu_by_row_legacy", "fvu_by_dimension")


def _about_mean(
    d: Definitions, target: Tensor, output: Tensor, *, batch: int | None = None, documents: Int64 | None = None
) -> CentredRows:
    """Both passes, in batches: the mean row, and the sums about it."""
    step = batch or len(target)
    documents = np.zeros(len(target), dtype=np.int64) if documents is None else documents
    mean = d.mean_row(target.shape[1])
    for first in range(0, len(target), step):
        mean.add(target[first : first + step])
    sums = d.centred(mean.value)
    for first in range(0, len(target), step):
        part = slice(first, first + step)
        sums.add(target[part], output[part], documents[part])
    return sums


def _pairs(mean: float = 0.0) -> Float[Tensor, "four d"]:
    """Two rows at distance 1 from the mean and two at distance 10, which is their mean: along one axis."""
    rows = torch.zeros(4, 3, dtype=torch.float64)
    rows[:, 0] = torch.tensor([1.0, -1.0, 10.0, -10.0], dtype=torch.float64)
    return rows + mean


def the_mean_does_not_flatter_a_centred_cosine(d: Definitions) -> Iterator[Answer]:
    """Rows at distances 1 and 10 from a mean of any size, an error of 1 across: (1/sqrt 2 + 10/sqrt 101) / 2."""
    for mean in (0.0, 100.0):
        rows = _pairs(mean)
        output = rows.clone()
        output[:, 1] += torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64)
        found = _about_mean(d, rows, output).cosine(ALL)[0]
        yield Answer(f"centred cosine, mean {mean:g}", found, (2**-0.5 + 10 * 101**-0.5) / 2)
        yield Answer(f"centred cosine of a copy, mean {mean:g}", _about_mean(d, rows, rows).cosine(ALL)[0], 1.0)
        half = 0.5 * rows + 0.5 * mean
        yield Answer(f"centred cosine, halved, mean {mean:g}", _about_mean(d, rows, half).cosine(ALL)[0], 1.0)


def an_offset_lowers_a_centred_cosine(d: Definitions) -> Iterator[Answer]:
    """A constant across, as long as the shorter rows, costs what an error does: the output has no mean of its own."""
    rows = _pairs()
    offset = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
    found = _about_mean(d, rows, rows + offset).cosine(ALL)[0]
    yield Answer("centred cosine, a constant added", found, (2**-0.5 + 10 * 101**-0.5) / 2)


def the_legacy_ratio_weighs_short_rows(d: Definitions) -> Iterator[Answer]:
    """The same error in every row: mean of 1/1 and 1/100 by row, where FVU has 4/202. About the mean of all, not of a batch."""
    rows = _pairs(7.0)
    output = rows + torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    for batch in (1, 3, 4):
        found = _about_mean(d, rows, output, batch=batch).fvu_by_row_legacy(ALL)[0]
        yield Answer(f"legacy ratio, batches of {batch}", found, 0.505)
    with_mean = torch.cat([rows, torch.full((1, 3), 7.0, dtype=torch.float64)])
    found = _about_mean(d, with_mean, with_mean + output[0] - rows[0]).fvu_by_row_legacy(ALL)[0]
    yield Answer("legacy ratio, a row at the mean left out", found, 0.505)


def every_dimension_counts_alike(d: Definitions) -> Iterator[Answer]:
    """Deviations 10 to 0.1 and the same error s in each: the mean of s^2 / deviation^2. A constant dimension is left out."""
    stretch = torch.tensor([10.0, 3.0, 1.0, 1.0, 0.3, 0.1], dtype=torch.float64)
    rows = waves(_N, _D) * stretch + 4.0
    output = rows + 0.5 * quadratures(_N, _D)
    expected = float((0.25 / stretch.square()).mean())
    yield Answer("FVU by dimension", _about_mean(d, rows, output).fvu_by_dimension(ALL)[0], expected)
    found = _about_mean(d, 20 * rows, 20 * output).fvu_by_dimension(ALL)[0]
    yield Answer("FVU by dimension, times 20", found, expected)
    share = _about_mean(d, rows, 0.5 * rows + 2.0).fvu_by_dimension(ALL)[0]
    yield Answer("FVU by dimension, halved about the mean", share, 0.25)
    constant = torch.full((_N, 1), 0.1, dtype=torch.float64)
    kept = _about_mean(d, torch.cat([rows, constant], 1), torch.cat([output, constant], 1))
    yield Answer("FVU by dimension, and a constant one", kept.fvu_by_dimension(ALL)[0], expected)
    lost = _about_mean(d, torch.cat([rows, constant], 1), torch.cat([output, constant + 1], 1))
    yield Answer("FVU by dimension, a constant one missed", lost.fvu_by_dimension(ALL)[0], float("nan"))


def sums_about_a_centre_may_be_cut_anywhere(d: Definitions) -> Iterator[Answer]:
    """Batches of 1, 7 or all rows, in any order, on one rank or two: the same. Two centres do not go together."""
    rows = waves(_N, _D, mean=1.0) * torch.linspace(0.2, 3.0, _N, dtype=torch.float64)[:, None] @ turn(_D)
    output = rows + 0.3 * quadratures(_N, _D)
    documents, weights = np.arange(_N) // 10, np.ones((1, 6))
    whole = _about_mean(d, rows, output, documents=documents)
    centre = rows.mean(0)
    x, y, error = rows - centre, output - centre, rows - output
    true = (
        float((x * y).sum(1).div(x.norm(dim=1) * y.norm(dim=1)).mean()),
        float(error.square().sum(1).div(x.square().sum(1)).mean()),
        float(error.square().sum(0).div(x.square().sum(0)).mean()),
    )
    order = torch.randperm(_N, generator=torch.Generator().manual_seed(0))
    for name, expected in zip(_NAMES, true, strict=True):
        yield Answer(f"{name} in one batch", getattr(whole, name)(weights)[0], expected)
    for batch in (1, 7):
        cut = _about_mean(d, rows[order], output[order], batch=batch, documents=documents[order.numpy()])
        for name, expected in zip(_NAMES, true, strict=True):
            yield Answer(f"{name}, mixed batches of {batch}", getattr(cut, name)(weights)[0], expected)
    left, right = (d.centred(whole.centre) for _ in range(2))
    left.add(rows[:33], output[:33], documents[:33])
    right.add(rows[33:], output[33:], documents[33:])
    left.merge(right)
    for name, expected in zip(_NAMES, true, strict=True):
        yield Answer(f"{name}, two ranks", getattr(left, name)(weights)[0], expected)
    yield refuses("sums about another centre", lambda: left.merge(d.centred(whole.centre + 1)))


def what_is_masked_is_in_no_sum(d: Definitions) -> Iterator[Answer]:
    """Rows that do not count may hold 1e6 or NaN: neither sums about the mean nor the longest rows know of them."""
    rows = waves(_N, _D)
    for name, poison in (("1e6", 1e6), ("NaN", float("nan"))):
        dirty = torch.cat([torch.full((3, _D), poison, dtype=torch.float64), rows])
        output = torch.cat([torch.zeros(3, _D, dtype=torch.float64), 0.5 * rows])
        counted, documents = torch.arange(_N + 3) >= 3, np.zeros(_N + 3, dtype=np.int64)
        sums, apart = d.centred(np.zeros(_D)), d.longest_apart(2)
        sums.add(dirty, output, documents, counted)
        apart.add(dirty, output, documents, counted)
        yield Answer(f"FVU by dimension, {name} where nothing counts", sums.fvu_by_dimension(ALL)[0], 0.25)
        yield Answer(f"FVU of all rows, {name} where nothing counts", apart.whole.fvu(ALL)[0], 0.25)


def a_few_huge_rows_are_set_apart(d: Definitions) -> Iterator[Answer]:
    """Three rows a thousand times as long, rebuilt exactly, hide an FVU of 0.25: without them it is that, in any batches."""
    rows = waves(_N, _D, mean=2.0)
    huge = 1e3 * torch.eye(3, _D, dtype=torch.float64)
    target, output = torch.cat([huge, rows]), torch.cat([huge, 0.5 * rows + 1.0])
    error, spread = 0.25 * _N * _D, float((target - target.mean(0)).square().sum())
    order = torch.randperm(_N + 3, generator=torch.Generator().manual_seed(0))
    for name, places, batch in (
        ("in one batch", torch.arange(_N + 3), _N + 3),
        ("in batches of 2", torch.arange(_N + 3), 2),
        ("mixed", order, 5),
    ):
        ranks = [d.longest_apart(3), d.longest_apart(3)]
        for turn_of, first in enumerate(range(0, _N + 3, batch)):
            part = places[first : first + batch]
            ranks[turn_of % 2].add(target[part], output[part], np.zeros(len(part), dtype=np.int64))
        ranks[0].merge(ranks[1])
        yield Answer(f"FVU without the 3 longest rows, {name}", ranks[0].rest.fvu(ALL)[0], 0.25)
        yield Answer(f"rows but the 3 longest, {name}", float(ranks[0].rest.n_rows), float(_N))
        yield Answer(f"FVU of all rows, {name}", ranks[0].whole.fvu(ALL)[0], error / spread)


CHECKS: tuple[Check, ...] = (
    the_mean_does_not_flatter_a_centred_cosine, an_offset_lowers_a_centred_cosine, the_legacy_ratio_weighs_short_rows,
    every_dimension_counts_alike, sums_about_a_centre_may_be_cut_anywhere, what_is_masked_is_in_no_sum,
    a_few_huge_rows_are_set_apart,
)  # fmt: skip
