"""What must be true of FVU and its kin."""

from collections.abc import Iterator

import numpy as np
import torch

from mohole.metrics.definitions import Definitions
from mohole.metrics.known_answers.answer import Answer, Check, refuses
from mohole.metrics.known_answers.rows import ALL, quadratures, rebuilt, turn, waves

_N, _D = 60, 6


def a_copy_explains_everything(d: Definitions) -> Iterator[Answer]:
    """A copy has FVU 0, no squared error, cosine 1, relative bias 1, ratio of lengths 1."""
    rows = waves(_N, _D, mean=3.0)
    sums = rebuilt(d, rows, rows)
    yield Answer("FVU of a copy", sums.fvu(ALL)[0], 0.0)
    yield Answer("uncentred R^2 of a copy", sums.r2_uncentred(ALL)[0], 1.0)
    yield Answer("squared error of a copy", sums.mse(ALL)[0], 0.0)
    yield Answer("cosine of a copy", sums.cosine(ALL)[0], 1.0)
    yield Answer("relative bias of a copy", sums.relative_bias(ALL)[0], 1.0)
    yield Answer("ratio of lengths of a copy", sums.length_ratio(ALL)[0], 1.0)


def nothing_explains_nothing(d: Definitions) -> Iterator[Answer]:
    """Zero in the place of every row has uncentred R^2 0; its FVU counts the mean's length too."""
    rows = waves(_N, _D, mean=3.0)
    sums = rebuilt(d, rows, torch.zeros_like(rows))
    yield Answer("uncentred R^2 of zeros", sums.r2_uncentred(ALL)[0], 0.0)
    yield Answer("FVU of zeros, mean 3, deviation 1", sums.fvu(ALL)[0], 10.0)
    yield Answer("squared error of zeros, 6 dimensions", sums.mse(ALL)[0], 60.0)


def the_mean_scores_one(d: Definitions) -> Iterator[Answer]:
    """The mean in the place of every row has FVU 1, whatever the mean's size is to the deviation's."""
    for mean in (0.0, 1.0, 4.0, 16.0, 100.0):
        rows = waves(_N, _D, mean=mean)
        yield Answer(f"FVU of the mean, mean {mean:g}", rebuilt(d, rows, torch.full_like(rows, mean)).fvu(ALL)[0], 1.0)


def shrinking_costs_its_square(d: Definitions) -> Iterator[Answer]:
    """Rows shrunk towards their mean by a have FVU (1 - a)^2; shrunk towards zero, relative bias a."""
    rows = waves(_N, _D, mean=2.0)
    for kept in (0.25, 0.9):
        towards_mean = rebuilt(d, rows, kept * rows + (1 - kept) * 2.0)
        yield Answer(f"FVU, shrunk to {kept} about the mean", towards_mean.fvu(ALL)[0], (1 - kept) ** 2)
        towards_zero = rebuilt(d, rows, kept * rows)
        yield Answer(f"relative bias, shrunk to {kept}", towards_zero.relative_bias(ALL)[0], kept)
        yield Answer(f"cosine, shrunk to {kept}", towards_zero.cosine(ALL)[0], 1.0)
        yield Answer(f"ratio of lengths, shrunk to {kept}", towards_zero.length_ratio(ALL)[0], kept)


def noise_costs_its_variance(d: Definitions) -> Iterator[Answer]:
    """Noise of deviation s, uncorrelated with rows of deviation 1, has FVU s^2 and squared error d s^2."""
    for deviation in (0.1, 2.0):
        rows = waves(_N, _D, mean=5.0)
        sums = rebuilt(d, rows, rows + deviation * quadratures(_N, _D))
        yield Answer(f"FVU under noise {deviation}", sums.fvu(ALL)[0], deviation**2)
        yield Answer(f"squared error under noise {deviation}", sums.mse(ALL)[0], _D * deviation**2)
        yield Answer(f"squared error per dimension, noise {deviation}", sums.mse_per_dimension(ALL)[0], deviation**2)


def an_offset_is_an_error(d: Definitions) -> Iterator[Answer]:
    """A constant added to every output costs its squared length: a variance of the error does not see it."""
    rows = waves(_N, _D)
    yield Answer("FVU, 5 added", rebuilt(d, rows, rows + 5.0).fvu(ALL)[0], 25.0)


def units_do_not_matter(d: Definitions) -> Iterator[Answer]:
    """Scale, shift and rotation of rows and outputs together leave FVU; scale squares into the squared error."""
    stretch = torch.tensor([10.0, 3.0, 1.0, 1.0, 0.3, 0.1], dtype=torch.float64)
    rows = waves(_N, _D) * stretch
    output = rows + 0.5 * quadratures(_N, _D)
    expected = 0.25 * _D / float(stretch.square().sum())
    same, zero = torch.eye(_D, dtype=torch.float64), 0.0
    for name, change, shift in (
        ("as they are", same, zero),
        ("times 20", 20 * same, zero),
        ("times 0.001", 0.001 * same, zero),
        ("plus 100", same, 100.0),
        ("rotated", turn(_D), zero),
    ):
        yield Answer(f"FVU, {name}", rebuilt(d, rows @ change + shift, output @ change + shift).fvu(ALL)[0], expected)
    yield Answer("squared error, times 20", rebuilt(d, 20 * rows, 20 * output).mse(ALL)[0], 400 * 0.25 * _D, 1e-7)


