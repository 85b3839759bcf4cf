"""What must be true of a dictionary held against features that are known."""

from collections.abc import Iterator

import numpy as np
import torch

from mohole.metrics.definitions import Definitions
from mohole.metrics.known_answers.answer import Answer, Check
from mohole.metrics.known_answers.rows import turn
from mohole.metrics.known_features import Pairs

_FEATURES = turn(8)
_ORDER = torch.tensor([5, 2, 7, 0, 3, 6, 1, 4])


def the_features_in_another_order_are_all_found(d: Definitions) -> Iterator[Answer]:
    """Latents that are the features, in any order and of any length, score 1 and have one owner each."""
    cosine = d.feature_cosines(3 * _FEATURES[_ORDER], _FEATURES)
    yield Answer("MCC of the features themselves", d.mcc(cosine), 1.0, 1e-6)
    yield Answer("uniqueness of the features themselves", d.uniqueness(cosine), 1.0)
    yield Answer(
        "features whose latent is another's", float((_ORDER[d.own_latents(cosine)] != torch.arange(8)).sum()), 0.0
    )
    silent = d.feature_cosines(0 * _FEATURES, _FEATURES)
    yield Answer("cosines of latents without length", float(silent.abs().max()), 0.0)
    yield Answer("features owned by latents without length", float((d.own_latents(silent) >= 0).sum()), 0.0)


def latents_that_repeat_each_other_match_once(d: Definitions) -> Iterator[Answer]:
    """Four latents that are one feature: one is matched, one feature is hit, and the nearest of them owns it."""
    near = torch.stack([_FEATURES[0] + step * _FEATURES[1] for step in (0.3, 0.1, 0.2, 0.4)])
    cosine = d.feature_cosines(near, _FEATURES)
    size = 1 / np.sqrt(1 + np.array([0.3, 0.1, 0.2, 0.4]) ** 2)
    best = (size[1] + 0.4 * size[3]) / 4  # the others are at right angles to what is left over
    yield Answer("MCC of four of one kind", d.mcc(cosine), best, 1e-6)
    yield Answer("uniqueness of four of one kind", d.uniqueness(cosine), 0.25)
    own = d.own_latents(cosine)
    yield Answer("the owner: the nearest", float(own[0]), 1.0)
    yield Answer("features without an owner", float((own == -1).sum()), 7.0)


def upside_down_is_no_owner(d: Definitions) -> Iterator[Answer]:
    """A latent that points the other way counts for MCC, as the field has it, and is no feature's own."""
    cosine = d.feature_cosines(-_FEATURES, _FEATURES)
    yield Answer("MCC upside down", d.mcc(cosine), 1.0, 1e-6)
    yield Answer(
        "features owned by what points the other way", float((d.own_latents(cosine) == torch.arange(8)).sum()), 0.0
    )


def firings_are_held_against_the_features_own(d: Definitions) -> Iterator[Answer]:
    """Counts by hand: six rows, two features, three latents, of which one is nobody's."""
    features = Pairs(np.array([0, 1, 2, 3, 4]), np.array([0, 0, 0, 0, 1]), 2)
    latents = Pairs(np.array([0, 1, 5, 4, 3, 2]), np.array([1, 1, 1, 0, 0, 2]), 3)
    counts = d.detection(np.array([1, 0, 0]), latents, features)
    for latent, (precision, recall, f1) in enumerate(((1 / 2, 1.0, 2 / 3), (2 / 3, 1 / 2, 4 / 7), (1.0, 1 / 4, 2 / 5))):
        yield Answer(f"precision of latent {latent}", float(counts.precision[latent]), precision)
        yield Answer(f"recall of latent {latent}", float(counts.recall[latent]), recall)
        yield Answer(f"F1 of latent {latent}", float(counts.f1[latent]), f1)
    hits = d.found_firings(np.array([1, 0]), latents, features)
    yield Answer("firings of features at which their own latent fires", float(hits.sum()), 3.0)
    nobody = d.found_firings(np.array([-1, 0]), latents, features)
    yield Answer("the same, the first feature without a latent", float(nobody.sum()), 1.0)
    twice = counts + counts
    yield Answer("precision over two batches alike", float(twice.precision[1]), 2 / 3)


CHECKS: tuple[Check, ...] = (
    the_features_in_another_order_are_all_found, latents_that_repeat_each_other_match_once, upside_down_is_no_owner,
    firings_are_held_against_the_features_own,
)  # fmt: skip
