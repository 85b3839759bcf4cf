"""What must be true of interchange interventions, and of cause and isolation."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array  # type: ignore[import-untyped]

from mohole.keys import Use, normal
from mohole.metrics.definitions import Definitions
from mohole.metrics.known_answers.answer import Answer, Check

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

_PAIRS = 90
_WIDTH = 7  # three values of attribute A, three of B, one axis that belongs to neither


def _coded(a: Int64, b: Int64) -> Float64:
    return np.concatenate([2 * np.eye(3)[a], 3 * np.eye(3)[b], np.zeros((len(a), 1))], axis=1)


def _scores(d: Definitions, latents: Int64, gauge: Float64) -> tuple[float, float, float]:
    """Cause on A, isolation of B and their disentanglement for a swap of these latents, read off by the largest axis."""
    pair = np.arange(_PAIRS)
    a, b, a_source, b_source = pair % 3, pair // 3 % 3, pair // 9 % 3, (pair + pair // 27) % 3
    base, source = _coded(a, b), _coded(a_source, b_source)
    decoder = np.eye(_WIDTH)[:6]
    rows = base + 0.1 * normal(8, Use.BOOTSTRAP, pair, _WIDTH)
    edited = d.interchange(
        rows, csr_array(base[:, :6] * gauge), csr_array(source[:, :6] * gauge), decoder / gauge[:, None], latents
    )
    cause = d.caused(a, a_source, rows[:, :3].argmax(1), edited[:, :3].argmax(1))
    isolation = d.isolated(b, b_source, rows[:, 3:6].argmax(1), edited[:, 3:6].argmax(1))
    means = np.array([np.nanmean(cause)]), np.array([np.nanmean(isolation)])
    return float(means[0][0]), float(means[1][0]), float(d.disentanglement(*means))


def swapping_an_attributes_own_latents_is_perfect(d: Definitions) -> Iterator[Answer]:
    """Where attributes are latents of their own, a swap has cause 1 and isolation 1; of nothing, 0 and 1; of everything, 1 and 0.

    Decoder rows of any length; the average of the last two is one half, which is what knowing nothing scores.
    """
    for name, gauge in (("length 1", np.ones(6)), ("many lengths", np.array([1, 100, 0.01, 5, 0.2, 1.0]))):
        for what, latents, true in (
            ("the attribute's", [0, 1, 2], (1.0, 1.0, 1.0)),
            ("no", [], (0.0, 1.0, 0.5)),
            ("all", [0, 1, 2, 3, 4, 5], (1.0, 0.0, 0.5)),
            ("the other's", [3, 4, 5], (0.0, 0.0, 0.0)),
        ):
            found = _scores(d, np.array(latents, dtype=np.int64), gauge)
            for part, value, expected in zip(("cause", "isolation", "disentanglement"), found, true, strict=True):
                yield Answer(f"{part}, {what} latents swapped, {name}", value, expected)


def a_swap_keeps_what_is_not_swapped(d: Definitions) -> Iterator[Answer]:
    """A row that swaps with itself stays as it was, its error too; a swapped latent takes the source's value exactly."""
    base, decoder = csr_array(np.array([[1.0, 0.0, 2.0]])), np.array([[1.0, 0, 0], [0, 2.0, 0], [0, 0, 0.5]])
    source = csr_array(np.array([[0.0, 3.0, 2.0]]))
    row = np.array([[1.3, -0.2, 8.0]])
    everything = np.arange(3)
    yield Answer(
        "change of a swap with itself",
        float(np.abs(d.interchange(row, base, base, decoder, everything) - row).max()),
        0.0,
    )
    moved = d.interchange(row, base, source, decoder, everything) - row
    for axis, true in enumerate((-1.0, 6.0, 0.0)):
        yield Answer(f"change along axis {axis}", float(moved[0, axis]), true)


def pairs_that_say_nothing_are_not_counted(d: Definitions) -> Iterator[Answer]:
    """Pairs that agree, and pairs whose clean row is misread, are undefined; a third value is neither cause nor isolation."""
    base, source = np.array([0, 1, 1, 2, 0]), np.array([1, 1, 0, 0, 1])
    clean, edited = np.array([0, 1, 0, 2, 0]), np.array([1, 1, 0, 2, 2])
    cause, isolation = d.caused(base, source, clean, edited), d.isolated(base, source, clean, edited)
    for pair, (first, second) in enumerate(
        zip((1.0, np.nan, np.nan, 0.0, 0.0), (0.0, np.nan, np.nan, 1.0, 0.0), strict=True)
    ):
        yield Answer(f"cause of pair {pair}", float(cause[pair]), first)
        yield Answer(f"isolation of pair {pair}", float(isolation[pair]), second)


def disentanglement_is_the_mean_of_all_its_parts(d: Definitions) -> Iterator[Answer]:
    """Of cause .8, .6 and isolation 1, .4: .7. Where one part is undefined, so is the whole."""
    yield Answer("of four parts", float(d.disentanglement(np.array([0.8, 0.6]), np.array([1.0, 0.4]))), 0.7)
    yield Answer("of three and none", float(d.disentanglement(np.array([0.8, np.nan]), np.ones(2))), float("nan"))


CHECKS: tuple[Check, ...] = (
    swapping_an_attributes_own_latents_is_perfect, a_swap_keeps_what_is_not_swapped, pairs_that_say_nothing_are_not_counted,
    disentanglement_is_the_mean_of_all_its_parts,
)  # fmt: skip
