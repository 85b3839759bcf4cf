"""Wrong ways to match two dictionaries."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mohole.metrics.definitions import OURS
from mohole.metrics.geometry import best_cosine, unit_rows
from mohole.metrics.matching import Matching, Mmcs
from mohole.metrics.mutants.mutant import Mutant, mutant


def _square_root(d: int, n: int) -> float:
    """The usual bound for the mean.

    Seen in: sqrt(2 ln n / d), 10 to 18 % too high at real sizes.
    """
    return math.sqrt(2 * math.log(n) / d)


def _either_sign(d: int, n: int) -> float:
    """The null of |cos| for one of cos.

    Seen in: |cos| on one side of a comparison only.
    """
    return OURS.expected_max_cosine(d, 2 * n)


def _both_signs(one: Tensor, other: Tensor, *, block: int = 1024) -> Mmcs:
    """A flipped latent counts as found.

    Seen in: sae_lens, synthetic evals.
    """
    found = OURS.mmcs(one, other)
    signed = [
        torch.maximum(best_cosine(x, y)[0], best_cosine(x, -y)[0]).nanmean() for x, y in ((one, other), (other, one))
    ]
    return replace(found, forward=float(signed[0]), backward=float(signed[1]))


def _one_number(one: Tensor, other: Tensor, *, block: int = 1024) -> Mmcs:
    """One direction stands for both.

    Seen in: MMCS reported without saying of which in which.
    """
    found = OURS.mmcs(one, other)
    return replace(found, backward=found.forward, backward_null=found.forward_null)


def _nulls_exchanged(one: Tensor, other: Tensor, *, block: int = 1024) -> Mmcs:
    """The null of one direction stands beside the other.

    Seen in: the number of latents that search, for that of those searched.
    """
    found = OURS.mmcs(one, other)
    return replace(found, forward_null=found.backward_null, backward_null=found.forward_null)


def _zeros_count(one: Tensor, other: Tensor, *, block: int = 1024) -> Mmcs:
    """Rows without length count with cosine 0.

    Seen in: norms with an epsilon.
    """
    found = OURS.mmcs(one, other)
    return replace(found, backward=float(best_cosine(other, one)[0].nan_to_num().mean()))


def _greedy(one: Tensor, other: Tensor) -> Matching:
    """Each latent in turn takes the nearest that is left.

    Seen in: greedy matching called optimal.
    """
    cosines = (unit_rows(one) @ unit_rows(other).T).numpy()
    left, pairs = list(range(len(other))), []
    for row in range(min(len(one), len(other))):
        pairs.append((row, left.pop(int(np.argmax(cosines[row, left])))))
    mine, theirs = (np.array(side, dtype=np.int64) for side in zip(*pairs, strict=True))
    return Matching(mine, theirs, cosines[mine, theirs])


def _hungarian_of_flips(one: Tensor, other: Tensor) -> Matching:
    """|cos| is matched: a flipped latent counts.

    Seen in: sae_lens, mean_correlation_coefficient.
    """
    from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]

    cosines = (unit_rows(one) @ unit_rows(other).T).abs().numpy()
    mine, theirs = linear_sum_assignment(cosines, maximize=True)
    return Matching(mine, theirs, cosines[mine, theirs])


def _one_way(one: Tensor, other: Tensor, *, block: int = 1024) -> Matching:
    """Nearest is taken for mutually nearest: many latents share one match.

    Seen in: matching by argmax.
    """
    cosine, which = best_cosine(one, other, block=block)
    found = (which >= 0).nonzero()[:, 0]
    return Matching(found.numpy(), which[found].numpy(), cosine[found].numpy())


def _decoder_alone(decoders: Any, encoders: Any, **settings: Any) -> Matching:
    """Encoders are not asked.

    Seen in: shared latents by decoder cosine alone.
    """
    return OURS.shared(decoders, decoders, **settings)


def _any_match(decoders: Any, encoders: Any, **settings: Any) -> Matching:
    """Whatever is matched is shared, however far.

    Seen in: a one-to-one matching, which pairs what is left over too.
    """
    return OURS.shared(decoders, encoders, **{**settings, "threshold": -2.0})


def _with_itself(decoders: Sequence[Tensor], *, block: int = 1024) -> list[Tensor]:
    """A dictionary is compared with itself too: nothing is less stable than 1 / seeds.

    Seen in: means over a matrix whose diagonal was left in.
    """
    return [(each * (len(decoders) - 1) + 1) / len(decoders) for each in OURS.stability(decoders)]


def _in_any_seed(decoders: Sequence[Tensor], *, block: int = 1024) -> list[Tensor]:
    """The best of all other seeds, which more seeds can only raise.

    Seen in: a maximum for a mean.
    """
    return [
        torch.stack([best_cosine(mine, other)[0] for other in decoders if other is not mine]).amax(0)
        for mine in decoders
    ]


MUTANTS: tuple[Mutant, ...] = (
    mutant("expected_max_cosine", _square_root),
    mutant("expected_max_cosine", _either_sign),
    mutant("mmcs", _both_signs),
    mutant("mmcs", _one_number),
    mutant("mmcs", _nulls_exchanged),
    mutant("mmcs", _zeros_count),
    mutant("hungarian", _greedy),
    mutant("hungarian", _hungarian_of_flips),
    mutant("mutual_nearest", _one_way),
    mutant("shared", _decoder_alone),
    mutant("shared", _any_match),
    mutant("stability", _with_itself),
    mutant("stability", _in_any_seed),
)
