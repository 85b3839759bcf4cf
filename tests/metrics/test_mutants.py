"""Bugs that other libraries shipped, kept alive as mutants: each must be caught by at least one known answer.

The checks are given a function from (target, output) rows, in batches, to a number. The true one passes all of them.
"""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from mohole.metrics import Reconstruction, auroc, kl_nats, scored_pairs
from mohole.metrics import fvu as true_fvu

Batches = list[tuple[torch.Tensor, torch.Tensor]]
Fvu = Callable[[Batches], float]


def batched(target: torch.Tensor, output: torch.Tensor, size: int) -> Batches:
    return list(zip(target.split(size), output.split(size), strict=True))


def rows() -> torch.Tensor:
    return torch.randn(256, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 4 + 1


def ours(batches: Batches) -> float:
    sums = Reconstruction()
    for target, output in batches:
        sums.add(target, output, np.zeros(len(target), dtype=np.int64))
    return float(sums.fvu(np.ones((1, 1)))[0])


def check_mean_is_one(fvu: Fvu) -> None:
    for scale in (0.25, 1.0, 16.0):
        target = rows() * scale
        assert fvu([(target, target.mean(0).expand_as(target))]) == pytest.approx(1.0, abs=1e-9)


def check_offset_is_error(fvu: Fvu) -> None:
    target = rows()
    expected = 4 * 25 / float(target.var(0, correction=0).sum())
    assert fvu([(target, target + 5.0)]) == pytest.approx(expected, rel=1e-9)


def check_batch_size_is_nothing(fvu: Fvu) -> None:
    target = rows()
    output = target + rows().flip(0) * 0.1
    assert fvu(batched(target, output, 2)) == pytest.approx(fvu([(target, output)]), rel=1e-9)


def check_scale_is_nothing(fvu: Fvu) -> None:
    target = rows()
    output = target + rows().flip(0) * 0.1
    assert fvu([(20 * target, 20 * output)]) == pytest.approx(fvu([(target, output)]), rel=1e-9)


def check_rotation_is_nothing(fvu: Fvu) -> None:
    target = rows() * torch.tensor([10.0, 1.0, 1.0, 0.1], dtype=torch.float64)
    output = target + rows().flip(0) * 0.1
    turn = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64))[0]
    assert fvu([(target @ turn, output @ turn)]) == pytest.approx(fvu([(target, output)]), rel=1e-9)


CHECKS = (
    check_mean_is_one, check_offset_is_error, check_batch_size_is_nothing, check_scale_is_nothing, check_rotation_is_nothing,
)  # fmt: skip


def joined(batches: Batches) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.cat([target for target, _ in batches]), torch.cat([output for _, output in batches])


def squares_in_place_of_the_mean(batches: Batches) -> float:
    """SAELens #659: E[x^2] where E[x] belongs, in a variance that scaling then turns upside down."""
    target, output = joined(batches)
    total = target.square().sum() - target.square().sum(0).mean() ** 2 / len(target)
    return float((target - output).square().sum() / total)


def mean_of_row_ratios(batches: Batches) -> float:
    """SAEBench #61, #76: each row's ratio, averaged."""
    target, output = joined(batches)
    spread = (target - target.mean(0)).square().sum(1)
    return float(((target - output).square().sum(1) / spread).mean())


def centred_by_each_batch(batches: Batches) -> float:
    """sparsify: each micro-batch by its own mean."""
    return float(torch.stack([true_fvu(target, output) for target, output in batches]).mean())


def variance_of_the_error(batches: Batches) -> float:
    """dictionary_learning: Var(error) / Var(x), blind to a constant offset."""
    target, output = joined(batches)
    return float((target - output).var(0).sum() / target.var(0).sum())


def not_centred(batches: Batches) -> float:
    """openai/sparse_autoencoder #8: the baseline is zero, not the mean."""
    target, output = joined(batches)
    return float((target - output).square().sum() / target.square().sum())


def by_coordinate(batches: Batches) -> float:
    """sparsify #20: each coordinate's ratio, averaged: the basis matters."""
    target, output = joined(batches)
    return float(((target - output).square().sum(0) / (target - target.mean(0)).square().sum(0)).mean())


def divided_by_tokens_again(batches: Batches) -> float:
    """SAELens #711: a mean divided by the batch's token count once more."""
    return sum(ours([batch]) / len(batch[0]) for batch in batches)


def scaled_against_unscaled(batches: Batches) -> float:
    """SAELens #518: the target is normalised, the output is not."""
    target, output = joined(batches)
    return float(true_fvu(target / target.norm(dim=1).mean(), output))


MUTANTS = (
    squares_in_place_of_the_mean, mean_of_row_ratios, centred_by_each_batch, variance_of_the_error, not_centred, by_coordinate,
    divided_by_tokens_again, scaled_against_unscaled,
)  # fmt: skip


def passes(check: Callable[[Fvu], None], fvu: Fvu) -> bool:
    try:
        check(fvu)
    except AssertionError:
        return False
    return True


def test_the_true_one_passes_every_check() -> None:
    for check in CHECKS:
        check(ours)


@pytest.mark.parametrize("mutant", MUTANTS)
def test_each_historical_bug_is_caught(mutant: Fvu) -> None:
    assert not all(passes(check, mutant) for check in CHECKS)


@pytest.mark.parametrize("check", CHECKS)
def test_each_check_catches_something(check: Callable[[Fvu], None]) -> None:
    assert not all(passes(check, mutant) for mutant in MUTANTS)


def test_masking_by_the_source_alone_would_count_predictions_of_padding() -> None:
    is_text = torch.tensor([[False, True, True, False]])
    assert is_text[:, :-1].sum() == 2
    assert scored_pairs(is_text).sum() == 1


def test_an_epsilon_inside_the_logarithms_would_be_seen() -> None:
    p, q = torch.tensor([[1 - 1e-5, 1e-5]]), torch.tensor([[1 - 1e-7, 1e-7]])
    blurred = float((p * ((p + 1e-6).log() - (q + 1e-6).log())).sum())
    truth = float(kl_nats(p.log(), q.log())[0])
    assert truth == pytest.approx(3.6e-5, rel=0.02)
    assert abs(blurred - truth) > 0.2 * truth


def test_breaking_ties_by_order_would_be_seen() -> None:
    scores, positive = np.zeros(10), np.arange(10) >= 5
    ranks = np.argsort(np.argsort(scores, kind="stable")) + 1
    untied = (ranks[positive].sum() - 15) / 25
    assert untied == 1.0
    assert auroc(scores, positive) == 0.5
