"""What must be true where latents are removed: the rows that are left, SCR, and targeted probe perturbation."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array  # type: ignore[import-untyped]

from mohole.keys import Use, normal
from mohole.metrics.definitions import Definitions
from mohole.metrics.known_answers.answer import Answer, Check, refuses
from mohole.metrics.sparse_probe import balanced_accuracy, decision_sums, fit_probe

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

_N, _CLASSES = 240, 4
_GAUGE = np.array([1.0, 100.0, 0.01, 3.0, 1.0, 1.0, 1.0, 1.0])


def _world(gauge: Float64) -> tuple[Float64, Float64, Float64, Int64]:
    """Rows in which each of four classes is an axis, four idle latents on other axes, and an error no latent carries.

    The classes' latents have values times `gauge` and decoder rows divided by it, which is the same dictionary.
    """
    classes = np.arange(_N) % _CLASSES
    codes = np.zeros((_N, 8))
    codes[np.arange(_N), classes] = 2 + 0.5 * np.cos(np.arange(_N))
    codes[:, 4:] = np.maximum(normal(5, Use.BOOTSTRAP, np.arange(_N), 4), 0.0)
    decoder = np.eye(8, 10)
    error = 0.1 * normal(6, Use.BOOTSTRAP, np.arange(_N), 10) + 7.0
    return codes @ decoder + error, codes * gauge, decoder / gauge[:, None], classes


def _accuracies(rows: Float64, classes: Int64, probes: list[tuple[Float64, float]]) -> Float64:
    found = []
    for c, (direction, bias) in enumerate(probes):
        sums = decision_sums(rows @ direction + bias > 0, classes == c, np.arange(len(rows)))
        found.append(float(balanced_accuracy(sums)(np.ones((1, len(rows))))[0]))
    return np.array(found)


def axis_aligned_classes_are_removed_one_by_one(d: Definitions) -> Iterator[Answer]:
    """Where each class is one latent, removing it leaves its own probe at chance and the others as they were: TPP 1.

    The decoder rows' lengths do not matter. Removing latents that have nothing to do with the classes has TPP 0.
    """
    for name, gauge in (("rows of length 1", np.ones(8)), ("rows of many lengths", _GAUGE)):
        rows, dense, decoder, classes = _world(gauge)
        codes = csr_array(dense)
        probes = [fit_probe(rows, classes == c) for c in range(_CLASSES)]
        read = [(probe.direction, probe.bias) for probe in probes]
        chosen = [
            np.argsort(-d.attribution(codes, classes == c, decoder, probe.direction), kind="stable")[:1]
            for c, probe in enumerate(probes)
        ]
        before = _accuracies(rows, classes, read)
        yield Answer(f"mean accuracy before, {name}", float(before.mean()), 1.0)
        after = np.stack([_accuracies(d.without(rows, codes, decoder, mine), classes, read) for mine in chosen])
        yield Answer(f"TPP as a share, {name}", float(d.tpp(before, after, chance=0.5)), 1.0, 1e-9)
        yield Answer(f"TPP in points, {name}", float(d.tpp(before, after)), 0.5, 1e-9)
        idle = np.stack(
            [_accuracies(d.without(rows, codes, decoder, np.array([4 + c])), classes, read) for c in range(4)]
        )
        yield Answer(f"TPP of idle latents, {name}", float(d.tpp(before, idle, chance=0.5)), 0.0, 0.02)


def what_is_removed_is_the_latent_and_nothing_else(d: Definitions) -> Iterator[Answer]:
    """Removing a latent takes its own part out of the row: no latent removed, nothing changed; the error and the bias stay."""
    for name, gauge in (("rows of length 1", np.ones(8)), ("rows of many lengths", _GAUGE)):
        rows, dense, decoder, _ = _world(gauge)
        codes = csr_array(dense)
        same = d.without(rows, codes, decoder, np.zeros(0, dtype=np.int64))
        yield Answer(f"change with no latent removed, {name}", float(np.abs(same - rows).max()), 0.0, 1e-9)
        moved = rows - d.without(rows, codes, decoder, np.array([1, 2]))
        true = dense[:, [1, 2]] @ decoder[[1, 2]]
        yield Answer(f"what two latents leave behind, {name}", float(np.abs(moved - true).max()), 0.0, 1e-9)


def attribution_is_the_change_of_log_odds(d: Definitions) -> Iterator[Answer]:
    """A latent's attribution is by how much it parts the classes in the probe's log-odds: signed, and the same in any gauge."""
    direction = np.array([1.0, -2.0, 0.5, 0.0, 3.0, 0.0, 0.0, 1.0, 0.0, 0.0])
    found = []
    for gauge in (np.ones(8), _GAUGE):
        _, dense, decoder, classes = _world(gauge)
        positive = classes == 0
        found.append(d.attribution(csr_array(dense), positive, decoder, direction))
        parts = dense[:, :, None] * decoder
        true = (parts[positive].mean(0) - parts[~positive].mean(0)) @ direction
        for latent in (0, 1, 2, 4):
            yield Answer(
                f"attribution of latent {latent}, gauge {gauge[latent]:g}",
                float(found[-1][latent]),
                float(true[latent]),
            )


def scr_is_one_for_all_of_it_and_zero_for_none(d: Definitions) -> Iterator[Answer]:
    """Accuracy back at the oracle's is SCR 1, unchanged 0, worse below 0, better above 1; where bias costs nothing, undefined."""
    biased, oracle = np.array([0.6]), np.array([0.9])
    for name, ablated, true in (
        ("all", 0.9, 1.0),
        ("none", 0.6, 0.0),
        ("half", 0.75, 0.5),
        ("harm", 0.45, -0.5),
        ("more", 0.96, 1.2),
    ):
        yield Answer(f"SCR, {name} of it removed", float(d.scr(biased, np.array([ablated]), oracle)[0]), true)
    for gap in (0.0, 0.005, -0.1):
        found = d.scr(np.array([0.9 - gap]), np.array([0.95]), np.array([0.9]))
        yield Answer(f"SCR where the bias costs {gap:g}", float(found[0]), float("nan"))


def tpp_takes_the_others_losses_off(d: Definitions) -> Iterator[Answer]:
    """By hand: own losses .4, .2 and others' .1, .3 give (.4 + .2 - .1 - .3) / 2; everything broken alike gives 0."""
    before, after = np.array([0.9, 0.8]), np.array([[0.5, 0.7], [0.6, 0.6]])
    yield Answer("TPP in points", float(d.tpp(before, after)), 0.1)
    shares = (0.4 / 0.4 + 0.2 / 0.3) / 2 - (0.1 / 0.3 + 0.3 / 0.4) / 2
    yield Answer("TPP as a share", float(d.tpp(before, after, chance=0.5)), shares)
    yield Answer("TPP where everything is broken", float(d.tpp(np.full(3, 0.9), np.full((3, 3), 0.5))), 0.0)
    better = np.array([[0.5, 0.9], [1.0, 0.6]])
    yield Answer("TPP where others gain", float(d.tpp(before, better)), 0.3 + 0.1)
    yield Answer("TPP of a probe at chance", float(d.tpp(np.array([0.9, 0.5]), after, chance=0.5)), float("nan"))
    yield refuses("TPP of one class", lambda: d.tpp(np.ones(1), np.ones((1, 1))))


CHECKS: tuple[Check, ...] = (
    axis_aligned_classes_are_removed_one_by_one, what_is_removed_is_the_latent_and_nothing_else,
    attribution_is_the_change_of_log_odds, scr_is_one_for_all_of_it_and_zero_for_none, tpp_takes_the_others_losses_off,
)  # fmt: skip
