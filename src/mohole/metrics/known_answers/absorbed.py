"""What must be true of feature absorption: a planted rate is measured, whatever the gauge, the bias and the row's size."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array  # type: ignore[import-untyped]

from mohole.metrics.absorption import Absorbed
from mohole.metrics.definitions import Definitions
from mohole.metrics.known_answers.answer import Answer, Check

Float64 = NDArray[np.float64]

_N, _D = 200, 6
_PARENT = np.eye(_D)[0]


def _asked(
    d: Definitions, share: float, *, gauge: Float64 | None = None, bias: float = 0.0, carries: float = 1.0
) -> Absorbed:
    """A parent (latent 0) that a child (latent 1) absorbs in a share of the tokens: there, the parent is silent and the
    child's decoder row, (parent + own direction), says it. Latent 2 fires everywhere and is nearly orthogonal."""
    gauge = np.ones(3) if gauge is None else gauge
    absorbed = np.arange(_N) < share * _N
    codes = np.stack([np.where(absorbed, 0.0, 2.0), np.where(absorbed, 2.0, 0.0), np.full(_N, 5.0)], axis=1)
    decoder = np.stack([_PARENT, carries * _PARENT + np.eye(_D)[1], 0.02 * _PARENT + np.eye(_D)[2]])
    offset = bias * np.ones(_D)
    rows = codes @ decoder + offset + np.eye(_D)[3]
    return d.absorption(
        rows,
        csr_array(codes * gauge),
        decoder / gauge[:, None],
        offset,
        3 * _PARENT,
        np.array([0]),
        least_projection=0.5,
    )


def a_planted_rate_is_measured(d: Definitions) -> Iterator[Answer]:
    """A child that absorbs its parent in a share q of the tokens gives rate q and mean share q; without one, both are 0."""
    for q in (0.0, 0.25, 1.0):
        found = _asked(d, q)
        yield Answer(f"rate, planted {q:g}", float(found.full.mean()), q)
        yield Answer(f"share, planted {q:g}", float(np.nanmean(found.share)), q)
        yield Answer(f"tokens decided, planted {q:g}", float(found.defined.mean()), 1.0)


def the_gauge_and_the_bias_do_not_matter(d: Definitions) -> Iterator[Answer]:
    """Decoder rows of any length, and a bias of any size that no latent carries, leave the rate and the share."""
    for name, gauge in (
        ("child short", [1, 50, 1]),
        ("child long", [1, 0.02, 1]),
        ("parent long", [0.02, 1, 1]),
        ("idle long", [1, 1, 0.02]),
    ):
        found = _asked(d, 0.25, gauge=np.array(gauge, dtype=np.float64))
        yield Answer(f"rate, {name}", float(found.full.mean()), 0.25)
        yield Answer(f"share, {name}", float(np.nanmean(found.share)), 0.25)
    for bias in (-5.0, 30.0):
        found = _asked(d, 0.25, bias=bias)
        yield Answer(f"rate, decoder bias {bias:g}", float(found.full.mean()), 0.25)
        yield Answer(f"tokens decided, decoder bias {bias:g}", float(found.defined.mean()), 1.0)


def a_child_that_says_little_has_not_absorbed(d: Definitions) -> Iterator[Answer]:
    """An eighth or a quarter of the projection is no absorption; a child that carries half beside its parent has share 1/2."""
    decoder = np.stack([_PARENT, 0.5 * _PARENT + 0.5 * np.eye(_D)[1]])
    for name, codes, full, share in (
        ("an eighth", [0.0, 0.5], 0.0, 0.0),
        ("a quarter", [1.5, 1.0], 0.0, 0.0),
        ("half", [1.0, 2.0], 0.0, 0.5),
        ("all", [0.0, 4.0], 1.0, 1.0),
    ):
        row = 2.0 * _PARENT[None]
        found = d.absorption(
            row, csr_array(np.array([codes])), decoder, np.zeros(_D), 3 * _PARENT, np.array([0]), least_projection=0.5
        )
        yield Answer(f"full, {name}", float(found.full[0]), full)
        yield Answer(f"share, {name}", float(found.share[0]), share)


def nearly_nothing_is_not_divided(d: Definitions) -> Iterator[Answer]:
    """A row that does not point along the probe, or against it, decides nothing, and no ratio of it is counted."""
    rows = np.array([[1e-9, 1, 0, 0, 0, 0], [-1.0, 1, 0, 0, 0, 0], [2.0, 1, 0, 0, 0, 0]])
    codes = csr_array(np.array([[0.0, 1e-3], [0.0, 1.0], [0.0, 2.0]]))
    decoder = np.stack([_PARENT, _PARENT + np.eye(_D)[1]])
    found = d.absorption(rows, codes, decoder, np.zeros(_D), _PARENT, np.array([0]), least_projection=0.2)
    for token, true in enumerate((0.0, 0.0, 1.0)):
        yield Answer(f"token {token} decided", float(found.defined[token]), true)
        yield Answer(f"token {token} absorbed", float(found.full[token]), true)
    yield Answer("mean share of what is decided", float(np.nanmean(found.share)), 1.0)
    yield Answer("share of what is not", float(found.share[0]), float("nan"))


CHECKS: tuple[Check, ...] = (
    a_planted_rate_is_measured, the_gauge_and_the_bias_do_not_matter, a_child_that_says_little_has_not_absorbed,
    nearly_nothing_is_not_divided,
)  # fmt: skip