def every_length_counts_alike(d: Definitions) -> Iterator[Answer]:
    """Rows of length 2 and 200 kept to a half and to a tenth: their ratio is 0.3, in any units. A zero row has no ratio."""
    rows = torch.tensor([[0.0, 2.0], [200.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    output = torch.tensor([[0.0, 1.0], [0.0, 20.0], [7.0, 0.0]], dtype=torch.float64)
    for scale in (1.0, 1e-7):
        found = rebuilt(d, scale * rows, scale * output).length_ratio(ALL)[0]
        yield Answer(f"ratio of lengths, times {scale:g}", found, 0.3)
    yield Answer("ratio of lengths of zeros", rebuilt(d, 0 * rows, output).length_ratio(ALL)[0], float("nan"))


def batches_may_be_cut_anywhere(d: Definitions) -> Iterator[Answer]:
    """Batches of 1, 7, 32 or all rows, in any order, in one accumulator or in several: the same number."""
    rows = waves(_N, _D, mean=1.0) * torch.linspace(0.2, 3.0, _N, dtype=torch.float64)[:, None]
    output = rows + 0.3 * quadratures(_N, _D)
    documents = np.arange(_N) // 10
    weights = np.ones((1, 6))
    names = ("fvu", "r2_uncentred", "mse", "mse_per_dimension", "cosine", "length_ratio", "relative_bias")
    centre = rows.mean(0)
    true_fvu = float((rows - output).square().sum() / (rows - centre).square().sum())
    true_mse = float((rows - output).square().sum(1).mean())
    whole = rebuilt(d, rows, output, documents=documents)
    yield Answer("FVU in one batch", whole.fvu(weights)[0], true_fvu)
    yield Answer("squared error in one batch", whole.mse(weights)[0], true_mse)
    order = torch.randperm(_N, generator=torch.Generator().manual_seed(0))
    for batch in (1, 7, 32):
        cut = rebuilt(d, rows, output, batch=batch, documents=documents)
        mixed = rebuilt(d, rows[order], output[order], batch=batch, documents=documents[order.numpy()])
        for name in names:
            expected = getattr(whole, name)(weights)[0]
            yield Answer(f"{name}, batches of {batch}", getattr(cut, name)(weights)[0], expected)
            yield Answer(f"{name}, batches of {batch}, mixed", getattr(mixed, name)(weights)[0], expected)
    left, right = (
        rebuilt(d, rows[part], output[part], documents=documents[part]) for part in (slice(0, 33), slice(33, _N))
    )
    left.merge(right)
    for name in names:
        yield Answer(f"{name}, two ranks", getattr(left, name)(weights)[0], getattr(whole, name)(weights)[0])


def what_is_masked_is_not_looked_at(d: Definitions) -> Iterator[Answer]:
    """Rows that do not count (padding, BOS) may hold 1e6, NaN or infinity: nothing changes."""
    rows = waves(_N, _D)
    output = 0.5 * rows
    for name, poison in (("1e6", 1e6), ("NaN", float("nan")), ("infinity", float("inf"))):
        dirty, counted = torch.cat([torch.full((3, _D), poison, dtype=torch.float64), rows]), torch.ones(_N + 3).bool()
        counted[:3] = False
        sums = d.reconstruction()
        sums.add(
            dirty, torch.cat([torch.zeros(3, _D, dtype=torch.float64), output]), np.zeros(_N + 3, np.int64), counted
        )
        yield Answer(f"FVU, {name} where nothing counts", sums.fvu(ALL)[0], 0.25)
        yield Answer(f"rows counted, {name} where nothing counts", float(sums.n_rows), float(_N))


def rows_without_variance_have_no_fvu(d: Definitions) -> Iterator[Answer]:
    """One row, equal rows or no row at all have no variance: undefined or refused, never a number. NaN is refused."""
    constant = torch.full((8, _D), 7.0, dtype=torch.float64)
    yield Answer("FVU of constant rows", rebuilt(d, constant, constant + 1).fvu(ALL)[0], float("nan"))
    yield Answer("FVU of one row", rebuilt(d, constant[:1], constant[:1]).fvu(ALL)[0], float("nan"))
    yield refuses("FVU of no rows", lambda: d.reconstruction().fvu(ALL))
    broken = waves(_N, _D)
    broken[17, 2] = float("nan")
    yield refuses("a NaN in a counted row", lambda: rebuilt(d, broken, broken))


CHECKS: tuple[Check, ...] = (
    a_copy_explains_everything, nothing_explains_nothing, the_mean_scores_one, shrinking_costs_its_square,
    noise_costs_its_variance, an_offset_is_an_error, units_do_not_matter, every_length_counts_alike, batches_may_be_cut_anywhere,
    what_is_masked_is_not_looked_at, rows_without_variance_have_no_fvu,
)  # fmt: skip
