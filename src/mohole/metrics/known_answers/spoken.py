"""What must be true of evidence: how much a prediction speaks of a label."""

import math
from collections.abc import Iterator

import numpy as np
import torch

from mohole.metrics.definitions import Definitions
from mohole.metrics.known_answers.answer import Answer, Check, refuses

_AFTER = np.repeat([0, 1, 2], [75_000, 25_000, 0])
_ELSEWHERE = np.repeat([0, 1, 2], [25_000, 75_000, 0])


def evidence_parts_by_jeffreys_divergence(d: Definitions) -> Iterator[Answer]:
    """A model that predicts as the text goes on: its evidence after the label less that elsewhere is Jeffreys' divergence."""
    found = d.signature(_AFTER, _ELSEWHERE, 4)
    yield Answer("signature of a token three times as likely", float(found[0]), math.log(3), 1e-3)
    yield Answer("signature of a token a third as likely", float(found[1]), -math.log(3), 1e-3)
    yield Answer("signature of a token never seen", float(found[3]), 0.0)
    logits = torch.tensor([[0.75, 0.25, 0.0, 0.0], [0.25, 0.75, 0.0, 0.0]], dtype=torch.float64).log() + 5.0
    after, elsewhere = d.evidence_nats(logits, found).tolist()
    yield Answer("Jeffreys' divergence of 3:1 and 1:3", after - elsewhere, math.log(3), 1e-3)
    half = torch.tensor([[0.0, 0.0, -math.inf, -math.inf]])
    yield Answer("evidence of a prediction between the two", float(d.evidence_nats(half, found)[0]), 0.0, 1e-6)


def one_word_proves_little(d: Definitions) -> Iterator[Answer]:
    """A word seen once on one side alone says ln 2 at most; sides may be of any length; a side without words is refused."""
    once, often = np.array([0, 0, 0, 1]), np.zeros(4000, dtype=np.int64)
    yield Answer("signature of a word seen once", float(d.signature(once, often, 2)[1]), math.log(2), 1e-9)
    yield Answer("the same, the other way", float(d.signature(often, once, 2)[1]), -math.log(2), 1e-9)
    yield Answer("signature of the same words", float(d.signature(once, np.tile(once, 9), 2).abs().max()), 0.0, 1e-9)
    yield refuses("a signature of no words", lambda: d.signature(once[:0], often, 2))


CHECKS: tuple[Check, ...] = (evidence_parts_by_jeffreys_divergence, one_word_proves_little)
