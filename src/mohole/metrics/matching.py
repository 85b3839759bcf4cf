"""Which latents of two dictionaries are the same: MMCS with its null, one-to-one matching, shared and stable latents.

Two dictionaries of one activation space, [latent, d] each. Cosines count with their sign: a latent upside down says the opposite.
Which latents have split is in splitting.py; dictionaries of different spaces are compared by codes, in correlation.py.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from mohole.metrics.geometry import best_cosine, paired_cosine, unit_rows

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

MOST_PAIRS = 1 << 26
"""What `hungarian` holds at once: 8192 latents against as many, half a gigabyte."""


def expected_max_cosine(d: int, n: int) -> float:
    """Mean of the largest cosine of a given direction with `n` random ones in `d` dimensions: what matching gives for nothing.

        E max = integral over [-1, 1] of (1 - F(c)^n) dc - 1,   (1 + c) / 2 ~ Beta((d - 1) / 2, (d - 1) / 2)

    The usual sqrt(2 ln n / d) is 10 to 18 % too high for real sizes, and above 1 for small d.

    Raises:
        ValueError: fewer than two dimensions or no directions.
    """
    from scipy.special import betainc  # type: ignore[import-untyped]  # half a second: not at import

    if d < 2 or n < 1:
        raise ValueError(f"{n} random directions in {d} dimensions have no largest cosine")
    # Beyond nine deviations, and nine above where n of them reach, what is left is below 1e-17.
    low, high = -min(1.0, 9 / math.sqrt(d)), min(1.0, (9 + math.sqrt(2 * math.log(n))) / math.sqrt(d))
    edges = np.linspace(math.asin(low), math.asin(high), 101)  # over the angle, in which F is smooth also for d = 2
    nodes, weights = np.polynomial.legendre.leggauss(16)
    half = np.diff(edges)[:, None] / 2
    angle = edges[:-1, None] + half * (1 + nodes)
    above = betainc((d - 1) / 2, (d - 1) / 2, (1 - np.sin(angle)) / 2)
    with np.errstate(divide="ignore"):
        some_is_above = -np.expm1(n * np.log1p(-above))
    return float(low + (some_is_above * np.cos(angle) * half * weights).sum())


@dataclass(frozen=True, slots=True)
class Mmcs:
    """Mean over latents of the largest cosine with a latent of the other dictionary: both ways, each with its null."""

    forward: float
    """Of the first dictionary's latents among the second's."""
    forward_null: float
    """The same for random directions in the second's place."""
    backward: float
    backward_null: float


def mmcs(one: Float[Tensor, "latent d"], other: Float[Tensor, "latents d"], *, block: int = 1024) -> Mmcs:
    """Mean max cosine similarity of decoder rows. It is not symmetric: of a small dictionary in a large one it is higher.

    Rows without length are no directions and left out. Source: Sharkey et al. 2022 ("Taking features out of superposition").
    """
    d = one.shape[1]
    one, other = one[one.abs().amax(1) > 0], other[other.abs().amax(1) > 0]
    return Mmcs(
        float(best_cosine(one, other, block=block)[0].mean()),
        expected_max_cosine(d, len(other)),
        float(best_cosine(other, one, block=block)[0].mean()),
        expected_max_cosine(d, len(one)),
    )


@dataclass(frozen=True, slots=True)
class Matching:
    """Pairs of one latent each, no latent twice; `one` ascends."""

    one: Int64
    other: Int64
    cosine: Float64


def hungarian(one: Float[Tensor, "latent d"], other: Float[Tensor, "latents d"]) -> Matching:
    """The one-to-one matching of largest summed cosine. As many pairs as the smaller side has rows with length.

    Raises:
        ValueError: more than `MOST_PAIRS` cosines; `mutual_nearest` needs no matrix of all of them.
    """
    from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]

    if len(one) * len(other) > MOST_PAIRS:
        raise ValueError(
            f"hungarian: {len(one)} x {len(other)} cosines, more than {MOST_PAIRS}; take mutual_nearest, which holds blocks"
        )
    mine, theirs = (side.abs().amax(1).nonzero()[:, 0].numpy() for side in (one, other))
    cosines = (unit_rows(one[mine]) @ unit_rows(other[theirs]).T).numpy()
    rows, columns = linear_sum_assignment(cosines, maximize=True)
    return Matching(mine[rows].astype(np.int64), theirs[columns].astype(np.int64), cosines[rows, columns])


def mutual_nearest(one: Float[Tensor, "latent d"], other: Float[Tensor, "latents d"], *, block: int = 1024) -> Matching:
    """Pairs of which each is the other's nearest. Any size: blocks of cosines are held, never all.

    Fewer pairs than `hungarian` finds, which also pairs what is left over.
    """
    cosine, there = best_cosine(one, other, block=block)
    _, back = best_cosine(other, one, block=block)
    has_one = (there >= 0).nonzero()[:, 0]
    kept = has_one[back[there[has_one]] == has_one]
    return Matching(kept.numpy(), there[kept].numpy(), cosine[kept].numpy())


def shared(
    decoders: tuple[Float[Tensor, "latent d"], Float[Tensor, "latents d"]],
    encoders: tuple[Float[Tensor, "latent e"], Float[Tensor, "latents e"]],
    *,
    threshold: float = 0.7,
    match: Callable[[Tensor, Tensor], Matching] = hungarian,
) -> Matching:
    """Latents that both dictionaries have: matched alike by decoder and by encoder rows, and both cosines above the threshold.

    Divided by the number of latents it is the shared share: 0.30 between seeds at 131k latents. Source: Paulo & Belrose 2025
    (arXiv 2501.16615). `match` = `mutual_nearest` for large ones.
    """
    by_decoder, by_encoder = match(*decoders), match(*encoders)
    partner: Int64 = np.full(len(encoders[0]), -1, dtype=np.int64)
    partner[by_encoder.one] = by_encoder.other
    agrees = (partner[by_decoder.one] == by_decoder.other) & (by_decoder.cosine > threshold)
    mine, theirs = by_decoder.one[agrees], by_decoder.other[agrees]
    close = paired_cosine(encoders[0][mine], encoders[1][theirs]).numpy() > threshold
    return Matching(mine[close], theirs[close], by_decoder.cosine[agrees][close])


def stability(decoders: Sequence[Float[Tensor, "_ d"]], *, block: int = 1024) -> list[Float[Tensor, " _"]]:
    """Of each dictionary's latents: the mean over the other dictionaries of the largest cosine there. 1 is found every time.

    Compare with `expected_max_cosine`: in few dimensions unstable latents are no strangers either.

    Raises:
        ValueError: fewer than two dictionaries.
    """
    if len(decoders) < 2:
        raise ValueError("stability: one dictionary alone is as stable as can be; give dictionaries of several seeds")
    found = []
    for mine in range(len(decoders)):
        others = [theirs for theirs in range(len(decoders)) if theirs != mine]
        best = [best_cosine(decoders[mine], decoders[theirs], block=block)[0] for theirs in others]
        found.append(torch.stack(best).mean(0))
    return found
